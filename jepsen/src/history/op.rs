//! One send, and how it ended.

use serde::{Deserialize, Serialize};

use crate::payload::OpKey;

/// How a send ended, as far as its client can know.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "outcome", rename_all = "lowercase")]
pub enum Outcome {
    /// Acknowledged: it must be there, at this offset, for ever.
    Ok {
        /// Offset in the queue.
        offset: u64,
        /// Position in the log, when the message id told it.
        position: Option<u64>,
    },
    /// Refused or never sent: it must not be there.
    Fail {
        /// Why.
        error: String,
    },
    /// Nobody knows: it may be there once.
    Unknown {
        /// Why.
        error: String,
    },
}

/// One send.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Op {
    /// Which one.
    #[serde(flatten)]
    pub key: OpKey,
    /// When it was handed to the client.
    pub invoked_us: u64,
    /// When the client said how it ended.
    pub completed_us: u64,
    /// How often it was sent again after an unknown outcome, under the same unique key.
    #[serde(default)]
    pub resent: u32,
    /// How it ended.
    #[serde(flatten)]
    pub outcome: Outcome,
}
