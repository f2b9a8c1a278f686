//! A node that has applied entries which the elected log does not have starts again from an older state.
//!
//! That is no part of Raft. It happens where what was acknowledged is given up: in asynchronous mode after a power cut of a
//! majority, or where an operator has accepted a loss. The log can be cut below what is applied; the state that was built from
//! it cannot. So the node notes how much of its log is not disputed, and stops. The next start takes a checkpoint or snapshot
//! from before that, and the log is cut then as any other.
//!
//! File `rewind`: the index of the last entry that is not disputed, in decimal, and a line feed. Removed by the start that has
//! obeyed it.
//!
//! - `rewind.I1`: a node whose checkpoint is ahead of the elected log can start.

use std::io;
use std::path::{Path, PathBuf};

use folio_engine::disk::{Disk, OpenMode, write_atomically};

/// Bytes of the file at most.
const FILE_BYTES_MAX: usize = 32;

fn file(data_dir: &Path) -> PathBuf {
    data_dir.join("rewind")
}

/// Durably notes that entries behind `keep` are not those of the elected log.
pub(crate) fn note(disk: &dyn Disk, data_dir: &Path, keep: u64) -> io::Result<()> {
    let keep = limit(disk, data_dir)?.map_or(keep, |before| before.min(keep));
    write_atomically(disk, &file(data_dir), format!("{keep}\n").as_bytes())
}

/// The last entry that a state to start from may hold, if there is such a limit.
pub(crate) fn limit(disk: &dyn Disk, data_dir: &Path) -> io::Result<Option<u64>> {
    let path = file(data_dir);
    if !disk.exists(&path)? {
        return Ok(None);
    }
    let mut bytes = [0; FILE_BYTES_MAX];
    let read = disk.open(&path, OpenMode::Read)?.read_at(&mut bytes, 0)?;
    let text = std::str::from_utf8(&bytes[..read]).ok().and_then(|text| text.trim_end().parse().ok());
    // One that cannot be read says that something is disputed: then everything may be.
    Ok(Some(text.unwrap_or(0)))
}

/// The node has started from a state within the limit.
pub(crate) fn obeyed(disk: &dyn Disk, data_dir: &Path) -> io::Result<()> {
    let path = file(data_dir);
    if disk.exists(&path)? {
        disk.remove(&path)?;
        disk.sync_dir(data_dir)?;
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;
    use folio_engine::disk::RealDisk;

    #[test]
    fn the_least_that_was_ever_disputed_counts_until_it_is_obeyed() {
        let dir = tempfile::tempdir().unwrap();
        let limit = || limit(&RealDisk, dir.path()).unwrap();
        assert_eq!(limit(), None);
        note(&RealDisk, dir.path(), 40).unwrap();
        note(&RealDisk, dir.path(), 17).unwrap();
        note(&RealDisk, dir.path(), 30).unwrap();
        assert_eq!(limit(), Some(17));
        std::fs::write(dir.path().join("rewind"), b"\xff\xff").unwrap();
        assert_eq!(limit(), Some(0));
        obeyed(&RealDisk, dir.path()).unwrap();
        assert_eq!(limit(), None);
    }
}
