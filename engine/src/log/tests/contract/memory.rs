//! The model: a log that is a list in memory. It makes everything durable at once when it is asked for a completion.

use std::sync::Arc;

use parking_lot::Mutex;

use super::super::super::error::NoCut;
use super::super::super::{segment, slots};
use super::*;
use crate::record::RECORD_BYTES_MAX;
use crate::stamp::Stamper;

/// What a crash leaves of a log.
#[derive(Clone, Default)]
struct Stored {
    start: StampBase,
    /// Each entry with the state after it.
    entries: Vec<(Record, StampBase)>,
    vote: Option<Bytes>,
}

#[derive(Default)]
struct Inner {
    now: Stored,
    /// As of the last completion.
    durable: Stored,
    /// The last entry that is settled.
    settled: Option<u64>,
    closed: bool,
}

#[derive(Clone, Default)]
pub(super) struct MemoryLog(Arc<Mutex<Inner>>);

impl Stored {
    fn last(&self) -> &StampBase {
        self.entries.last().map_or(&self.start, |entry| &entry.1)
    }

    fn first_index(&self) -> u64 {
        let first = self.entries.first().map(|(record, _)| record.header.index);
        first.or(self.start.id.map(|id| id.index + 1)).unwrap_or(0)
    }

    fn admit(&self, id: EntryId, length: u64) -> Result<(), AppendError> {
        let last = self.last().id;
        if last.is_some_and(|last| last.index + 1 != id.index || last.term > id.term) {
            return Err(AppendError::OutOfOrder { last, found: id });
        }
        let max = SEGMENT_BYTES.min(RECORD_BYTES_MAX as u64);
        if length > max { Err(AppendError::TooLarge { length, max }) } else { Ok(()) }
    }

    fn push(&mut self, record: &Record, counters: QueueCounters) {
        let (id, position, prev_crc) = (Some(record.id()), record.end(), record.header.crc);
        self.entries.push((record.clone(), StampBase { id, position, prev_crc, counters }));
    }

    fn truncate_after(&mut self, keep: Option<u64>, settled: Option<u64>) -> Result<(), Refusal> {
        if keep >= self.last().id.map(|id| id.index) {
            return Ok(());
        }
        if keep < self.start.id.map(|id| id.index) || keep < settled {
            return Err(Refusal::Truncate { keep, reason: NoCut::Committed });
        }
        self.entries.retain(|(record, _)| Some(record.header.index) <= keep);
        Ok(())
    }

    fn purge(&mut self, upto: EntryId) -> Result<(), Refusal> {
        if self.start.id.is_some_and(|purged| upto.index <= purged.index) {
            return Ok(());
        }
        let at = self.entries.iter().position(|(record, _)| record.header.index == upto.index);
        match at {
            Some(at) if self.entries[at].0.id() == upto => {
                self.start = self.entries[at].1.clone();
                self.entries.drain(..=at);
            }
            Some(at) => {
                let reason = NoCut::OtherEntry(Some(self.entries[at].0.id()));
                return Err(Refusal::Purge { upto, reason });
            }
            None => {
                self.start = StampBase { id: Some(upto), ..self.last().clone() };
                self.entries.clear();
            }
        }
        Ok(())
    }
}

impl MemoryLog {
    /// Changes what is stored, all of it durable at once, and tells.
    fn change(&self, done: Completion, change: impl FnOnce(&mut Inner) -> Result<(), Refusal>) {
        let outcome = {
            let mut inner = self.0.lock();
            if inner.closed {
                Err(WriteError::Closed)
            } else {
                let changed = change(&mut inner);
                inner.durable = inner.now.clone();
                changed.map_err(WriteError::from)
            }
        };
        done(outcome);
    }

    /// The log after a crash that leaves so many of the entries that are not durable.
    pub(super) fn crash(&self, entries: usize, base: &StampBase) -> MemoryLog {
        let inner = self.0.lock();
        let mut left = inner.durable.clone();
        let known = left.entries.len();
        left.entries.extend(inner.now.entries.iter().skip(known).take(entries).cloned());
        MemoryLog::opened(left, base)
    }

    /// The log after it was closed.
    pub(super) fn reopen(&self, base: &StampBase) -> MemoryLog {
        MemoryLog::opened(self.0.lock().durable.clone(), base)
    }

    fn opened(stored: Stored, base: &StampBase) -> MemoryLog {
        let settled = base.id.map(|id| id.index);
        let (now, durable) = (stored.clone(), stored);
        MemoryLog(Arc::new(Mutex::new(Inner { now, durable, settled, closed: false })))
    }
}

