//! Steps a crash or a full disk cannot leave half done: replacing a small file, creating a directory, reserving a file.

use std::ffi::OsString;
use std::io::{self, IoSlice};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::{Duration, Instant};

use super::{Disk, DiskFile, OpenMode, is_full};

/// Bytes that are written and synced at a time. The log's syncs wait behind a large write of the same disk: 18 MB at once are
/// tens of milliseconds.
const PIECE_BYTES: usize = 1 << 20;
/// The pause after each piece but the last, in times of what the piece took, so that the disk is left to the log most of the time.
const PAUSE: u32 = 2;
const PAUSE_MAX: Duration = Duration::from_millis(100);

/// Replaces the file at `path` by `bytes`, durable when this returns: a temporary file beside it is written and synced,
/// renamed over `path`, and the directory is synced. A left-over temporary file of an earlier crash is overwritten; one
/// that a full disk did not take whole gives its room back. On a full disk it is tried once more with what
/// [`Disk::make_room`] gives.
///
/// A large file is written in pieces of 1 MiB with pauses: it takes a second for some 20 MB.
pub fn write_atomically(disk: &dyn Disk, path: &Path, bytes: &[u8]) -> io::Result<()> {
    match write_once(disk, path, bytes) {
        Err(error) if is_full(&error) && disk.make_room() => write_once(disk, path, bytes),
        written => written,
    }
}

/// [`write_atomically`] with what room there is.
pub(crate) fn write_once(disk: &dyn Disk, path: &Path, bytes: &[u8]) -> io::Result<()> {
    let directory = path.parent().ok_or_else(|| {
        io::Error::new(io::ErrorKind::InvalidInput, format!("{} has no parent directory", path.display()))
    })?;
    let temporary = temporary_beside(path);
    let write = || {
        let file = disk.open(&temporary, OpenMode::Create)?;
        // Not emptied first: what is left over has blocks, which a full disk may not give a second time.
        write_in_pieces(&*file, bytes)?;
        file.set_len(bytes.len() as u64)?;
        file.sync_all()
    };
    if let Err(error) = write() {
        if is_full(&error) {
            disk.remove(&temporary).ok();
        }
        return Err(error);
    }
    disk.rename(&temporary, path)?;
    disk.sync_dir(directory)
}

/// Writes `bytes` to the start of a file; the last piece is not synced.
fn write_in_pieces(file: &dyn DiskFile, bytes: &[u8]) -> io::Result<()> {
    let mut rest = bytes;
    while rest.len() > PIECE_BYTES {
        let (piece, behind) = rest.split_at(PIECE_BYTES);
        let begun = Instant::now();
        file.write_all_at(&[IoSlice::new(piece)], (bytes.len() - rest.len()) as u64)?;
        file.sync_data()?;
        std::thread::sleep((begun.elapsed() * PAUSE).min(PAUSE_MAX));
        rest = behind;
    }
    file.write_all_at(&[IoSlice::new(rest)], (bytes.len() - rest.len()) as u64)
}

/// Opens a file, created if it is missing, with space for its first `bytes` bytes; nothing of that is durable yet. Where
/// the disk has no room for all of it, what was got is given back: of a failed `fallocate`, ext4 keeps every free block.
pub fn open_reserved(disk: &dyn Disk, path: &Path, bytes: u64) -> io::Result<Arc<dyn DiskFile>> {
    let file = disk.open(path, OpenMode::Create)?;
    let before = file.len()?;
    if let Err(error) = file.allocate(bytes) {
        if before == 0 {
            drop(file);
            disk.remove(path).ok();
        } else {
            file.set_len(before).ok();
        }
        return Err(error);
    }
    Ok(file)
}

/// The name under which [`write_atomically`] writes what is to be at `path`.
pub fn temporary_beside(path: &Path) -> PathBuf {
    let mut name = OsString::from(path.as_os_str());
    name.push(".tmp");
    PathBuf::from(name)
}

