//! Checkpoints: the state as of one record boundary, from which the log is replayed.
//!
//! There is the latest one (`checkpoint`), which makes a restart short, and one for each segment roll
//! (`snapshots/<20-digit position>`), which a new or lagging replica starts from together with the retained log. What
//! the state machine's part holds is not known here. Which file to fall back to when one is damaged is the caller's
//! choice; a damaged file is never taken for a missing one.
//!
//! A file is an envelope (table in `engine/src/envelope.rs`; magic `FoCP`, version 1) around the body (integers
//! little-endian):
//!
//! | offset | bytes | field |
//! |---|---|---|
//! | 0 | 1 | 1 if there is a last record, 0 at the start of a log |
//! | 1 | 7 | zero |
//! | 8 | 8 | its term |
//! | 16 | 8 | its index |
//! | 24 | 8 | position behind it |
//! | 32 | 4 | its header crc |
//! | 36 | 4 | bytes of the counters, `c` |
//! | 40 | c | next queue offsets, see [`crate::counters`] |
//! | 40 + c | | state of the state machine, opaque, to the end |
//!
//! Invariant `checkpoint.I1`: a file is replaced as a whole. After a power cut the latest checkpoint is the last one
//! whose save returned, or a newer one whose save was under way.

use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use bytes::Bytes;
use thiserror::Error;

use crate::counters::{CountersError, QueueCounters};
use crate::disk::{Disk, OpenMode, is_full, write_atomically};
pub use crate::envelope::EnvelopeError;
use crate::envelope::{ENVELOPE_BYTES, Envelope};
use crate::log::StampBase;
use crate::record::EntryId;

/// The largest file: 32 times what the metadata of a group may grow to, so that no checkpoint ever fails for its size.
pub const CHECKPOINT_BYTES_MAX: u64 = 4 << 30;

const ENVELOPE: Envelope = Envelope { magic: *b"FoCP", version: 1, what: "a checkpoint" };
const BODY_BYTES_MIN: usize = 40;

/// The state after some record.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Checkpoint {
    /// The record, and what the log needs to go on behind it.
    pub base: StampBase,
    /// The state machine's state after it; opaque here.
    pub state: Bytes,
}

/// Why a checkpoint could not be saved or loaded.
#[derive(Debug, Error)]
pub enum CheckpointError {
    /// Fatal for this file: it is not what was saved. Use an older snapshot, or one from a peer.
    #[error("the checkpoint {path} is damaged: {reason}")]
    Damaged {
        /// The file.
        path: PathBuf,
        /// What is wrong with it.
        reason: CheckpointDamage,
    },
    /// Refused: more than [`CHECKPOINT_BYTES_MAX`].
    #[error("the checkpoint {path} would take {bytes} bytes, {CHECKPOINT_BYTES_MAX} are allowed")]
    TooLarge {
        /// The file.
        path: PathBuf,
        /// Its size.
        bytes: u64,
    },
    /// The disk failed; transient if it is only full, see [`CheckpointError::is_disk_full`]. The file is the old one
    /// or the new one.
    #[error("cannot {doing} the checkpoint {path}")]
    Io {
        /// The file or directory.
        path: PathBuf,
        /// What was tried.
        doing: &'static str,
        /// What the disk said.
        source: io::Error,
    },
}

