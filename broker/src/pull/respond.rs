//! A pull that may be served, and the answer to it.

use std::time::Duration;

use bytes::Bytes;
use folio_protocol::Name;

use super::scan::{Limits, Place, place};
use super::subject::Subject;
use crate::broker::Broker;
use crate::connection::Reader;
use crate::error::BrokerError;

/// What a pull came to.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Status {
    /// Messages.
    Found,
    /// No message yet.
    NothingNew,
    /// No message that the client wants before `next`: it asks again from there at once.
    AskAgain,
    /// The offset lies outside the queue.
    Moved,
}

/// The answer to a pull.
#[derive(Debug)]
pub struct Pulled {
    /// What it came to.
    pub status: Status,
    /// The offset to go on with.
    pub next: i64,
    /// The queue's first offset.
    pub min: u64,
    /// The offset after the queue's last message.
    pub max: u64,
    /// The topic's system flag.
    pub topic_sys_flag: i32,
    /// The group's system flag.
    pub group_sys_flag: i32,
    /// Encoded messages one after the other, in slices of the log.
    pub messages: Vec<Bytes>,
}

/// Who pulls, and where the answer goes.
pub trait Puller: Send + Sync + 'static {
    /// A handle to the client's connection.
    type Connection: Reader;
    /// The client's connection; none if another node has it: then the pull is not held here.
    fn connection(&self) -> Option<&Self::Connection>;
    /// It waits for something that may never come.
    fn hold(&mut self);
    /// Bytes that it keeps while it is held.
    fn held_bytes(&self) -> usize;
    /// Used once. [`BrokerError::AskLeader`]: this node cannot tell.
    fn answer(self, outcome: Result<Pulled, BrokerError>);
    /// Used in place of an answer: the client is gone.
    fn gone(self);
}

/// A pull that may be served.
pub struct Pull {
    pub(super) group: Name,
    pub(super) topic: Name,
    pub(super) offset: i64,
    pub(super) wait: Duration,
    pub(super) subject: Subject,
    pub(super) limits: Limits,
}

impl Pull {
    /// Topic and number of its queue.
    pub(super) fn queue(&self) -> (&str, u32) {
        (&self.topic, self.subject.queue)
    }
}

/// First offset of its queue, and the one after the last.
pub(super) fn bounds(broker: &Broker, pull: &Pull) -> Option<(u64, u64)> {
    broker.group.queues().bounds(&pull.topic, pull.subject.queue)
}

/// Whether retention was faster than the pull.
pub(super) fn expired(broker: &Broker, pull: &Pull) -> bool {
    place(bounds(broker, pull), pull.offset) == Place::Below
}

/// Answers.
pub(super) fn respond(
    broker: &Broker,
    pull: &Pull,
    puller: impl Puller,
    status: Status,
    next: i64,
    messages: Vec<Bytes>,
) {
    let (min, max) = bounds(broker, pull).unwrap_or((0, 0));
    let (topic_sys_flag, group_sys_flag) = (pull.subject.topic_sys_flag, pull.subject.group_sys_flag);
    puller.answer(Ok(Pulled { status, next, min, max, topic_sys_flag, group_sys_flag, messages }));
}
