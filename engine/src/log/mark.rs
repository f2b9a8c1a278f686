//! The two small files that bound the log: `start`, where it begins, and `durable`, how far this node has acknowledged.
//!
//! Neither says where the log ends: recovery finds that. `durable` is a lower bound of it, by which a torn tail is told
//! from rot.
//!
//! `start` is replaced as a whole, integers little-endian:
//!
//! | offset | bytes | field |
//! |---|---|---|
//! | 0 | 4 | magic `FoSt` |
//! | 4 | 4 | version, 1 |
//! | 8 | 8 | epoch, counted up by each reset |
//! | 16 | 8 | position after the last purged record |
//! | 24 | 8 | its term |
//! | 32 | 8 | its index |
//! | 40 | 4 | its header crc |
//! | 44 | 4 | 1 when there is a purged record, else 0 and term, index and crc are 0 |
//! | 48 | 4 | crc32c of all before |
//!
//! The value in the slots of `durable`: epoch, position (8 bytes each). A mark of another epoch than the start's says
//! nothing: the log was reset in between.
//!
//! Invariants
//! - `mark.I1` The mark on disk never exceeds what is durable in the segments, through any crash.

use std::io;
use std::path::Path;

use super::error::{IoContext, OpenError};
use super::slots::Slots;
use crate::disk::{Disk, OpenMode, write_atomically};
use crate::record::EntryId;

const START_MAGIC: [u8; 4] = *b"FoSt";
const START_VERSION: u32 = 1;
const START_BYTES: usize = 52;
const MARK_MAGIC: [u8; 4] = *b"FoDu";

/// Where the log begins: the state after the last purged record.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub(super) struct Start {
    pub(super) epoch: u64,
    pub(super) id: Option<EntryId>,
    pub(super) position: u64,
    pub(super) prev_crc: u32,
}

impl Start {
    pub(super) fn load(disk: &dyn Disk, path: &Path) -> Result<Start, OpenError> {
        if !disk.exists(path).context("look for", path)? {
            return Ok(Start::default());
        }
        let mut bytes = [0; START_BYTES];
        let file = disk.open(path, OpenMode::Read).context("open", path)?;
        let read = file.read_at(&mut bytes, 0).context("read", path)?;
        let whole = read == START_BYTES && file.len().context("measure", path)? == START_BYTES as u64;
        whole.then(|| Start::decode(&bytes)).flatten().ok_or_else(|| OpenError::StateFile {
            file: path.to_owned(),
            reason: "it is not a whole start file".into(),
        })
    }

    pub(super) fn save(&self, disk: &dyn Disk, path: &Path) -> io::Result<()> {
        write_atomically(disk, path, &self.encode())
    }

    /// The index the first record must have; `None` when any will do.
    pub(super) fn first_index(&self) -> Option<u64> {
        self.id.map(|id| id.index + 1)
    }

    fn encode(&self) -> [u8; START_BYTES] {
        let id = self.id.unwrap_or_default();
        let mut bytes = [0; START_BYTES];
        bytes[..4].copy_from_slice(&START_MAGIC);
        bytes[4..8].copy_from_slice(&START_VERSION.to_le_bytes());
        bytes[8..16].copy_from_slice(&self.epoch.to_le_bytes());
        bytes[16..24].copy_from_slice(&self.position.to_le_bytes());
        bytes[24..32].copy_from_slice(&id.term.to_le_bytes());
        bytes[32..40].copy_from_slice(&id.index.to_le_bytes());
        bytes[40..44].copy_from_slice(&self.prev_crc.to_le_bytes());
        bytes[44..48].copy_from_slice(&u32::from(self.id.is_some()).to_le_bytes());
        let crc = crc32c::crc32c(&bytes[..48]);
        bytes[48..].copy_from_slice(&crc.to_le_bytes());
        bytes
    }

    fn decode(bytes: &[u8; START_BYTES]) -> Option<Start> {
        let u32_at = |at: usize| Some(u32::from_le_bytes(*bytes[at..].first_chunk()?));
        let u64_at = |at: usize| Some(u64::from_le_bytes(*bytes[at..].first_chunk()?));
        let sound = bytes[..4] == START_MAGIC && u32_at(4)? == START_VERSION;
        if !sound || crc32c::crc32c(&bytes[..48]) != u32_at(48)? {
            return None;
        }
        let id = EntryId { term: u64_at(24)?, index: u64_at(32)? };
        Some(Start {
            epoch: u64_at(8)?,
            id: (u32_at(44)? == 1).then_some(id),
            position: u64_at(16)?,
            prev_crc: u32_at(40)?,
        })
    }
}

