//! What readers found in the queues, in the form the checkers judge.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

use crate::payload::{self, OpKey};
pub use crate::queue_key::QueueKey;
use crate::stored::StoredMessage;
use crate::workload::Shape;

/// One message a reader was given.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Found {
    /// Offset in the queue.
    pub offset: u64,
    /// Position in the log.
    pub position: u64,
    /// Bytes in the log.
    pub size: u64,
    /// Which send it is; `None` when its bytes are no send of this run.
    pub key: Option<OpKey>,
    /// What servers say of it, where that is kept.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub marks: Option<Marks>,
}

/// What servers say of a message.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Marks {
    /// When it was stored, ms since the epoch.
    pub stored_ms: u64,
    /// When it was due, if it waited: ms since the epoch.
    pub due_ms: Option<u64>,
    /// How often it was sent back.
    pub times: u32,
    /// The position that it had first, if it was sent back.
    pub origin: Option<u64>,
    /// Whether it has the properties that it was sent with, and says what topic it was sent to.
    pub whole: bool,
}

impl Marks {
    fn of(shape: &Shape, key: OpKey, message: &StoredMessage) -> Self {
        let number = |name| message.property(name).and_then(|text| text.parse().ok());
        let origin = message.property("ORIGIN_MESSAGE_ID").and_then(|id| id.get(id.len().checked_sub(16)?..));
        let named = message.property("UNIQ_KEY") == Some(&payload::unique_key(shape.run, key));
        let came_from = message.property("RETRY_TOPIC");
        let from = message.topic == shape.topic(key.topic) || came_from == Some(&shape.topic(key.topic));
        Self {
            stored_ms: u64::try_from(message.stored_ms).unwrap_or(0),
            due_ms: number("TIMER_OUT_MS"),
            times: message.times,
            origin: origin.and_then(|digits| u64::from_str_radix(digits, 16).ok()),
            whole: named && from,
        }
    }
}

/// Everything one reader was given, each queue in the order it came.
#[derive(Debug, Clone, Default)]
pub struct Reading {
    /// Who was read, for messages: `node 2`, `reader at node 1`.
    pub reader: String,
    /// Per queue.
    pub queues: BTreeMap<QueueKey, Vec<Found>>,
    /// First offset that had not expired, where messages may expire; elsewhere a queue starts at 0.
    pub starts: BTreeMap<QueueKey, u64>,
}

impl Found {
    /// Judges a stored message: the body must be a send of this run, and to this topic and queue.
    #[must_use]
    pub fn judge(shape: &Shape, place: QueueKey, message: &StoredMessage) -> Self {
        let in_place = message.topic == shape.topic(place.topic) && message.queue == place.queue;
        let key = payload::decode(shape.run, &message.body).filter(|key| {
            let is_at_home = key.topic == place.topic && (shape.any_queue || key.queue == place.queue);
            in_place && (is_at_home || shape.is_groups(place.topic))
        });
        if key.is_none() {
            let start = String::from_utf8_lossy(&message.body[..message.body.len().min(40)]);
            tracing::debug!(
                %place, message.topic, message.queue, message.offset, message.position, message.size, %start,
                "a message that was never sent there"
            );
        }
        let marks = key.filter(|_| shape.marked).map(|key| Marks::of(shape, key, message));
        Self { offset: message.offset, position: message.position, size: message.size, key, marks }
    }
}

impl Reading {
    /// What was found in one topic.
    #[must_use]
    pub fn of_topic(&self, topic: u32) -> Self {
        let queues = self.queues.iter().filter(|(queue, _)| queue.topic == topic);
        let queues = queues.map(|(queue, found)| (*queue, found.clone())).collect();
        Self { reader: self.reader.clone(), queues, starts: self.starts.clone() }
    }

    /// First offset this queue must hold.
    #[must_use]
    pub fn start(&self, queue: QueueKey) -> u64 {
        self.starts.get(&queue).copied().unwrap_or(0)
    }

    /// Every message with its queue.
    pub fn messages(&self) -> impl Iterator<Item = (QueueKey, &Found)> {
        self.queues.iter().flat_map(|(queue, found)| found.iter().map(move |found| (*queue, found)))
    }

    /// How many messages were given.
    #[must_use]
    pub fn len(&self) -> usize {
        self.queues.values().map(Vec::len).sum()
    }

    /// Whether no message was given.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// Where the last message any reader was given ends in the log.
    #[must_use]
    pub fn log_end(&self) -> u64 {
        self.messages().map(|(_, found)| found.position + found.size).max().unwrap_or(0)
    }
}
