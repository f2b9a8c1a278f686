//! What producers take back.

use crate::driver::in_flight::Reply;

/// A delayed message that its producer does not want to be delivered.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Recall {
    /// When it is due, as the producer was told.
    pub due_ms: u64,
    /// Its real topic.
    pub topic: String,
    /// Its unique key.
    pub unique_key: String,
}

/// A recall that waits for its turn.
pub(super) struct WaitingRecall {
    pub(super) recall: Recall,
    pub(super) reply: Reply,
}
