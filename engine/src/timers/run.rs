//! A run: entries in the order of their keys, in a file that never changes.
//!
//! The file `<dir>/timers/<20-digit number>` is blocks of entries (table in `engine/src/timers/entry.rs`), all but the last one full.
//! What else is to be known of it is in the list of runs (`engine/src/timers/list.rs`).

use std::io::IoSlice;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use folio_protocol::parked::TimerKey;
use parking_lot::Mutex;

use super::entry::{BLOCK_BYTES, BLOCK_ENTRIES, TimerEntry, put_block, take_block};
use super::error::TimersError;
use crate::disk::{Disk, DiskFile, OpenMode};

/// Bytes that are written at once.
const WRITE_BYTES: usize = 64 * BLOCK_BYTES;

/// What is known of a run without its file.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct RunFacts {
    pub(super) number: u64,
    /// Entries.
    pub(super) count: u64,
    /// The greatest key.
    pub(super) last: TimerKey,
    /// The lowest position, and the highest.
    pub(super) positions: (u64, u64),
    /// Entries at this position or further on are void: they are of a log that was given up.
    pub(super) limit: u64,
}

/// A run that can be read.
pub(super) struct Run {
    pub(super) facts: RunFacts,
    path: PathBuf,
    file: Arc<dyn DiskFile>,
    /// The first entry above a key, as it was asked for last.
    head: Mutex<Option<(TimerKey, Option<TimerEntry>)>>,
}

pub(super) fn path(dir: &Path, number: u64) -> PathBuf {
    dir.join(format!("{number:020}"))
}

impl Run {
    /// Opens the file of a run. Whether all its blocks are whole is seen when they are read.
    pub(super) fn open(disk: &dyn Disk, dir: &Path, facts: RunFacts) -> Result<Run, TimersError> {
        let path = path(dir, facts.number);
        let file = disk.open(&path, OpenMode::Read).map_err(TimersError::io(&path, "open"))?;
        let bytes = file.len().map_err(TimersError::io(&path, "measure"))?;
        let run = Run { facts, path, file, head: Mutex::default() };
        if bytes != run.blocks() * BLOCK_BYTES as u64 {
            return Err(TimersError::Damaged { path: run.path, block: bytes / BLOCK_BYTES as u64 });
        }
        Ok(run)
    }

    pub(super) fn blocks(&self) -> u64 {
        self.facts.count.div_ceil(BLOCK_ENTRIES as u64)
    }

    /// The entries of a block.
    fn block(&self, number: u64) -> Result<Vec<TimerEntry>, TimersError> {
        let mut bytes = vec![0; BLOCK_BYTES];
        let read = self.file.read_at(&mut bytes, number * BLOCK_BYTES as u64);
        let read = read.map_err(TimersError::io(&self.path, "read"))?;
        let whole = take_block(number, &bytes[..read]);
        whole.ok_or_else(|| TimersError::Damaged { path: self.path.clone(), block: number })
    }

    /// The first entry above a key. It is remembered: a key that rises step by step reads a block now and then.
    pub(super) fn head(&self, above: TimerKey) -> Result<Option<TimerEntry>, TimersError> {
        if above >= self.facts.last {
            return Ok(None);
        }
        let mut known = self.head.lock();
        if let Some((from, head)) = *known
            && from <= above
            && head.is_none_or(|head| head.key > above)
        {
            return Ok(head);
        }
        let head = self.cursor(above)?.next()?;
        *known = Some((above, head));
        Ok(head)
    }

