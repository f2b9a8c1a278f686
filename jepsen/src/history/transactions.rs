//! Transactions, as their producers see them.

use std::collections::HashSet;

use serde::{Deserialize, Serialize};

use super::{History, Line, Op, Outcome, Recorder};
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

impl History {
    /// Half messages that were acknowledged, and whose producers commit.
    pub fn committing(&self) -> impl Iterator<Item = &Half> {
        let was_stored = |half: &&Half| matches!(half.op.outcome, Outcome::Ok { .. });
        self.halves.iter().filter(was_stored).filter(|half| half.commits)
    }

    /// Whether a consumer was given all of them.
    #[must_use]
    pub fn committed_came(&self) -> bool {
        let given = self.polls.iter().flat_map(|poll| &poll.found).filter_map(|found| found.key);
        let given: HashSet<OpKey> = given.collect();
        self.committing().all(|half| given.contains(&half.op.key))
    }
}

impl Recorder {
    /// Records a finished send of a half message.
    pub fn half(&self, half: Half) {
        let mut inner = self.inner.lock();
        inner.write(&Line::Half(&half));
        inner.history.halves.push(half);
    }

    /// Records the end of a transaction.
    pub fn ending(&self, end: End) {
        let mut inner = self.inner.lock();
        inner.write(&Line::Ending(&end));
        inner.history.endings.push(end);
    }

    /// Records a question.
    pub fn check(&self, check: Check) {
        let mut inner = self.inner.lock();
        inner.write(&Line::Check(&check));
        inner.history.checks.push(check);
    }
}
