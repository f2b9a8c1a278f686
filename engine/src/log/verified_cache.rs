//! A cache of verified runs: old records side by side that were read and verified lately. Readers of the queues that share them
//! read them once.
//!
//! Of a run only whole records are remembered, each of which was verified in the very memory that it is handed out
//! from (`damage.I1`). Readers that come to a run together read it once: one of them does, the others wait for it.
//!
//! Invariants
//! - `stretches.I1` A run holds only what was in the files, of the log as it was between two truncations; it is found
//!   only by readers of that very log.
//! - `stretches.I2` All runs together take no more than [`BYTES_MAX`] bytes of memory.

use std::collections::BTreeMap;
use std::ops::Range;
use std::sync::Arc;

use bytes::Bytes;
use parking_lot::Mutex;

use crate::record::Record;

/// Memory for all runs. Queues that are read at different places share nothing beyond it, and a record may be longer
/// than a MiB: with 8 MiB, eight queues a few records apart read each record again for every pull.
const BYTES_MAX: usize = 32 << 20;
/// Bytes of the log read together. Much shorter, reads are many; much longer, one message that is looked up costs too much.
pub(super) const RUN_BYTES: usize = 256 << 10;
/// Parts of the log that are read by one reader at a time; those of equal remainder share a turn, which are so far apart
/// that a reader of what is new hardly ever waits for one of what is old, and so for the disk.
const TURN_BYTES: u64 = 1 << 20;
const TURNS: usize = 4096;
/// Consecutive whole records in one buffer.
pub(super) struct VerifiedRun {
    /// Start and end of each record in the log, ascending.
    records: Vec<(u64, u64)>,
    /// Index and position of the record behind it.
    end: (u64, u64),
    bytes: Bytes,
    epoch: u64,
}

impl VerifiedRun {
    /// Of records that share one buffer, back to back. `epoch` is that of the view they were read by.
    pub(super) fn new(records: &[Record], bytes: Bytes, epoch: u64) -> VerifiedRun {
        let end = records.last().map_or((0, 0), |last| (last.header.index + 1, last.end()));
        let records = records.iter().map(|record| (record.position(), record.end())).collect();
        VerifiedRun { records, end, bytes, epoch }
    }

    pub(super) fn bytes(&self) -> &Bytes {
        &self.bytes
    }

    /// Index and position of the record behind it.
    pub(super) fn end(&self) -> (u64, u64) {
        self.end
    }

    fn start(&self) -> u64 {
        self.records.first().map_or(0, |first| first.0)
    }

    /// Bytes of memory that each part of it keeps.
    pub(super) fn cost(&self) -> usize {
        self.bytes.len()
    }

    /// What there is from `position` on: where the bytes are, or where their record ends before they do.
    pub(super) fn find(&self, position: u64, length: usize) -> Option<Found> {
        let at = self.records.partition_point(|(start, _)| *start <= position).checked_sub(1)?;
        let (_, end) = self.records[at];
        if position >= end {
            return None;
        }
        if position + length as u64 > end {
            return Some(Found::Crossing(end));
        }
        let from = (position - self.start()) as usize;
        Some(Found::Bytes(from..from + length))
    }
}

#[derive(Debug, PartialEq, Eq)]
pub(super) enum Found {
    /// Where they are in the run.
    Bytes(Range<usize>),
    /// The record around the position ends there.
    Crossing(u64),
}

/// See the module.
pub(super) struct VerifiedCache {
    held: Mutex<Held>,
    turns: Box<[Mutex<()>]>,
}

#[derive(Default)]
struct Held {
    /// By their starts; each with when it was last looked at, by count.
    runs: BTreeMap<u64, (Arc<VerifiedRun>, u64)>,
    bytes: usize,
    clock: u64,
}

impl Default for VerifiedCache {
    fn default() -> VerifiedCache {
        VerifiedCache { held: Mutex::default(), turns: (0..TURNS).map(|_| Mutex::default()).collect() }
    }
}

impl VerifiedCache {
    /// The run that holds `position`, if it is remembered of the log of this epoch, and what it has there.
    pub(super) fn get(&self, epoch: u64, position: u64, length: usize) -> Option<(Arc<VerifiedRun>, Found)> {
        let mut held = self.held.lock();
        held.clock += 1;
        let clock = held.clock;
        let (_, (run, used)) = held.runs.range_mut(..=position).next_back()?;
        // stretches.I1
        let found = run.find(position, length).filter(|_| run.epoch == epoch)?;
        *used = clock;
        Some((run.clone(), found))
    }

    /// Index and position of the record behind the last run before `position`.
    pub(super) fn end_before(&self, epoch: u64, position: u64) -> Option<(u64, u64)> {
        let held = self.held.lock();
        let (_, (run, _)) = held.runs.range(..=position).next_back()?;
        Some(run.end).filter(|end| run.epoch == epoch && end.1 <= position)
    }

    /// As [`VerifiedCache::get`], after `read` was called to read the run around `position` if it is not remembered, nor
    /// read by another reader meanwhile.
    pub(super) fn get_or_read<E>(
        &self,
        epoch: u64,
        position: u64,
        length: usize,
        read: impl FnOnce() -> Result<VerifiedRun, E>,
    ) -> Result<(Arc<VerifiedRun>, Option<Found>), E> {
        let get = || self.get(epoch, position, length).map(|(run, found)| (run, Some(found)));
        if let Some(found) = get() {
            return Ok(found);
        }
        let _turn = self.turns[(position / TURN_BYTES) as usize % TURNS].lock();
        if let Some(found) = get() {
            return Ok(found);
        }
        let run = Arc::new(read()?);
        let found = run.find(position, length);
        self.held.lock().add(run.clone());
        Ok((run, found))
    }

    /// Forgets everything.
    pub(super) fn forget(&self) {
        *self.held.lock() = Held::default();
    }
}

impl Held {
    fn add(&mut self, run: Arc<VerifiedRun>) {
        self.clock += 1;
        let (start, cost) = (run.start(), run.cost());
        let old = self.runs.insert(start, (run, self.clock));
        self.bytes = self.bytes + cost - old.map_or(0, |(old, _)| old.cost());
        // stretches.I2
        while self.bytes > BYTES_MAX {
            let oldest = self.runs.iter().min_by_key(|(_, (_, used))| *used).map(|(at, _)| *at);
            let Some((gone, _)) = oldest.and_then(|at| self.runs.remove(&at)) else { return };
            self.bytes -= gone.cost();
        }
    }
}
