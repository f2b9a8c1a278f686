//! The real disk: `pread`, `pwritev`, `fdatasync`, `fallocate`, `flock`.

use std::fs::{self, DirBuilder, File, OpenOptions, TryLockError};
use std::io::{self, IoSlice};
use std::num::NonZeroU64;
use std::os::fd::AsRawFd;
use std::os::unix::fs::{DirBuilderExt, FileExt, OpenOptionsExt};
use std::path::{Path, PathBuf};
use std::sync::{Arc, OnceLock};

use rustix::fs::{Advice, FallocateFlags, Mode, OFlags, SeekFrom, fallocate};
use rustix::io::{Errno, pwritev};

use super::{Disk, DiskFile, DiskLock, OpenMode};

/// Linux accepts at most this many slices in one `pwritev` (`IOV_MAX`).
const SLICES_PER_WRITE_MAX: usize = 1024;
/// Zeroes written at a time where the file system has no `fallocate`.
const ZERO_BYTES: usize = 1 << 20;
/// Folders and files of the process's user alone (`disk.I4`).
const DIR_MODE: u32 = 0o700;
const FILE_MODE: u32 = 0o600;

/// The file system of this machine.
#[derive(Debug, Clone, Copy, Default)]
pub struct RealDisk;

impl Disk for RealDisk {
    fn create_dir_all(&self, path: &Path) -> io::Result<()> {
        DirBuilder::new().recursive(true).mode(DIR_MODE).create(path)
    }

    fn open(&self, path: &Path, mode: OpenMode) -> io::Result<Arc<dyn DiskFile>> {
        let mut options = OpenOptions::new();
        options.read(true);
        match mode {
            OpenMode::Read => {}
            OpenMode::ReadWrite => {
                options.write(true);
            }
            OpenMode::Create => {
                options.write(true).create(true).truncate(false).mode(FILE_MODE);
            }
        }
        let file = options.open(path)?;
        Ok(Arc::new(RealFile { file, direct: OnceLock::new() }))
    }

    fn list(&self, dir: &Path) -> io::Result<Vec<PathBuf>> {
        let mut paths = fs::read_dir(dir)?.map(|entry| Ok(entry?.path())).collect::<io::Result<Vec<_>>>()?;
        paths.sort();
        Ok(paths)
    }

    fn remove(&self, path: &Path) -> io::Result<()> {
        fs::remove_file(path)
    }

    fn remove_dir_all(&self, path: &Path) -> io::Result<()> {
        fs::remove_dir_all(path)
    }

    fn rename(&self, from: &Path, to: &Path) -> io::Result<()> {
        fs::rename(from, to)
    }

    fn sync_dir(&self, dir: &Path) -> io::Result<()> {
        File::open(dir)?.sync_all()
    }

    fn exists(&self, path: &Path) -> io::Result<bool> {
        fs::exists(path)
    }

    fn lock(&self, path: &Path) -> io::Result<DiskLock> {
        let mut options = OpenOptions::new();
        options.read(true).write(true).create(true).truncate(false).mode(FILE_MODE);
        let file = options.open(path)?;
        match file.try_lock() {
            Ok(()) => Ok(Box::new(file)),
            Err(TryLockError::WouldBlock) => Err(io::Error::new(
                io::ErrorKind::WouldBlock,
                format!("{} is locked by another process", path.display()),
            )),
            Err(TryLockError::Error(error)) => Err(error),
        }
    }
}

struct RealFile {
    file: File,
    /// The file once more, to be read past the page cache; `None` where the file system does not offer that.
    direct: OnceLock<Option<File>>,
}

/// What direct reads are aligned to: the largest logical block in use.
const DIRECT_BYTES: usize = 4096;

impl RealFile {
    /// Reads whole blocks around the range past the page cache; `None` where the file system does not do that.
    fn read_direct(&self, buf: &mut [u8], offset: u64) -> io::Result<Option<usize>> {
        let direct = self.direct.get_or_init(|| {
            let path = format!("/proc/self/fd/{}", self.file.as_raw_fd());
            let flags = OFlags::RDONLY | OFlags::DIRECT | OFlags::CLOEXEC;
            rustix::fs::open(path, flags, Mode::empty()).ok().map(File::from)
        });
        let Some(file) = direct.as_ref() else { return Ok(None) };
        let skip = (offset % DIRECT_BYTES as u64) as usize;
        let wanted = (skip + buf.len()).next_multiple_of(DIRECT_BYTES);
        let mut space = vec![0; wanted + DIRECT_BYTES];
        let aligned = space.as_ptr().align_offset(DIRECT_BYTES);
        let Some(blocks) = space.get_mut(aligned..aligned + wanted) else { return Ok(None) };
        let mut done = 0;
        while done < wanted {
            match file.read_at(&mut blocks[done..], offset - skip as u64 + done as u64) {
                Ok(0) => break,
                // A direct read ends early only at the end of the file.
                Ok(count) if !count.is_multiple_of(DIRECT_BYTES) => {
                    done += count;
                    break;
                }
                Ok(count) => done += count,
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                Err(error) if is_unsupported(&error) => return Ok(None),
                Err(error) => return Err(error),
            }
        }
        let count = done.saturating_sub(skip).min(buf.len());
        buf[..count].copy_from_slice(&blocks[skip..skip + count]);
        Ok(Some(count))
    }

