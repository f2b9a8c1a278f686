//! The scrub: reads old records from the disk itself and checks them, so that rot is found while a peer can still mend it.
//!
//! It has no clock and no thread: who calls it decides how fast and how often.

use super::{CommitLog, ReadError};

/// How far a pass of the scrub has come.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Scrubbed {
    /// Where to go on: index and position of the next record. `None` at the end of the pass.
    pub next: Option<(u64, u64)>,
    /// Bytes read.
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
        while scrubbed.bytes < bytes {
            let (epoch, at, segment) = {
                let view = shared.view.lock();
                let first = view.segments.first().map(|live| live.first);
                // What was purged meanwhile is passed over.
                let at = scrubbed.next.filter(|next| first.is_some_and(|first| next.0 >= first.0)).or(first);
                let Some(at) = at.filter(|at| at.0 <= upto) else {
                    return Ok(Scrubbed { next: None, ..scrubbed });
                };
                // The first record of a segment says where it lies; elsewhere it is where the one before ended.
                let at =
                    view.segments.iter().map(|live| live.first).find(|first| first.0 == at.0).unwrap_or(at);
                let Some(live) = view.live_at(at.1, shared.config.segment_bytes) else {
                    return Ok(Scrubbed { next: None, ..scrubbed });
                };
                (view.epoch, at, live.segment)
            };
            scrubbed.next = Some(at);
            match segment.copied(at.1, at.0, shared.config.segment_bytes, true) {
                Ok(record) => {
                    scrubbed.bytes += record.frame().len() as u64;
                    scrubbed.next = Some((at.0 + 1, record.end()));
                }
                Err(error) => {
                    return match shared.noted(epoch, error) {
                        ReadError::Rot { .. } | ReadError::Misplaced { .. } => {
                            Ok(Scrubbed { damaged: true, ..scrubbed })
                        }
                        other => Err(other),
                    };
                }
            }
        }
        Ok(scrubbed)
    }

    /// Whether damage at `position` is still known.
    pub fn is_damaged(&self, position: u64) -> bool {
        self.inner.shared.damages.contains(position)
    }
}
