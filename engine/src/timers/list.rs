//! The list of runs, and how far they hold the log: the small file that makes runs count.
//!
//! The file `<dir>/timers/index` is an envelope (table in `engine/src/envelope.rs`; magic `FoTX`, version 1) around this (integers
//! little-endian):
//!
//! | offset | bytes | field |
//! |---|---|---|
//! | 0 | 1 | 1 if an entry is before the point, else 0 |
//! | 1 | 8, 8 | term and index of the last entry before the point |
//! | 17 | 8 | position of the point: all parked messages before it are in the runs, unless they are not pending any more |
//! | 25 | 4 | crc of that entry's record |
//! | 29 | 8 | number of the next run |
//! | 37 | 16 | greatest key (due time, position) of what was left out of runs because it was not pending any more |
//! | 53 | 8 | what lies before this position was left out for the same reason |
//! | 61 | 56 each | for each run: number, entries, greatest key (due time, position), lowest and highest position, limit |

use std::io;
use std::path::Path;

use folio_protocol::parked::TimerKey;

use super::error::TimersError;
use super::point::{Gone, TimersPoint};
use super::run::RunFacts;
use crate::disk::{Disk, OpenMode, write_atomically};
use crate::envelope::{ENVELOPE_BYTES, Envelope};
use crate::record::EntryId;

const ENVELOPE: Envelope = Envelope { magic: *b"FoTX", version: 1, what: "a list of timer runs" };
/// Its file.
pub(super) const INDEX_FILE: &str = "index";

const HEAD_BYTES: usize = 61;
const RUN_BYTES: usize = 56;
/// What no list has: memory is taken for all of it.
const FILE_BYTES_MAX: u64 = 1 << 20;

/// See the module.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(super) struct List {
    pub(super) point: TimersPoint,
    pub(super) next: u64,
    /// What was left out of runs: up to this key, and before this position.
    pub(super) gone: Gone,
    pub(super) runs: Vec<RunFacts>,
}

impl List {
    pub(super) fn save(&self, disk: &dyn Disk, dir: &Path) -> Result<(), TimersError> {
        let path = dir.join(INDEX_FILE);
        write_atomically(disk, &path, &self.encode()).map_err(TimersError::io(&path, "replace"))
    }

    /// The list that was saved last; `None` if there is none, or it is not whole.
    pub(super) fn load(disk: &dyn Disk, dir: &Path) -> Option<List> {
        let file = disk.open(&dir.join(INDEX_FILE), OpenMode::Read).ok()?;
        let bytes = file.len().ok().filter(|bytes| *bytes <= FILE_BYTES_MAX)?;
        let mut read = vec![0; usize::try_from(bytes).ok()?];
        let whole: io::Result<usize> = file.read_at(&mut read, 0);
        if whole.ok()? != read.len() {
            return None;
        }
        List::decode(ENVELOPE.open(&read).ok()?)
    }

    fn encode(&self) -> Vec<u8> {
        let List { point: TimersPoint { id, position, crc }, next, gone, runs } = self;
        let (is_some, id) = (u8::from(id.is_some()), id.unwrap_or_default());
        let mut out = vec![0; ENVELOPE_BYTES];
        out.push(is_some);
        out.extend([id.term, id.index, *position].map(u64::to_le_bytes).concat());
        out.extend(crc.to_le_bytes());
        let gone = [gone.watermark.due_ms, gone.watermark.position, gone.start];
        out.extend(next.to_le_bytes());
        out.extend(gone.map(u64::to_le_bytes).concat());
        for RunFacts { number, count, last, positions: (low, high), limit } in runs {
            let fields = [*number, *count, last.due_ms, last.position, *low, *high, *limit];
            out.extend(fields.map(u64::to_le_bytes).concat());
        }
        ENVELOPE.seal(&mut out);
        out
    }

    fn decode(body: &[u8]) -> Option<List> {
        let (head, runs) = body.split_at_checked(HEAD_BYTES)?;
        let long = |bytes: &[u8], at: usize| Some(u64::from_le_bytes(*bytes.get(at..)?.first_chunk()?));
        let id = EntryId { term: long(head, 1)?, index: long(head, 9)? };
        let crc = u32::from_le_bytes(*head.get(25..)?.first_chunk()?);
        let point = TimersPoint { id: (head[0] == 1).then_some(id), position: long(head, 17)?, crc };
        if !runs.len().is_multiple_of(RUN_BYTES) {
            return None;
        }
        let facts = |bytes: &[u8]| {
            Some(RunFacts {
                number: long(bytes, 0)?,
                count: long(bytes, 8).filter(|count| *count > 0)?,
                last: TimerKey { due_ms: long(bytes, 16)?, position: long(bytes, 24)? },
                positions: (long(bytes, 32)?, long(bytes, 40)?),
                limit: long(bytes, 48)?,
            })
        };
        let runs = runs.chunks_exact(RUN_BYTES).map(facts).collect::<Option<_>>()?;
        let watermark = TimerKey { due_ms: long(head, 37)?, position: long(head, 45)? };
        let gone = Gone { watermark, start: long(head, 53)? };
        Some(List { point, next: long(head, 29)?, gone, runs })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn golden_bytes_of_a_list() {
        let last = TimerKey { due_ms: 5, position: 6 };
        let runs = vec![RunFacts { number: 3, count: 4, last, positions: (7, 8), limit: 9 }];
        let id = Some(EntryId { term: 1, index: 2 });
        let gone = Gone { watermark: TimerKey { due_ms: 13, position: 14 }, start: 15 };
        let list = List { point: TimersPoint { id, position: 10, crc: 11 }, next: 12, gone, runs };
        let mut body = vec![1];
        body.extend([1_u64, 2, 10].map(u64::to_le_bytes).concat());
        body.extend(11_u32.to_le_bytes());
        body.extend([12_u64, 13, 14, 15, 3, 4, 5, 6, 7, 8, 9].map(u64::to_le_bytes).concat());
        assert_eq!(list.encode()[ENVELOPE_BYTES..], body);
        assert_eq!(List::decode(&body), Some(list));
        for cut in (0..body.len()).filter(|cut| *cut != HEAD_BYTES) {
            assert_eq!(List::decode(&body[..cut]), None, "cut at {cut}");
        }
    }
}
