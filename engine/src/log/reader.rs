//! Reading one segment: headers and records out of stretches that are read from the file into memory of our own.
//!
//! A stretch is read where something is asked for that the last one does not hold, and longer than that if more is about
//! to be asked for: so consecutive records cost one read for many. Where the device has lost a part of a stretch, exactly
//! what was asked for is read instead: a record beside a lost one can be read.
//!
//! Invariant `reads.I1`: whatever a reader looks at was copied into memory that only this process has. No byte of it can
//! change, or fail to be there, once it is read: bytes that are lost are an error of the read.

use std::sync::Arc;

use bytes::Bytes;

use super::error::ReadError;
use super::index::STRIDE_BYTES;
use super::segment::{Segment, Unread};
use super::shared::Shared;
use crate::record::{HEADER_BYTES, MAGIC, RECORD_BYTES_MAX, Record, RecordError, RecordHeader};

/// Bytes read where headers are hopped over: a page, which holds the next header as well where records are short.
const HOP_BYTES: usize = 4096;
/// How far a record is looked for from a known one before it, header by header.
const HOP_BYTES_MAX: u64 = 256 << 10;
/// Bytes searched at a time for a header.
const SEARCH_BYTES: u64 = 64 << 10;

/// Whose copy of a damaged record may be given.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(super) enum Source {
    /// Memory's or the device's; of a damaged record the copy that stands in for it.
    Anywhere,
    /// The file's, as the page cache has it.
    File,
    /// The device's alone.
    Device,
}

/// See the module.
pub(super) struct Reader<'a> {
    shared: &'a Shared,
    segment: Arc<Segment>,
    source: Source,
    /// Bytes read with a header.
    hop_bytes: usize,
    /// Nothing behind this position is read.
    limit: u64,
    from: u64,
    bytes: Bytes,
}

impl<'a> Reader<'a> {
    /// Reads nothing behind `limit`, nor behind the segment.
    pub(super) fn new(shared: &'a Shared, segment: &Arc<Segment>, source: Source, limit: u64) -> Reader<'a> {
        let limit = limit.min(segment.base + shared.config.segment_bytes);
        let (from, bytes) = (segment.base, Bytes::new());
        Reader { shared, segment: segment.clone(), source, hop_bytes: HOP_BYTES, limit, from, bytes }
    }

    /// The same that reads as much at a time as known entries are apart.
    pub(super) fn in_strides(self) -> Reader<'a> {
        Reader { hop_bytes: STRIDE_BYTES as usize, ..self }
    }

    pub(super) fn segment(&self) -> &Segment {
        &self.segment
    }

    /// The header at `position`, which must be that of entry `index`.
    pub(super) fn header(&mut self, position: u64, index: u64) -> Result<RecordHeader, ReadError> {
        match self.stored_header(position, index, self.hop_bytes) {
            Err(error) => self.stand_in(position, index).map(|record| record.header).ok_or(error),
            header => header,
        }
    }

    /// The whole record of entry `index` at `position`, payload checked. If it is not in memory yet, `ahead` bytes are read
    /// with it.
    pub(super) fn record(&mut self, position: u64, index: u64, ahead: usize) -> Result<Record, ReadError> {
        match self.stored_record(position, index, ahead) {
            Err(error) => self.stand_in(position, index).ok_or(error),
            record => record,
        }
    }

    /// The record that follows `record` right behind it, if it was read with it, is whole and ends before the limit.
    pub(super) fn buffered(&self, record: &Record) -> Option<Record> {
        let start = usize::try_from(record.position().checked_sub(self.from)?).ok()?;
        let at = start + record.frame().len();
        // A copy that stands in for a damaged record is somewhere else.
        let is_here = self.bytes.get(start..)?.as_ptr() == record.frame().as_ptr();
        let rest = self.bytes.get(at..).filter(|_| is_here)?;
        let header = RecordHeader::parse(rest).ok()?;
        let follows = (header.position, header.index, header.prev_crc)
            == (record.end(), record.header.index + 1, record.header.crc);
        let end = at.checked_add(header.length as usize).filter(|end| *end <= self.bytes.len())?;
        if !follows || header.end() > self.limit {
            return None;
        }
        Record::parse(self.bytes.slice(at..end)).ok()
    }

    /// The memory of consecutive records, the later of which were [`Reader::buffered`].
    pub(super) fn span(&self, records: &[Record]) -> Bytes {
        let [first, .., last] = records else {
            return records.first().map(|record| record.frame().clone()).unwrap_or_default();
        };
        let at = |position: u64| position.saturating_sub(self.from) as usize;
        self.bytes.slice(at(first.position())..at(last.end()))
    }

