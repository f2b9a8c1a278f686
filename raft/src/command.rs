//! What a node may ask the replicated state machine to do, besides storing messages.
//!
//! A command travels as one log record of kind `Command` and is applied on every replica in the same
//! order. It carries every input it needs: where a rule depends on the time, the time is a field, put
//! there by the leader, so that [`crate::Metadata::apply`] is a pure function of the log.

use std::collections::{BTreeMap, BTreeSet};

use folio_protocol::names;
use serde::{Deserialize, Serialize};

use crate::codec::{self, CodecError};

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
    /// How many queues may be read or written.
    pub fn queue_count(&self) -> u32 {
        self.read_queues.max(self.write_queues)
    }

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
///
/// Encoded by position: variants are added at the end, and none is removed or changed. Those named `V1` are what logs of
/// earlier builds hold. They do what they did then, so a replica that replays them and one whose checkpoint has their
/// effects agree; nobody proposes them any more.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub enum Command {
    /// Creates or replaces a topic; messages in queues that it loses are not deleted.
    PutTopicV1(Topic),
    /// Creates a topic unless one of that name exists: concurrent auto-creations cannot undo each other.
    CreateTopic(Topic),
    /// Forgets a topic and deletes none of its messages.
    DeleteTopicV1 {
        /// The topic's name.
        name: String,
    },
    /// Creates or replaces a consumer group.
    PutGroup(ConsumerGroup),
    /// Creates a consumer group unless one of that name exists.
    CreateGroup(ConsumerGroup),
    /// Forgets a consumer group and deletes none of its retries.
    DeleteGroupV1 {
        /// The group's name.
        name: String,
        /// Whether its offsets are forgotten too.
        clean_offsets: bool,
    },
    /// Stores consumer offsets. A lower offset than the stored one is accepted, as RocketMQ does.
    CommitOffsets(Vec<OffsetCommit>),
    /// Takes or renews locks by the leader's wall clock.
    LockQueuesV1 {
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
    /// Creates or replaces a topic. Queues that it had before and that can be neither read nor written afterwards lose their
    /// messages: should the topic get them again, they begin after those.
    PutTopic(Topic),
    /// Deletes a topic with its messages. Its queue offsets are never used again: a topic of the same name goes on after
    /// them.
    DeleteTopic {
        /// The topic's name.
        name: String,
    },
    /// Deletes a consumer group with its locks.
    DeleteGroup {
        /// The group's name.
        name: String,
        /// Whether its offsets, its retry topic and the messages that wait there for another attempt go too.
        clean_offsets: bool,
    },
    /// Takes or renews the locks of queues for one client of a group.
    LockQueues {
        /// The consumer group.
        group: String,
        /// The client that asks.
        client: String,
        /// The queues it asks for.
        queues: Vec<QueueRef>,
        /// The leader's reading of the lease clock, see `lease_clock`.
        now_ms: u64,
        /// How long a lock lives without a renewal, milliseconds.
        ttl_ms: u64,
    },
    /// Forgets those of these locks whose time is over, and these groups if no lock of theirs is left.
    ExpireLocks {
        /// The leader's reading of the lease clock, see `lease_clock`.
        now_ms: u64,
        /// Consumer groups, and queues that they locked.
        locks: BTreeMap<String, BTreeSet<QueueRef>>,
    },
}

impl Command {
    /// The command in a record's payload.
    pub fn decode(payload: &[u8]) -> Result<Command, CodecError> {
        codec::decode(payload)
    }

    /// Whether it changes nothing but orderly locks.
    pub(crate) fn is_of_locks(&self) -> bool {
        matches!(
            self,
            Command::LockQueuesV1 { .. }
                | Command::LockQueues { .. }
                | Command::UnlockQueues { .. }
                | Command::ExpireLocks { .. }
        )
    }

    /// Whether it carries a reading of the lease clock.
    pub(crate) fn is_stamped(&self) -> bool {
        matches!(self, Command::LockQueues { .. } | Command::ExpireLocks { .. })
    }

    /// The topic whose messages it may delete.
    pub(crate) fn deletes_in(&self) -> Option<String> {
        match self {
            Command::PutTopic(topic) => Some(topic.name.clone()),
            Command::DeleteTopic { name } => Some(name.clone()),
            Command::DeleteGroup { name, clean_offsets: true } => Some(names::retry_topic(name)),
            _ => None,
        }
    }
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

#[cfg(test)]
mod tests {
    use super::*;

    /// What logs hold stays readable: the numbers of the variants, as earlier builds wrote them, and the new ones.
    #[test]
    fn golden_bytes_of_commands() {
        let text = |text: &str| [&(text.len() as u64).to_le_bytes()[..], text.as_bytes()].concat();
        let record = |variant: u32, body: &[u8]| [b"FQ\x01\0", &variant.to_le_bytes()[..], body].concat();
        let name = || "t".to_owned();
        let lock = [
            text("g"),
            text("c"),
            1_u64.to_le_bytes().to_vec(),
            text("t"),
            3_u32.to_le_bytes().to_vec(),
            7_u64.to_le_bytes().to_vec(),
            9_u64.to_le_bytes().to_vec(),
        ]
        .concat();
        let expired = [
            7_u64.to_le_bytes().to_vec(),
            1_u64.to_le_bytes().to_vec(),
            text("g"),
            1_u64.to_le_bytes().to_vec(),
            text("t"),
            3_u32.to_le_bytes().to_vec(),
        ]
        .concat();
        let (group, client) = ("g".to_owned(), "c".to_owned());
        let queues = || vec![QueueRef { topic: name(), queue: 3 }];
        let golden = [
            (record(2, &text("t")), Command::DeleteTopicV1 { name: name() }),
            (
                record(5, &[text("t"), vec![1]].concat()),
                Command::DeleteGroupV1 { name: name(), clean_offsets: true },
            ),
            (
                record(7, &lock),
                Command::LockQueuesV1 {
                    group: group.clone(),
                    client: client.clone(),
                    queues: queues(),
                    now_ms: 7,
                    ttl_ms: 9,
                },
            ),
            (record(10, &text("t")), Command::DeleteTopic { name: name() }),
            (
                record(11, &[text("t"), vec![0]].concat()),
                Command::DeleteGroup { name: name(), clean_offsets: false },
            ),
            (
                record(13, &expired),
                Command::ExpireLocks {
                    now_ms: 7,
                    locks: [(group.clone(), queues().into_iter().collect())].into(),
                },
            ),
            (
                record(12, &lock),
                Command::LockQueues { group, client, queues: queues(), now_ms: 7, ttl_ms: 9 },
            ),
        ];
        for (bytes, command) in golden {
            assert_eq!(codec::encode(&command), bytes, "{command:?}");
            assert_eq!(Command::decode(&bytes).ok(), Some(command));
        }
    }
}
