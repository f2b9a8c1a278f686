//! The seam between the engine and a file system. Everything the engine stores goes through [`Disk`] and [`DiskFile`],
//! so that a simulated disk can lose, tear or refuse what a real one might.
//!
//! It is not a general file API: there are no cursors, no appends, only positions.
//!
//! Invariants every implementation keeps and every caller may rely on:
//!
//! - `disk.I1`: bytes survive a crash only after [`DiskFile::sync_data`] or [`DiskFile::sync_all`] returned `Ok`;
//!   a file's name survives only after [`Disk::sync_dir`] of its directory did.
//! - `disk.I2`: a read copies into memory of the caller. Bytes that the device does not give back are an error of that
//!   read (`reads.I1`), whatever happens to the file meanwhile: it may be cut, or lose sectors.
//! - `disk.I3`: an open file stays readable after its name was removed.
//! - `disk.I4`: what is created is read and written by the process's own user alone.

mod buffers;
mod crashsafe;
mod real;
mod reserve;
pub mod sim;

use std::io::{self, IoSlice};
use std::path::{Path, PathBuf};
use std::sync::Arc;

use rustix::io::Errno;

pub(crate) use buffers::Buffers;
pub(crate) use crashsafe::write_once;
pub use crashsafe::{create_dir, open_reserved, temporary_beside, write_atomically};
pub use real::RealDisk;
pub use reserve::{RESERVE_BYTES, Reserve};

/// Whether something was refused because there is no room for it: on the disk, or for this user. Nothing is wrong with
/// the disk, and it may be tried again.
pub fn is_full(error: &io::Error) -> bool {
    matches!(error.kind(), io::ErrorKind::StorageFull | io::ErrorKind::QuotaExceeded)
}

/// Whether a read failed because the device does not give these bytes back any more, now or ever: a bad sector, as the
/// kernel names it for reads through the page cache and past it.
pub(crate) fn is_lost(error: &io::Error) -> bool {
    let lost =
        [Errno::IO, Errno::NODATA, Errno::ILSEQ, Errno::UCLEAN, Errno::REMOTEIO].map(Errno::raw_os_error);
    error.raw_os_error().is_some_and(|number| lost.contains(&number))
}

/// Reads what a start relies on: before anything is given up for lost, the device itself is asked.
pub(crate) fn read_again_if_lost(file: &dyn DiskFile, buf: &mut [u8], offset: u64) -> io::Result<usize> {
    match file.read_at(buf, offset) {
        Err(error) if is_lost(&error) => file.read_stored_at(buf, offset),
        read => read,
    }
}

/// What a sector that is lost takes with it: a page of the page cache.
pub(crate) const PAGE_BYTES: u64 = 4096;

/// What a read around lost bytes gave.
pub(crate) struct Around {
    /// Bytes read or passed over; fewer than asked for where the file ends.
    pub(crate) read: usize,
    /// Whether any were lost: they are zero.
    pub(crate) lost: bool,
}

/// Reads at `offset` until `buf` is full or the file ends; pages that the device has lost read as zero. `stored`: as
/// [`DiskFile::read_stored_at`].
pub(crate) fn read_around_lost(
    file: &dyn DiskFile,
    buf: &mut [u8],
    offset: u64,
    stored: bool,
) -> io::Result<Around> {
    let read = |buf: &mut [u8], at| if stored { file.read_stored_at(buf, at) } else { file.read_at(buf, at) };
    match read(buf, offset) {
        Err(error) if is_lost(&error) => {}
        whole => return whole.map(|read| Around { read, lost: false }),
    }
    let length = usize::try_from(file.len()?.saturating_sub(offset)).unwrap_or(usize::MAX).min(buf.len());
    let mut at = 0;
    while at < length {
        let page = (PAGE_BYTES - (offset + at as u64) % PAGE_BYTES) as usize;
        let part = &mut buf[at..length.min(at + page)];
        match read(part, offset + at as u64) {
            Err(error) if is_lost(&error) => part.fill(0),
            whole => drop(whole?),
        }
        at += part.len();
    }
    Ok(Around { read: length, lost: true })
}