    /// All entries above a key, in order.
    pub(super) fn cursor(self: &Run, above: TimerKey) -> Result<Cursor<'_>, TimersError> {
        // The first block whose last entry is above.
        let (mut low, mut high) = (0, if above >= self.facts.last { 0 } else { self.blocks() });
        let mut found = None;
        while low < high {
            let middle = low + (high - low) / 2;
            let entries = self.block(middle)?;
            if entries.last().is_some_and(|last| last.key > above) {
                high = middle;
                found = Some((middle, entries));
            } else {
                low = middle + 1;
            }
        }
        let Some((number, entries)) = found else {
            return Ok(Cursor { run: self, block: self.blocks(), entries: Vec::new(), at: 0 });
        };
        let at = entries.partition_point(|entry| entry.key <= above);
        Ok(Cursor { run: self, block: number + 1, entries, at })
    }

    /// Reads every block, to see whether all are whole.
    pub(super) fn verify(&self) -> Result<(), TimersError> {
        (0..self.blocks()).try_for_each(|number| self.block(number).map(drop))
    }
}

/// Goes through the entries of a run.
pub(super) struct Cursor<'a> {
    run: &'a Run,
    /// The next block to read.
    block: u64,
    entries: Vec<TimerEntry>,
    at: usize,
}

impl Cursor<'_> {
    pub(super) fn next(&mut self) -> Result<Option<TimerEntry>, TimersError> {
        loop {
            if let Some(entry) = self.entries.get(self.at) {
                self.at += 1;
                if entry.key.position < self.run.facts.limit {
                    return Ok(Some(*entry));
                }
                continue;
            }
            if self.block >= self.run.blocks() {
                return Ok(None);
            }
            (self.entries, self.at) = (self.run.block(self.block)?, 0);
            self.block += 1;
        }
    }
}

/// Writes a run, entry by entry, in the order of their keys.
pub(super) struct Writer {
    path: PathBuf,
    file: Arc<dyn DiskFile>,
    facts: RunFacts,
    entries: Vec<TimerEntry>,
    blocks: u64,
    unwritten: Vec<u8>,
    written: u64,
}

impl Writer {
    pub(super) fn new(disk: &dyn Disk, dir: &Path, number: u64) -> Result<Writer, TimersError> {
        let path = path(dir, number);
        let file = disk.open(&path, OpenMode::Create).map_err(TimersError::io(&path, "create"))?;
        // Of a sync that failed.
        file.set_len(0).map_err(TimersError::io(&path, "empty"))?;
        let facts = RunFacts {
            number,
            count: 0,
            last: TimerKey::default(),
            positions: (u64::MAX, 0),
            limit: u64::MAX,
        };
        Ok(Writer { path, file, facts, entries: Vec::new(), blocks: 0, unwritten: Vec::new(), written: 0 })
    }

    pub(super) fn push(&mut self, entry: TimerEntry) -> Result<(), TimersError> {
        let (low, high) = self.facts.positions;
        self.facts.positions = (low.min(entry.key.position), high.max(entry.key.position));
        self.facts.last = entry.key;
        self.facts.count += 1;
        self.entries.push(entry);
        if self.entries.len() == BLOCK_ENTRIES {
            self.end_block()?;
        }
        Ok(())
    }

    fn end_block(&mut self) -> Result<(), TimersError> {
        put_block(self.blocks, &self.entries, &mut self.unwritten);
        self.blocks += 1;
        self.entries.clear();
        if self.unwritten.len() >= WRITE_BYTES { self.write() } else { Ok(()) }
    }

    fn write(&mut self) -> Result<(), TimersError> {
        let written = self.file.write_all_at(&[IoSlice::new(&self.unwritten)], self.written);
        written.map_err(TimersError::io(&self.path, "write"))?;
        self.written += self.unwritten.len() as u64;
        self.unwritten.clear();
        Ok(())
    }

    /// Makes the run durable, but for its name; `None` if it has no entry.
    pub(super) fn finish(mut self) -> Result<Option<Run>, TimersError> {
        if !self.entries.is_empty() {
            self.end_block()?;
        }
        self.write()?;
        self.file.sync_all().map_err(TimersError::io(&self.path, "sync"))?;
        let Writer { path, file, facts, .. } = self;
        Ok((facts.count > 0).then(|| Run { facts, path, file, head: Mutex::default() }))
    }
}
