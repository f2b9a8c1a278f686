//! The entries that are in no run yet, in the order in which they came.
//!
//! They are in parts: a part is of one segment of the log, and becomes a run as a whole. Within a part they are in chunks,
//! so that a reader copies handles and looks at few entries under the lock.

use std::collections::VecDeque;
use std::sync::Arc;

use super::entry::Entry;
use crate::derived::LogPoint;

/// How many entries memory holds.
#[derive(Debug, Clone, Copy)]
pub(super) struct Limits {
    /// At so many a sync is wanted.
    pub(super) wanted: usize,
    /// At so many no more are taken.
    pub(super) held: usize,
}

/// 4 MiB and 8 MiB of entries.
pub(super) const LIMITS: Limits = Limits { wanted: 256 << 10, held: 512 << 10 };
/// Entries of a chunk.
const CHUNK: usize = 16 << 10;

/// Store times of messages, ms: the least and the greatest.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Times {
    pub(super) first: i64,
    pub(super) last: i64,
}

impl Times {
    /// Those of no message.
    pub(super) const NONE: Times = Times { first: i64::MAX, last: i64::MIN };

    pub(super) fn add(&mut self, other: Times) {
        *self = Times { first: self.first.min(other.first), last: self.last.max(other.last) };
    }

    pub(super) fn meets(&self, first: i64, last: i64) -> bool {
        self.first <= last && first <= self.last
    }
}

/// What comes of a stretch of the log in one segment.
#[derive(Clone)]
pub(super) struct Part {
    pub(super) segment: u64,
    pub(super) from: LogPoint,
    pub(super) to: LogPoint,
    pub(super) times: Times,
    pub(super) chunks: Vec<Arc<Vec<Entry>>>,
    /// The chunk that is filled.
    active: Vec<Entry>,
    /// Whether it takes no more: a sync has it.
    sealed: bool,
}

impl Part {
    fn seal(&mut self) {
        if !self.active.is_empty() {
            self.chunks.push(Arc::new(std::mem::take(&mut self.active)));
        }
        self.sealed = true;
    }

    fn len(&self) -> usize {
        self.chunks.iter().map(|chunk| chunk.len()).sum::<usize>() + self.active.len()
    }
}

/// See the module.
#[derive(Default)]
pub(super) struct Memory {
    /// The oldest first.
    parts: VecDeque<Part>,
    held: usize,
    reached: LogPoint,
}

impl Memory {
    /// Holds nothing; entries come from behind `at`.
    pub(super) fn at(at: LogPoint) -> Memory {
        Memory { reached: at, ..Memory::default() }
    }

    /// How many entries there are.
    pub(super) fn held(&self) -> usize {
        self.held
    }

    /// Up to which position entries have come, and the store times of those that are here.
    pub(super) fn reach(&self) -> (u64, Times) {
        let mut times = Times::NONE;
        self.parts.iter().for_each(|part| times.add(part.times));
        (self.reached.position, times)
    }

    /// Adds what a record of this segment brings, up to `to`.
    pub(super) fn add(&mut self, segment: u64, to: LogPoint, times: Times, entries: &[Entry]) {
        let from = std::mem::replace(&mut self.reached, to);
        let goes_on = self.parts.back().is_some_and(|part| part.segment == segment && !part.sealed);
        if !goes_on {
            let (chunks, active) = (Vec::new(), Vec::new());
            let part = Part { segment, from, to, times: Times::NONE, chunks, active, sealed: false };
            self.parts.push_back(part);
        }
        let Some(part) = self.parts.back_mut() else { return };
        part.to = to;
        part.times.add(times);
        part.active.extend_from_slice(entries);
        self.held += entries.len();
        if part.active.len() >= CHUNK {
            part.chunks.push(Arc::new(std::mem::take(&mut part.active)));
        }
    }

    /// All parts, which take no more from now on.
    pub(super) fn seal(&mut self) -> Vec<Part> {
        self.parts.iter_mut().for_each(Part::seal);
        self.parts.iter().cloned().collect()
    }

    /// Forgets the parts up to `to`: a run holds them.
    pub(super) fn forget(&mut self, to: LogPoint) {
        while self.parts.front().is_some_and(|part| part.to.next_index() <= to.next_index()) {
            let forgotten = self.parts.pop_front();
            self.held -= forgotten.map_or(0, |part| part.len());
        }
    }

    /// Positions of entries with this hash of parts that meet the times, and the chunks that are left to look at.
    pub(super) fn look(&self, hash: u64, meets: impl Fn(&Times) -> bool) -> (Vec<u64>, Vec<Arc<Vec<Entry>>>) {
        let parts = self.parts.iter().filter(|part| meets(&part.times));
        let (mut found, mut chunks) = (Vec::new(), Vec::new());
        for part in parts {
            found.extend(of(&part.active, hash));
            chunks.extend(part.chunks.iter().cloned());
        }
        (found, chunks)
    }
}

/// Positions of the entries with this hash.
pub(super) fn of(entries: &[Entry], hash: u64) -> impl Iterator<Item = u64> + '_ {
    entries.iter().filter(move |entry| entry.hash == hash).map(|entry| entry.position)
}