    /// The header of entry `index`, found from the nearest entry known before it; `first` is the segment's first.
    pub(super) fn find(&mut self, index: u64, first: (u64, u64)) -> Result<RecordHeader, ReadError> {
        let known = self.segment.known_before(index).filter(|known| known.0 >= first.0).unwrap_or(first);
        let (mut at, mut position) = known;
        loop {
            let header = self.header(position, at)?;
            self.segment.note(at, position);
            if at == index {
                return Ok(header);
            }
            (at, position) = (at + 1, header.end());
        }
    }

    /// The header of the record around `position`; `first` is the segment's first entry.
    pub(super) fn around(&mut self, position: u64, first: (u64, u64)) -> Result<RecordHeader, ReadError> {
        let mut header = match self.header_before(position, first.1)? {
            Some(header) => header,
            None => self.header(first.1, first.0)?,
        };
        while header.end() <= position {
            header = self.header(header.end(), header.index + 1)?;
        }
        self.segment.note(header.index, header.position);
        Ok(header)
    }

    /// The last record header that starts at or before `position` and at or after `first`, looked for backwards.
    fn header_before(&mut self, position: u64, first: u64) -> Result<Option<RecordHeader>, ReadError> {
        let known = self.segment.known_before_position(position).filter(|known| known.1 >= first);
        if let Some((index, at)) = known.filter(|known| position - known.1 <= HOP_BYTES_MAX) {
            return self.header(at, index).map(Some);
        }
        let floor = first.max(position.saturating_sub(RECORD_BYTES_MAX as u64));
        let mut end = (position + HEADER_BYTES as u64).min(self.limit);
        while end > floor {
            let from = floor.max(end.saturating_sub(SEARCH_BYTES));
            let mut bytes = vec![0; (end - from) as usize];
            self.segment
                .fill_around_lost(from, &mut bytes)
                .map_err(|error| ReadError::Io { position: from, reason: error.to_string() })?;
            let mut candidates = memchr::memmem::rfind_iter(&bytes, &MAGIC);
            let found = candidates.find_map(|at| {
                let header = RecordHeader::parse(&bytes[at..]).ok()?;
                (header.position == from + at as u64 && header.position <= position).then_some(header)
            });
            if found.is_some() || from == floor {
                return Ok(found);
            }
            // A header may lie across the edge.
            end = from + HEADER_BYTES as u64 - 1;
        }
        Ok(None)
    }

    fn stored_header(&mut self, position: u64, index: u64, ahead: usize) -> Result<RecordHeader, ReadError> {
        let rot = |reason| ReadError::Rot { position, index, reason };
        let bytes = self.bytes(position, index, HEADER_BYTES, ahead)?;
        let header = RecordHeader::parse(&bytes).map_err(rot)?;
        let within = header.end() <= self.segment.base + self.shared.config.segment_bytes;
        if (header.position, header.index) != (position, index) || !within {
            return Err(ReadError::Misplaced { position, index });
        }
        Ok(header)
    }

    fn stored_record(&mut self, position: u64, index: u64, ahead: usize) -> Result<Record, ReadError> {
        let header = self.stored_header(position, index, ahead)?;
        let frame = self.bytes(position, index, header.length as usize, ahead)?;
        Record::parse(frame).map_err(|reason| ReadError::Rot { position, index, reason })
    }

    fn stand_in(&self, position: u64, index: u64) -> Option<Record> {
        let may = self.source == Source::Anywhere;
        may.then(|| self.shared.damages.stand_in(position, index)).flatten()
    }

    /// `length` bytes from `position` on, where entry `index` should be.
    fn bytes(&mut self, position: u64, index: u64, length: usize, ahead: usize) -> Result<Bytes, ReadError> {
        let held = |from: u64, bytes: &Bytes| {
            let at = usize::try_from(position.checked_sub(from)?).ok()?;
            let end = at.checked_add(length)?;
            (end <= bytes.len()).then(|| bytes.slice(at..end))
        };
        if let Some(bytes) = held(self.from, &self.bytes) {
            return Ok(bytes);
        }
        let room = usize::try_from(self.limit.saturating_sub(position)).unwrap_or(usize::MAX);
        let wanted = length.max(ahead.min(room));
        let mut read = self.fill(position, wanted);
        if wanted > length && matches!(read, Err(Unread::Lost)) {
            read = self.fill(position, length);
        }
        let bytes = read.map_err(|unread| match unread {
            Unread::Lost => ReadError::Rot { position, index, reason: RecordError::Lost },
            Unread::Io(reason) => ReadError::Io { position, reason },
        })?;
        (self.from, self.bytes) = (position, bytes.clone());
        Ok(bytes.slice(..length))
    }

    fn fill(&self, position: u64, length: usize) -> Result<Bytes, Unread> {
        let buffer = self.shared.buffers.take(length);
        let mut buffer = buffer.map_err(|error| Unread::Io(error.to_string()))?;
        self.segment.fill(position, &mut buffer, self.source == Source::Device)?;
        Ok(buffer.freeze())
    }
}