    fn fill_with_zeroes(&self, bytes: u64) -> io::Result<()> {
        let zeroes = vec![0; ZERO_BYTES];
        let mut at = self.file.metadata()?.len();
        while at < bytes {
            let count = (bytes - at).min(ZERO_BYTES as u64);
            self.file.write_all_at(&zeroes[..count as usize], at)?;
            at += count;
        }
        Ok(())
    }
}

fn is_unsupported(error: &io::Error) -> bool {
    [Errno::INVAL, Errno::OPNOTSUPP].iter().any(|number| error.raw_os_error() == Some(number.raw_os_error()))
}

impl DiskFile for RealFile {
    fn len(&self) -> io::Result<u64> {
        Ok(self.file.metadata()?.len())
    }

    fn read_at(&self, buf: &mut [u8], offset: u64) -> io::Result<usize> {
        let mut done = 0;
        while done < buf.len() {
            match self.file.read_at(&mut buf[done..], offset + done as u64) {
                Ok(0) => break,
                Ok(count) => done += count,
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                Err(error) => return Err(error),
            }
        }
        Ok(done)
    }

    fn read_stored_at(&self, buf: &mut [u8], offset: u64) -> io::Result<usize> {
        match self.read_direct(buf, offset)? {
            Some(count) => Ok(count),
            None => self.read_at(buf, offset),
        }
    }

    fn next_data(&self, offset: u64) -> io::Result<Option<u64>> {
        // The file's cursor, which this moves, is used by nothing.
        match rustix::fs::seek(&self.file, SeekFrom::Data(offset)) {
            Ok(data) => Ok(Some(data)),
            Err(Errno::NXIO) => Ok(None),
            Err(error) if is_unsupported(&error.into()) => Ok((offset < self.len()?).then_some(offset)),
            Err(error) => Err(error.into()),
        }
    }

