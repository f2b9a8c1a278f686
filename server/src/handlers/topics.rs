//! Topics: create or change (17, 18), delete (215), list (206).
//!
//! Every change is a command in the log, answered when it is applied here. Not here: routes (`route`),
//! and topics that exist without anybody creating them (`system`).

mod attributes;

use std::collections::HashMap;
use std::sync::Arc;

use folio_broker::system;
use folio_protocol::body::{self, TopicConfig, TopicConfigList, TopicList};
use folio_protocol::flags::PermissionBits;
use folio_protocol::header::{CreateTopicHeader, DeleteTopicHeader, Header};
use folio_protocol::limits::BODY_OBJECTS_MAX;
use folio_protocol::names;
use folio_raft::log_rate_limiter::LogRateLimiter;
use folio_raft::proposal::ProposeError;
use folio_state::bounds::QUEUES_MAX;
use folio_state::{Command, CreateTopic, DeleteTopic, Outcome, PutTopic, State, Topic};
use parking_lot::Mutex;
use tokio::sync::OnceCell;

use super::changes::execute;
use crate::admin;
use crate::broker::Broker;
use crate::error::ServerError;
use crate::request::Request;

/// Topics being created, so that of many senders that miss one only the first proposes it.
#[derive(Default)]
pub(crate) struct Creations {
    under_way: Mutex<HashMap<String, Arc<Creation>>>,
}

type Creation = OnceCell<Result<(), ProposeError>>;

