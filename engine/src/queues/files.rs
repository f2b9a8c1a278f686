//! The files of consume queues: their names, and a bounded number of them open.
//!
//! `<root>/<topic>/<queue>/<position of the file's first byte, 20 digits>`, where position counts the bytes of all
//! units of the queue since offset 0. A file holds [`UNITS_PER_FILE`] units and is as long as what was written to it.

use std::collections::HashMap;
use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use parking_lot::Mutex;

use super::unit::UNIT_BYTES;
use crate::disk::{Disk, DiskFile, OpenMode};

/// Units in one file, as in RocketMQ.
pub const UNITS_PER_FILE: u64 = 300_000;
/// Bytes of a full file.
pub(super) const FILE_BYTES: u64 = UNITS_PER_FILE * UNIT_BYTES as u64;
/// Of the files that the process may have open, one of this many is kept open for reading and writing: 128 of the usual
/// 1,024. Half of all go to clients' connections at most, the rest has to do for the log.
const OPEN_FILES_SHARE: usize = 8;
/// Likewise files that are written to between two syncs, each held open. Beyond it they are synced early, while appliers
/// wait, so that a group with very many busy queues does not run out of open files.
const UNSYNCED_FILES_SHARE: usize = 4;
/// The system's limit as far as it is made use of.
const LIMIT_MAX: usize = 1 << 16;

/// The first position of the file that holds a unit.
pub(super) fn base_of(offset: u64) -> u64 {
    offset / UNITS_PER_FILE * FILE_BYTES
}

/// The first offset behind a file.
pub(super) fn end_of(base: u64) -> u64 {
    (base / FILE_BYTES + 1) * UNITS_PER_FILE
}

/// Where in its file a unit lies.
pub(super) fn place_of(offset: u64) -> u64 {
    offset % UNITS_PER_FILE * UNIT_BYTES as u64
}

pub(super) fn file_path(queue_dir: &Path, base: u64) -> PathBuf {
    queue_dir.join(format!("{base:020}"))
}

/// The base a file name stands for; `None` for what is no file of a queue.
pub(super) fn parse_base(path: &Path) -> Option<u64> {
    let name = path.file_name()?.to_str()?;
    let base: u64 = name.parse().ok()?;
    (name.len() == 20 && base.is_multiple_of(FILE_BYTES)).then_some(base)
}

/// Names a file in the cache: the queue's serial number and the file's base.
pub(super) type FileKey = (u64, u64);

/// Open files, the least recently used closed when there are too many.
pub(super) struct Files {
    disk: Arc<dyn Disk>,
    open: Mutex<Open>,
    /// Files that the process may have open.
    limit: usize,
    /// The disk had no room for units, or for the tails; since then nothing has shown that it has some.
    full: AtomicBool,
}

#[derive(Default)]
struct Open {
    files: HashMap<FileKey, (Arc<dyn DiskFile>, u64)>,
    clock: u64,
    /// Counts files that were closed because another one may have their name now.
    closed: u64,
}

impl Files {
    pub(super) fn new(disk: Arc<dyn Disk>) -> Files {
        let limit = rustix::process::getrlimit(rustix::process::Resource::Nofile).current;
        let limit = limit.and_then(|limit| usize::try_from(limit).ok()).unwrap_or(LIMIT_MAX).min(LIMIT_MAX);
        Files { disk, open: Mutex::default(), limit, full: AtomicBool::new(false) }
    }

    /// Files that may be written to between two syncs without being synced.
    pub(super) fn unsynced_max(&self) -> usize {
        self.limit / UNSYNCED_FILES_SHARE
    }

    /// Whether the disk is full, as far as is known.
    pub(super) fn is_full(&self) -> bool {
        self.full.load(Ordering::Acquire)
    }

    /// Notes that the disk is full, or has room.
    pub(super) fn note_full(&self, full: bool) {
        if self.full.swap(full, Ordering::AcqRel) != full {
            match full {
                true => tracing::warn!("disk full: consume queues cannot grow, new units wait in memory"),
                false => tracing::info!("consume queues grow again: the disk has room"),
            }
        }
    }

    pub(super) fn disk(&self) -> &dyn Disk {
        &*self.disk
    }

    /// An open file if it is in the cache.
    pub(super) fn cached(&self, key: FileKey) -> Option<Arc<dyn DiskFile>> {
        let mut open = self.open.lock();
        open.clock += 1;
        let clock = open.clock;
        let (file, used) = open.files.get_mut(&key)?;
        *used = clock;
        Some(file.clone())
    }

    /// The file, opened if it is not yet. `mode` says whether it may be created.
    pub(super) fn open(&self, key: FileKey, path: &Path, mode: OpenMode) -> io::Result<Arc<dyn DiskFile>> {
        if let Some(file) = self.cached(key) {
            return Ok(file);
        }
        let closed = self.open.lock().closed;
        let file = self.disk.open(path, mode)?;
        let mut open = self.open.lock();
        if open.closed != closed {
            // It may be one that was replaced meanwhile: good for this one caller, who began before.
            return Ok(file);
        }
        if open.files.len() >= (self.limit / OPEN_FILES_SHARE).max(1) {
            open.close_oldest();
        }
        open.clock += 1;
        let clock = open.clock;
        open.files.insert(key, (file.clone(), clock));
        Ok(file)
    }

    pub(super) fn close(&self, key: FileKey) {
        let mut open = self.open.lock();
        open.closed += 1;
        open.files.remove(&key);
    }

    pub(super) fn close_all(&self) {
        self.open.lock().files.clear();
    }
}

impl Open {
    /// Closes a quarter, so that the search for the oldest is paid once for many files.
    fn close_oldest(&mut self) {
        let mut ages: Vec<u64> = self.files.values().map(|(_, used)| *used).collect();
        let quarter = ages.len() / 4;
        let (_, limit, _) = ages.select_nth_unstable(quarter);
        let limit = *limit;
        self.files.retain(|_, (_, used)| *used > limit);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::disk::sim::SimDisk;

    #[test]
    fn names_and_places_agree_at_the_edge_of_a_file() {
        assert_eq!((base_of(299_999), place_of(299_999)), (0, 5_999_980));
        assert_eq!((base_of(300_000), place_of(300_000)), (6_000_000, 0));
        assert_eq!((end_of(0), end_of(6_000_000)), (300_000, 600_000));
        let path = file_path(Path::new("q"), 6_000_000);
        assert_eq!(path, Path::new("q/00000000000006000000"));
        assert_eq!(parse_base(&path), Some(6_000_000));
        for other in ["q/6000000", "q/00000000000006000001", "q/0000000000000600000x", "q/.."] {
            assert_eq!(parse_base(Path::new(other)), None, "{other}");
        }
    }

    #[test]
    fn the_number_of_open_files_is_bounded_and_the_recent_ones_stay() {
        let disk = SimDisk::new();
        let files = Files { limit: 1024, ..Files::new(Arc::new(disk)) };
        for serial in 0..1000 {
            files.open((serial, 0), Path::new(&format!("/{serial}")), OpenMode::Create).unwrap();
            files.cached((0, 0)).unwrap();
            assert!(files.open.lock().files.len() <= 128);
        }
        assert!(files.cached((999, 0)).is_some() && files.cached((1, 0)).is_none());
    }
}
