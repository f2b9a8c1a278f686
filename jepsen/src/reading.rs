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
            in_place && key.topic == place.topic && (shape.any_queue || key.queue == place.queue)
        });
        if key.is_none() {
            let start = String::from_utf8_lossy(&message.body[..message.body.len().min(40)]);
            tracing::debug!(
                %place, message.topic, message.queue, message.offset, message.position, message.size, %start,
                "a message that was never sent there"
            );
        }
        Self { offset: message.offset, position: message.position, size: message.size, key }
    }
}

impl Reading {
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
