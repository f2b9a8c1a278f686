//! What consumers were given by POP, and what they did about it.

use serde::{Deserialize, Serialize};

use super::transactions::Ended;
use crate::payload::OpKey;

/// A message that a consumer was given for a while.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct Delivery {
    /// Which message; `None` when its bytes are no send of this run.
    pub key: Option<OpKey>,
    /// Whether it came by the group's retry topic.
    pub is_retry: bool,
    /// Queue, of the topic that it came by.
    pub queue: u32,
    /// Its offset there.
    pub offset: u64,
    /// How often it was given before, as the broker says.
    pub attempts: u32,
    /// When it was popped, as the broker says: ms since the epoch.
    pub popped_ms: u64,
    /// For how long, ms.
    pub invisible_ms: u64,
}

/// A pop that gave something, or of which nobody knows.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Pop {
    /// The consumer group.
    pub group: String,
    /// The broker that was asked.
    pub broker: String,
    /// The queue that was asked for; -1 for any.
    pub queue: i32,
    /// The attempt, if the group consumes in order.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub attempt: Option<String>,
    /// When it was asked.
    pub invoked_us: u64,
    /// When it was answered, or given up.
    pub completed_us: u64,
    /// The same by the clock that the nodes have too: ms since the epoch.
    pub completed_ms: u64,
    /// What it gave; `None`: nobody knows.
    pub given: Option<Vec<Delivery>>,
}

/// One acknowledgement of a message.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct PopAck {
    /// The consumer group.
    pub group: String,
    /// Which message.
    pub key: OpKey,
    /// How often it had been given before it was given to who acknowledges it.
    pub attempts: u32,
    /// When it was asked.
    pub invoked_us: u64,
    /// When it was answered, or given up.
    pub completed_us: u64,
    /// What the broker said.
    pub ended: Ended,
}

/// One change of a message's invisible time.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct PopChange {
    /// The consumer group.
    pub group: String,
    /// Which message.
    pub key: OpKey,
    /// As that of an acknowledgement.
    pub attempts: u32,
    /// Its queue, and the pop time of its handle: in an ordered group they name the batch.
    pub queue: u32,
    /// See `queue`.
    pub popped_ms: u64,
    /// In how long it is to be visible, ms.
    pub invisible_ms: u64,
    /// When it was asked.
    pub invoked_us: u64,
    /// When it was answered, or given up.
    pub completed_us: u64,
    /// What the broker said.
    pub ended: Ended,
    /// When it becomes visible, if the broker said so: ms since the epoch.
    pub visible_ms: Option<u64>,
}

/// The time after the last fault, in which consumers pop and acknowledge all there is.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct PopEnd {
    /// The groups that set out to be given everything.
    pub groups: Vec<String>,
    /// When it began.
    pub from_us: u64,
    /// When it was over.
    pub to_us: u64,
}