impl DurableLog for MemoryLog {
    fn append(&self, id: EntryId, mut draft: Draft) -> Result<Record, AppendError> {
        let mut inner = self.0.lock();
        if inner.closed {
            return Err(AppendError::Closed);
        }
        let length = draft.len() as u64;
        inner.now.admit(id, length)?;
        let last = inner.now.last().clone();
        let position = segment::place(last.position, length, SEGMENT_BYTES);
        let mut stamper = Stamper::new(last.counters, None);
        if draft.kind().has_messages() {
            let at = draft.messages_at().map_err(AppendError::Transition)?;
            let (count, messages) = (draft.messages, draft.messages_mut(at));
            stamper.stamp(id.index, position + at as u64, count, messages).map_err(AppendError::Malformed)?;
        }
        let record = draft.seal(id, position, last.prev_crc).unwrap();
        inner.now.push(&record, stamper.counters().clone());
        Ok(record)
    }

    fn append_record(&self, record: Record) -> Result<Record, AppendError> {
        let mut inner = self.0.lock();
        if inner.closed {
            return Err(AppendError::Closed);
        }
        let (id, header) = (record.id(), record.header);
        inner.now.admit(id, u64::from(header.length))?;
        let last = inner.now.last().clone();
        let position = segment::place(last.position, u64::from(header.length), SEGMENT_BYTES);
        let mut stamper = Stamper::new(last.counters, None);
        let follows = header.position == position && header.prev_crc == last.prev_crc;
        let is_stamped = !header.kind.has_messages()
            || stamper
                .check(header.index, record.messages_position(), header.messages, record.messages())
                .is_ok();
        if !(follows && is_stamped) {
            return Err(AppendError::Divergence { id, reason: "it would have been made otherwise".into() });
        }
        inner.now.push(&record, stamper.counters().clone());
        Ok(record)
    }

    fn submit(&self, done: Completion) {
        self.change(done, |_| Ok(()));
    }

    fn save_vote(&self, vote: &[u8], done: Completion) {
        self.change(done, |inner| {
            if vote.is_empty() || vote.len() > slots::VALUE_BYTES_MAX {
                return Err(Refusal::VoteSize { bytes: vote.len(), max: slots::VALUE_BYTES_MAX });
            }
            inner.now.vote = Some(Bytes::copy_from_slice(vote));
            Ok(())
        });
    }

    fn vote(&self) -> Option<Bytes> {
        self.0.lock().durable.vote.clone()
    }

    fn truncate_after(&self, keep: Option<u64>, done: Completion) {
        self.change(done, |inner| inner.now.truncate_after(keep, inner.settled));
    }

    fn purge(&self, upto: EntryId, done: Completion) {
        self.change(done, |inner| {
            inner.now.purge(upto)?;
            inner.settled = inner.settled.max(Some(upto.index));
            Ok(())
        });
    }

    fn reset(&self, start: StampBase, done: Completion) {
        self.change(done, |inner| {
            inner.settled = start.id.map(|id| id.index);
            (inner.now.start, inner.now.entries) = (start, Vec::new());
            Ok(())
        });
    }

    fn read(&self, start: u64, end: u64, max_bytes: usize) -> Result<Vec<Record>, ReadError> {
        let inner = self.0.lock();
        let first = inner.now.first_index();
        if start < first {
            return Err(ReadError::Purged { asked: start, first });
        }
        let (mut records, mut bytes) = (Vec::new(), 0);
        for (record, _) in &inner.now.entries {
            let is_asked = (start..end).contains(&record.header.index);
            if is_asked && (records.is_empty() || bytes < max_bytes) {
                bytes += record.frame().len();
                records.push(record.clone());
            }
        }
        Ok(records)
    }

    fn state(&self) -> LogState {
        let inner = self.0.lock();
        let (now, last, durable) = (&inner.now, inner.now.last(), inner.durable.last());
        LogState {
            first_index: now.first_index(),
            last: last.id,
            purged: now.start.id,
            start_position: now.start.position,
            next_position: last.position,
            durable_position: durable.position,
            durable: durable.id,
            poisoned: None,
        }
    }

    fn counters(&self) -> QueueCounters {
        self.0.lock().now.last().counters.clone()
    }

    fn forget_undo(&self, index: u64) {
        let mut inner = self.0.lock();
        inner.settled = inner.settled.max(Some(index));
    }

    fn close(&self) {
        self.change(Box::new(|_| {}), |_| Ok(()));
        self.0.lock().closed = true;
    }
}
