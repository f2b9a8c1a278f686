//! A disk in memory that can lose, tear and refuse what a real one might: the ground of all crash tests.
//!
//! It is deterministic: the same calls in the same order with the same choices give the same bytes. It is not fast, and
//! knows nothing of permissions or links.
//!
//! What is durable
//! - Bytes and length of a file: what was there at its last successful sync. Every later write, allocation and change
//!   of length is kept, lost or (a write) torn at a sector of 512 bytes, each by a choice of its own.
//! - Names: what the last sync of their directory saw. Of the later changes of a directory a power cut keeps the first
//!   few, in order; which directories keep how many is independent. A file whose name is lost is lost.
//! - A failed sync of a file gives its unsynced bytes up: they can still be read, and the next sync succeeds without
//!   making them durable, as on Linux.
//!
//! What a full disk refuses, as seen on ext4 (a loop device of 16 MiB, kernel 6.18)
//! - A reservation that fails keeps every free block it got, and the length that goes with them.
//! - A write into a hole or behind the blocks of a file takes blocks, and is short where they end; a write over blocks that
//!   were reserved or written takes none, and neither does reserving them again.
//! - A directory takes a block, and one more when its names fill what it has; a new empty file, a removal, a rename over
//!   another name, and any change of length take none. What is shortened or removed gives its blocks back.
//!
//! Operations that change the disk are numbered from 0 ([`SimDisk::ops`]); reads have numbers of their own.

mod choice;
mod content;
mod extents;
mod file;
mod names;
mod operation;
mod pages;
mod state;
#[cfg(test)]
mod tests;

use std::collections::BTreeMap;
use std::io;
use std::ops::Range;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use parking_lot::Mutex;

use super::{Disk, DiskFile, DiskLock, OpenMode};
use file::SimFile;
use names::Node;
use state::State;

pub use choice::{CrashChoice, EveryChoice, KeepAll, LoseAll, SECTOR_BYTES, SeededChoice, WriteFate};
pub use operation::{Fault, Operation};

/// A simulated disk; a clone is another handle to the same disk.
#[derive(Clone, Default)]
pub struct SimDisk {
    state: Arc<Mutex<State>>,
}

impl SimDisk {
    /// An empty disk without a limit, with only the root directory.
    pub fn new() -> SimDisk {
        SimDisk::default()
    }

    /// A new disk, as this one may look after a power cut now.
    pub fn crash(&self, choice: &mut dyn CrashChoice) -> SimDisk {
        SimDisk::from(self.state.lock().crash(choice))
    }

    /// A new disk, as this one looks after the process was killed now: everything written is there, locks are free,
    /// and what was not synced still is not.
    pub fn kill(&self) -> SimDisk {
        SimDisk::from(self.state.lock().kill())
    }

    /// How many operations there were.
    pub fn ops(&self) -> usize {
        self.state.lock().history.len()
    }

    /// How many reads there were.
    pub fn reads(&self) -> usize {
        self.state.lock().reads
    }

    /// All operations so far.
    pub fn history(&self) -> Vec<Operation> {
        self.state.lock().history.clone()
    }

    /// Makes the operation with this number fail, if it is one that can have the fault.
    pub fn fail_at(&self, op: usize, fault: Fault) {
        self.state.lock().faults.insert(op, fault);
    }

    /// Lets so many operations on a path, or below it, happen, and makes the next one that can have the fault fail. For
    /// disks that other threads use too: an operation's number depends on them.
    pub fn fail_on(&self, path: &Path, before: usize, fault: Fault) {
        self.state.lock().faults_on.push((path.into(), before, fault));
    }

    /// Makes the read with this number fail with EIO.
    pub fn fail_read_at(&self, read: usize) {
        self.state.lock().read_faults.insert(read);
    }

    /// Loses bytes of a file, like a bad sector: reads fail with EIO until all of them are written again, with one write. A
    /// restart does not bring them back.
    pub fn lose(&self, path: &Path, bytes: Range<u64>) -> io::Result<()> {
        let mut state = self.state.lock();
        let file = state.file_at(path)?;
        state.lost.push((file, bytes));
        Ok(())
    }

    /// Lost bytes come back with each write that covers a part of them, as with a disk that is written in sectors and read
    /// in pages: no byte of a page can be read until all of it is back.
    pub fn bring_back_in_parts(&self) {
        self.state.lock().in_parts = true;
    }

    /// Lost bytes of files that still have a name.
    pub fn lost(&self) -> Vec<(PathBuf, Range<u64>)> {
        let state = self.state.lock();
        let named = state.names.iter().filter_map(|(path, node)| match node {
            Node::File(file) => Some((file, path)),
            Node::Directory => None,
        });
        let of = |file: u64| state.lost.iter().filter(move |(of, _)| *of == file);
        named.flat_map(|(file, path)| of(file).map(|(_, bytes)| (path.clone(), bytes.clone()))).collect()
    }

    /// Takes back what was planned and has not struck yet.
    pub fn forget_faults(&self) {
        let mut state = self.state.lock();
        state.faults.clear();
        state.faults_on.clear();
        state.read_faults.clear();
        (state.power_cut_at, state.power_cut_after) = (None, None);
    }

    /// From now on every sync says that it succeeded and makes nothing durable: a disk without which no crash test can
    /// show that it would notice one.
    pub fn lie_about_syncs(&self) {
        self.state.lock().lying = true;
    }