/// The durable mark and its file.
pub(super) struct Mark {
    slots: Slots,
    epoch: u64,
    position: u64,
    dirty: bool,
}

impl Mark {
    /// Opens the file; a mark of another epoch counts as standing at the start.
    pub(super) fn open(disk: &dyn Disk, path: &Path, start: &Start) -> Result<Mark, OpenError> {
        let (slots, value) = Slots::open(disk, path, MARK_MAGIC)?;
        let field = |at: usize| Some(u64::from_le_bytes(*value.get(at..)?.first_chunk()?));
        let position = match (field(0), field(8)) {
            (Some(epoch), Some(position)) if epoch == start.epoch => position.max(start.position),
            _ => start.position,
        };
        Ok(Mark { slots, epoch: start.epoch, position, dirty: false })
    }

    /// What is known to be durable.
    pub(super) fn position(&self) -> u64 {
        self.position
    }

    /// Whether the last value may be lost in a crash.
    pub(super) fn is_dirty(&self) -> bool {
        self.dirty
    }

    /// Notes that everything up to `position` is durable. The note itself is not, until [`Mark::sync`].
    pub(super) fn raise(&mut self, position: u64) -> io::Result<()> {
        if position > self.position {
            self.position = position;
            self.dirty = true;
            self.slots.write(&self.encode())?;
        }
        Ok(())
    }

    /// Makes the note durable.
    pub(super) fn sync(&mut self) -> io::Result<()> {
        if self.dirty {
            self.slots.sync()?;
            self.dirty = false;
        }
        Ok(())
    }

    /// Takes the mark back, durable in both slots: an old higher value must not come back when a later write tears.
    pub(super) fn lower(&mut self, position: u64) -> io::Result<()> {
        if position < self.position {
            self.put(self.epoch, position)?;
        }
        Ok(())
    }

    /// Starts over after a reset, durable in both slots.
    pub(super) fn put(&mut self, epoch: u64, position: u64) -> io::Result<()> {
        (self.epoch, self.position, self.dirty) = (epoch, position, false);
        self.slots.write_both(&self.encode())
    }

    fn encode(&self) -> [u8; 16] {
        let mut value = [0; 16];
        value[..8].copy_from_slice(&self.epoch.to_le_bytes());
        value[8..].copy_from_slice(&self.position.to_le_bytes());
        value
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::disk::RealDisk;

    fn sample() -> Start {
        Start { epoch: 3, id: Some(EntryId { term: 2, index: 9 }), position: 4096, prev_crc: 0xdead_beef }
    }

    #[test]
    fn golden_bytes_of_the_start_file() {
        let bytes = sample().encode();
        assert_eq!(bytes[..16], [b'F', b'o', b'S', b't', 1, 0, 0, 0, 3, 0, 0, 0, 0, 0, 0, 0]);
        assert_eq!(bytes[16..32], [0, 16, 0, 0, 0, 0, 0, 0, 2, 0, 0, 0, 0, 0, 0, 0]);
        assert_eq!(bytes[32..48], [9, 0, 0, 0, 0, 0, 0, 0, 0xef, 0xbe, 0xad, 0xde, 1, 0, 0, 0]);
        assert_eq!(Start::decode(&bytes), Some(sample()));
    }

    #[test]
    fn a_damaged_start_file_is_refused_by_name() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("start");
        assert_eq!(Start::load(&RealDisk, &path).unwrap(), Start::default());
        sample().save(&RealDisk, &path).unwrap();
        assert_eq!(Start::load(&RealDisk, &path).unwrap(), sample());
        let mut bytes = std::fs::read(&path).unwrap();
        bytes[20] ^= 1;
        std::fs::write(&path, &bytes).unwrap();
        assert!(Start::load(&RealDisk, &path).unwrap_err().to_string().contains("start"));
        std::fs::write(&path, &bytes[..40]).unwrap();
        assert!(Start::load(&RealDisk, &path).is_err());
    }

    #[test]
    fn the_mark_is_read_back_unless_the_log_was_reset() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("durable");
        let open = |start: &Start| Mark::open(&RealDisk, &path, start).unwrap();
        let mut mark = open(&Start::default());
        assert_eq!(mark.position(), 0);
        mark.raise(500).unwrap();
        mark.raise(400).unwrap();
        assert_eq!((mark.position(), mark.is_dirty()), (500, true));
        mark.sync().unwrap();
        assert_eq!(open(&Start::default()).position(), 500);
        assert_eq!(open(&Start { epoch: 1, position: 70, ..Start::default() }).position(), 70);
        mark.lower(100).unwrap();
        assert_eq!(open(&Start::default()).position(), 100);
    }
}
