//! One segment file as readers see it, and the rule where a record goes.
//!
//! A segment's file name is the 20-digit position of its first byte; all segments have the same length. A record never
//! crosses a segment: when it does not fit into what is left, the rest stays zero and it becomes the first record of the
//! next segment. That rule depends on nothing but the segment size, so positions are equal on all replicas.

use std::io;
use std::path::{Path, PathBuf};
use std::sync::{Arc, OnceLock};

use bytes::Bytes;
use parking_lot::Mutex;

use super::error::ReadError;
use super::index::Index;
use crate::disk::{Disk, DiskFile, is_lost};
use crate::record::{HEADER_BYTES, MAGIC, RECORD_BYTES_MAX, Record, RecordError, RecordHeader};

/// How far a record is looked for from a known one before it, header by header.
const HOP_BYTES_MAX: u64 = 256 << 10;

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
enum Unread {
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

    /// Stored bytes of the segment.
    pub(super) fn bytes(&self, position: u64, length: usize) -> Result<Bytes, ReadError> {
        let io = |reason: String| ReadError::Io { position, reason };
        let file = self.file.get().ok_or_else(|| io("the segment has no file yet".into()))?;
        file.slice(position - self.base, length).map_err(|error| io(error.to_string()))
    }

    /// Fills `bytes` with what the disk holds from `position` on; `stored`: the device itself, not memory. What it has
    /// lost is told as such, where a look through the map would end the process.
    fn fill(&self, position: u64, bytes: &mut [u8], stored: bool) -> Result<(), Unread> {
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

    /// The record of entry `index` at `position`, copied from the disk; `stored`: from the device itself.
    pub(super) fn copied(
        &self,
        position: u64,
        index: u64,
        segment_bytes: u64,
        stored: bool,
    ) -> Result<Record, ReadError> {
        let rot = |reason| ReadError::Rot { position, index, reason };
        let fill = |bytes: &mut [u8]| {
            self.fill(position, bytes, stored).map_err(|unread| match unread {
                Unread::Lost => rot(RecordError::Lost),
                Unread::Io(reason) => ReadError::Io { position, reason },
            })
        };
        let mut frame = vec![0; HEADER_BYTES];
        fill(&mut frame)?;
        let header = RecordHeader::parse(&frame).map_err(rot)?;
        if (header.position, header.index) != (position, index)
            || base_of(header.end() - 1, segment_bytes) != self.base
        {
            return Err(ReadError::Misplaced { position, index });
        }
        frame.resize(header.length as usize, 0);
        fill(&mut frame)?;
        Record::parse(frame.into()).map_err(rot)
    }

    /// The header at `position`, copied from the disk, if it is whole and that of entry `index`.
    pub(super) fn copied_header(&self, position: u64, index: u64) -> Option<RecordHeader> {
        let mut bytes = [0; HEADER_BYTES];
        self.fill(position, &mut bytes, false).ok()?;
        let header = RecordHeader::parse(&bytes).ok()?;
        ((header.position, header.index) == (position, index)).then_some(header)
    }

    /// The whole record around `position`, payload checked; `first` is the segment's first entry.
    pub(super) fn around(&self, position: u64, first: (u64, u64)) -> Result<Record, ReadError> {
        let mut header = match self.header_before(position, first.1) {
            Some(header) => header,
            None => self.header(first.1, first.0)?,
        };
        while header.end() <= position {
            header = self.header(header.end(), header.index + 1)?;
        }
        self.note(header.index, header.position);
        self.record(header.position, header.index)
    }

    /// The last record header that starts at or before `position` and at or after `first`, looked for backwards.
    fn header_before(&self, position: u64, first: u64) -> Option<RecordHeader> {
        let known = self.index.lock().before_position(position).filter(|known| known.1 >= first);
        if let Some((index, at)) = known.filter(|known| position - known.1 <= HOP_BYTES_MAX) {
            return self.header(at, index).ok();
        }
        let from = first.max(position.saturating_sub(RECORD_BYTES_MAX as u64));
        let stretch = self.bytes(from, (position - from) as usize + HEADER_BYTES).ok()?;
        let candidates = memchr::memmem::rfind_iter(&stretch, &MAGIC);
        let mut headers = candidates.filter_map(|at| {
            let header = RecordHeader::parse(&stretch[at..]).ok()?;
            (header.position == from + at as u64 && header.position <= position).then_some(header)
        });
        headers.next()
    }

    /// The header at `position`, which must be that of entry `index`.
    pub(super) fn header(&self, position: u64, index: u64) -> Result<RecordHeader, ReadError> {
        let bytes = self.bytes(position, HEADER_BYTES)?;
        let header =
            RecordHeader::parse(&bytes).map_err(|reason| ReadError::Rot { position, index, reason })?;
        if (header.position, header.index) != (position, index) {
            return Err(ReadError::Misplaced { position, index });
        }
        Ok(header)
    }

    /// The whole record of entry `index` at `position`, payload checked.
    pub(super) fn record(&self, position: u64, index: u64) -> Result<Record, ReadError> {
        let header = self.header(position, index)?;
        let frame = self.bytes(position, header.length as usize)?;
        Record::parse(frame).map_err(|reason| ReadError::Rot { position, index, reason })
    }

    /// The header of entry `index`, found from the nearest entry known before it; `first` is the segment's first.
    pub(super) fn find(&self, index: u64, first: (u64, u64)) -> Result<RecordHeader, ReadError> {
        let known = self.index.lock().before(index).filter(|known| known.0 >= first.0).unwrap_or(first);
        let (mut at, mut position) = known;
        loop {
            let header = self.header(position, at)?;
            self.note(at, position);
            if at == index {
                return Ok(header);
            }
            (at, position) = (at + 1, header.end());
        }
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
