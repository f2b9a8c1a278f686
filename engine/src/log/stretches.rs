//! Stretches of old records that were read and verified lately: readers of the queues that share them read them once.
//!
//! Of a stretch only whole records are remembered, each of which was verified in the very memory that it is handed out
//! from (`damage.I1`). Readers that come to a stretch together read it once: one of them does, the others wait for it.
//!
//! Invariants
//! - `stretches.I1` A stretch holds only what was in the files, of the log as it was between two truncations; it is found
//!   only by readers of that very log.
//! - `stretches.I2` All stretches together take no more than [`BYTES_MAX`] bytes of memory.

use std::collections::BTreeMap;

use bytes::Bytes;
use parking_lot::Mutex;

use crate::record::Record;

/// Memory for all stretches. Queues that are read at different places share nothing beyond it, and a record may be longer
/// than a MiB: with 8 MiB, eight queues a few records apart read each record again for every pull.
const BYTES_MAX: usize = 32 << 20;
/// Bytes of the log read together. Much shorter, reads are many; much longer, one message that is looked up costs too much.
pub(super) const STRETCH_BYTES: usize = 256 << 10;
/// Parts of the log that are read by one reader at a time; those of equal remainder share a turn, which are so far apart
/// that a reader of what is new hardly ever waits for one of what is old, and so for the disk.
const TURN_BYTES: u64 = 1 << 20;
const TURNS: usize = 4096;
/// Bytes that are a smaller part of their stretch are copied out of it: what a slow client has not taken yet shall not keep
/// much more in memory than it is.
const SHARE_MIN: usize = 4;

/// Consecutive whole records in one buffer.
pub(super) struct Stretch {
    /// Start and end of each record in the log, ascending.
    records: Vec<(u64, u64)>,
    bytes: Bytes,
    epoch: u64,
    /// When it was last looked at, by count.
    used: u64,
}

impl Stretch {
    /// Of records that share one buffer, back to back. `epoch` is that of the view they were read by.
    pub(super) fn new(records: &[Record], bytes: Bytes, epoch: u64) -> Stretch {
        let records = records.iter().map(|record| (record.position(), record.end())).collect();
        Stretch { records, bytes, epoch, used: 0 }
    }

    fn start(&self) -> u64 {
        self.records.first().map_or(0, |first| first.0)
    }

    fn cost(&self) -> usize {
        self.bytes.len()
    }

    /// What there is from `position` on: the bytes, or where their record ends before they do.
    fn find(&self, position: u64, length: usize) -> Option<Found> {
        let at = self.records.partition_point(|(start, _)| *start <= position).checked_sub(1)?;
        let (_, end) = self.records[at];
        if position >= end {
            return None;
        }
        if position + length as u64 > end {
            return Some(Found::Crossing(end));
        }
        let from = (position - self.start()) as usize;
        Some(Found::Bytes(self.bytes.slice(from..from + length), self.cost()))
    }
}

#[derive(Debug, PartialEq, Eq)]
pub(super) enum Found {
    /// The bytes, and those of the memory that they keep.
    Bytes(Bytes, usize),
    /// The record around the position ends there.
    Crossing(u64),
}

impl Found {
    /// The bytes alone, of memory that is hardly more than they are; or where their record ends.
    pub(super) fn owned(self) -> Result<Bytes, u64> {
        match self {
            Found::Bytes(bytes, kept) if bytes.len() * SHARE_MIN < kept => Ok(Bytes::copy_from_slice(&bytes)),
            Found::Bytes(bytes, _) => Ok(bytes),
            Found::Crossing(end) => Err(end),
        }
    }
}

/// See the module.
pub(super) struct Stretches {
    held: Mutex<Held>,
    turns: Box<[Mutex<()>]>,
}

#[derive(Default)]
struct Held {
    stretches: BTreeMap<u64, Stretch>,
    bytes: usize,
    clock: u64,
}

impl Default for Stretches {
    fn default() -> Stretches {
        Stretches { held: Mutex::default(), turns: (0..TURNS).map(|_| Mutex::default()).collect() }
    }
}

impl Stretches {
    /// The bytes from `position` on, if they are remembered of the log of this epoch.
    pub(super) fn get(&self, epoch: u64, position: u64, length: usize) -> Option<Found> {
        let mut held = self.held.lock();
        held.clock += 1;
        let clock = held.clock;
        let (_, stretch) = held.stretches.range_mut(..=position).next_back()?;
        // stretches.I1
        let found = stretch.find(position, length).filter(|_| stretch.epoch == epoch)?;
        stretch.used = clock;
        Some(found)
    }

    /// The same, after `read` was called to read the stretch around `position` if it is not remembered, nor read by another
    /// reader meanwhile.
    pub(super) fn get_or_read<E>(
        &self,
        epoch: u64,
        position: u64,
        length: usize,
        read: impl FnOnce() -> Result<Stretch, E>,
    ) -> Result<Option<Found>, E> {
        if let Some(found) = self.get(epoch, position, length) {
            return Ok(Some(found));
        }
        let _turn = self.turns[(position / TURN_BYTES) as usize % TURNS].lock();
        if let Some(found) = self.get(epoch, position, length) {
            return Ok(Some(found));
        }
        let stretch = read()?;
        let found = stretch.find(position, length);
        self.held.lock().add(stretch);
        Ok(found)
    }

    /// Forgets everything.
    pub(super) fn forget(&self) {
        *self.held.lock() = Held::default();
    }
}

impl Held {
    fn add(&mut self, stretch: Stretch) {
        self.clock += 1;
        let (start, cost) = (stretch.start(), stretch.cost());
        let old = self.stretches.insert(start, Stretch { used: self.clock, ..stretch });
        self.bytes = self.bytes + cost - old.map_or(0, |old| old.cost());
        // stretches.I2
        while self.bytes > BYTES_MAX {
            let oldest = self.stretches.iter().min_by_key(|(_, stretch)| stretch.used).map(|(at, _)| *at);
            let Some(gone) = oldest.and_then(|at| self.stretches.remove(&at)) else { return };
            self.bytes -= gone.cost();
        }
    }
}
