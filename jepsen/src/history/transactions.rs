//! Transactions, as their producers see them.

use serde::{Deserialize, Serialize};

use super::op::Op;
use crate::payload::OpKey;

/// A half message.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Half {
    /// Its send.
    #[serde(flatten)]
    pub op: Op,
    /// What its producer has decided, and answers whenever it is asked.
    pub commits: bool,
}

/// What a producer was told of an end.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Ended {
    /// The transaction has ended like this.
    Yes,
    /// It has ended in another way.
    Refused,
    /// Nobody knows.
    Unknown,
}

/// An end of a transaction that its producer made, and was told of, or not.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct End {
    /// The message of the transaction.
    #[serde(flatten)]
    pub key: OpKey,
    /// Whether it is a commit.
    pub commits: bool,
    /// The broker that answered.
    pub broker: String,
    /// When it was asked first.
    pub invoked_us: u64,
    /// When it answered.
    pub completed_us: u64,
    /// What it said.
    pub ended: Ended,
}

/// A question of a broker what became of a transaction.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Check {
    /// The message of the transaction.
    #[serde(flatten)]
    pub key: OpKey,
    /// Who asked.
    pub broker: String,
    /// When it came.
    pub at_us: u64,
}