/// Creates a topic unless it exists, or waits for a creation of it that is under way.
pub(crate) async fn create_once(broker: &Broker, topic: Topic) -> Result<(), ProposeError> {
    let name = topic.name.clone();
    let creation = broker.state.creations.under_way.lock().entry(name.clone()).or_default().clone();
    let outcome = creation.get_or_init(|| create(broker, topic)).await.clone();
    let mut under_way = broker.state.creations.under_way.lock();
    if under_way.get(&name).is_some_and(|other| Arc::ptr_eq(other, &creation)) {
        under_way.remove(&name);
    }
    outcome
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

/// 17: creates or changes one topic.
pub(crate) fn update(broker: &Arc<Broker>, request: Request) {
    let topic =
        CreateTopicHeader::from_ext(&request.frame.ext).map_err(ServerError::from).and_then(|header| {
            let changes = header.attributes.as_deref().unwrap_or("");
            changed_topic(&broker.group.state(), &header.topic_config(), changes, request.is_operator)
        });
    match topic {
        Ok(topic) => execute(broker, vec![PutTopic(topic).into()], request),
        Err(error) => request.reply.fail(error),
    }
}

/// 18: creates or changes several topics; all are checked before the first is changed.
pub(crate) fn update_list(broker: &Arc<Broker>, request: Request) {
    match changed_topics(broker, &request) {
        Ok(commands) => execute(broker, commands, request),
        Err(error) => request.reply.fail(error),
    }
}

fn changed_topics(broker: &Broker, request: &Request) -> Result<Vec<Command>, ServerError> {
    let list: TopicConfigList = body::decode_request(&request.frame.body, BODY_OBJECTS_MAX)
        .map_err(|error| ServerError::Body(error.to_string()))?;
    let state = broker.group.state();
    let topics = list.topic_config_list.iter().map(|config| {
        let changes = attributes::as_changes(&config.attributes);
        changed_topic(&state, config, &changes, request.is_operator).map(|topic| PutTopic(topic).into())
    });
    topics.collect()
}

/// The topic as it shall be: the config, with attribute changes applied to what it had.
fn changed_topic(
    state: &State,
    config: &TopicConfig,
    changes: &str,
    is_operator: bool,
) -> Result<Topic, ServerError> {
    let name = config.topic_name.as_str();
    names::check_topic(name)?;
    refuse_system(name)?;
    let queues = config.read_queue_nums.max(config.write_queue_nums);
    if queues > QUEUES_MAX {
        return Err(ServerError::InvalidParameter(format!(
            "topic[{name}] with {queues} queues, the limit is {QUEUES_MAX}"
        )));
    }
    if !PermissionBits(config.perm).is_valid() {
        let perm = config.perm;
        return Err(ServerError::InvalidParameter(format!(
            "topic[{name}] with perm {perm}, expected a sum of 4, 2 and 1"
        )));
    }
    let before = state.topic(name);
    let topic = Topic {
        name: name.to_owned(),
        read_queues: config.read_queue_nums,
        write_queues: config.write_queue_nums,
        perm: config.perm,
        order: config.order,
        sys_flag: u32::try_from(config.topic_sys_flag).unwrap_or(0),
        filter_type: config.topic_filter_type.clone(),
        attributes: attributes::change(before.map(|topic| &topic.attributes), changes)?,
    };
    if !is_operator {
        admin::check_topic_change(before, &topic)?;
    }
    Ok(topic)
}

fn refuse_system(name: &str) -> Result<(), ServerError> {
    if names::is_system_topic(name) {
        return Err(ServerError::InvalidParameter(format!(
            "The topic[{name}] is conflict with system topic."
        )));
    }
    Ok(())
}

/// 215: deletes a topic. A topic that does not exist is deleted too, as upstream.
pub(crate) fn delete(broker: &Arc<Broker>, request: Request) {
    let name =
        DeleteTopicHeader::from_ext(&request.frame.ext).map_err(ServerError::from).and_then(|header| {
            if header.topic.trim().is_empty() {
                return Err(ServerError::InvalidParameter("The specified topic is blank.".to_owned()));
            }
            refuse_system(&header.topic)?;
            Ok(header.topic.to_string())
        });
    match name {
        Ok(name) => execute(broker, vec![DeleteTopic { name }.into()], request),
        Err(error) => request.reply.fail(error),
    }
}

/// 216: takes a topic out of the routes. Routes are made of the topics themselves, so there is nothing to
/// do that 215 does not do.
pub(crate) fn delete_route(_broker: &Arc<Broker>, request: Request) {
    request.reply.done();
}

/// 206: the names of all topics.
pub(crate) fn list(broker: &Arc<Broker>, request: Request) {
    let mut topic_list = system::names(&broker.identity);
    topic_list.extend(broker.group.state().topics().map(|topic| topic.name.clone()));
    topic_list.sort_unstable();
    topic_list.dedup();
    match body::encode(&TopicList { broker_addr: None, topic_list }) {
        Ok(bytes) => request.reply.body(bytes),
        Err(error) => request.reply.fail(ServerError::Internal(error.to_string())),
    }
}

#[cfg(test)]
mod tests {
    use folio_protocol::code::ResponseCode;

    use super::*;

    fn config(name: &str) -> TopicConfig {
        TopicConfig { topic_name: name.to_owned(), ..TopicConfig::default() }
    }

    fn refused(config: &TopicConfig, changes: &str) -> ResponseCode {
        changed_topic(&State::default(), config, changes, true).expect_err("refused").code()
    }

    #[test]
    fn a_config_becomes_a_topic() {
        let config = TopicConfig { read_queue_nums: 3, write_queue_nums: 2, perm: 4, ..config("orders") };
        let topic = changed_topic(&State::default(), &config, "+message.type=FIFO", true).expect("a topic");
        assert_eq!((topic.read_queues, topic.write_queues, topic.perm), (3, 2, 4));
        assert_eq!(topic.attributes.get("message.type").map(String::as_str), Some("FIFO"));
    }

    #[test]
    fn attributes_that_are_not_changed_stay() {
        let mut state = State::default();
        let first = changed_topic(&state, &config("orders"), "+message.type=FIFO", true).expect("a topic");
        state.apply(PutTopic(first));
        let second = changed_topic(&state, &config("orders"), "", false).expect("a topic");
        assert_eq!(second.attributes.len(), 1);
    }

    #[test]
    fn illegal_names_and_system_topics_are_refused() {
        for name in ["", "a.b", "TBW102", "rmq_sys_x", "RMQ_SYS_TRANS_HALF_TOPIC"] {
            assert_eq!(refused(&config(name), ""), ResponseCode::InvalidParameter, "{name:?}");
        }
        assert_eq!(refused(&config(&"a".repeat(128)), ""), ResponseCode::InvalidParameter);
    }

    #[test]
    fn impossible_queues_and_permissions_are_refused() {
        let many = TopicConfig { write_queue_nums: QUEUES_MAX + 1, ..config("orders") };
        assert_eq!(refused(&many, ""), ResponseCode::InvalidParameter);
        let odd = TopicConfig { perm: 8, ..config("orders") };
        assert_eq!(refused(&odd, ""), ResponseCode::InvalidParameter);
        assert_eq!(refused(&config("orders"), "message.type=FIFO"), ResponseCode::InvalidParameter);
    }
}
