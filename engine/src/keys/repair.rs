//! Building damaged blocks of a run again: their entries are looked for in the run's part of the log.
//!
//! Entries are in order, so those of a stretch of blocks are the least ones above the last entry of the block before. How
//! many they were is known: all blocks but a run's last one are full.

use std::collections::BTreeSet;
use std::io::IoSlice;
use std::ops::Range;
use std::sync::Arc;

use folio_protocol::message::Messages;

use super::block::{self, BLOCK_BYTES, BLOCK_ENTRIES};
use super::entry::{Entry, hashes};
use super::error::KeysError;
use super::run::Run;
use crate::disk::{Disk, OpenMode};
use crate::log::CommitLog;
use crate::record::Record;

/// Blocks that one pass over the log brings back at most: 4 MiB of entries.
const BLOCKS_MAX: u64 = 1024;

/// A stretch of damaged blocks whose entries are looked for.
pub(super) struct Repairing {
    pub(super) run: Arc<Run>,
    pub(super) blocks: Range<u64>,
    /// The entry before the first one of them.
    below: Option<Entry>,
    expected: usize,
    /// The entry of the log to read next.
    next: u64,
    found: BTreeSet<Entry>,
}

impl Repairing {
    /// The stretch around a damaged block; none when it is whole. The header is a stretch of its own.
    pub(super) fn begin(disk: &dyn Disk, run: Arc<Run>, block: u64) -> Result<Option<Repairing>, KeysError> {
        let all = run.header.blocks() + 1;
        // Where there is no file, all of its blocks are damaged.
        let reader = run.reader(disk).ok();
        let entries = |number| reader.as_ref().and_then(|reader| reader.block(number).ok());
        let whole = |number: u64| match number {
            0 => reader.as_ref().is_some_and(|reader| reader.damaged(0..1).is_empty()),
            number => entries(number).is_some(),
        };
        if block >= all || whole(block) {
            return Ok(None);
        }
        let mut blocks = block..block + 1;
        if block > 0 {
            while blocks.start > 1 && !whole(blocks.start - 1) {
                blocks.start -= 1;
            }
            let end = all.min(blocks.start + BLOCKS_MAX);
            blocks.end = (blocks.start + 1..end).find(|number| whole(*number)).unwrap_or(end);
        }
        let below = (blocks.start > 1).then(|| entries(blocks.start - 1)).flatten();
        let below = below.and_then(|entries| entries.last().copied());
        let before = blocks.start.saturating_sub(1) * BLOCK_ENTRIES as u64;
        let through = (blocks.end - 1) * BLOCK_ENTRIES as u64;
        let expected = (run.header.entries.min(through) - before.min(run.header.entries)) as usize;
        let next = run.id().0;
        drop(reader);
        Ok(Some(Repairing { run, blocks, below, expected, next, found: BTreeSet::new() }))
    }

    /// Reads about `bytes` more of the log. True when all of the run's part was read.
    pub(super) fn step(&mut self, log: &CommitLog, upto: u64, bytes: usize) -> Result<bool, KeysError> {
        let end = self.run.id().1;
        if self.expected == 0 || self.next >= end {
            return Ok(true);
        }
        let records = log.read(self.next, end.min(upto.saturating_add(1)), bytes)?;
        if records.is_empty() {
            return Err(self.missing());
        }
        for record in &records {
            self.take(record)?;
            self.next = record.header.index + 1;
        }
        Ok(self.next >= end)
    }

    fn take(&mut self, record: &Record) -> Result<(), KeysError> {
        if !record.header.kind.has_messages() {
            return Ok(());
        }
        let start = record.messages_position();
        for message in Messages::new(record.messages()) {
            let (at, message) =
                message.map_err(|source| KeysError::Message { position: record.position(), source })?;
            hashes(&message, |hash| {
                let entry = Entry { hash, position: start + at as u64 };
                if Some(entry) > self.below {
                    self.found.insert(entry);
                    if self.found.len() > self.expected {
                        self.found.pop_last();
                    }
                }
            });
        }
        Ok(())
    }

    fn missing(&self) -> KeysError {
        let (path, block) = (self.run.path.clone(), self.blocks.start);
        KeysError::Missing { path, block, found: self.found.len(), expected: self.expected }
    }

    /// Writes the blocks, durably. Returns how many.
    pub(super) fn finish(&self, disk: &dyn Disk) -> Result<usize, KeysError> {
        if self.found.len() != self.expected {
            return Err(self.missing());
        }
        let (run, path) = (self.run.header.run(), &self.run.path);
        let entries: Vec<Entry> = self.found.iter().copied().collect();
        let mut blocks = entries.chunks(BLOCK_ENTRIES).zip(self.blocks.clone());
        let bytes: Vec<u8> = match self.blocks.start {
            0 => self.run.header.encode().to_vec(),
            _ => blocks.by_ref().flat_map(|(entries, number)| block::encode(run, number, entries)).collect(),
        };
        let file = disk.open(path, OpenMode::Create).map_err(KeysError::io(path, "open"))?;
        let place = self.blocks.start * BLOCK_BYTES as u64;
        file.write_all_at(&[IoSlice::new(&bytes)], place).map_err(KeysError::io(path, "write"))?;
        if file.len().map_err(KeysError::io(path, "measure"))? != self.run.header.file_bytes() {
            file.set_len(self.run.header.file_bytes()).map_err(KeysError::io(path, "cut"))?;
        }
        file.sync_all().map_err(KeysError::io(path, "sync"))?;
        let dir = path.parent().unwrap_or(path);
        disk.sync_dir(dir).map_err(KeysError::io(dir, "sync the directory"))?;
        Ok((self.blocks.end - self.blocks.start) as usize)
    }
}
