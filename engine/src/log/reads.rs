//! Records and headers by entry or position, from memory or from files, as the view has them.

use super::error::ReadError;
use super::reader::{Reader, Source};
use super::shared::Shared;
use super::view::Live;
use crate::record::{Record, RecordHeader};

/// Bytes of consecutive records that are read together: at first, and at most.
const READ_BYTES_MIN: usize = 64 << 10;
const READ_BYTES_MAX: usize = 1 << 20;

/// Header of entry `index`, from memory or disk.
pub(super) fn header_of(shared: &Shared, index: u64) -> Result<RecordHeader, ReadError> {
    let live = {
        let view = shared.view.lock();
        if let Some(record) = view.cache.get(index) {
            return Ok(record.header);
        }
        view.segments_from(index).first().filter(|live| live.first.0 <= index).cloned()
    };
    let live = live.ok_or(ReadError::Misplaced { position: 0, index })?;
    Reader::new(shared, &live.segment, Source::Anywhere, u64::MAX).find(index, live.first)
}

/// Records `start` to before `end`: see `CommitLog::read`.
pub(super) fn read(
    shared: &Shared,
    start: u64,
    end: u64,
    bytes_max: usize,
) -> Result<Vec<Record>, ReadError> {
    let (mut out, mut bytes) = (Vec::new(), 0);
    let (segments, end, cached, epoch, limit) = {
        let view = shared.view.lock();
        let first = view.first_index();
        if start < first {
            return Err(ReadError::Purged { asked: start, first });
        }
        let end = view.last.filter(|_| !view.is_empty()).map_or(start, |last| end.min(last.index + 1));
        let cached = view.cache.first_index().unwrap_or(end).min(end);
        if start >= end {
            return Ok(out);
        }
        if start >= cached {
            view.cache.read(start, end, bytes_max, &mut out, &mut bytes);
            return Ok(out);
        }
        (view.segments_from(start).to_vec(), end, cached, view.epoch, view.in_files())
    };
    let stored = Stored { segments: &segments, limit, bytes_max };
    if let Err(error) = stored.read(shared, start, cached, &mut out, &mut bytes) {
        let noted = shared.noted(epoch, error);
        if out.is_empty() {
            return Err(noted);
        }
        // What lies before the damage is given; whoever needs more meets it then.
        return Ok(out);
    }
    if bytes < bytes_max && out.last().is_some_and(|last| last.header.index + 1 == cached) {
        let view = shared.view.lock();
        if view.epoch == epoch {
            view.cache.read(cached, end, bytes_max, &mut out, &mut bytes);
        }
    }
    Ok(out)
}

/// Records that are in files.
struct Stored<'a> {
    segments: &'a [Live],
    /// Where the last of them ends at the latest.
    limit: u64,
    bytes_max: usize,
}

impl Stored<'_> {
    fn read(
        &self,
        shared: &Shared,
        start: u64,
        end: u64,
        out: &mut Vec<Record>,
        bytes: &mut usize,
    ) -> Result<(), ReadError> {
        let mut index = start;
        for (at, live) in self.segments.iter().enumerate() {
            let stop = self.segments.get(at + 1).map_or(end, |next| next.first.0.min(end));
            if index >= stop {
                continue;
            }
            let mut reader = Reader::new(shared, &live.segment, Source::Anywhere, self.limit);
            let mut position = reader.find(index, live.first)?.position;
            while index < stop && (out.is_empty() || *bytes < self.bytes_max) {
                // Who reads much is likely to read on; who asks for one record gets no more.
                let left = if index + 1 < stop { self.bytes_max.saturating_sub(*bytes) } else { 0 };
                let ahead = (*bytes).clamp(READ_BYTES_MIN, READ_BYTES_MAX).min(left);
                let record = reader.record(position, index, ahead)?;
                (index, position) = (index + 1, record.end());
                *bytes += record.frame().len();
                out.push(record);
            }
            if index < stop {
                return Ok(());
            }
        }
        Ok(())
    }
}

/// See `CommitLog::expect_reads`.
pub(super) fn expect_reads(shared: &Shared, index: u64, position: u64) {
    let (segments, end) = {
        let view = shared.view.lock();
        if !view.holds(index, position, shared.config.segment_bytes) {
            return;
        }
        (view.segments_from(index).to_vec(), view.end)
    };
    if let Some(first) = segments.first()
        && Reader::new(shared, &first.segment, Source::Anywhere, u64::MAX).header(position, index).is_ok()
    {
        first.segment.note(index, position);
    }
    for live in segments {
        live.segment.prefetch(position, end.min(live.segment.base + shared.config.segment_bytes));
    }
}

/// The entry around a position: see `CommitLog::index_at`.
pub(super) fn index_at(shared: &Shared, position: u64) -> Result<u64, ReadError> {
    let (live, epoch) = {
        let view = shared.view.lock();
        if position < view.start.position {
            return Err(ReadError::Purged { asked: position, first: view.start.position });
        }
        let beyond = ReadError::Beyond { asked: position, end: view.end };
        if position >= view.end {
            return Err(beyond);
        }
        if let Some(index) = view.cache.index_at(position) {
            return Ok(index);
        }
        (view.live_at(position, shared.config.segment_bytes).ok_or(beyond)?, view.epoch)
    };
    let mut reader = Reader::new(shared, &live.segment, Source::Anywhere, u64::MAX);
    let record = reader.around(position, live.first).and_then(|header| {
        // Its header alone may be part of something else.
        reader.record(header.position, header.index, 0)
    });
    Ok(record.map_err(|error| shared.noted(epoch, error))?.header.index)
}
