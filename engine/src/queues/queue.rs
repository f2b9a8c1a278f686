//! One consume queue: how far it reaches, and its newest units in memory.
//!
//! ```text
//!   offset   0 ...... min ........ start ..... written ...... next
//!            |  gone   |  file      |  file and memory | memory |
//! ```
//!
//! Retention may move `min` past the others.
//!
//! Readers take a shared lock to copy from memory, and read files without any lock: what lies below `start` never
//! changes, unless it is damaged and mended. The applier writes files under a shared lock too, so it does not make
//! readers wait for the disk.

use std::ops::Range;
use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::AtomicBool;

use parking_lot::RwLock;

use super::error::QueuesError;
use super::files::{Files, base_of, end_of, file_path, place_of};
use super::tails::Tails;
use super::unit::{Seed, UNIT_BYTES, Unit, UnitPlace};
use crate::disk::{DiskFile, OpenMode, is_full, read_around_lost};

/// Unwritten bytes at which a queue is written: about a page, so that many messages cost one call.
pub(super) const FLUSH_BYTES: usize = 4080;
/// Written bytes kept in memory after that, for consumers that are just behind the newest message.
const KEPT_BYTES: usize = 1020;
/// Units handed out by one read (320 KiB of them); whoever wants more asks again.
pub const UNITS_PER_READ_MAX: usize = 16_384;

/// See the module.
pub(super) struct Queue {
    pub(super) topic: Arc<str>,
    pub(super) number: u32,
    seed: Seed,
    /// Names the queue in the cache of open files.
    pub(super) serial: u64,
    pub(super) dir: PathBuf,
    tail: RwLock<Tail>,
    /// Whether the applier has it on its list of queues with unwritten units.
    pub(super) listed: AtomicBool,
    /// Whether the names of its directories were made durable by this process.
    pub(super) placed: AtomicBool,
}

#[derive(Debug, Default)]
struct Tail {
    min: u64,
    start: u64,
    written: u64,
    next: u64,
    /// The units from `start` to `next`.
    bytes: Vec<u8>,
    /// Unwritten bytes at which to write again; more than [`FLUSH_BYTES`] only after the disk was full.
    flush_at: usize,
}

/// What became of a unit.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Pushed {
    /// It is the newest now.
    Added {
        /// Whether it is time to write.
        flush: bool,
    },
    /// It was there already, and is the same; or it is gone by retention.
    Known,
    /// It was there already, and is damaged.
    Damaged,
}

/// What a read gave.
#[derive(Debug, Default, PartialEq, Eq)]
pub(super) struct Found {
    /// Consecutive units, up to the first damaged one.
    pub(super) units: Vec<Unit>,
    /// The offset of that one.
    pub(super) damaged: Option<u64>,
}

impl Queue {
    /// A queue that has what it has from `min` on up to `next` in its files, and nothing in memory.
    pub(super) fn new(topic: Arc<str>, number: u32, serial: u64, dir: PathBuf, min: u64, next: u64) -> Queue {
        let tail = Tail { min, start: next, written: next, next, bytes: Vec::new(), flush_at: FLUSH_BYTES };
        let seed = Seed::of(&topic, number);
        Queue {
            topic,
            number,
            seed,
            serial,
            dir,
            tail: RwLock::new(tail),
            listed: AtomicBool::new(false),
            placed: AtomicBool::new(false),
        }
    }

    /// Names a unit of the queue.
    pub(super) fn place(&self, offset: u64) -> UnitPlace {
        UnitPlace { topic: self.topic.clone(), queue: self.number, offset }
    }

    /// Takes in the newest units, as they were encoded before, of a queue that has only older ones.
    pub(super) fn restore(&self, units: Vec<u8>) {
        let mut tail = self.tail.write();
        tail.next = tail.start + (units.len() / UNIT_BYTES) as u64;
        tail.bytes = units;
    }

