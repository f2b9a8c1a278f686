//! Delayed sends, and what their producers took back.

use serde::{Deserialize, Serialize};

use super::op::Op;
use crate::payload::OpKey;

/// One delayed send.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Delayed {
    /// The send.
    #[serde(flatten)]
    pub op: Op,
    /// The time at which it is due at the earliest, ms since the epoch: by the clock of its client.
    pub due_ms: u64,
    /// Whether it is due long after the run.
    pub is_far: bool,
}

/// What became of a wish to take a delayed message back.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Recalled {
    /// It will not be delivered.
    Yes,
    /// Its time had come, or it is not known.
    Refused,
    /// Nobody knows.
    Unknown,
}

/// A wish to take a delayed message back, and all its tries.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct Recall {
    /// Which message.
    #[serde(flatten)]
    pub key: OpKey,
    /// When it was asked for first.
    pub invoked_us: u64,
    /// When the producer knew, or gave up.
    pub completed_us: u64,
    /// What became of it.
    pub recalled: Recalled,
}
