//! The promises, one a file: each takes the history and the readings and returns what broke it.
//!
//! A checker does no I/O and knows nothing of the cluster, so each is tested with a made-up
//! history that breaks its promise. The names follow those of `jepsen.tests.kafka`.

mod agreement;
mod duplicate;
mod gaps;
mod inconsistent_offsets;
mod invented;
mod lost_write;
mod out_of_order;
pub mod replicas;
mod resurrected;

use crate::history::History;
use crate::reading::Reading;

/// Examples a finding carries; the count says how many there are.
const EXAMPLES_MAX: usize = 10;

/// What one checker found.
#[derive(Debug, Clone, Default, PartialEq, Eq, serde::Serialize)]
pub struct Finding {
    /// The property's name.
    pub name: &'static str,
    /// How often it was broken.
    pub count: u64,
    /// Whether a count above zero fails the run.
    pub fatal: bool,
    /// The first few, in words.
    pub examples: Vec<String>,
}

impl Finding {
    /// A property nothing may break.
    #[must_use]
    pub fn fatal(name: &'static str) -> Self {
        Self { name, fatal: true, ..Self::default() }
    }

    /// Something counted, not judged.
    #[must_use]
    pub fn counted(name: &'static str) -> Self {
        Self { name, ..Self::default() }
    }

    /// Adds one breach.
    pub fn add(&mut self, example: impl FnOnce() -> String) {
        self.count += 1;
        if self.examples.len() < EXAMPLES_MAX {
            self.examples.push(example());
        }
    }

    /// Whether it fails the run.
    #[must_use]
    pub fn fails(&self) -> bool {
        self.fatal && self.count > 0
    }
}

/// Runs every checker. `replicas` are readings of each replica to the end, `live` are those of
/// readers that ran during the faults and may have stopped anywhere.
#[must_use]
pub fn check_all(history: &History, replicas: &[Reading], live: &[Reading]) -> Vec<Finding> {
    let all: Vec<&Reading> = replicas.iter().chain(live).collect();
    vec![
        lost_write::check(history, replicas),
        invented::check(history, &all),
        resurrected::check(history, &all),
        inconsistent_offsets::check(history, &all),
        out_of_order::check(history, replicas),
        duplicate::acknowledged(history, replicas),
        duplicate::unknown(history, replicas),
        gaps::check(&all),
        agreement::check(replicas, live),
    ]
}

#[cfg(test)]
mod sample {
    //! Small histories for the checkers' tests.

    use crate::history::{History, Op, Outcome};
    use crate::payload::OpKey;
    use crate::reading::{Found, QueueKey, Reading};

    pub(crate) const QUEUE: QueueKey = QueueKey { topic: 0, queue: 0 };

    pub(crate) fn key(seq: u64) -> OpKey {
        OpKey { topic: 0, queue: 0, producer: 0, seq }
    }

    pub(crate) fn op(seq: u64, outcome: Outcome) -> Op {
        Op { key: key(seq), invoked_us: seq * 10, completed_us: seq * 10 + 5, outcome }
    }

    pub(crate) fn acked(seq: u64, offset: u64) -> Op {
        op(seq, Outcome::Ok { offset, position: None })
    }

    pub(crate) fn unknown(seq: u64) -> Op {
        op(seq, Outcome::Unknown { error: "timeout".to_owned() })
    }

    pub(crate) fn failed(seq: u64) -> Op {
        op(seq, Outcome::Fail { error: "busy".to_owned() })
    }

    pub(crate) fn history(ops: impl IntoIterator<Item = Op>) -> History {
        History { ops: ops.into_iter().collect(), faults: Vec::new() }
    }

    pub(crate) fn found(offset: u64, seq: u64) -> Found {
        Found { offset, position: offset * 100, size: 100, key: Some(key(seq)) }
    }

    pub(crate) fn reading(found: impl IntoIterator<Item = Found>) -> Reading {
        let queues = [(QUEUE, found.into_iter().collect())].into();
        Reading { reader: "node 1".to_owned(), queues, ..Reading::default() }
    }
}