/// Why the bytes of a file are not the checkpoint that was expected.
#[derive(Debug, Clone, PartialEq, Eq, Error)]
pub enum CheckpointDamage {
    /// The file is not whole.
    #[error(transparent)]
    Envelope(#[from] EnvelopeError),
    /// Its body has so many bytes.
    #[error("its body has {0} bytes, less than {BODY_BYTES_MIN}")]
    BodyTooShort(usize),
    /// The byte that says whether there is a last record is neither 0 nor 1.
    #[error("it neither has nor lacks a last record")]
    LastRecord,
    /// Its counters reach past its end.
    #[error("its counters have {stated} bytes, {there} are there")]
    CountersCut {
        /// As the file says.
        stated: usize,
        /// Bytes of the rest of the file.
        there: usize,
    },
    /// Its counters are not readable.
    #[error(transparent)]
    Counters(#[from] CountersError),
    /// The file of a snapshot has the state at this other position.
    #[error("it holds the state at position {0}")]
    OtherPosition(u64),
    /// It has so many bytes, more than [`CHECKPOINT_BYTES_MAX`].
    #[error("it has {0} bytes, no checkpoint has")]
    TooLong(u64),
}

impl CheckpointError {
    /// Whether the disk was full.
    pub fn is_disk_full(&self) -> bool {
        matches!(self, CheckpointError::Io { source, .. } if is_full(source))
    }
}

impl Checkpoint {
    /// The bytes of a checkpoint's file; the layout is at the top of this module.
    pub fn encode(&self) -> Vec<u8> {
        let counters = self.base.counters.encode();
        let id = self.base.id.unwrap_or_default();
        let mut file = vec![0; ENVELOPE_BYTES];
        file.reserve(BODY_BYTES_MIN + counters.len() + self.state.len());
        file.extend([u8::from(self.base.id.is_some()), 0, 0, 0, 0, 0, 0, 0]);
        file.extend(id.term.to_le_bytes());
        file.extend(id.index.to_le_bytes());
        file.extend(self.base.position.to_le_bytes());
        file.extend(self.base.prev_crc.to_le_bytes());
        file.extend((counters.len() as u32).to_le_bytes());
        file.extend(counters);
        file.extend(&self.state);
        ENVELOPE.seal(&mut file);
        file
    }

    /// Reads the bytes of a checkpoint's file, or says what is wrong with them. The state is not copied.
    pub fn decode(file: &Bytes) -> Result<Checkpoint, CheckpointDamage> {
        ENVELOPE.open(file)?;
        decode_body(&file.slice(ENVELOPE_BYTES..))
    }
}

fn decode_body(body: &Bytes) -> Result<Checkpoint, CheckpointDamage> {
    let Some((fixed, rest)) = body.split_first_chunk::<BODY_BYTES_MIN>() else {
        return Err(CheckpointDamage::BodyTooShort(body.len()));
    };
    let word = |at: usize| {
        let mut bytes = [0; 8];
        bytes.copy_from_slice(&fixed[at..at + 8]);
        u64::from_le_bytes(bytes)
    };
    let id = match word(0) {
        0 => None,
        1 => Some(EntryId { term: word(8), index: word(16) }),
        _ => return Err(CheckpointDamage::LastRecord),
    };
    // The two 4-byte fields, read as one word.
    let (prev_crc, length) = (word(32) as u32, (word(32) >> 32) as usize);
    let Some(counters) = rest.get(..length) else {
        return Err(CheckpointDamage::CountersCut { stated: length, there: rest.len() });
    };
    let counters = QueueCounters::decode(counters)?;
    let base = StampBase { id, position: word(24), prev_crc, counters };
    Ok(Checkpoint { base, state: body.slice(BODY_BYTES_MIN + length..) })
}

/// The checkpoints of one group.
#[derive(Clone)]
pub struct Checkpoints {
    disk: Arc<dyn Disk>,
    latest: PathBuf,
    snapshots: PathBuf,
}

impl Checkpoints {
    /// The checkpoints in the directory `dir`, which must exist. What saves that a crash cut short have left is removed.
    pub fn open(disk: Arc<dyn Disk>, dir: &Path) -> Result<Checkpoints, CheckpointError> {
        let snapshots = dir.join("snapshots");
        disk.create_dir_all(&snapshots).map_err(failed(&snapshots, "create the directory of"))?;
        // The second for a snapshot whose save failed at the last step: it is seen, so it is to stay.
        for synced in [dir, &snapshots] {
            disk.sync_dir(synced).map_err(failed(synced, "sync the directory of"))?;
        }
        let checkpoints = Checkpoints { disk, latest: dir.join("checkpoint"), snapshots };
        for path in checkpoints.list()? {
            if path.extension().is_some_and(|extension| extension == "tmp") {
                checkpoints.remove(&path)?;
            }
        }
        Ok(checkpoints)
    }

    /// The latest checkpoint; `None` if none was ever saved.
    pub fn load_latest(&self) -> Result<Option<Checkpoint>, CheckpointError> {
        self.load(&self.latest)
    }

    /// Replaces the latest checkpoint, durably. Everything it speaks of is to be durable before.
    pub fn save(&self, checkpoint: &Checkpoint) -> Result<(), CheckpointError> {
        self.write(&self.latest, checkpoint)
    }

    /// Removes the latest checkpoint, durably: the next start begins at a snapshot, or at the start of the log.
    pub fn remove_latest(&self) -> Result<(), CheckpointError> {
        self.remove(&self.latest)?;
        let dir = self.latest.parent().unwrap_or(&self.latest);
        self.disk.sync_dir(dir).map_err(failed(dir, "sync the directory of"))
    }

    /// Saves a snapshot under its position, durably.
    pub fn save_snapshot(&self, checkpoint: &Checkpoint) -> Result<(), CheckpointError> {
        self.write(&self.snapshot_path(checkpoint.base.position), checkpoint)
    }

    /// The positions of all snapshots, ascending.
    pub fn snapshots(&self) -> Result<Vec<u64>, CheckpointError> {
        Ok(self.list()?.iter().filter_map(|path| parse_position(path)).collect())
    }

    /// The snapshot at a position, verified; `None` if there is none.
    pub fn load_snapshot(&self, position: u64) -> Result<Option<Checkpoint>, CheckpointError> {
        Ok(self.load_snapshot_file(position)?.map(|(checkpoint, _)| checkpoint))
    }

    /// The same with the bytes of its file.
    pub fn load_snapshot_file(&self, position: u64) -> Result<Option<(Checkpoint, Bytes)>, CheckpointError> {
        let path = self.snapshot_path(position);
        let Some(file) = self.read(&path)? else { return Ok(None) };
        let damaged = |reason| CheckpointError::Damaged { path: path.clone(), reason };
        let checkpoint = Checkpoint::decode(&file).map_err(damaged)?;
        if checkpoint.base.position != position {
            return Err(damaged(CheckpointDamage::OtherPosition(checkpoint.base.position)));
        }
        Ok(Some((checkpoint, file)))
    }

    /// A part of a snapshot's file as it is on the disk, not verified, and the bytes of the whole file; `None` if there is
    /// no such file.
    pub fn read_snapshot_part(
        &self,
        position: u64,
        offset: u64,
        bytes_max: usize,
    ) -> Result<Option<(u64, Bytes)>, CheckpointError> {
        let path = self.snapshot_path(position);
        let file = match self.disk.open(&path, OpenMode::Read) {
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
            opened => opened.map_err(failed(&path, "open"))?,
        };
        let total = file.len().map_err(failed(&path, "read"))?;
        let mut part = vec![0; (total.saturating_sub(offset) as usize).min(bytes_max)];
        let read = file.read_at(&mut part, offset).map_err(failed(&path, "read"))?;
        part.truncate(read);
        Ok(Some((total, part.into())))
    }

    /// The position of the newest snapshot that is not beyond `position`.
    pub fn newest_snapshot_at_or_below(&self, position: u64) -> Result<Option<u64>, CheckpointError> {
        Ok(self.snapshots()?.into_iter().take_while(|&at| at <= position).last())
    }

    /// Removes the snapshots below `position`; the one at it stays.
    pub fn remove_snapshots_below(&self, position: u64) -> Result<(), CheckpointError> {
        for at in self.snapshots()?.into_iter().take_while(|&at| at < position) {
            self.remove(&self.snapshot_path(at))?;
        }
        Ok(())
    }

    fn snapshot_path(&self, position: u64) -> PathBuf {
        self.snapshots.join(format!("{position:020}"))
    }

    fn list(&self) -> Result<Vec<PathBuf>, CheckpointError> {
        self.disk.list(&self.snapshots).map_err(failed(&self.snapshots, "list the directory of"))
    }

    fn remove(&self, path: &Path) -> Result<(), CheckpointError> {
        match self.disk.remove(path) {
            Err(error) if error.kind() != io::ErrorKind::NotFound => Err(failed(path, "remove")(error)),
            _ => Ok(()),
        }
    }

    fn write(&self, path: &Path, checkpoint: &Checkpoint) -> Result<(), CheckpointError> {
        let file = checkpoint.encode();
        if file.len() as u64 > CHECKPOINT_BYTES_MAX {
            return Err(CheckpointError::TooLarge { path: path.into(), bytes: file.len() as u64 });
        }
        write_atomically(&*self.disk, path, &file).map_err(failed(path, "save"))
    }

    fn load(&self, path: &Path) -> Result<Option<Checkpoint>, CheckpointError> {
        let damaged = |reason| CheckpointError::Damaged { path: path.into(), reason };
        self.read(path)?.map(|file| Checkpoint::decode(&file).map_err(damaged)).transpose()
    }

    /// The bytes of a file, no more than a checkpoint may have.
    fn read(&self, path: &Path) -> Result<Option<Bytes>, CheckpointError> {
        let file = match self.disk.open(path, OpenMode::Read) {
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
            opened => opened.map_err(failed(path, "open"))?,
        };
        let length = file.len().map_err(failed(path, "read"))?;
        if length > CHECKPOINT_BYTES_MAX {
            let reason = CheckpointDamage::TooLong(length);
            return Err(CheckpointError::Damaged { path: path.into(), reason });
        }
        let mut bytes = vec![0; length as usize];
        let read = file.read_at(&mut bytes, 0).map_err(failed(path, "read"))?;
        bytes.truncate(read);
        Ok(Some(bytes.into()))
    }
}

/// The position a snapshot's name stands for.
fn parse_position(path: &Path) -> Option<u64> {
    let name = path.file_name()?.to_str()?;
    if name.len() != 20 || !name.bytes().all(|byte| byte.is_ascii_digit()) {
        return None;
    }
    name.parse().ok()
}

fn failed(path: &Path, doing: &'static str) -> impl FnOnce(io::Error) -> CheckpointError {
    let path = path.to_path_buf();
    move |source| CheckpointError::Io { path, doing, source }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::disk::sim::{Fault, LoseAll, SeededChoice, SimDisk};

    fn sample(position: u64) -> Checkpoint {
        let mut counters = QueueCounters::new();
        counters.set("ab", 1, 258);
        let id = Some(EntryId { term: 2, index: 3 });
        let base = StampBase { id, position, prev_crc: 0x0a0b_0c0d, counters };
        Checkpoint { base, state: Bytes::from_static(b"state") }
    }

    fn open(disk: &SimDisk) -> Result<Checkpoints, CheckpointError> {
        Checkpoints::open(Arc::new(disk.clone()), Path::new("/"))
    }

    #[test]
    fn golden_bytes() {
        let mut golden = vec![b'F', b'o', b'C', b'P', 1, 0, 0, 0, 69, 0, 0, 0, 0, 0, 0, 0];
        golden.extend([0xb8, 0x7f, 0xac, 0x63, 0x2c, 0xd6, 0x91, 0xe8]);
        golden.extend([1, 0, 0, 0, 0, 0, 0, 0]);
        golden.extend([2, 0, 0, 0, 0, 0, 0, 0, 3, 0, 0, 0, 0, 0, 0, 0]);
        golden.extend([4, 0, 0, 0, 0, 0, 0, 0, 0x0d, 0x0c, 0x0b, 0x0a, 24, 0, 0, 0]);
        golden.extend([1, 0, 0, 0, 2, 0, b'a', b'b', 1, 0, 0, 0, 1, 0, 0, 0, 2, 1, 0, 0, 0, 0, 0, 0]);
        golden.extend(b"state");
        assert_eq!(sample(4).encode(), golden, "{:02x?}", sample(4).encode());
        assert_eq!(Checkpoint::decode(&golden.into()), Ok(sample(4)));
        let start = Checkpoint { base: StampBase::default(), state: Bytes::new() };
        assert_eq!(Checkpoint::decode(&start.encode().into()), Ok(start));
    }

    #[test]
    fn what_was_saved_is_loaded() {
        let checkpoints = open(&SimDisk::new()).unwrap();
        assert_eq!(checkpoints.load_latest().unwrap(), None);
        checkpoints.save(&sample(4)).unwrap();
        checkpoints.save(&sample(5)).unwrap();
        assert_eq!(checkpoints.load_latest().unwrap(), Some(sample(5)));
        assert!(checkpoints.snapshots().unwrap().is_empty());
        checkpoints.remove_latest().unwrap();
        checkpoints.remove_latest().unwrap();
        assert_eq!(checkpoints.load_latest().unwrap(), None);
    }

    #[test]
    fn snapshots_are_found_by_position_and_removed_from_below() {
        let checkpoints = open(&SimDisk::new()).unwrap();
        for position in [30, 4, 100] {
            checkpoints.save_snapshot(&sample(position)).unwrap();
        }
        assert_eq!(checkpoints.snapshots().unwrap(), [4, 30, 100]);
        let newest = [3, 4, 29, 30, 1000].map(|at| checkpoints.newest_snapshot_at_or_below(at).unwrap());
        assert_eq!(newest, [None, Some(4), Some(4), Some(30), Some(100)]);
        checkpoints.remove_snapshots_below(30).unwrap();
        assert_eq!(checkpoints.snapshots().unwrap(), [30, 100]);
        assert_eq!(checkpoints.load_snapshot(4).unwrap(), None);
        assert_eq!(checkpoints.load_snapshot(30).unwrap(), Some(sample(30)));
    }

    #[test]
    fn a_snapshots_file_is_read_in_parts() {
        let checkpoints = open(&SimDisk::new()).unwrap();
        assert_eq!(checkpoints.read_snapshot_part(4, 0, 10).unwrap(), None);
        checkpoints.save_snapshot(&sample(4)).unwrap();
        let whole = sample(4).encode();
        let total = whole.len() as u64;
        let part = |offset| checkpoints.read_snapshot_part(4, offset, 10).unwrap().unwrap();
        assert_eq!(part(0), (total, whole[..10].to_vec().into()));
        assert_eq!(part(total - 3), (total, whole[whole.len() - 3..].to_vec().into()));
        assert_eq!(part(total + 3), (total, Bytes::new()));
    }

    #[test]
    fn every_flipped_bit_and_every_cut_is_damage_that_names_the_file() {
        let disk = SimDisk::new();
        let checkpoints = open(&disk).unwrap();
        let path = Path::new("/checkpoint");
        let length = sample(4).encode().len() as u64;
        let damage = |what: &str| match checkpoints.load_latest() {
            Err(CheckpointError::Damaged { path: named, .. }) => assert_eq!(named, path),
            other => panic!("{what}: {other:?}"),
        };
        for at in 0..length {
            checkpoints.save(&sample(4)).unwrap();
            disk.flip_bit(path, at, at as u32 % 8).unwrap();
            damage(&format!("flip at {at}"));
            disk.open(path, OpenMode::ReadWrite).unwrap().set_len(at).unwrap();
            damage(&format!("cut at {at}"));
        }
        checkpoints.save_snapshot(&sample(4)).unwrap();
        disk.rename(
            Path::new("/snapshots/00000000000000000004"),
            Path::new("/snapshots/00000000000000000005"),
        )
        .unwrap();
        let error = checkpoints.load_snapshot(5).unwrap_err().to_string();
        assert!(error.contains("00005 is damaged: it holds the state at position 4"), "{error}");
    }

    #[test]
    fn i1_a_power_cut_leaves_the_last_saved_checkpoint_or_a_newer_one() {
        let mut cut = 0;
        loop {
            let disk = SimDisk::new();
            disk.cut_power_at(cut);
            let save = |position| open(&disk).and_then(|saved| saved.save(&sample(position))).is_ok();
            let saved = (1..4).take_while(|&position| save(position)).last().unwrap_or(0);
            for seed in 0..20 {
                let left = open(&disk.crash(&mut SeededChoice::new(seed))).unwrap();
                let found = left.load_latest().unwrap().map_or(0, |checkpoint| checkpoint.base.position);
                assert!(found == saved || found == saved + 1, "cut {cut} seed {seed}: {found} for {saved}");
            }
            if !disk.is_off() {
                return;
            }
            cut += 1;
        }
    }

    #[test]
    fn a_failing_disk_does_not_take_the_old_checkpoint_away() {
        for fault in [Fault::Eio, Fault::Enospc, Fault::ShortWrite, Fault::FailSync] {
            // Six operations, and one more to see a save without a fault.
            for op in 0..7 {
                let disk = SimDisk::new();
                let checkpoints = open(&disk).unwrap();
                checkpoints.save(&sample(1)).unwrap();
                disk.fail_at(disk.ops() + op, fault);
                let saved = checkpoints.save(&sample(2));
                if disk.faults_struck() > 0 {
                    let full = matches!(fault, Fault::Enospc | Fault::ShortWrite);
                    assert_eq!(saved.as_ref().unwrap_err().is_disk_full(), full);
                }
                for disk in [disk.kill(), disk.crash(&mut LoseAll)] {
                    let found = open(&disk).unwrap().load_latest().unwrap().unwrap();
                    assert!(
                        found == sample(2) || (saved.is_err() && found == sample(1)),
                        "{fault:?} at {op}"
                    );
                }
            }
        }
    }

    #[test]
    fn left_over_temporary_files_are_no_snapshots_and_go() {
        let disk = SimDisk::new();
        drop(open(&disk).unwrap());
        let path = Path::new("/snapshots/00000000000000000004.tmp");
        drop(disk.open(path, OpenMode::Create).unwrap());
        assert!(open(&disk).unwrap().snapshots().unwrap().is_empty());
        assert!(!disk.exists(path).unwrap());
    }
}
