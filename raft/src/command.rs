//! What a node may ask the replicated state machine to do, besides storing messages.
//!
//! A command travels as one log record of kind `Command` and is applied on every replica in the same
//! order. It carries every input it needs: where a rule depends on the time, the time is a field, put
//! there by the leader, so that [`crate::Metadata::apply`] is a pure function of the log.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

/// Permission bit: the topic may be read.
pub const PERM_READ: u32 = 4;
/// Permission bit: the topic may be written.
pub const PERM_WRITE: u32 = 2;
/// Permission bit: topics created from this template inherit its settings.
pub const PERM_INHERIT: u32 = 1;

/// A topic as every replica knows it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Topic {
    /// The topic's name.
    pub name: String,
    /// Queues that consumers may read.
    pub read_queues: u32,
    /// Queues that producers may write.
    pub write_queues: u32,
    /// Permission bits, see [`PERM_READ`].
    pub perm: u32,
    /// Whether clients asked for strict order over the whole topic.
    pub order: bool,
    /// RocketMQ's topic system flag, stored and echoed.
    pub sys_flag: u32,
    /// `SINGLE_TAG` or `MULTI_TAG`, stored and echoed.
    pub filter_type: String,
    /// Attributes such as `message.type`, stored and echoed.
    pub attributes: BTreeMap<String, String>,
}

impl Topic {
    /// A readable and writable topic of `queues` queues.
    pub fn new(name: impl Into<String>, queues: u32) -> Topic {
        Topic {
            name: name.into(),
            read_queues: queues,
            write_queues: queues,
            perm: PERM_READ | PERM_WRITE,
            order: false,
            sys_flag: 0,
            filter_type: "SINGLE_TAG".to_owned(),
            attributes: BTreeMap::new(),
        }
    }

    /// Whether consumers may read it.
    pub fn readable(&self) -> bool {
        self.perm & PERM_READ != 0
    }

    /// Whether producers may write it.
    pub fn writable(&self) -> bool {
        self.perm & PERM_WRITE != 0
    }
}

/// A consumer group as every replica knows it; the names follow RocketMQ's subscription group.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct ConsumerGroup {
    /// The group's name.
    pub name: String,
    /// Whether the group may consume at all.
    pub consume_enable: bool,
    /// Whether a new group starts at the oldest message.
    pub consume_from_min_enable: bool,
    /// Whether broadcasting consumption is allowed.
    pub consume_broadcast_enable: bool,
    /// Whether the group consumes in order.
    pub consume_message_orderly: bool,
    /// Queues of the group's retry topic.
    pub retry_queues: u32,
    /// Retries of a message before it goes to the dead-letter topic.
    pub retry_max: u32,
    /// Minutes that a client may hold one message.
    pub consume_timeout_minutes: u32,
    /// RocketMQ's group system flag, stored and echoed.
    pub sys_flag: u32,
    /// Whether members are told of membership changes.
    pub notify_consumer_ids_changed: bool,
    /// Attributes, stored and echoed.
    pub attributes: BTreeMap<String, String>,
}

impl ConsumerGroup {
    /// A group with RocketMQ's defaults: one retry queue, sixteen retries, fifteen minutes a message.
    pub fn new(name: impl Into<String>) -> ConsumerGroup {
        ConsumerGroup {
            name: name.into(),
            consume_enable: true,
            consume_from_min_enable: true,
            consume_broadcast_enable: true,
            consume_message_orderly: false,
            retry_queues: 1,
            retry_max: 16,
            consume_timeout_minutes: 15,
            sys_flag: 0,
            notify_consumer_ids_changed: true,
            attributes: BTreeMap::new(),
        }
    }
}

/// One queue of one topic.
#[derive(Debug, Clone, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
pub struct QueueRef {
    /// The topic's name.
    pub topic: String,
    /// The queue's number.
    pub queue: u32,
}

/// A consumer group's progress in one queue.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct OffsetCommit {
    /// The consumer group.
    pub group: String,
    /// The topic.
    pub topic: String,
    /// The queue's number.
    pub queue: u32,
    /// The next offset the group wants to consume.
    pub offset: u64,
}

/// A change of the replicated metadata.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub enum Command {
    /// Creates or replaces a topic.
    PutTopic(Topic),
    /// Creates a topic unless one of that name exists: concurrent auto-creations cannot undo each other.
    CreateTopic(Topic),
    /// Forgets a topic. Its queue offsets are never used again: a topic of the same name goes on after them.
    DeleteTopic {
        /// The topic's name.
        name: String,
    },
    /// Creates or replaces a consumer group.
    PutGroup(ConsumerGroup),
    /// Creates a consumer group unless one of that name exists.
    CreateGroup(ConsumerGroup),
    /// Forgets a consumer group.
    DeleteGroup {
        /// The group's name.
        name: String,
        /// Whether its offsets are forgotten too.
        clean_offsets: bool,
    },
    /// Stores consumer offsets. A lower offset than the stored one is accepted, as RocketMQ does.
    CommitOffsets(Vec<OffsetCommit>),
    /// Takes or renews the locks of queues for one client of a group.
    LockQueues {
        /// The consumer group.
        group: String,
        /// The client that asks.
        client: String,
        /// The queues it asks for.
        queues: Vec<QueueRef>,
        /// The leader's clock, milliseconds since the epoch.
        now_ms: u64,
        /// How long a lock lives without a renewal, milliseconds.
        ttl_ms: u64,
    },
    /// Gives locks back; locks of other clients are left alone.
    UnlockQueues {
        /// The consumer group.
        group: String,
        /// The client that gives them back.
        client: String,
        /// The queues it gives back.
        queues: Vec<QueueRef>,
    },
}

/// What applying a [`Command`] answered.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Outcome {
    /// Done.
    Done,
    /// The queues that the client holds now, of those it asked for.
    Locked(Vec<QueueRef>),
    /// The named thing does not exist; nothing was changed.
    NotFound,
    /// A thing of that name exists already; nothing was changed.
    Exists,
}