/// What an open file may be used for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum OpenMode {
    /// Reading a file that exists.
    Read,
    /// Reading and writing a file that exists.
    ReadWrite,
    /// Reading and writing; the file is created empty if it is missing, and left as it is if it is not.
    Create,
}

/// Holds a lock file until it is dropped.
pub type DiskLock = Box<dyn Send + Sync>;

/// A file system: names, directories, locks.
pub trait Disk: Send + Sync + 'static {
    /// Creates a directory and its parents; no error if it exists.
    fn create_dir_all(&self, path: &Path) -> io::Result<()>;

    /// Opens a file.
    fn open(&self, path: &Path, mode: OpenMode) -> io::Result<Arc<dyn DiskFile>>;

    /// Paths of the files and directories inside `dir`, sorted.
    fn list(&self, dir: &Path) -> io::Result<Vec<PathBuf>>;

    /// Removes a file's name; whoever has it open may go on reading.
    fn remove(&self, path: &Path) -> io::Result<()>;

    /// Removes a directory with everything inside.
    fn remove_dir_all(&self, path: &Path) -> io::Result<()>;

    /// Renames a file, replacing what was at `to`.
    fn rename(&self, from: &Path, to: &Path) -> io::Result<()>;

    /// Makes the names inside `dir` durable.
    fn sync_dir(&self, dir: &Path) -> io::Result<()>;

    /// Whether something is at `path`.
    fn exists(&self, path: &Path) -> io::Result<bool>;

    /// Gives back space that is kept back for small files, because there is none left for one; false when nothing is.
    fn make_room(&self) -> bool {
        false
    }

    /// Takes the exclusive lock on `path` (created if missing); `WouldBlock` when another holder lives.
    fn lock(&self, path: &Path) -> io::Result<DiskLock>;
}

/// One open file, addressed by position.
pub trait DiskFile: Send + Sync + 'static {
    /// Length in bytes.
    fn len(&self) -> io::Result<u64>;

    /// Whether the file holds no byte.
    fn is_empty(&self) -> io::Result<bool> {
        Ok(self.len()? == 0)
    }

    /// Reads at `offset` until `buf` is full or the file ends; returns how many bytes were read.
    fn read_at(&self, buf: &mut [u8], offset: u64) -> io::Result<usize>;

    /// As [`DiskFile::read_at`], but from the device where the file system allows it, not from memory: memory may hold
    /// what the device has lost.
    fn read_stored_at(&self, buf: &mut [u8], offset: u64) -> io::Result<usize> {
        self.read_at(buf, offset)
    }

    /// The first position from `offset` on that may hold another byte than zero; `None` when there is none. Space that was
    /// reserved and never written is passed over where the file system tells.
    fn next_data(&self, offset: u64) -> io::Result<Option<u64>> {
        Ok((offset < self.len()?).then_some(offset))
    }

    /// Writes all of `bufs`, one after the other, from `offset` on.
    fn write_all_at(&self, bufs: &[IoSlice<'_>], offset: u64) -> io::Result<()>;

    /// Asks for bytes to be brought into memory soon: a hint, which may do nothing.
    fn prefetch(&self, _offset: u64, _bytes: u64) {}

    /// Makes the file's bytes durable, and as much of its metadata as reading them back needs.
    fn sync_data(&self) -> io::Result<()>;

    /// Makes the file's bytes and all its metadata durable.
    fn sync_all(&self) -> io::Result<()>;

    /// Reserves space for the first `bytes` bytes, where there is none yet; the file becomes at least that long, new bytes
    /// read as zero. A full disk is an error here instead of at a later write; what was reserved until then may stay: see
    /// [`open_reserved`].
    fn allocate(&self, bytes: u64) -> io::Result<()>;

    /// Sets the length.
    fn set_len(&self, bytes: u64) -> io::Result<()>;
}
