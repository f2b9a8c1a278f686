//! The writer's part of changes that take records away: truncation of the tail, purge of the front, reset of all.
//!
//! Each is a sequence of steps such that a crash between any two of them leaves a log that recovery accepts: the old one,
//! the new one, or (for a truncation) one that ends in between.

use std::io::{self, IoSlice};

use super::mark::Start;
use super::remove::Leaving;
use super::segment;
use super::writer::Writer;
use crate::disk::DiskFile;
use crate::record::EntryId;

/// Zeroes written at a time.
const ZERO_BYTES: usize = 1 << 20;

impl Writer {
    /// Ends the log at `end`. First the mark goes down, or recovery would take the missing records for rot (`log.I6`).
    pub(super) fn truncate(&mut self, end: u64, last: Option<EntryId>) -> io::Result<()> {
        self.mark.lower(end)?;
        let base = self.base_of(end);
        if !self.files.contains_key(&base) {
            // Back at its very start the log may go on in a segment that a purge has let go of.
            self.remover.finish()?;
        }
        if let Some(file) = self.files.get(&base) {
            let data_end = self.end.min(base + self.shared.config.segment_bytes);
            zero(&**file, end - base, data_end.saturating_sub(base))?;
            file.sync_data()?;
        }
        self.remove_segments(|other| other > base)?;
        self.zero_fill.forget_from(base + self.shared.config.segment_bytes);
        (self.end, self.last) = (end, last);
        Ok(())
    }

    /// Moves the front to `start`: first the new start is durable, then the segments below `keep` go, in their own time
    /// (`log.I10`).
    pub(super) fn purge(&mut self, start: Start, keep: u64) -> io::Result<()> {
        let mut file = self.shared.start.lock();
        if file.start() != start {
            file.save(&*self.shared.disk, start)?;
        }
        drop(file);
        if start.position >= self.end {
            (self.end, self.last) = (start.position, start.id);
            self.mark.raise(start.position)?;
        }
        let leaving = self.forget_segments(|base| base < keep);
        if !leaving.is_empty() {
            self.remover.add(leaving);
            self.prepare_next();
        }
        Ok(())
    }

    /// Empties the log. The epoch in the start file makes the mark and the old segments void in one step.
    pub(super) fn reset(&mut self, start: Start) -> io::Result<()> {
        self.shared.start.lock().save(&*self.shared.disk, start)?;
        // The new start may lie anywhere, also where a file still waits to be removed.
        self.remover.finish()?;
        self.remove_segments(|_| true)?;
        self.mark.put(start.epoch, start.position)?;
        (self.end, self.last) = (start.position, start.id);
        self.zero_fill.forget_from(start.position);
        self.preparer.want(self.base_of(start.position));
        Ok(())
    }

    /// Removes segment files, durably; readers that have one open may go on.
    fn remove_segments(&mut self, gone: impl Fn(u64) -> bool) -> io::Result<()> {
        let leaving = self.forget_segments(gone);
        for Leaving { base, .. } in &leaving {
            segment::remove(&*self.shared.disk, &self.shared.directory, *base)?;
        }
        if !leaving.is_empty() {
            self.shared.disk.sync_dir(&self.shared.directory)?;
            self.remover.empty(leaving.into_iter().filter_map(|left| left.file));
            self.prepare_next();
        }
        Ok(())
    }

    /// Lets go of segments, also of the one prepared for later if it is among them.
    fn forget_segments(&mut self, gone: impl Fn(u64) -> bool) -> Vec<Leaving> {
        let bases: Vec<u64> = self.files.keys().copied().filter(|&base| gone(base)).collect();
        let newest = self.files.last_key_value().map(|(&base, _)| base);
        if bases.is_empty() {
            return Vec::new();
        }
        let prepared =
            newest.map(|newest| newest + self.shared.config.segment_bytes).filter(|&base| gone(base));
        if prepared.is_some() {
            self.preparer.discard();
        }
        self.unreserved = self.unreserved.filter(|base| !bases.contains(base));
        let leave = |base| {
            self.dirty.remove(&base);
            Leaving { base, file: self.files.remove(&base) }
        };
        bases.into_iter().chain(prepared).map(leave).collect()
    }

    /// Has the segment after the newest made, unless it is there; called once no file of that name is to be removed. The one
    /// that had no room when the log was opened comes before it.
    fn prepare_next(&self) {
        if let Some((&newest, _)) = self.files.last_key_value() {
            self.preparer.want(self.unreserved.unwrap_or(newest + self.shared.config.segment_bytes));
        }
    }
}

/// Overwrites the bytes from `from` to `end` of a file with zero.
pub(super) fn zero(file: &dyn DiskFile, from: u64, end: u64) -> io::Result<()> {
    let zeroes = vec![0; ZERO_BYTES.min(end.saturating_sub(from) as usize)];
    let mut at = from;
    while at < end {
        let count = zeroes.len().min((end - at) as usize);
        file.write_all_at(&[IoSlice::new(&zeroes[..count])], at)?;
        at += count as u64;
    }
    Ok(())
}
