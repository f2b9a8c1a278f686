//! What consumers sent back.

use std::fmt;

use serde::{Deserialize, Serialize};

use crate::payload::OpKey;
use crate::reading::{Found, QueueKey};

/// A message that came by a group's own topics: a retry, or a dead letter.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub struct Moved {
    /// Which message.
    #[serde(flatten)]
    pub key: OpKey,
    /// How often it has been sent back.
    pub times: u32,
    /// The topic that it came by.
    pub by: u32,
}

impl fmt::Display for Moved {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { key, times, by } = self;
        write!(f, "{key} of {times} times sent back, by topic {by}")
    }
}

impl Moved {
    /// What was found in a group's own topic.
    pub(crate) fn of(queue: QueueKey, found: &Found) -> Option<Self> {
        let (key, marks) = (found.key?, found.marks?);
        (queue.topic > 0).then_some(Self { key, times: marks.times, by: queue.topic })
    }
}

/// A message that a consumer could not handle, with all its tries.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct SendBack {
    /// What it is to become.
    #[serde(flatten)]
    pub moved: Moved,
    /// How long that is to wait, ms.
    pub delay_ms: u64,
    /// When it was sent back first.
    pub invoked_us: u64,
    /// When that was acknowledged; `None` where nobody knows.
    pub acked_us: Option<u64>,
    /// How often it was sent back, in all.
    pub tries: u32,
}
