//! The first block of a run's file: which part of the log the run is of.
//!
//! | offset | bytes | field (integers little-endian) |
//! |---|---|---|
//! | 0 | 4 | check, as of a block with number 0: see `block` |
//! | 4 | 4 | magic `FoKI` |
//! | 8 | 4 | version, 1 |
//! | 12 | 4 | zero |
//! | 16 | 8 | segment: position of its records by the size of a segment |
//! | 24 | 28 | the point of the log before the run |
//! | 52 | 28 | the point of the log behind it |
//! | 80 | 16 | store times of its messages, ms: the first and the last |
//! | 96 | 8 | entries |
//! | 104 | to 4096 | zero |
//!
//! A point of the log has 28 bytes: term (8), index of the next entry (8), position (8), crc of the record before (4). Next
//! index 0 is the point before the first entry.

use super::block::{self, BLOCK_BYTES, BLOCK_ENTRIES};
use super::memory::Times;
use crate::derived::LogPoint;
use crate::record::EntryId;

const MAGIC: [u8; 4] = *b"FoKI";
const VERSION: u32 = 1;

/// See the module.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Header {
    pub(super) segment: u64,
    pub(super) from: LogPoint,
    pub(super) to: LogPoint,
    pub(super) times: Times,
    pub(super) entries: u64,
}

impl Header {
    /// Blocks of entries, which follow the header.
    pub(super) fn blocks(&self) -> u64 {
        self.entries.div_ceil(BLOCK_ENTRIES as u64)
    }

    /// What tells the run's blocks from those of others.
    pub(super) fn run(&self) -> u64 {
        self.from.next_index()
    }

    /// Bytes of the whole file.
    pub(super) fn file_bytes(&self) -> u64 {
        (1 + self.blocks()) * BLOCK_BYTES as u64
    }

    pub(super) fn encode(&self) -> [u8; BLOCK_BYTES] {
        let mut out = Vec::with_capacity(BLOCK_BYTES);
        out.extend([0; 4]);
        out.extend(MAGIC);
        out.extend(VERSION.to_le_bytes());
        out.extend([0; 4]);
        out.extend(self.segment.to_le_bytes());
        encode_point(&self.from, &mut out);
        encode_point(&self.to, &mut out);
        out.extend(self.times.first.to_le_bytes());
        out.extend(self.times.last.to_le_bytes());
        out.extend(self.entries.to_le_bytes());
        let mut block = [0; BLOCK_BYTES];
        block[..out.len()].copy_from_slice(&out);
        block::seal(self.run(), 0, &mut block);
        block
    }

    /// The header in these bytes; none when it is damaged, or of another version.
    pub(super) fn decode(block: &[u8; BLOCK_BYTES]) -> Option<Header> {
        let mut reader = Reader(&block[4..]);
        if reader.array()? != MAGIC || u32::from_le_bytes(reader.array()?) != VERSION {
            return None;
        }
        let _zero: [u8; 4] = reader.array()?;
        let segment = reader.word()?;
        let (from, to) = (reader.point()?, reader.point()?);
        let times = Times { first: reader.word()? as i64, last: reader.word()? as i64 };
        let header = Header { segment, from, to, times, entries: reader.word()? };
        block::is_whole(header.run(), 0, block).then_some(header)
    }
}

fn encode_point(point: &LogPoint, out: &mut Vec<u8>) {
    out.extend(point.id.map_or(0, |id| id.term).to_le_bytes());
    out.extend(point.next_index().to_le_bytes());
    out.extend(point.position.to_le_bytes());
    out.extend(point.crc.to_le_bytes());
}

struct Reader<'a>(&'a [u8]);

impl Reader<'_> {
    fn array<const N: usize>(&mut self) -> Option<[u8; N]> {
        let (array, rest) = self.0.split_first_chunk()?;
        self.0 = rest;
        Some(*array)
    }

    fn word(&mut self) -> Option<u64> {
        self.array().map(u64::from_le_bytes)
    }

    fn point(&mut self) -> Option<LogPoint> {
        let (term, next, position) = (self.word()?, self.word()?, self.word()?);
        let crc = u32::from_le_bytes(self.array()?);
        let id = next.checked_sub(1).map(|index| EntryId { term, index });
        Some(LogPoint { id, position, crc })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn golden_bytes() {
        let header = Header {
            segment: 2,
            from: LogPoint::default(),
            to: LogPoint { id: Some(EntryId { term: 3, index: 4 }), position: 5, crc: 6 },
            times: Times { first: 7, last: 8 },
            entries: 300,
        };
        let block = header.encode();
        let mut golden = vec![b'F', b'o', b'K', b'I', 1, 0, 0, 0, 0, 0, 0, 0, 2, 0, 0, 0, 0, 0, 0, 0];
        golden.extend([0; 28]);
        golden.extend([3, 0, 0, 0, 0, 0, 0, 0, 5, 0, 0, 0, 0, 0, 0, 0, 5, 0, 0, 0, 0, 0, 0, 0, 6, 0, 0, 0]);
        golden.extend([7, 0, 0, 0, 0, 0, 0, 0, 8, 0, 0, 0, 0, 0, 0, 0, 44, 1, 0, 0, 0, 0, 0, 0, 0]);
        assert_eq!(block[4..4 + golden.len()], golden);
        assert_eq!(block[..4], [129, 128, 201, 179]);
        assert_eq!(Header::decode(&block), Some(header));
        assert_eq!((header.blocks(), header.file_bytes()), (2, 3 * 4096));
    }

    #[test]
    fn no_flipped_bit_passes() {
        let header = Header {
            segment: 0,
            from: LogPoint::default(),
            to: LogPoint::default(),
            times: Times::NONE,
            entries: 0,
        };
        for at in 0..200 {
            let mut block = header.encode();
            block[at] ^= 1;
            assert_eq!(Header::decode(&block), None, "{at}");
        }
    }
}
