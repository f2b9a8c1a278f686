//! Replacing a small file so that a crash leaves the old one or the new one, never a mixture.

use std::ffi::OsString;
use std::io::{self, IoSlice};
use std::path::{Path, PathBuf};

use super::{Disk, OpenMode};

/// Replaces the file at `path` by `bytes`, durable when this returns: a temporary file beside it is written and synced,
/// renamed over `path`, and the directory is synced. A left-over temporary file of an earlier crash is overwritten.
pub fn write_atomically(disk: &dyn Disk, path: &Path, bytes: &[u8]) -> io::Result<()> {
    let directory = path.parent().ok_or_else(|| {
        io::Error::new(io::ErrorKind::InvalidInput, format!("{} has no parent directory", path.display()))
    })?;
    let temporary = temporary_beside(path);
    let file = disk.open(&temporary, OpenMode::Create)?;
    file.set_len(0)?;
    file.write_all_at(&[IoSlice::new(bytes)], 0)?;
    file.sync_all()?;
    drop(file);
    disk.rename(&temporary, path)?;
    disk.sync_dir(directory)
}

fn temporary_beside(path: &Path) -> PathBuf {
    let mut name = OsString::from(path.as_os_str());
    name.push(".tmp");
    PathBuf::from(name)
}

#[cfg(test)]
mod tests {
    use super::super::RealDisk;
    use super::*;

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
}