    /// Whether syncs hang from now on: each waits, with its thread, until they do not.
    pub fn hang_syncs(&self, hanging: bool) {
        self.state.lock().hanging = hanging;
    }

    /// How many planned faults have struck.
    pub fn faults_struck(&self) -> usize {
        self.state.lock().faults_struck
    }

    /// Cuts the power before the operation with this number: it and all that follow, reads as well, fail and change
    /// nothing. [`SimDisk::crash`] then tells what the disk may look like.
    pub fn cut_power_at(&self, op: usize) {
        self.state.lock().power_cut_at = Some(op);
    }

    /// Cuts the power so many operations after the next write to this file.
    pub fn cut_power_after_write(&self, path: &Path, operations: usize) {
        self.state.lock().power_cut_after = Some((path.into(), operations));
    }

    /// Whether the power was cut.
    pub fn is_off(&self) -> bool {
        self.state.lock().off
    }

    /// Limits the bytes in use; `None` is no limit. A limit below what is in use only refuses what needs more.
    pub fn set_capacity(&self, bytes: Option<u64>) {
        self.state.lock().capacity = bytes;
    }

    /// The limit, if there is one.
    pub fn capacity(&self) -> Option<u64> {
        self.state.lock().capacity
    }

    /// Bytes in use, in pages of 4 KiB: what was reserved or written, and directories.
    pub fn used(&self) -> u64 {
        self.state.lock().used()
    }

    /// Flips one bit of a file, durably and unseen: rot.
    pub fn flip_bit(&self, path: &Path, offset: u64, bit: u32) -> io::Result<()> {
        let mut state = self.state.lock();
        let file = state.file_at(path)?;
        if state.content(file).flip_bit(offset, bit) {
            Ok(())
        } else {
            Err(io::ErrorKind::UnexpectedEof.into())
        }
    }

    /// Every name with the file's content as programs see it; `None` is a directory. For comparing disks.
    pub fn dump(&self) -> BTreeMap<PathBuf, Option<Vec<u8>>> {
        let mut state = self.state.lock();
        let names: Vec<_> = state.names.iter().map(|(path, node)| (path.clone(), node)).collect();
        let mut content = |node| match node {
            Node::File(file) => Some(state.content(file).live().to_vec()),
            Node::Directory => None,
        };
        names.into_iter().map(|(path, node)| (path, content(node))).collect()
    }
}

impl From<State> for SimDisk {
    fn from(state: State) -> SimDisk {
        SimDisk { state: Arc::new(Mutex::new(state)) }
    }
}

impl Disk for SimDisk {
    fn create_dir_all(&self, path: &Path) -> io::Result<()> {
        self.state.lock().create_directories(path)
    }

    fn open(&self, path: &Path, mode: OpenMode) -> io::Result<Arc<dyn DiskFile>> {
        let mut state = self.state.lock();
        state.begin_read()?;
        let file = match state.file_at(path) {
            Err(error) if error.kind() == io::ErrorKind::NotFound && mode == OpenMode::Create => {
                state.create(path)?
            }
            found => found?,
        };
        Ok(Arc::new(SimFile::new(&self.state, &mut state, file, path, mode)))
    }

    fn list(&self, dir: &Path) -> io::Result<Vec<PathBuf>> {
        let mut state = self.state.lock();
        state.begin_read()?;
        state.directory_at(dir)?;
        Ok(state.names.children(dir))
    }

    fn remove(&self, path: &Path) -> io::Result<()> {
        self.state.lock().remove(path)
    }

    fn remove_dir_all(&self, path: &Path) -> io::Result<()> {
        self.state.lock().remove_tree(path)
    }

    fn rename(&self, from: &Path, to: &Path) -> io::Result<()> {
        self.state.lock().rename(from, to)
    }

    fn sync_dir(&self, dir: &Path) -> io::Result<()> {
        self.state.lock().sync_directory(dir)
    }

    fn exists(&self, path: &Path) -> io::Result<bool> {
        let mut state = self.state.lock();
        state.begin_read()?;
        Ok(state.names.get(path).is_some())
    }

    /// The lock is the process's, not the disk's: no file is made, and a crash frees it.
    fn lock(&self, path: &Path) -> io::Result<DiskLock> {
        let mut state = self.state.lock();
        state.begin_read()?;
        if !state.locks.insert(path.into()) {
            return Err(io::Error::new(io::ErrorKind::WouldBlock, format!("{} is locked", path.display())));
        }
        Ok(Box::new(Held { state: self.state.clone(), path: path.into() }))
    }
}

struct Held {
    state: Arc<Mutex<State>>,
    path: PathBuf,
}

impl Drop for Held {
    fn drop(&mut self) {
        self.state.lock().locks.remove(&self.path);
    }
}

/// Runs `run` on a new disk again and again, each time with the power cut one operation later, until it gets through;
/// after each run `check` gets the disk as the run left it (to call [`SimDisk::crash`] on) and the number of
/// operations it was allowed. Returns the number of operations of a whole run.
pub fn for_each_prefix(run: impl Fn(&SimDisk), check: impl Fn(SimDisk, usize)) -> usize {
    let mut prefix = 0;
    loop {
        let disk = SimDisk::new();
        disk.cut_power_at(prefix);
        run(&disk);
        let through = !disk.is_off();
        check(disk, prefix);
        if through {
            return prefix;
        }
        prefix += 1;
    }
}
