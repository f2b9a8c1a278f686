//! The two small files that bound the log: `start`, where it begins, and `durable`, how far this node has acknowledged.
//!
//! Neither says where the log ends: recovery finds that. `durable` is a lower bound of it, by which a torn tail is told
//! from rot.
//!
//! Both are files of two slots (table in `slots.rs`; magic `FoSs` and `FoDu`). The value of `start`, integers
//! little-endian:
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
//! Earlier versions wrote these 52 bytes as the whole file, and none before the first purge. Such a file is replaced by one
//! of slots when the log is opened, or as soon as there is room for that.
//!
//! The value in the slots of `durable`: epoch, position (8 bytes each). A mark of another epoch than the start's says
//! nothing: the log was reset in between.
//!
//! Invariants
//! - `mark.I1` The mark on disk never exceeds what is durable in the segments, through any crash.
//! - `mark.I2` A start is written into blocks that the file has, so a full disk does not keep the log from being purged; what
//!   cannot be written yet is refused before anything was changed.

use std::io;
use std::path::{Path, PathBuf};

use super::error::{IoContext, OpenError};
use super::slots::{self, Slots};
use crate::disk::{Disk, OpenMode, is_full, is_lost, read_again_if_lost, write_once};
use crate::planted;
use crate::record::EntryId;

const START_MAGIC: [u8; 4] = *b"FoSt";
const START_VERSION: u32 = 1;
const START_BYTES: usize = 52;
const START_SLOTS_MAGIC: [u8; 4] = *b"FoSs";
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

/// The file `start`.
pub(super) struct StartFile {
    path: PathBuf,
    /// What it says.
    start: Start,
    /// `None` while it is one of an earlier version, or missing.
    slots: Option<Slots>,
}

impl StartFile {
    /// Reads the file.
    pub(super) fn open(disk: &dyn Disk, path: &Path) -> Result<StartFile, OpenError> {
        let mut opened = StartFile { path: path.to_owned(), start: Start::default(), slots: None };
        if !disk.exists(path).context("look for", path)? {
            return Ok(opened);
        }
        let file = disk.open(path, OpenMode::Read).context("open", path)?;
        let length = file.len().context("measure", path)?;
        let mut bytes = [0; START_BYTES];
        let whole = if length == slots::FILE_BYTES {
            let (slots, value) = Slots::open(disk, path, START_SLOTS_MAGIC, true)?;
            opened.slots = Some(slots);
            value.len() == START_BYTES && {
                bytes.copy_from_slice(&value);
                true
            }
        } else {
            let read = match read_again_if_lost(&*file, &mut bytes, 0) {
                Err(error) if is_lost(&error) => 0,
                read => read.context("read", path)?,
            };
            read == START_BYTES && length == START_BYTES as u64
        };
        opened.start = whole.then(|| Start::decode(&bytes)).flatten().ok_or_else(|| {
            let reason = "it is not a whole start file".into();
            OpenError::StateFile { file: path.to_owned(), reason }
        })?;
        Ok(opened)
    }

    /// Where the log begins.
    pub(super) fn start(&self) -> Start {
        self.start
    }

    /// Whether it is one of slots.
    pub(super) fn has_space(&self) -> bool {
        self.slots.is_some()
    }

    /// Makes the file one of slots, if it is none (`mark.I2`).
    pub(super) fn prepare(&mut self, disk: &dyn Disk) -> io::Result<()> {
        if self.slots.is_some() || planted::is("purge-poisons") {
            return Ok(());
        }
        Slots::create(disk, &self.path, START_SLOTS_MAGIC, &self.start.encode())?;
        let (slots, _) = Slots::open(disk, &self.path, START_SLOTS_MAGIC, true).map_err(io::Error::other)?;
        self.slots = Some(slots);
        Ok(())
    }

    /// [`StartFile::prepare`] where there is room; false when there is none.
    pub(super) fn prepare_if_room(&mut self, disk: &dyn Disk) -> io::Result<bool> {
        match self.prepare(disk) {
            Err(error) if is_full(&error) => Ok(false),
            prepared => prepared.map(|()| true),
        }
    }

    /// Moves the start, durably, in both slots.
    pub(super) fn save(&mut self, disk: &dyn Disk, start: Start) -> io::Result<()> {
        if planted::is("purge-poisons") {
            self.slots = None;
            write_once(disk, &self.path, &start.encode())?;
        }
        self.prepare(disk)?;
        if let Some(slots) = &mut self.slots {
            slots.write_both(&start.encode())?;
        }
        self.start = start;
        Ok(())
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
        let (slots, value) = Slots::open(disk, path, MARK_MAGIC, false)?;
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
    use crate::disk::sim::{LoseAll, SimDisk};

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
    fn a_start_file_of_an_earlier_version_is_read_replaced_and_refused_by_name_when_damaged() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("start");
        let open = || StartFile::open(&RealDisk, &path);
        assert_eq!(open().unwrap().start(), Start::default());
        std::fs::write(&path, sample().encode()).unwrap();
        let mut file = open().unwrap();
        assert_eq!(file.start(), sample());
        file.prepare(&RealDisk).unwrap();
        assert_eq!(std::fs::metadata(&path).unwrap().len(), slots::FILE_BYTES);
        assert_eq!(open().unwrap().start(), sample());
        let mut bytes = sample().encode();
        bytes[20] ^= 1;
        std::fs::write(&path, bytes).unwrap();
        assert!(open().err().unwrap().to_string().contains("start"));
        std::fs::write(&path, &bytes[..40]).unwrap();
        assert!(open().is_err());
    }

    #[test]
    fn i2_a_start_is_saved_on_a_full_disk_and_one_that_cannot_be_prepared_changes_nothing() {
        let (disk, path) = (SimDisk::new(), Path::new("/start"));
        let mut file = StartFile::open(&disk, path).unwrap();
        disk.set_capacity(Some(0));
        assert!(!file.prepare_if_room(&disk).unwrap());
        assert_eq!((disk.used(), disk.exists(path).unwrap()), (0, false));
        disk.set_capacity(None);
        assert!(file.prepare_if_room(&disk).unwrap());
        disk.set_capacity(Some(0));
        file.save(&disk, sample()).unwrap();
        assert_eq!(StartFile::open(&disk.crash(&mut LoseAll), path).unwrap().start(), sample(), "mark.I2");
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
