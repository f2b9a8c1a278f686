//! What readers see of the log: the cached records, the segments and the watermarks.
//!
//! It is changed by the appender (new records, truncation, purge) and the writer (what is written and durable), each time
//! under its lock and briefly; no file is read or written under that lock.

use std::sync::Arc;

use super::Shared;
use super::cache::Cache;
use super::error::ReadError;
use super::mark::Start;
use super::reader::{Reader, Source};
use super::segment::{Segment, base_of};
use crate::record::{EntryId, Record, RecordHeader};

/// Bytes of consecutive records that are read together: at first, and at most.
const READ_BYTES_MIN: usize = 64 << 10;
const READ_BYTES_MAX: usize = 1 << 20;

/// A segment with the first entry that is still part of the log.
#[derive(Clone)]
pub(super) struct Live {
    pub(super) segment: Arc<Segment>,
    /// Index and position.
    pub(super) first: (u64, u64),
}

/// The readable state of the log.
pub(super) struct View {
    pub(super) start: Start,
    /// The last entry; the last purged one when the log is empty.
    pub(super) last: Option<EntryId>,
    pub(super) end: u64,
    pub(super) cache: Cache,
    /// Segments with live records, ascending.
    pub(super) segments: Vec<Live>,
    /// Number of the last append.
    pub(super) appended: u64,
    /// Number of the last append that reached its file.
    pub(super) written: u64,
    pub(super) durable_end: u64,
    pub(super) durable: Option<EntryId>,
    /// Counts truncations and resets.
    pub(super) epoch: u64,
    /// The lowest end and last entry of the log since the writer came to the newest truncation: what it makes durable
    /// until then counts up to here.
    pub(super) cut: Option<(u64, Option<EntryId>)>,
}

impl View {
    pub(super) fn is_empty(&self) -> bool {
        self.segments.is_empty()
    }

    /// The index of the first entry; of the next one when the log is empty, 0 when that is open.
    pub(super) fn first_index(&self) -> u64 {
        let first = self.segments.first().map(|live| live.first.0);
        first.or(self.start.first_index()).unwrap_or(0)
    }

    /// The segment that holds the entry, and the segments after it.
    fn segments_from(&self, index: u64) -> &[Live] {
        let at = self.segments.partition_point(|live| live.first.0 <= index);
        &self.segments[at.saturating_sub(1)..]
    }

    /// Where the records that are certainly in their files end, with the bytes that the log has now.
    pub(super) fn in_files(&self) -> u64 {
        self.cache.first_position().min(self.end)
    }

    /// The segment for a record at `position`, made if it is the first one there.
    pub(super) fn segment_for(&mut self, header: &RecordHeader, segment_bytes: u64) -> Arc<Segment> {
        let base = base_of(header.position, segment_bytes);
        if let Some(live) = self.segments.last().filter(|live| live.segment.base == base) {
            return live.segment.clone();
        }
        let segment = Arc::new(Segment::new(base));
        self.segments.push(Live { segment: segment.clone(), first: (header.index, header.position) });
        segment
    }

    /// The segment that holds `position`.
    pub(super) fn live_at(&self, position: u64, segment_bytes: u64) -> Option<Live> {
        let base = base_of(position, segment_bytes);
        let at = self.segments.binary_search_by_key(&base, |live| live.segment.base);
        at.ok().map(|at| self.segments[at].clone())
    }

    /// Whether entry `index` is in the log, and in the segment that holds `position`.
    pub(super) fn holds(&self, index: u64, position: u64, segment_bytes: u64) -> bool {
        let base = base_of(position, segment_bytes);
        let Ok(at) = self.segments.binary_search_by_key(&base, |live| live.segment.base) else {
            return false;
        };
        let before_next = self.segments.get(at + 1).is_none_or(|next| index < next.first.0);
        before_next && index >= self.segments[at].first.0 && self.last.is_some_and(|last| index <= last.index)
    }

    /// Adds a record at the end; the sequence number of the append is returned with its segment.
    pub(super) fn push(
        &mut self,
        record: &Record,
        segment_bytes: u64,
        cache_bytes: usize,
    ) -> (u64, Arc<Segment>) {
        let segment = self.segment_for(&record.header, segment_bytes);
        segment.note(record.header.index, record.position());
        self.appended += 1;
        self.cache.push(self.appended, record.clone());
        self.cache.evict(self.written, cache_bytes);
        self.last = Some(record.id());
        self.end = record.end();
        (self.appended, segment)
    }

    /// Drops the entries above `keep`, after which the log ends at `end`.
    pub(super) fn truncate(&mut self, keep: Option<EntryId>, end: u64) {
        let index = keep.map(|keep| keep.index);
        self.cache.truncate_after(index);
        self.segments.retain(|live| Some(live.first.0) <= index);
        if let (Some(live), Some(index)) = (self.segments.last(), index) {
            live.segment.forget_after(index);
        }
        if self.durable_end > end {
            (self.durable_end, self.durable) = (end, keep);
        }
        (self.last, self.end) = (keep, end);
        self.cut = self.cut.filter(|cut| cut.0 <= end).or(Some((end, keep)));
        self.epoch += 1;
    }

    /// Drops the entries up to that of `start`, and what lies before.
    pub(super) fn purge(&mut self, start: Start) {
        let upto = start.id.map_or(0, |id| id.index);
        self.start = start;
        if self.last.is_none_or(|last| last.index <= upto) {
            (self.last, self.end) = (start.id, start.position);
            self.segments.clear();
            self.cache.clear();
            return;
        }
        self.cache.purge(upto);
        let gone = self.segments.partition_point(|live| live.first.0 <= upto + 1).saturating_sub(1);
        self.segments.drain(..gone);
        if let Some(live) = self.segments.first_mut().filter(|live| live.first.0 <= upto) {
            live.first = (upto + 1, start.position);
        }
    }

    /// Empties the log; it goes on after `start`.
    pub(super) fn reset(&mut self, start: Start) {
        self.segments.clear();
        self.cache.clear();
        (self.start, self.last, self.end) = (start, start.id, start.position);
        (self.durable_end, self.durable) = (start.position, start.id);
        self.cut = Some((0, None));
        self.epoch += 1;
    }
}

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