    fn write_all_at(&self, bufs: &[IoSlice<'_>], mut offset: u64) -> io::Result<()> {
        let mut slices = bufs.to_vec();
        let mut rest = slices.as_mut_slice();
        IoSlice::advance_slices(&mut rest, 0);
        while !rest.is_empty() {
            let batch = &rest[..rest.len().min(SLICES_PER_WRITE_MAX)];
            match pwritev(&self.file, batch, offset) {
                Ok(0) => return Err(io::ErrorKind::WriteZero.into()),
                Ok(count) => {
                    offset += count as u64;
                    IoSlice::advance_slices(&mut rest, count);
                }
                Err(Errno::INTR) => {}
                Err(error) => return Err(error.into()),
            }
        }
        Ok(())
    }

    fn prefetch(&self, offset: u64, bytes: u64) {
        if let Some(bytes) = NonZeroU64::new(bytes) {
            let _ = rustix::fs::fadvise(&self.file, offset, Some(bytes), Advice::WillNeed);
        }
    }

    fn sync_data(&self) -> io::Result<()> {
        self.file.sync_data()
    }

    fn sync_all(&self) -> io::Result<()> {
        self.file.sync_all()
    }

    fn allocate(&self, bytes: u64) -> io::Result<()> {
        // Also when the file is that long: a copy of it may have holes.
        loop {
            match fallocate(&self.file, FallocateFlags::empty(), 0, bytes) {
                Ok(()) => return Ok(()),
                Err(Errno::INTR) => {}
                Err(Errno::OPNOTSUPP | Errno::NOSYS) => return self.fill_with_zeroes(bytes),
                Err(error) => return Err(error.into()),
            }
        }
    }

    fn set_len(&self, bytes: u64) -> io::Result<()> {
        self.file.set_len(bytes)
    }
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::PermissionsExt;

    use super::super::write_atomically;
    use super::*;

    fn open(path: &Path) -> Arc<dyn DiskFile> {
        RealDisk.open(path, OpenMode::Create).unwrap()
    }

    #[test]
    fn many_slices_are_written_back_to_back() {
        let dir = tempfile::tempdir().unwrap();
        let file = open(&dir.path().join("f"));
        let parts: Vec<Vec<u8>> = (0..3000u32).map(|i| vec![i as u8; (i % 5) as usize]).collect();
        let slices: Vec<IoSlice<'_>> = parts.iter().map(|part| IoSlice::new(part)).collect();
        file.write_all_at(&slices, 7).unwrap();
        let mut read = vec![0; 7 + parts.concat().len()];
        assert_eq!(file.read_at(&mut read, 0).unwrap(), read.len());
        assert_eq!(read[7..], parts.concat());
    }

    #[test]
    fn what_is_stored_is_read_at_any_offset() {
        let dir = tempfile::tempdir().unwrap();
        let file = open(&dir.path().join("f"));
        let bytes: Vec<u8> = (0..20_000u32).map(|i| (i / 7) as u8).collect();
        file.write_all_at(&[IoSlice::new(&bytes)], 0).unwrap();
        for (offset, len) in
            [(0, 10), (4095, 2), (4096, 4096), (8191, 9000), (19_990, 100), (20_000, 5), (90_000, 5)]
        {
            let mut read = vec![0; len];
            let count = file.read_stored_at(&mut read, offset as u64).unwrap();
            let from = offset.min(bytes.len());
            let expected = &bytes[from..(offset + len).clamp(from, bytes.len())];
            assert_eq!(&read[..count], expected, "{len} bytes from {offset}");
        }
    }

    #[test]
    fn what_is_written_is_found_behind_reserved_space_and_never_passed_over() {
        let dir = tempfile::tempdir().unwrap();
        let file = open(&dir.path().join("f"));
        file.allocate(8 << 20).unwrap();
        for at in [5 << 20, (5 << 20) + 70_000, (8 << 20) - 1] {
            file.write_all_at(&[IoSlice::new(b"x")], at).unwrap();
        }
        for sync in [false, true] {
            // Not in a page that is only in memory, and not in one that is on the disk.
            if sync {
                file.sync_all().unwrap();
            }
            let mut at = 0;
            for written in [5 << 20, (5 << 20) + 70_000, (8 << 20) - 1] {
                let found = file.next_data(at).unwrap().unwrap();
                assert!((at..=written).contains(&found), "{found} is beyond {written}");
                at = written + 1;
            }
            assert_eq!(file.next_data(8 << 20).unwrap(), None);
        }
    }

    #[test]
    fn a_read_sees_later_writes_and_an_open_file_outlives_its_name() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("f");
        let file = open(&path);
        file.allocate(8192).unwrap();
        assert_eq!(file.len().unwrap(), 8192);
        let mut read = [1; 4];
        assert_eq!((file.read_at(&mut read, 4094).unwrap(), read), (4, [0; 4]));
        file.write_all_at(&[IoSlice::new(b"abcd")], 4094).unwrap();
        RealDisk.remove(&path).unwrap();
        assert_eq!((file.read_at(&mut read, 4094).unwrap(), &read), (4, b"abcd"), "disk.I3");
    }

    /// A map of the same file would end the process here: its pages behind the end raise SIGBUS.
    #[test]
    fn what_is_cut_off_under_a_reader_is_missing_from_its_read_and_ends_nothing() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("f");
        let file = open(&path);
        file.write_all_at(&[IoSlice::new(&[7; 20_000])], 0).unwrap();
        let mut read = vec![0; 20_000];
        assert_eq!(file.read_at(&mut read, 0).unwrap(), 20_000);
        let other = OpenOptions::new().write(true).open(&path).unwrap();
        other.set_len(5_000).unwrap();
        assert_eq!(file.read_at(&mut read, 0).unwrap(), 5_000, "disk.I2");
        assert_eq!(file.read_at(&mut read, 8_192).unwrap(), 0, "disk.I2");
        assert!(read[5_000..].iter().all(|byte| *byte == 7), "reads.I1: what was read before is still there");
    }

    /// Every local user could read the commit log.
    #[test]
    fn disk_i4_what_is_created_is_the_users_alone() {
        let dir = tempfile::tempdir().unwrap();
        let folder = dir.path().join("a/b");
        RealDisk.create_dir_all(&folder).unwrap();
        drop((open(&folder.join("f")), RealDisk.lock(&folder.join("LOCK")).unwrap()));
        write_atomically(&RealDisk, &folder.join("g"), b"x").unwrap();
        for (path, expected) in
            [("a", 0o700), ("a/b", 0o700), ("a/b/f", 0o600), ("a/b/LOCK", 0o600), ("a/b/g", 0o600)]
        {
            let mode = fs::metadata(dir.path().join(path)).unwrap().permissions().mode() & 0o7777;
            assert_eq!(mode, expected, "{path} has {mode:o}");
        }
    }

    #[test]
    fn a_lock_is_exclusive_until_it_is_dropped() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("LOCK");
        let held = RealDisk.lock(&path).unwrap();
        assert_eq!(RealDisk.lock(&path).err().map(|e| e.kind()), Some(io::ErrorKind::WouldBlock));
        drop(held);
        RealDisk.lock(&path).unwrap();
    }
}
