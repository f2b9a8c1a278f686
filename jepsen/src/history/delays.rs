//! Delayed sends, and what their producers took back.

use std::collections::HashSet;

use serde::{Deserialize, Serialize};

use super::{History, Line, Op, Outcome, Recorder};
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

impl History {
    /// Messages that are to be delivered by the end of the run: acknowledged, due by then, and certainly not taken back.
    pub fn awaited(&self) -> impl Iterator<Item = &Delayed> {
        let may_be_gone = |recall: &&Recall| recall.recalled != Recalled::Refused;
        let gone: HashSet<OpKey> = self.recalls.iter().filter(may_be_gone).map(|recall| recall.key).collect();
        let was_stored = |delayed: &&Delayed| matches!(delayed.op.outcome, Outcome::Ok { .. });
        let near = self.delayed.iter().filter(was_stored).filter(|delayed| !delayed.is_far);
        near.filter(move |delayed| !gone.contains(&delayed.op.key))
    }

    /// Whether a consumer was given all of them.
    #[must_use]
    pub fn delayed_came(&self) -> bool {
        let given = self.polls.iter().flat_map(|poll| &poll.found).filter_map(|found| found.key);
        let given: HashSet<OpKey> = given.collect();
        self.awaited().all(|delayed| given.contains(&delayed.op.key))
    }
}

impl Recorder {
    /// Records a finished delayed send.
    pub fn delayed(&self, delayed: Delayed) {
        let mut inner = self.inner.lock();
        inner.write(&Line::Delayed(&delayed));
        inner.history.delayed.push(delayed);
    }

    /// Records what became of a recall.
    pub fn recall(&self, recall: Recall) {
        let mut inner = self.inner.lock();
        inner.write(&Line::Recall(&recall));
        inner.history.recalls.push(recall);
    }

    /// Looks at what is recorded so far.
    pub fn look<T>(&self, look: impl FnOnce(&History) -> T) -> T {
        look(&self.inner.lock().history)
    }
}
