//! The scrub: reads old records, and the filler between segments, from the disk itself and checks them, so that rot is found
//! while a peer can still mend it.
//!
//! It has no clock and no thread: who calls it decides how fast and how often.
//!
//! How far it has come is noted in the file `<dir>/scrubbed`, so that a start goes on there. It is an envelope (table in
//! `engine/src/envelope.rs`; magic `FoSc`, version 1) around the position, 8 bytes little-endian. It is a hint: lost or
//! damaged, the scrub begins anew.

use std::io;
use std::sync::Arc;

use super::reader::{Reader, Source};
use super::segment::Segment;
use super::shared::Shared;
use super::{CommitLog, ReadError};
use crate::disk::{OpenMode, write_atomically};
use crate::envelope::{ENVELOPE_BYTES, Envelope};

const NOTE: &str = "scrubbed";
const ENVELOPE: Envelope = Envelope { magic: *b"FoSc", version: 1, what: "a note of the scrub" };

/// Bytes read from the device at a time.
const STRETCH_BYTES: usize = 1 << 20;

/// How far a pass of the scrub has come.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Scrubbed {
    /// Where to go on: index and position of the next record. `None` at the end of the pass.
    pub next: Option<(u64, u64)>,
    /// Bytes of records read.
    pub bytes: u64,
    /// Whether the next record is damaged: noted, and to be mended before the scrub can go on behind it.
    pub damaged: bool,
}

impl CommitLog {
    /// Checks about `bytes` bytes of records, from `from` on or from the start of the log, up to entry `upto`, as they are on
    /// the disk (see [`crate::disk::DiskFile::read_stored_at`]).
    pub fn scrub(&self, from: Option<(u64, u64)>, upto: u64, bytes: u64) -> Result<Scrubbed, ReadError> {
        let shared = &self.inner.shared;
        let mut scrubbed = Scrubbed { next: from, bytes: 0, damaged: false };
        let mut reader: Option<(u64, Reader<'_>)> = None;
        while scrubbed.bytes < bytes {
            let Some((epoch, at, segment)) = self.scrub_place(scrubbed.next, upto) else {
                return Ok(Scrubbed { next: None, ..scrubbed });
            };
            scrubbed.next = Some(at);
            if at.1 == segment.base {
                self.scrub_filler(epoch, at.0, segment.base);
            }
            let same =
                |(of, reader): &(u64, Reader<'_>)| *of == epoch && reader.segment().base == segment.base;
            let opened = reader.take().filter(same);
            let (_, reader) = reader.insert(
                opened.unwrap_or_else(|| (epoch, Reader::new(shared, &segment, Source::Device, u64::MAX))),
            );
            match reader.record(at.1, at.0, STRETCH_BYTES) {
                Ok(record) => {
                    scrubbed.bytes += record.frame().len() as u64;
                    scrubbed.next = Some((at.0 + 1, record.end()));
                }
                Err(error) => match (shared.noted(epoch, error), shared.damages.stand_in(at.1, at.0)) {
                    // It could not be repaired yet: that is known, and shall not keep what is behind it from being read.
                    (ReadError::Rot { .. } | ReadError::Misplaced { .. }, Some(copy)) => {
                        scrubbed.bytes += copy.frame().len() as u64;
                        scrubbed.next = Some((at.0 + 1, copy.end()));
                    }
                    (ReadError::Rot { .. } | ReadError::Misplaced { .. }, None) => {
                        return Ok(Scrubbed { damaged: true, ..scrubbed });
                    }
                    (other, _) => return Err(other),
                },
            }
        }
        Ok(scrubbed)
    }

    /// Notes where the scrub is to go on after a restart; `None` when a pass is over.
    pub fn note_scrubbed(&self, next: Option<(u64, u64)>) -> io::Result<()> {
        let Shared { disk, directory, .. } = &*self.inner.shared;
        let path = directory.with_file_name(NOTE);
        let Some((_, position)) = next else {
            return if disk.exists(&path)? { disk.remove(&path) } else { Ok(()) };
        };
        let mut file = vec![0; ENVELOPE_BYTES];
        file.extend(position.to_le_bytes());
        ENVELOPE.seal(&mut file);
        write_atomically(&**disk, &path, &file)
    }

    /// Where the scrub of an earlier process is to go on: the first record of the segment it had come to, which is known to
    /// lie where it is said to be.
    pub fn scrub_goes_on(&self) -> Option<(u64, u64)> {
        let Shared { disk, directory, config, .. } = &*self.inner.shared;
        let file = disk.open(&directory.with_file_name(NOTE), OpenMode::Read).ok()?;
        let mut bytes = [0; ENVELOPE_BYTES + 8];
        let read = file.read_at(&mut bytes, 0).ok()?;
        let body = ENVELOPE.open(bytes.get(..read)?).ok()?;
        let position = u64::from_le_bytes(*body.first_chunk()?);
        let live = self.inner.shared.view.lock().live_at(position, config.segment_bytes)?;
        Some(live.first)
    }

    /// Where the scrub goes on: the epoch of the view, index and position, and the segment. `None` at the end.
    fn scrub_place(&self, next: Option<(u64, u64)>, upto: u64) -> Option<(u64, (u64, u64), Arc<Segment>)> {
        let view = self.inner.shared.view.lock();
        let first = view.segments.first().map(|live| live.first);
        // What was purged meanwhile is passed over.
        let at = next.filter(|next| first.is_some_and(|first| next.0 >= first.0)).or(first);
        let at = at.filter(|at| at.0 <= upto)?;
        // The first record of a segment says where it lies; elsewhere it is where the one before ended.
        let at = view.segments.iter().map(|live| live.first).find(|first| first.0 == at.0).unwrap_or(at);
        let live = view.live_at(at.1, self.inner.shared.config.segment_bytes)?;
        Some((view.epoch, at, live.segment))
    }

    /// Whether damage at `position` is still known.
    pub fn is_damaged(&self, position: u64) -> bool {
        self.inner.shared.damages.contains(position)
    }
}