    /// Bytes of units that are in no file of the queue.
    pub(super) fn unwritten_bytes(&self) -> usize {
        self.tail.read().unwritten()
    }

    /// Adds them to `tails`. False when there are none.
    pub(super) fn add_tail(&self, tails: &mut Tails) -> bool {
        let tail = self.tail.read();
        let units = tail.range(tail.written, tail.next);
        if !units.is_empty() {
            tails.add(&self.topic, self.number, tail.written, units);
        }
        !units.is_empty()
    }

    /// First offset, and the first one that is in no file yet.
    pub(super) fn stored(&self) -> (u64, u64) {
        let tail = self.tail.read();
        (tail.min, tail.written)
    }

    /// First and next offset.
    pub(super) fn bounds(&self) -> (u64, u64) {
        let tail = self.tail.read();
        (tail.min, tail.next)
    }

    /// Adds a unit, or checks that it is what was added before.
    pub(super) fn push(&self, offset: u64, unit: Unit, files: &Files) -> Result<Pushed, QueuesError> {
        let mut tail = self.tail.write();
        if offset == tail.next {
            tail.bytes.extend_from_slice(&unit.encode(self.seed, offset));
            tail.next += 1;
            return Ok(Pushed::Added { flush: tail.unwritten() >= tail.flush_at });
        }
        let (min, next) = (tail.min, tail.next);
        drop(tail);
        if offset > next {
            let (topic, queue) = (self.topic.clone(), self.number);
            return Err(QueuesError::Gap { topic, queue, next, stamped: offset, position: unit.position });
        }
        if offset < min {
            return Ok(Pushed::Known);
        }
        match self.read(offset, 1, files)? {
            Found { damaged: Some(_), .. } => Ok(Pushed::Damaged),
            Found { units, .. } if units == [unit] => Ok(Pushed::Known),
            _ => Err(QueuesError::Changed { topic: self.topic.clone(), queue: self.number, offset }),
        }
    }

    /// At most `max` units from `offset` on; none at or behind the next offset.
    pub(super) fn read(&self, offset: u64, max: usize, files: &Files) -> Result<Found, QueuesError> {
        let max = max.min(UNITS_PER_READ_MAX) as u64;
        let tail = self.tail.read();
        self.check_min(offset, tail.min)?;
        let end = tail.next.min(offset.saturating_add(max));
        if offset >= end {
            return Ok(Found::default());
        }
        let (mut bytes, split) = tail.copy(offset..end);
        drop(tail);
        let read = self.read_files(offset, &mut bytes[..split], files, false);
        let mut units = Vec::with_capacity(bytes.len() / UNIT_BYTES);
        units.extend(self.decode(offset, &bytes).map_while(|unit| unit));
        let damaged = Some(offset + units.len() as u64).filter(|&damaged| damaged < end);
        if read.is_err() || damaged.is_some() {
            // A file that retention has just removed is no failure of the disk.
            self.check_min(offset, self.tail.read().min)?;
        }
        read.map(|()| Found { units, damaged })
    }

    /// Units as memory, files and the disk itself hold them; `None` where one of these copies is damaged.
    pub(super) fn look(&self, offsets: Range<u64>, files: &Files) -> Result<Vec<Option<Unit>>, QueuesError> {
        let tail = self.tail.read();
        let (mut bytes, split) = tail.copy(offsets.clone());
        let written = tail.written;
        drop(tail);
        self.read_files(offsets.start, &mut bytes[..split], files, false)?;
        let mut units: Vec<_> = self.decode(offsets.start, &bytes).collect();
        let stored = self.look_stored(offsets.start..offsets.end.min(written), files)?;
        for (unit, stored) in units.iter_mut().zip(stored) {
            *unit = unit.filter(|_| *unit == stored);
        }
        Ok(units)
    }

