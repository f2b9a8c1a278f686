//! A little space that is kept back, so that small files can be replaced on a full disk.
//!
//! It is a file of a few MiB, reserved and never written. When a small file finds the disk full
//! ([`super::write_atomically`]), the reserve is given back and the write is tried once more: so checkpoints, snapshots
//! and notes can be written, and retention, which needs them, can make room. [`Reserve::refill`] makes it again where there
//! is room. While it is not whole the disk counts as full, and nothing that takes space for good may begin.
//!
//! It is not for what grows with use: log segments and consume queues wait for room.
//!
//! - `reserve.I1`: the reserve is whole only when its blocks are reserved, durably; a failed reservation keeps none.

use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use parking_lot::Mutex;

use super::{Disk, DiskFile, DiskLock, OpenMode, is_full, open_reserved};

/// Bytes that are kept back: some checkpoints of a group with ten thousand queues.
pub const RESERVE_BYTES: u64 = 4 << 20;

/// A disk with a reserve; see the module.
pub struct Reserve {
    disk: Arc<dyn Disk>,
    path: PathBuf,
    bytes: u64,
    /// Held while the file is made or removed.
    changing: Mutex<()>,
    whole: AtomicBool,
}

impl Reserve {
    /// The disk, with a reserve of `bytes` in the directory `dir`; there is none before [`Reserve::refill`].
    pub fn new(disk: Arc<dyn Disk>, dir: &Path, bytes: u64) -> Reserve {
        let (changing, whole) = Default::default();
        Reserve { disk, path: dir.join("reserve"), bytes, changing, whole }
    }

    /// Whether the reserve is there, all of it.
    pub fn is_whole(&self) -> bool {
        self.whole.load(Ordering::Acquire)
    }

    /// Makes the reserve, if there is room for all of it; whether it is whole now.
    pub fn refill(&self) -> io::Result<bool> {
        let _alone = self.changing.lock();
        if self.is_whole() {
            return Ok(true);
        }
        let made = open_reserved(&*self.disk, &self.path, self.bytes).and_then(|file| {
            file.sync_all()?;
            self.disk.sync_dir(self.path.parent().unwrap_or(&self.path))
        });
        match made {
            Ok(()) => {
                // reserve.I1
                self.whole.store(true, Ordering::Release);
                Ok(true)
            }
            Err(error) if is_full(&error) => {
                // What an earlier start has left of it.
                self.disk.remove(&self.path).ok();
                Ok(false)
            }
            Err(error) => Err(error),
        }
    }

    fn give_back(&self) -> bool {
        let _alone = self.changing.lock();
        if !self.whole.swap(false, Ordering::AcqRel) {
            return false;
        }
        let removed = self.disk.remove(&self.path);
        let (file, failed) = (self.path.display(), removed.as_ref().err());
        tracing::warn!(%file, failed = failed.map(tracing::field::display), "disk full: the reserve is given back");
        removed.is_ok()
    }
}

impl Disk for Reserve {
    fn create_dir_all(&self, path: &Path) -> io::Result<()> {
        self.disk.create_dir_all(path)
    }

    fn open(&self, path: &Path, mode: OpenMode) -> io::Result<Arc<dyn DiskFile>> {
        self.disk.open(path, mode)
    }

    fn list(&self, dir: &Path) -> io::Result<Vec<PathBuf>> {
        self.disk.list(dir)
    }

    fn remove(&self, path: &Path) -> io::Result<()> {
        self.disk.remove(path)
    }

    fn remove_dir_all(&self, path: &Path) -> io::Result<()> {
        self.disk.remove_dir_all(path)
    }

    fn rename(&self, from: &Path, to: &Path) -> io::Result<()> {
        self.disk.rename(from, to)
    }

    fn sync_dir(&self, dir: &Path) -> io::Result<()> {
        self.disk.sync_dir(dir)
    }

    fn exists(&self, path: &Path) -> io::Result<bool> {
        self.disk.exists(path)
    }

    fn lock(&self, path: &Path) -> io::Result<DiskLock> {
        self.disk.lock(path)
    }

    fn make_room(&self) -> bool {
        self.give_back()
    }
}

#[cfg(test)]
mod tests {
    use std::io::IoSlice;

    use super::super::sim::SimDisk;
    use super::super::write_atomically;
    use super::*;

    const BYTES: u64 = 64 << 10;

    fn fill(disk: &SimDisk) {
        disk.set_capacity(Some(disk.used()));
    }

    #[test]
    fn a_small_file_is_replaced_on_a_full_disk_and_the_reserve_comes_back_with_room() {
        let disk = SimDisk::new();
        let reserve = Reserve::new(Arc::new(disk.clone()), Path::new("/"), BYTES);
        write_atomically(&reserve, Path::new("/note"), b"old").unwrap();
        assert!(reserve.refill().unwrap() && reserve.is_whole());
        fill(&disk);
        write_atomically(&reserve, Path::new("/note"), b"new").unwrap();
        assert_eq!(disk.dump()[Path::new("/note")].as_deref(), Some(b"new".as_slice()));
        assert!(!reserve.is_whole());
        // What somebody else has taken meanwhile cannot be taken back.
        disk.open(Path::new("/other"), OpenMode::Create).unwrap().allocate(BYTES / 2).unwrap();
        let used = disk.used();
        assert!(!reserve.refill().unwrap() && !reserve.is_whole());
        assert_eq!(disk.used(), used, "reserve.I1: a failed reservation keeps no block");
        disk.set_capacity(None);
        assert!(reserve.refill().unwrap());
    }

    #[test]
    fn a_reserve_that_a_power_cut_left_is_made_whole() {
        let disk = SimDisk::new();
        let reserve = |disk: &SimDisk| Reserve::new(Arc::new(disk.clone()), Path::new("/"), BYTES);
        assert!(reserve(&disk).refill().unwrap());
        // As a failed reservation leaves it when the power goes.
        let file = disk.open(Path::new("/reserve"), OpenMode::ReadWrite).unwrap();
        file.set_len(BYTES / 2).unwrap();
        file.sync_all().unwrap();
        drop(file);
        let left = disk.crash(&mut super::super::sim::LoseAll);
        fill(&left);
        assert!(!reserve(&left).refill().unwrap());
        left.set_capacity(None);
        assert!(reserve(&left).refill().unwrap());
        assert_eq!(left.used(), BYTES);
        let whole = left.open(Path::new("/reserve"), OpenMode::ReadWrite).unwrap();
        fill(&left);
        whole.write_all_at(&[IoSlice::new(&[1; BYTES as usize])], 0).unwrap();
    }
}
