//! One consume queue: how far it reaches, and its newest units in memory.
//!
//! ```text
//!   offset   0 ...... min ........ start ..... written ...... next
//!            |  gone   |  file      |  file and memory | memory |
//! ```
//!
//! Readers take a shared lock to copy from memory, and read files without any lock: what lies below `start` never
//! changes. The applier writes files under a shared lock too, so it does not make readers wait for the disk.

use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::AtomicBool;

use parking_lot::RwLock;

use super::error::QueuesError;
use super::files::{Files, base_of, end_of, file_path, place_of};
use super::unit::{UNIT_BYTES, Unit};
use crate::disk::{DiskFile, OpenMode};

/// Unwritten bytes at which a queue is written: about a page, so that many messages cost one call.
pub(super) const FLUSH_BYTES: usize = 4080;
/// Written bytes kept in memory after that, for consumers that are just behind the newest message.
const KEPT_BYTES: usize = 1020;
/// Unwritten bytes a queue may hold while the disk is full (52,428 messages).
pub(super) const UNWRITTEN_BYTES_MAX: usize = 1 << 20;
/// Units handed out by one read (320 KiB of them); whoever wants more asks again.
pub const UNITS_PER_READ_MAX: usize = 16_384;

/// See the module.
pub(super) struct Queue {
    pub(super) topic: Arc<str>,
    pub(super) number: u32,
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
    /// It was not added: too much waits for a full disk.
    Full,
}

impl Queue {
    /// A queue that has `min..next` in its files and nothing in memory.
    pub(super) fn new(topic: Arc<str>, number: u32, serial: u64, dir: PathBuf, min: u64, next: u64) -> Queue {
        let tail = Tail { min, start: next, written: next, next, bytes: Vec::new(), flush_at: FLUSH_BYTES };
        Queue {
            topic,
            number,
            serial,
            dir,
            tail: RwLock::new(tail),
            listed: AtomicBool::new(false),
            placed: AtomicBool::new(false),
        }
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
            if tail.unwritten() >= UNWRITTEN_BYTES_MAX {
                return Ok(Pushed::Full);
            }
            tail.bytes.extend_from_slice(&unit.encode());
            tail.next += 1;
            return Ok(Pushed::Added { flush: tail.unwritten() >= tail.flush_at });
        }
        let (min, next) = (tail.min, tail.next);
        drop(tail);
        if offset > next {
            let (topic, queue) = (self.topic.clone(), self.number);
            return Err(QueuesError::Gap { topic, queue, next, stamped: offset, position: unit.position });
        }
        if offset >= min && self.read(offset, 1, files)? != [unit] {
            return Err(QueuesError::Changed { topic: self.topic.clone(), queue: self.number, offset });
        }
        Ok(Pushed::Known)
    }

    /// At most `max` units from `offset` on; none at or behind the next offset.
    pub(super) fn read(&self, offset: u64, max: usize, files: &Files) -> Result<Vec<Unit>, QueuesError> {
        let max = max.min(UNITS_PER_READ_MAX) as u64;
        let tail = self.tail.read();
        self.check_min(offset, tail.min)?;
        let end = tail.next.min(offset.saturating_add(max));
        if offset >= end {
            return Ok(Vec::new());
        }
        let mut bytes = vec![0; (end - offset) as usize * UNIT_BYTES];
        let from_memory = tail.start.clamp(offset, end);
        let split = (from_memory - offset) as usize * UNIT_BYTES;
        bytes[split..].copy_from_slice(tail.range(from_memory, end));
        drop(tail);
        let in_files = self.read_files(offset, &mut bytes[..split], files);
        if let Err(error) = in_files {
            // A file that retention has just removed is not a failure of the disk.
            self.check_min(offset, self.tail.read().min)?;
            return Err(error);
        }
        self.decode(offset, &bytes)
    }

    /// Writes what is not written yet. `open` opens the file with a base, to write to it.
    pub(super) fn flush(
        &self,
        mut open: impl FnMut(u64) -> Result<Arc<dyn DiskFile>, QueuesError>,
    ) -> Result<(), QueuesError> {
        let tail = self.tail.read();
        let mut at = tail.written;
        while at < tail.next {
            let base = base_of(at);
            let end = tail.next.min(end_of(base));
            let file = open(base)?;
            let bytes = std::io::IoSlice::new(tail.range(at, end));
            if let Err(error) = file.write_all_at(&[bytes], place_of(at)) {
                drop(tail);
                return Err(self.write_failed(base, error));
            }
            at = end;
        }
        drop(tail);
        self.tail.write().wrote(at);
        Ok(())
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

    /// Fills `bytes` with units from `offset` on, all of which are in files.
    fn read_files(&self, offset: u64, bytes: &mut [u8], files: &Files) -> Result<(), QueuesError> {
        let end = offset + (bytes.len() / UNIT_BYTES) as u64;
        let mut rest = bytes;
        let mut at = offset;
        while at < end {
            let base = base_of(at);
            let until = end.min(end_of(base));
            let (part, behind) = rest.split_at_mut((until - at) as usize * UNIT_BYTES);
            let path = file_path(&self.dir, base);
            let read = files
                .open((self.serial, base), &path, OpenMode::ReadWrite)
                .and_then(|file| file.read_at(part, place_of(at)))
                .map_err(QueuesError::io(path, "read units"))?;
            if read < part.len() {
                let offset = at + (read / UNIT_BYTES) as u64;
                return Err(QueuesError::Damaged { topic: self.topic.clone(), queue: self.number, offset });
            }
            rest = behind;
            at = until;
        }
        Ok(())
    }

    fn decode(&self, offset: u64, bytes: &[u8]) -> Result<Vec<Unit>, QueuesError> {
        let (units, _) = bytes.as_chunks::<UNIT_BYTES>();
        let decoded = units.iter().zip(offset..).map(|(bytes, offset)| {
            let damaged = || QueuesError::Damaged { topic: self.topic.clone(), queue: self.number, offset };
            Unit::decode(bytes).ok_or_else(damaged)
        });
        decoded.collect()
    }

    fn write_failed(&self, base: u64, error: std::io::Error) -> QueuesError {
        let path = file_path(&self.dir, base);
        if error.kind() != std::io::ErrorKind::StorageFull {
            return QueuesError::io(path, "write units")(error);
        }
        let mut tail = self.tail.write();
        tail.flush_at = tail.unwritten() + FLUSH_BYTES;
        QueuesError::DiskFull { path }
    }
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
