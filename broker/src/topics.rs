//! Topics: create, change, delete.
//!
//! Every change is a command in the log, done when it is applied here. Not here: topics that exist without anybody creating
//! them (`system.rs`).

mod attributes;
pub(crate) mod message_type;

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

    /// Deletes a topic, and then the topics with its retries by POP, of all groups that have an offset of it
    /// (`clearRetryTopicWhenDeleteTopic`). A topic that does not exist is deleted too, as upstream: so a repeat deletes
    /// the retries that the first attempt may have left.
    pub async fn delete_topic(self: &Arc<Self>, name: &str, is_operator: bool) -> Result<(), BrokerError> {
        if name.trim().is_empty() {
            return Err(BrokerError::InvalidParameter("The specified topic is blank.".to_owned()));
        }
        refuse_system(name)?;
        let delete = |name: String| Command::from(DeleteTopic { name });
        execute(self, vec![delete(name.to_owned())], is_operator).await?;
        // Now no message of the topic comes again any more, and its groups' offsets are still known.
        let state = self.group.state().clone();
        let retries = pop_retries(&state, name);
        execute(self, retries.into_iter().map(delete).collect(), is_operator).await
    }
}

/// The topics with the retries by POP of a topic, of groups that have an offset of it, committed or by a pop.
///
/// `%RETRY%a_b` may also hold what the group `a_b` was sent back, and `%RETRY%a_b_c` the retries of `c` for `a_b` and those of `b_c` for `a`: then
/// it stays.
fn pop_retries(state: &State, topic: &str) -> Vec<String> {
    let pops = |group: &str, topic: &str| state.offsets_of(group).any(|(of, ..)| of == topic);
    let is_of_another = |rest: &str| {
        rest.match_indices('_').any(|(at, _)| {
            let (group, other) = (&rest[..at], &rest[at + 1..]);
            other != topic && state.topic(other).is_some() && pops(group, other)
        })
    };
    let is_retry = |name: &str| {
        let rest = names::group_of_retry_topic(name)?;
        let group = rest.strip_suffix(topic)?.strip_suffix(['_', '+'])?;
        Some(state.group(rest).is_none() && pops(group, topic) && !is_of_another(rest))
    };
    let all = state.topics().map(|topic| &topic.name);
    all.filter(|name| is_retry(name).unwrap_or(false)).cloned().collect()
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
    use folio_protocol::popped::Retry;
    use folio_state::{CommitOffsets, ConsumerGroup, OffsetCommit, PutGroup};

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

    #[test]
    fn retries_by_pop_are_those_of_groups_with_an_offset_of_the_topic() {
        let mut state = State::default();
        let commit = |group: &str, topic: &str| OffsetCommit {
            group: group.to_owned(),
            topic: topic.to_owned(),
            queue: 0,
            offset: 1,
        };
        let offsets = [("g", "orders"), ("h", "new_orders"), ("a_b", "orders"), ("k", "orders")];
        state.apply(CommitOffsets(offsets.map(|(group, topic)| commit(group, topic)).to_vec()));
        // Those of another topic have the same name.
        state.apply(PutTopic(Topic::new("b_orders", 1)));
        state.apply(CommitOffsets(vec![commit("m", "b_orders"), commit("m_b", "orders")]));
        state.apply(PutTopic(Topic::new(names::retry_topic("m_b_orders"), 1)));
        // Its group was sent messages back, which are in `%RETRY%k_orders`.
        state.apply(PutGroup(ConsumerGroup::new("k_orders")));
        for rest in ["g_orders", "g+orders", "h_new_orders", "a_b_orders", "k_orders", "stranger_orders", "g"]
        {
            state.apply(PutTopic(Topic::new(names::retry_topic(rest), 1)));
        }
        let mut retries = pop_retries(&state, "orders");
        retries.sort_unstable();
        assert!(retries.contains(&Retry::V1.topic("g", "orders")));
        assert!(retries.contains(&Retry::V2.topic("g", "orders")));
        assert_eq!(retries, ["%RETRY%a_b_orders", "%RETRY%g+orders", "%RETRY%g_orders"]);
    }
}
