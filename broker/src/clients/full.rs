//! The refusal of a client that the table has no room for.

/// A client that would make this node's part larger than it may be (`clients.I4`).
#[derive(Debug, PartialEq, Eq, thiserror::Error)]
#[error("[CLIENTS]{bytes} bytes are registered by {by}, the limit is {limit}: use another {by}")]
pub struct Full {
    /// What is registered.
    pub bytes: usize,
    /// The most that may be.
    pub limit: usize,
    /// By whom: this node's clients, or this connection.
    pub by: &'static str,
}
