//! Where a message may go: the checks of a send, in RocketMQ's order, against the replicated state.
//!
//! Pure: no I/O, no clock but the one handed in. What a check refuses carries the remark the client sees; a topic that must be created first is a decision of its own, because creating is a
//! replicated command and the send goes on after it.

use std::borrow::Cow;
use std::net::SocketAddr;

use folio_protocol::flags::PermissionBits;
use folio_protocol::names;
use folio_state::{State, Topic};

use crate::error::BrokerError;
use crate::identity::Identity;
use crate::system;

/// `DLQ_NUMS_PER_GROUP`: a dead-letter topic has one queue.
const DLQ_QUEUES: u32 = 1;

/// What a send says about its destination, from its header.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Destination<'a> {
    pub(crate) topic: &'a str,
    /// Template for a topic that does not exist.
    pub(crate) default_topic: &'a str,
    /// Queues the client would like such a topic to have.
    pub(crate) default_queues: i32,
    /// Negative: the server picks one.
    pub(crate) queue: i32,
    pub(crate) batch: bool,
    pub(crate) reconsume_times: i32,
    /// How often it may be retried, where the client says so.
    pub(crate) max_reconsume_times: Option<i32>,
    pub(crate) producer: SocketAddr,
}

/// What the checks look at besides the destination.
pub(crate) struct Rules<'a> {
    pub(crate) state: &'a State,
    /// Names the built-in topics depend on.
    pub(crate) identity: &'a Identity,
    /// Whether this broker takes messages at all (`brokerPermission`).
    pub(crate) broker_writable: bool,
    pub(crate) auto_create: bool,
    /// By the clock that orderly locks expire by.
    pub(crate) lease_now_ms: u64,
    /// Any number: which queue is picked when the client leaves it open.
    pub(crate) draw: u32,
}

impl Rules<'_> {
    fn topic(&self, name: &str) -> Option<Cow<'_, Topic>> {
        let created = self.state.topic(name).map(Cow::Borrowed);
        created.or_else(|| system::topic(name, self.identity).map(Cow::Owned))
    }
}

/// Where a message goes.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Route {
    /// Into this queue.
    Queue(Place),
    /// The topic must be created first; then check again.
    Create(Topic),
}

/// A queue that takes a message.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Place {
    /// The topic if it is not the one the client named: the group's dead-letter topic.
    pub(crate) diverted: Option<String>,
    pub(crate) queue: u32,
    /// Whether the topic wants MULTI_TAGS set.
    pub(crate) multi_tags: bool,
}

/// Decides where a message goes.
pub(crate) fn route(rules: &Rules<'_>, to: &Destination<'_>) -> Result<Route, BrokerError> {
    if !rules.broker_writable {
        return Err(BrokerError::NoPermission("the broker sending message is forbidden".to_owned()));
    }
    names::check_topic(to.topic)?;
    if !names::is_sendable_topic(to.topic) {
        return Err(BrokerError::NoPermission(format!(
            "Sending message to topic[{}] is forbidden.",
            to.topic
        )));
    }
    let Some(topic) = rules.topic(to.topic) else {
        return new_topic(rules, to).map(Route::Create);
    };
    check_queue(&topic, to)?;
    if !topic.writable() {
        return Err(BrokerError::NoPermission(format!(
            "the topic[{}] sending message is forbidden",
            to.topic
        )));
    }
    if let Some(group) = names::group_of_retry_topic(to.topic) {
        if to.batch {
            return Err(BrokerError::IllegalMessage(format!(
                "batch request does not support retry group {}",
                to.topic
            )));
        }
        if is_dead(rules, to, group)? {
            return dead_letter(rules, group);
        }
    }
    let multi_tags = topic.filter_type == "MULTI_TAG";
    Ok(Route::Queue(Place { diverted: None, queue: pick(&topic, to.queue, rules.draw)?, multi_tags }))
}

/// The topic to create for a send to an unknown one: a copy of the template the client names.
fn new_topic(rules: &Rules<'_>, to: &Destination<'_>) -> Result<Topic, BrokerError> {
    let template = rules.topic(to.default_topic);
    if let Some(template) = template.filter(|template| inherits(template, rules.auto_create)) {
        let queues = u32::try_from(to.default_queues).unwrap_or(0).min(template.write_queues);
        // RocketMQ makes a topic without queues here, which can take no message; one queue is the least of use.
        let mut topic = Topic::new(to.topic, queues.max(1));
        topic.perm = PermissionBits(template.perm).without(PermissionBits::INHERIT).0;
        topic.filter_type.clone_from(&template.filter_type);
        return Ok(topic);
    }
    if names::is_retry_topic(to.topic) {
        return Ok(Topic::new(to.topic, 1));
    }
    Err(BrokerError::TopicNotExist(to.topic.to_owned()))
}

fn inherits(template: &Topic, auto_create: bool) -> bool {
    let enabled = auto_create || template.name != names::AUTO_CREATE_TOPIC;
    enabled && PermissionBits(template.perm).is_inherited()
}

fn check_queue(topic: &Topic, to: &Destination<'_>) -> Result<(), BrokerError> {
    let valid = i64::from(topic.write_queues.max(topic.read_queues));
    if i64::from(to.queue) < valid {
        return Ok(());
    }
    Err(BrokerError::InvalidParameter(format!(
        "request queueId[{}] is illegal, topic {} has {valid} queues. Producer: {}",
        to.queue, topic.name, to.producer
    )))
}

fn pick(topic: &Topic, asked: i32, draw: u32) -> Result<u32, BrokerError> {
    match u32::try_from(asked) {
        Ok(queue) => Ok(queue),
        Err(_) => draw.checked_rem(topic.write_queues).ok_or_else(|| {
            BrokerError::NoPermission(format!("the topic[{}] has no queue to write to", topic.name))
        }),
    }
}

/// Whether a retried message has used up its retries. A consumer of a group that holds live locks consumes in order and sends a
/// message only when it has given up on it: it says how often it has tried, or how often it may. Who says neither sends a
/// message for the group to consume, as `folio dlq resend` does.
fn is_dead(rules: &Rules<'_>, to: &Destination<'_>, retried: &str) -> Result<bool, BrokerError> {
    let name = group_name(retried);
    let group = rules.state.group(name).ok_or_else(|| BrokerError::GroupNotExist(name.to_owned()))?;
    let max = to.max_reconsume_times.map_or(i64::from(group.retry_max), i64::from);
    let is_of_consumer = to.reconsume_times > 0 || to.max_reconsume_times.is_some();
    let is_given_up = is_of_consumer && rules.state.has_live_locks(name, rules.lease_now_ms);
    Ok(i64::from(to.reconsume_times) > max || is_given_up)
}

/// POP keeps retries of one topic in `%RETRY%group+topic`.
fn group_name(retried: &str) -> &str {
    retried.split_once('+').map_or(retried, |(group, _)| group)
}

fn dead_letter(rules: &Rules<'_>, retried: &str) -> Result<Route, BrokerError> {
    let name = names::dlq_topic(group_name(retried));
    if rules.state.topic(&name).is_none() {
        return Ok(Route::Create(Topic::new(name, DLQ_QUEUES)));
    }
    Ok(Route::Queue(Place { diverted: Some(name), queue: 0, multi_tags: false }))
}

#[cfg(test)]
mod tests;
