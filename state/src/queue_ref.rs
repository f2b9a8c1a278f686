//! How a queue is named in commands and in the state.

use serde::{Deserialize, Serialize};

/// One queue of one topic.
#[derive(Debug, Clone, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
pub struct QueueRef {
    /// The topic's name.
    pub topic: String,
    /// The queue's number.
    pub queue: u32,
}
