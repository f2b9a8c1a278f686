//! One segment file as readers see it, and the rule where a record goes. Records in it are read by [`super::reader`].
//!
//! A segment's file name is the 20-digit position of its first byte; all segments have the same length. A record never
//! crosses a segment: when it does not fit into what is left, the rest stays zero and it becomes the first record of the
//! next segment. That rule depends on nothing but the segment size, so positions are equal on all replicas.

use std::io;
use std::path::{Path, PathBuf};
use std::sync::{Arc, OnceLock};

use parking_lot::Mutex;

use super::index::Index;
use crate::disk::{Disk, DiskFile, is_lost, read_around_lost};

/// Where a record of `length` bytes goes when the log ends at `end`.
pub(super) fn place(end: u64, length: u64, segment_bytes: u64) -> u64 {
    let room = segment_bytes - end % segment_bytes;
    if length <= room { end } else { end + room }
}

/// The segment that holds `position`, by the position of its first byte.
pub(super) fn base_of(position: u64, segment_bytes: u64) -> u64 {
    position - position % segment_bytes
}

/// The file of the segment that starts at `base`.
pub(super) fn path_of(directory: &Path, base: u64) -> PathBuf {
    directory.join(format!("{base:020}"))
}

/// Removes the file of the segment that starts at `base`, if it is there.
pub(super) fn remove(disk: &dyn Disk, directory: &Path, base: u64) -> io::Result<()> {
    match disk.remove(&path_of(directory, base)) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => Err(error),
        _ => {
            tracing::info!(base, directory = %directory.display(), "log segment removed");
            Ok(())
        }
    }
}

/// The reverse of [`path_of`]; `None` for other files.
pub(super) fn base_of_path(path: &Path) -> Option<u64> {
    let name = path.file_name()?.to_str()?;
    (name.len() == 20 && name.bytes().all(|byte| byte.is_ascii_digit())).then(|| name.parse().ok()).flatten()
}

/// Why bytes could not be copied.
pub(super) enum Unread {
    /// The device has lost them.
    Lost,
    /// Anything else.
    Io(String),
}

/// A segment with at least one record in it.
pub(super) struct Segment {
    pub(super) base: u64,
    /// Set by the writer before the segment's first record counts as written.
    file: OnceLock<Arc<dyn DiskFile>>,
    index: Mutex<Index>,
}

impl Segment {
    pub(super) fn new(base: u64) -> Segment {
        Segment { base, file: OnceLock::new(), index: Mutex::new(Index::default()) }
    }

    /// Gives the segment its file, once.
    pub(super) fn set_file(&self, file: &Arc<dyn DiskFile>) {
        self.file.get_or_init(|| file.clone());
    }

    /// Notes where an entry lies.
    pub(super) fn note(&self, index: u64, position: u64) {
        self.index.lock().note(index, position);
    }

    /// Forgets the entries above `keep`.
    pub(super) fn forget_after(&self, keep: u64) {
        self.index.lock().forget_after(keep);
    }

    /// Has the segment's part of the log from `start` to `end` brought into memory.
    pub(super) fn prefetch(&self, start: u64, end: u64) {
        let start = start.max(self.base);
        if let Some(file) = self.file.get() {
            file.prefetch(start - self.base, end.saturating_sub(start));
        }
    }

    /// The last known entry that is not after `index`, with its position.
    pub(super) fn known_before(&self, index: u64) -> Option<(u64, u64)> {
        self.index.lock().before(index)
    }

    /// The last known entry that does not start after `position`.
    pub(super) fn known_before_position(&self, position: u64) -> Option<(u64, u64)> {
        self.index.lock().before_position(position)
    }

    /// Fills `bytes` with what the file holds from `position` on; `stored`: the device itself, not memory.
    pub(super) fn fill(&self, position: u64, bytes: &mut [u8], stored: bool) -> Result<(), Unread> {
        let file = self.file.get().ok_or_else(|| Unread::Io("the segment has no file yet".into()))?;
        let offset = position - self.base;
        let read = if stored { file.read_stored_at(bytes, offset) } else { file.read_at(bytes, offset) };
        let read = read.map_err(|error| match is_lost(&error) {
            true => Unread::Lost,
            false => Unread::Io(error.to_string()),
        })?;
        // What a file too short should hold reads as no record.
        bytes[read..].fill(0);
        Ok(())
    }

    /// The same with zeroes where the device has lost something: for a search, which verifies what it finds.
    pub(super) fn fill_around_lost(&self, position: u64, bytes: &mut [u8]) -> io::Result<()> {
        let file = self.file.get().ok_or_else(|| io::Error::other("the segment has no file yet"))?;
        let around = read_around_lost(&**file, bytes, position - self.base, false)?;
        bytes[around.read..].fill(0);
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_record_that_does_not_fit_starts_the_next_segment() {
        assert_eq!(place(0, 1000, 1000), 0);
        assert_eq!(place(900, 100, 1000), 900);
        assert_eq!(place(900, 101, 1000), 1000);
        assert_eq!(place(1000, 1, 1000), 1000);
        assert_eq!((base_of(999, 1000), base_of(1000, 1000)), (0, 1000));
    }

    #[test]
    fn names_are_twenty_digits() {
        let path = path_of(Path::new("d"), 1 << 30);
        assert_eq!(path, Path::new("d/00000000001073741824"));
        assert_eq!(base_of_path(&path), Some(1 << 30));
        for other in ["1073741824", "0000000000107374182x", "00000000001073741824.tmp"] {
            assert_eq!(base_of_path(Path::new(other)), None);
        }
        assert_eq!(base_of_path(Path::new("99999999999999999999")), None);
    }
}
