//! The end of the log as its one appender sees it: admission, stamping, sealing, and the in-memory part of what takes
//! records away. The part on disk, done later by the writer, is in [`super::truncate`].

use super::error::{AppendError, NoCut, ReadError};
use super::mark::Start;
use super::queue::{Append, Change, Job};
use super::shared::Shared;
use super::stamp_base::StampBase;
use super::view::View;
use super::{reads, segment};
use crate::record::{Draft, EntryId, Record};
use crate::stamp::Stamper;

/// Where the next record goes, and what it continues.
pub(super) struct Tail {
    end: u64,
    prev_crc: u32,
    last: Option<EntryId>,
    pub(super) stamper: Stamper,
    pub(super) closed: bool,
}

impl Tail {
    pub(super) fn new(end: u64, prev_crc: u32, last: Option<EntryId>, stamper: Stamper) -> Tail {
        Tail { end, prev_crc, last, stamper, closed: false }
    }

    /// The position after the last record.
    pub(super) fn end(&self) -> u64 {
        self.end
    }

    pub(super) fn append(
        &mut self,
        shared: &Shared,
        id: EntryId,
        mut draft: Draft,
    ) -> Result<Record, AppendError> {
        let length = draft.len() as u64;
        self.admit(shared, id, length)?;
        let position = segment::place(self.end, length, shared.config.segment_bytes);
        if draft.kind().has_messages() {
            let at = draft.messages_at().map_err(AppendError::Transition)?;
            let (count, messages) = (draft.messages, draft.messages_mut(at));
            let stamped = self.stamper.stamp(id.index, position + at as u64, count, messages);
            stamped.map_err(AppendError::Malformed)?;
        }
        // It was admitted, so it is not too long; it can be too short only if somebody cut the header's room off.
        let refused = AppendError::TooLarge { length, max: shared.record_bytes_max() };
        let record = draft.seal(id, position, self.prev_crc).ok_or(refused)?;
        self.push(shared, &record);
        Ok(record)
    }

    pub(super) fn append_record(&mut self, shared: &Shared, record: Record) -> Result<Record, AppendError> {
        let (id, header) = (record.id(), record.header);
        self.admit(shared, id, u64::from(header.length))?;
        let diverged = |reason: String| AppendError::Divergence { id, reason };
        let position = segment::place(self.end, u64::from(header.length), shared.config.segment_bytes);
        if header.position != position {
            return Err(diverged(format!("it lies at position {}, expected {position}", header.position)));
        }
        if header.prev_crc != self.prev_crc {
            let (found, expected) = (header.prev_crc, self.prev_crc);
            return Err(diverged(format!("the record before has crc {found:08x}, expected {expected:08x}")));
        }
        if header.kind.has_messages() {
            let (at, messages) = (record.messages_position(), record.messages());
            let checked = self.stamper.check(header.index, at, header.messages, messages);
            checked.map_err(|error| diverged(error.to_string()))?;
        }
        self.push(shared, &record);
        Ok(record)
    }

    fn admit(&self, shared: &Shared, id: EntryId, length: u64) -> Result<(), AppendError> {
        if let Some(reason) = shared.poisoned() {
            return Err(AppendError::Poisoned(reason));
        }
        if self.closed {
            return Err(AppendError::Closed);
        }
        // An empty log from which nothing was purged may start anywhere.
        let follows = self.last.is_none_or(|last| last.index + 1 == id.index && last.term <= id.term);
        if !follows || id.index == u64::MAX {
            return Err(AppendError::OutOfOrder { last: self.last, found: id });
        }
        let max = shared.record_bytes_max();
        if length > max { Err(AppendError::TooLarge { length, max }) } else { Ok(()) }
    }

    fn push(&mut self, shared: &Shared, record: &Record) {
        assert!(record.position() >= self.end, "log.I8: positions only grow");
        (self.end, self.prev_crc, self.last) = (record.end(), record.header.crc, Some(record.id()));
        let mut view = shared.view.lock();
        let epoch = view.epoch;
        let (sequence, segment) = view.push(record, shared.config.segment_bytes, shared.config.cache_bytes);
        drop(view);
        shared.push(Job::Append(Append { record: record.clone(), segment, sequence, epoch }));
    }

