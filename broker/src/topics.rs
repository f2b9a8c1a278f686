//! Topics: create, change, delete.
//!
//! Every change is a command in the log, done when it is applied here. Not here: topics that exist without anybody creating
//! them (`system.rs`).

mod attributes;

use std::sync::Arc;

use folio_protocol::flags::PermissionBits;
use folio_protocol::names;
use folio_raft::log_rate_limiter::LogRateLimiter;
use folio_raft::proposal::ProposeError;
use folio_state::bounds::QUEUES_MAX;
use folio_state::{Command, CreateTopic, DeleteTopic, Outcome, PutTopic, State, Topic};

pub use self::attributes::as_changes;
use crate::broker::Broker;
use crate::changes::execute;
use crate::error::BrokerError;
use crate::rights;

/// A topic as it shall be.
#[derive(Debug, Clone)]
pub struct TopicChange {
    /// All but its attributes, which are left alone.
    pub topic: Topic,
    /// What changes of the attributes that it has: `+name=value,-name`.
    pub attributes: String,
}

/// Creates a topic unless it exists, or waits for a creation of it that is under way.
pub(crate) async fn create_once(broker: &Broker, topic: Topic) -> Result<(), ProposeError> {
    let name = topic.name.clone();
    broker.creations.once(&name, create(broker, topic)).await
}

static CREATED: LogRateLimiter = LogRateLimiter::new();

async fn create(broker: &Broker, topic: Topic) -> Result<(), ProposeError> {
    let name = topic.name.clone();
    let outcome = broker.group.execute(CreateTopic(topic)).await?;
    if outcome == Outcome::Done
        && let Some(left_out) = CREATED.admit()
    {
        tracing::info!(topic = name, left_out, "topic created for a sender");
    }
    Ok(())
}

impl Broker {
    /// Creates or changes topics; all are checked before the first is changed. Only an operator takes something away.
    pub async fn change_topics(
        self: &Arc<Self>,
        changes: Vec<TopicChange>,
        is_operator: bool,
    ) -> Result<(), BrokerError> {
        let commands: Result<Vec<Command>, BrokerError> = {
            let state = self.group.state();
            let topics = changes.into_iter().map(|change| changed_topic(&state, change, is_operator));
            topics.map(|topic| topic.map(|topic| PutTopic(topic).into())).collect()
        };
        execute(self, commands?, is_operator).await
    }

    /// Deletes a topic. A topic that does not exist is deleted too, as upstream.
    pub async fn delete_topic(self: &Arc<Self>, name: &str, is_operator: bool) -> Result<(), BrokerError> {
        if name.trim().is_empty() {
            return Err(BrokerError::InvalidParameter("The specified topic is blank.".to_owned()));
        }
        refuse_system(name)?;
        execute(self, vec![DeleteTopic { name: name.to_owned() }.into()], is_operator).await
    }
}

/// The topic as it shall be: with attribute changes applied to what it had.
fn changed_topic(state: &State, change: TopicChange, is_operator: bool) -> Result<Topic, BrokerError> {
    let TopicChange { topic, attributes } = change;
    let name = topic.name.as_str();
    names::check_topic(name)?;
    refuse_system(name)?;
    let queues = topic.queue_count();
    if queues > QUEUES_MAX {
        return Err(BrokerError::InvalidParameter(format!(
            "topic[{name}] with {queues} queues, the limit is {QUEUES_MAX}"
        )));
    }
    if !PermissionBits(topic.perm).is_valid() {
        let perm = topic.perm;
        return Err(BrokerError::InvalidParameter(format!(
            "topic[{name}] with perm {perm}, expected a sum of 4, 2 and 1"
        )));
    }
    let before = state.topic(name);
    let attributes = attributes::change(before.map(|topic| &topic.attributes), &attributes)?;
    let topic = Topic { attributes, ..topic };
    if !is_operator {
        rights::check_topic_change(before, &topic)?;
    }
    Ok(topic)
}

fn refuse_system(name: &str) -> Result<(), BrokerError> {
    if names::is_system_topic(name) {
        return Err(BrokerError::InvalidParameter(format!(
            "The topic[{name}] is conflict with system topic."
        )));
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::testing::kind;

    fn change(topic: Topic, attributes: &str) -> TopicChange {
        TopicChange { topic, attributes: attributes.to_owned() }
    }

    fn refused(topic: Topic, attributes: &str) -> String {
        kind(&changed_topic(&State::default(), change(topic, attributes), true).expect_err("refused"))
    }

    #[test]
    fn a_change_becomes_a_topic() {
        let wish = Topic { read_queues: 3, write_queues: 2, perm: 4, ..Topic::new("orders", 1) };
        let topic = changed_topic(&State::default(), change(wish, "+message.type=FIFO"), true);
        let topic = topic.expect("a topic");
        assert_eq!((topic.read_queues, topic.write_queues, topic.perm), (3, 2, 4));
        assert_eq!(topic.attributes.get("message.type").map(String::as_str), Some("FIFO"));
    }

    #[test]
    fn attributes_that_are_not_changed_stay() {
        let mut state = State::default();
        let orders = || Topic::new("orders", 8);
        let first = changed_topic(&state, change(orders(), "+message.type=FIFO"), true).expect("a topic");
        state.apply(PutTopic(first));
        let second = changed_topic(&state, change(orders(), ""), false).expect("a topic");
        assert_eq!(second.attributes.len(), 1);
    }

    #[test]
    fn illegal_names_and_system_topics_are_refused() {
        for name in ["", "a.b", &"a".repeat(128)] {
            assert_eq!(refused(Topic::new(name, 8), ""), "Name", "{name:?}");
        }
        for name in ["TBW102", "rmq_sys_x", "RMQ_SYS_TRANS_HALF_TOPIC"] {
            assert_eq!(refused(Topic::new(name, 8), ""), "InvalidParameter", "{name:?}");
        }
    }

    #[test]
    fn impossible_queues_and_permissions_are_refused() {
        let many = Topic { write_queues: QUEUES_MAX + 1, ..Topic::new("orders", 8) };
        assert_eq!(refused(many, ""), "InvalidParameter");
        assert_eq!(refused(Topic { perm: 8, ..Topic::new("orders", 8) }, ""), "InvalidParameter");
        assert_eq!(refused(Topic::new("orders", 8), "message.type=FIFO"), "InvalidParameter");
    }
}