    /// Units as the disk itself holds them, all of which are in files; `None` where one is damaged.
    pub(super) fn look_stored(
        &self,
        offsets: Range<u64>,
        files: &Files,
    ) -> Result<Vec<Option<Unit>>, QueuesError> {
        let mut bytes = vec![0; offsets.end.saturating_sub(offsets.start) as usize * UNIT_BYTES];
        self.read_files(offsets.start, &mut bytes, files, true)?;
        Ok(self.decode(offsets.start, &bytes).collect())
    }

    /// Overwrites units from `offset` on with what they must be, wherever they are. Nobody else may write meanwhile. `store`
    /// gets the base of each file, where in it bytes belong, and the bytes.
    pub(super) fn rewrite(
        &self,
        offset: u64,
        units: &[Unit],
        store: impl FnMut(u64, u64, &[u8]) -> Result<(), QueuesError>,
    ) -> Result<(), QueuesError> {
        let mut bytes = Vec::with_capacity(units.len() * UNIT_BYTES);
        units.iter().zip(offset..).for_each(|(unit, offset)| bytes.extend(unit.encode(self.seed, offset)));
        let (from, to) = {
            let mut tail = self.tail.write();
            let end = (offset + units.len() as u64).min(tail.next);
            let in_memory = tail.start.clamp(offset, end);
            let start = tail.start;
            if in_memory < end {
                let place = |at: u64, base: u64| (at - base) as usize * UNIT_BYTES;
                let (from, to) = (place(in_memory, start), place(end, start));
                let part = &bytes[place(in_memory, offset)..place(end, offset)];
                tail.bytes[from..to].copy_from_slice(part);
            }
            (offset.max(tail.min), end.min(tail.written))
        };
        let skipped = (from - offset) as usize * UNIT_BYTES;
        each_file(from..to, bytes.get(skipped..).unwrap_or_default(), store)
    }

    /// Writes what is not written yet. `open` opens the file with a base, to write to it.
    pub(super) fn flush(
        &self,
        mut open: impl FnMut(u64) -> Result<Arc<dyn DiskFile>, QueuesError>,
    ) -> Result<(), QueuesError> {
        let tail = self.tail.read();
        let end = tail.next;
        let written = self.write_files(tail.written..end, tail.range(tail.written, end), &mut open);
        drop(tail);
        match written {
            Ok(()) => self.tail.write().wrote(end),
            Err(QueuesError::DiskFull { .. }) => {
                let mut tail = self.tail.write();
                tail.flush_at = tail.unwritten() + FLUSH_BYTES;
            }
            Err(_) => {}
        }
        written
    }

    /// The first offset moves up to `min`. Returns the bases of files that lie wholly below now.
    pub(super) fn trim(&self, min: u64) -> std::ops::Range<u64> {
        let mut tail = self.tail.write();
        let before = base_of(tail.min);
        tail.min = tail.min.max(min.min(tail.next));
        before..base_of(tail.min)
    }

    /// Readers that still hold the queue find nothing in it any more.
    pub(super) fn retire(&self) {
        let mut tail = self.tail.write();
        tail.min = tail.next;
    }

    fn check_min(&self, offset: u64, min: u64) -> Result<(), QueuesError> {
        if offset >= min {
            return Ok(());
        }
        Err(QueuesError::Trimmed { topic: self.topic.clone(), queue: self.number, offset, min })
    }

    /// Fills `bytes` with units from `offset` on, all of which are in files; what a file lacks stays as it is, zero.
    /// `stored`: from the disk itself, not from memory.
    fn read_files(
        &self,
        offset: u64,
        bytes: &mut [u8],
        files: &Files,
        stored: bool,
    ) -> Result<(), QueuesError> {
        let end = offset + (bytes.len() / UNIT_BYTES) as u64;
        let mut rest = bytes;
        let mut at = offset;
        while at < end {
            let base = base_of(at);
            let until = end.min(end_of(base));
            let (part, behind) = rest.split_at_mut((until - at) as usize * UNIT_BYTES);
            let path = file_path(&self.dir, base);
            let file = if stored {
                files.disk().open(&path, OpenMode::Read)
            } else {
                files.open((self.serial, base), &path, OpenMode::ReadWrite)
            };
            // Units that the device has lost read as zeroes, which are no units: they are damaged (queues.I5).
            let read = file.and_then(|file| read_around_lost(&*file, part, place_of(at), stored));
            match read {
                Err(error) if error.kind() != std::io::ErrorKind::NotFound => {
                    return Err(QueuesError::io(path, "read units")(error));
                }
                _ => {}
            }
            rest = behind;
            at = until;
        }
        Ok(())
    }

