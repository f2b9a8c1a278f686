//! The filler: the zeroes behind the last record that fits a segment, up to the segment's end.
//!
//! It is part of no record, so no reader comes across it and no peer has to give it. All the same it is read: by whoever
//! compares or copies segments, and by a start whose log ends there, or whose durable mark is older. The scrub therefore
//! reads it with the records, and what a device has lost of it, or returns as something else than zero, is written again.
//!
//! Invariant `damage.I6`: the filler before a segment of the log reads as zero after a pass of the scrub. It is overwritten only
//! while the same records lie before and behind it.

use std::io::{self, IoSlice};
use std::ops::Range;

use super::bad_filler::BadFiller;
use super::error::{Refusal, WriteError};
use super::queue::{Change, Job};
use super::segment::{Segment, Unread};
use super::writer::Writer;
use super::{CommitLog, reads};
use crate::disk::{DiskFile, PAGE_BYTES};

/// Bytes read from the device at a time.
const STRETCH_BYTES: u64 = 1 << 20;

impl CommitLog {
    /// Checks the filler before the segment that begins with entry `first` at `base`, and has what is damaged written again.
    pub(super) fn scrub_filler(&self, epoch: u64, first: u64, base: u64) {
        let shared = &self.inner.shared;
        let Some(index) = first.checked_sub(1) else { return };
        let before = {
            let view = shared.view.lock();
            let at = view.segments.partition_point(|live| live.segment.base < base);
            at.checked_sub(1).and_then(|at| view.segments.get(at).cloned())
        };
        // It was dropped. Or the record before the filler is damaged: the next pass sees where it ends.
        let Some(before) = before.filter(|before| before.segment.base + shared.config.segment_bytes == base)
        else {
            return;
        };
        let Ok(last) = reads::header_of(shared, index) else { return };
        // A page that the record has a part in is repaired with the record.
        let from = match shared.damages.contains(last.position) {
            true => last.end().next_multiple_of(PAGE_BYTES).min(base),
            false => last.end(),
        };
        // The log was truncated since.
        if !(before.segment.base..=base).contains(&from) {
            return;
        }
        let places = match damaged(&before.segment, from..base) {
            Ok(places) if places.is_empty() => return,
            Ok(places) => places,
            Err(reason) => {
                return tracing::warn!(position = from, reason, "the filler of a segment is not read");
            }
        };
        tracing::error!(?places, "rot found in the filler of the commit log");
        let bad = BadFiller { base: before.segment.base, places, epoch };
        shared.push(Job::Change(
            Change::Blank(bad),
            Box::new(move |written| {
                if let Err(error) = written {
                    tracing::warn!(position = from, %error, "the filler of the commit log is not repaired yet");
                }
            }),
        ));
    }
}

/// What of a range is no zero on the device, or cannot be read, page by page.
fn damaged(segment: &Segment, range: Range<u64>) -> Result<Vec<Range<u64>>, String> {
    let mut places: Vec<Range<u64>> = Vec::new();
    let mut at = range.start;
    while at < range.end {
        let end = range.end.min((at / STRETCH_BYTES + 1) * STRETCH_BYTES);
        if !is_blank(segment, at..end)? {
            let mut page = at;
            while page < end {
                let next = end.min((page / PAGE_BYTES + 1) * PAGE_BYTES);
                if !is_blank(segment, page..next)? {
                    match places.last_mut().filter(|last| last.end == page) {
                        Some(last) => last.end = next,
                        None => places.push(page..next),
                    }
                }
                page = next;
            }
        }
        at = end;
    }
    Ok(places)
}

fn is_blank(segment: &Segment, range: Range<u64>) -> Result<bool, String> {
    let mut bytes = vec![0; (range.end - range.start) as usize];
    match segment.fill(range.start, &mut bytes, true) {
        Ok(()) => Ok(bytes.iter().all(|byte| *byte == 0)),
        Err(Unread::Lost) => Ok(false),
        Err(Unread::Io(reason)) => Err(reason),
    }
}

impl Writer {
    /// Writes damaged filler again, durably, and reads it back from the device. A failure changes nothing else (`damage.I3`).
    pub(super) fn blank(&mut self, bad: &BadFiller) -> Result<(), WriteError> {
        let end = bad.base + self.shared.config.segment_bytes;
        // damage.I6: what was truncated or purged meanwhile may be a record's place now, or nobody's.
        let same = self.shared.view.lock().epoch == bad.epoch && self.end > end;
        let Some(file) = self.files.get(&bad.base).filter(|_| same).cloned() else { return Ok(()) };
        // As before a repair: what else is not synced is the log's own, of which no failure may pass unseen.
        self.guarded(Writer::sync_data)?;
        for place in &bad.places {
            let written = overwrite(&*file, place.start - bad.base, (place.end - place.start) as usize);
            written.map_err(|error| Refusal::Io(error.to_string()))?;
            tracing::warn!(?place, "the filler of the commit log is written again");
        }
        Ok(())
    }
}

fn overwrite(file: &dyn DiskFile, offset: u64, length: usize) -> io::Result<()> {
    let mut bytes = vec![0; length];
    // One write: a page cannot be written in parts while it is lost.
    file.write_all_at(&[IoSlice::new(&bytes)], offset)?;
    file.sync_data()?;
    // damage.I4
    let read = file.read_stored_at(&mut bytes, offset)?;
    let is_blank = bytes[..read].iter().all(|byte| *byte == 0);
    if is_blank { Ok(()) } else { Err(io::Error::other("written, and something else was read back")) }
}