/// Creates a directory and its parents; its name, and that of every parent this made, is durable when this returns.
/// Whatever is synced below a directory whose own name is not durable is lost with it.
pub fn create_dir(disk: &dyn Disk, dir: &Path) -> io::Result<()> {
    let mut unsynced = vec![dir];
    for above in dir.ancestors().skip(1).filter(|above| !above.as_os_str().is_empty()) {
        if disk.exists(above)? {
            break;
        }
        unsynced.push(above);
    }
    let existed = disk.exists(dir)?;
    disk.create_dir_all(dir)?;
    for made in unsynced.into_iter().rev() {
        match sync_parent(disk, made) {
            // Not ours, and not made by this: whoever made it could read it.
            Err(error) if existed && error.kind() == io::ErrorKind::PermissionDenied => {}
            synced => synced?,
        }
    }
    Ok(())
}

fn sync_parent(disk: &dyn Disk, path: &Path) -> io::Result<()> {
    match path.parent() {
        Some(parent) if parent.as_os_str().is_empty() => disk.sync_dir(Path::new(".")),
        Some(parent) => disk.sync_dir(parent),
        None => Ok(()),
    }
}

#[cfg(test)]
mod tests {
    use super::super::RealDisk;
    use super::super::sim::{Fault, LoseAll, Operation, SimDisk};
    use super::*;

    #[test]
    fn a_directory_and_its_parents_survive_a_power_cut() {
        let disk = SimDisk::new();
        create_dir(&disk, Path::new("/data/group")).unwrap();
        assert!(disk.crash(&mut LoseAll).exists(Path::new("/data/group")).unwrap());
        // Made by somebody who was killed before the sync.
        disk.create_dir_all(Path::new("/data/other")).unwrap();
        create_dir(&disk, Path::new("/data/other")).unwrap();
        assert!(disk.crash(&mut LoseAll).exists(Path::new("/data/other")).unwrap());
    }

    #[test]
    fn what_a_full_disk_did_not_take_whole_is_removed() {
        let disk = SimDisk::new();
        let path = Path::new("/file");
        write_atomically(&disk, path, b"old").unwrap();
        disk.fail_at(disk.ops() + 1, Fault::ShortWrite);
        let error = write_atomically(&disk, path, b"new").unwrap_err();
        assert_eq!(error.kind(), io::ErrorKind::StorageFull);
        assert_eq!(disk.list(Path::new("/")).unwrap(), [path]);
    }

    #[test]
    fn a_large_file_is_never_synced_all_at_once() {
        let (disk, path) = (SimDisk::new(), Path::new("/file"));
        let bytes: Vec<u8> = (0..PIECE_BYTES as u32).flat_map(u32::to_le_bytes).chain([1]).collect();
        write_atomically(&disk, path, &bytes).unwrap();
        let mut unsynced = 0;
        for operation in disk.history() {
            match operation {
                Operation::Write { bytes, .. } => unsynced += bytes,
                Operation::Sync { .. } => unsynced = 0,
                _ => {}
            }
            assert!(unsynced <= PIECE_BYTES);
        }
        assert_eq!(disk.crash(&mut LoseAll).dump()[path].as_deref(), Some(&bytes[..]));
    }

    #[test]
    fn the_new_bytes_replace_longer_old_ones_and_no_temporary_file_stays() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("file");
        std::fs::write(dir.path().join("file.tmp"), b"left over from a crash, longer than the rest").unwrap();
        write_atomically(&RealDisk, &path, b"a long first version").unwrap();
        write_atomically(&RealDisk, &path, b"short").unwrap();
        assert_eq!(std::fs::read(&path).unwrap(), b"short");
        assert_eq!(RealDisk.list(dir.path()).unwrap(), vec![path]);
    }

    #[test]
    fn a_reservation_that_fails_gives_back_what_it_took() {
        let disk = SimDisk::new();
        let path = Path::new("/file");
        disk.set_capacity(Some(40_000));
        let full = |bytes| open_reserved(&disk, path, bytes).map(drop).unwrap_err().kind();
        assert_eq!(full(100_000), io::ErrorKind::StorageFull);
        assert_eq!((disk.used(), disk.exists(path).unwrap()), (0, false));
        drop(open_reserved(&disk, path, 10_000).unwrap());
        assert_eq!(full(100_000), io::ErrorKind::StorageFull);
        assert_eq!(disk.used(), 12_288, "what was reserved before stays");
    }
}