    /// Writes the units of `offsets`.
    fn write_files(
        &self,
        offsets: Range<u64>,
        bytes: &[u8],
        mut open: impl FnMut(u64) -> Result<Arc<dyn DiskFile>, QueuesError>,
    ) -> Result<(), QueuesError> {
        each_file(offsets, bytes, |base, place, part| {
            let written = open(base)?.write_all_at(&[std::io::IoSlice::new(part)], place);
            written.map_err(|error| self.write_failed(base, error))
        })
    }

    fn decode<'a>(&self, offset: u64, bytes: &'a [u8]) -> impl Iterator<Item = Option<Unit>> + use<'a> {
        let (units, _) = bytes.as_chunks::<UNIT_BYTES>();
        let seed = self.seed;
        units.iter().zip(offset..).map(move |(bytes, offset)| Unit::decode(bytes, seed, offset))
    }

    fn write_failed(&self, base: u64, error: std::io::Error) -> QueuesError {
        let path = file_path(&self.dir, base);
        match is_full(&error) {
            true => QueuesError::DiskFull { path },
            false => QueuesError::io(path, "write units")(error),
        }
    }
}

/// Splits the units of `offsets` by file: its base, where in it they belong, and their bytes.
fn each_file(
    offsets: Range<u64>,
    bytes: &[u8],
    mut part: impl FnMut(u64, u64, &[u8]) -> Result<(), QueuesError>,
) -> Result<(), QueuesError> {
    let (mut at, mut rest) = (offsets.start, bytes);
    while at < offsets.end {
        let base = base_of(at);
        let until = offsets.end.min(end_of(base));
        let (units, behind) = rest.split_at((until - at) as usize * UNIT_BYTES);
        part(base, place_of(at), units)?;
        (at, rest) = (until, behind);
    }
    Ok(())
}

impl Tail {
    fn unwritten(&self) -> usize {
        (self.next - self.written) as usize * UNIT_BYTES
    }

    /// The bytes of units in memory.
    fn range(&self, from: u64, to: u64) -> &[u8] {
        let place = |offset: u64| (offset - self.start) as usize * UNIT_BYTES;
        if from == to { &[] } else { &self.bytes[place(from)..place(to)] }
    }

    /// Room for the units of `offsets`, those in memory copied there; the bytes before them are to come from files.
    fn copy(&self, offsets: Range<u64>) -> (Vec<u8>, usize) {
        let mut bytes = vec![0; (offsets.end - offsets.start) as usize * UNIT_BYTES];
        let from_memory = self.start.clamp(offsets.start, offsets.end);
        let split = (from_memory - offsets.start) as usize * UNIT_BYTES;
        bytes[split..].copy_from_slice(self.range(from_memory, offsets.end));
        (bytes, split)
    }

    /// Everything up to `written` is in files; the older part of it leaves memory.
    fn wrote(&mut self, written: u64) {
        self.written = written;
        self.flush_at = FLUSH_BYTES;
        let kept = ((self.next - written) as usize * UNIT_BYTES).max(KEPT_BYTES).min(self.bytes.len());
        let dropped = self.bytes.len() - kept;
        self.bytes.drain(..dropped);
        self.bytes.shrink_to(KEPT_BYTES + FLUSH_BYTES);
        self.start += (dropped / UNIT_BYTES) as u64;
    }
}
