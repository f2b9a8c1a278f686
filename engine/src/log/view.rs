//! What readers see of the log: the cached records, the segments and the watermarks.
//!
//! It is changed by the appender (new records, truncation, purge) and the writer (what is written and durable), each time
//! under its lock and briefly; no file is read or written under that lock.

use std::sync::Arc;

use super::cache::Cache;
use super::mark::Start;
use super::segment::{Segment, base_of};
use crate::record::{EntryId, Record, RecordHeader};

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
    pub(super) fn segments_from(&self, index: u64) -> &[Live] {
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