    /// `None`: there is nothing to drop.
    pub(super) fn truncate_after(
        &mut self,
        shared: &Shared,
        keep: Option<u64>,
    ) -> Result<Option<Change>, NoCut> {
        if keep >= self.last.map(|last| last.index) {
            return Ok(None);
        }
        let (start, first) = {
            let view = shared.view.lock();
            (view.start.id.map(|id| id.index), view.first_index())
        };
        if keep < start || !self.stamper.can_undo_to(keep) {
            return Err(NoCut::Committed);
        }
        // In a log that starts anywhere, going back to before its first entry is going back to nothing.
        let keep = keep.filter(|&keep| start.is_some() || keep >= first);
        let place = place_after(shared, keep)?;
        self.stamper.undo_to(keep);
        (self.end, self.prev_crc, self.last) = (place.position, place.prev_crc, place.id);
        shared.verified_cache.forget();
        let mut view = shared.view.lock();
        view.truncate(place.id, place.position);
        Ok(Some(Change::Truncate { end: place.position, last: place.id, epoch: view.epoch }))
    }

    /// What was purged before is purged once more: that changes nothing, and waits for no more than the first time (`log.I11`).
    pub(super) fn purge(&mut self, shared: &Shared, upto: EntryId) -> Result<Change, NoCut> {
        let (start, first) = {
            let view = shared.view.lock();
            (view.start, view.first_index())
        };
        if start.id.is_some_and(|purged| upto.index <= purged.index) {
            return Ok(purge_of(&shared.view.lock(), shared.config.segment_bytes));
        }
        let beyond = self.last.is_none_or(|last| upto.index > last.index);
        let point = if beyond {
            Start { id: Some(upto), position: self.end, prev_crc: self.prev_crc, ..start }
        } else if upto.index + 1 == first {
            // A log that started anywhere, after this very entry: nothing goes.
            Start { id: Some(upto), ..start }
        } else {
            let epoch = view_epoch(shared);
            let place = find_place(shared, Some(upto.index));
            let place = place.or_else(|error| segment_after(shared, upto).ok_or(error));
            place.map_err(|error| shared.noted(epoch, error))?
        };
        if point.id != Some(upto) {
            return Err(NoCut::OtherEntry(point.id));
        }
        self.stamper.forget(upto.index);
        if beyond {
            self.last = point.id;
        }
        let mut view = shared.view.lock();
        view.purge(point);
        Ok(purge_of(&view, shared.config.segment_bytes))
    }

    pub(super) fn reset(&mut self, shared: &Shared, start: StampBase) -> Change {
        shared.verified_cache.forget();
        let mut view = shared.view.lock();
        let point = start.start(view.start.epoch + 1);
        view.reset(point);
        let stamper = Stamper::new(start.counters, start.id.map(|id| id.index));
        let closed = self.closed;
        *self = Tail { closed, ..Tail::new(start.position, start.prev_crc, start.id, stamper) };
        Change::Reset { start: point, epoch: view.epoch }
    }
}

/// The change that has the files begin where the view does.
fn purge_of(view: &View, segment_bytes: u64) -> Change {
    let next = segment::base_of(view.start.position, segment_bytes);
    let keep = view.segments.first().map_or(next, |live| live.segment.base);
    Change::Purge { start: view.start, keep, epoch: view.epoch }
}

/// The start of the segment that begins after an entry, from that segment's first record: the segment that is dropped may be
/// damaged, and the other members may have dropped theirs (`damage.I5`). None if no segment begins there, or its record cannot
/// be read.
fn segment_after(shared: &Shared, upto: EntryId) -> Option<Start> {
    let (start, position) = {
        let view = shared.view.lock();
        let live = view.segments.iter().find(|live| live.first.0 == upto.index + 1)?;
        (view.start, live.first.1)
    };
    let first = reads::header_of(shared, upto.index + 1).ok()?;
    Some(Start { id: Some(upto), position, prev_crc: first.prev_crc, ..start })
}

/// The place after entry `index`, which is the purge point or an entry of the log.
fn place_after(shared: &Shared, index: Option<u64>) -> Result<Start, ReadError> {
    let epoch = view_epoch(shared);
    find_place(shared, index).map_err(|error| shared.noted(epoch, error))
}

fn view_epoch(shared: &Shared) -> u64 {
    shared.view.lock().epoch
}

/// The same; damage is not noted.
fn find_place(shared: &Shared, index: Option<u64>) -> Result<Start, ReadError> {
    let start = shared.view.lock().start;
    let Some(index) = index.filter(|&index| Some(index) != start.id.map(|id| id.index)) else {
        return Ok(start);
    };
    let header = reads::header_of(shared, index)?;
    Ok(Start { id: Some(header.id()), position: header.end(), prev_crc: header.crc, ..start })
}
