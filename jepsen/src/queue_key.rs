//! Names a queue of a workload.

use serde::{Deserialize, Serialize};

/// A queue of the workload.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
pub struct QueueKey {
    /// Topic number.
    pub topic: u32,
    /// Queue number.
    pub queue: u32,
}

impl std::fmt::Display for QueueKey {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "topic {} queue {}", self.topic, self.queue)
    }
}
