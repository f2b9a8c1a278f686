//! The news of a message that consumers can see from now on.

use std::sync::Arc;

/// A message that has become visible to consumers.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Arrival {
    /// Its topic.
    pub topic: Arc<str>,
    /// Its queue.
    pub queue: u32,
    /// Its offset in the queue.
    pub offset: u64,
    /// What tag filters compare.
    pub tags_code: i64,
}
