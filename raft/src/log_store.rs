//! The commit log as openraft's log: no second log.
//!
//! openraft's core calls `append`, `truncate_after`, `purge` and `save_vote` one at a time, in order; each
//! becomes one job in the log's single queue, so a vote is durable after all earlier appends, and a
//! truncation before any later one. `append` returns at once; its callback fires after fdatasync.

use std::fmt::Debug;
use std::io;
use std::ops::{Bound, RangeBounds, RangeInclusive};
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

use folio_engine::log::{DurableLog, ReadError, WriteError};
use folio_engine::planted;
use folio_engine::record::{EntryId, Record};
use futures_util::{Stream, StreamExt, stream};
use openraft::entry::RaftEntry;
use openraft::storage::{IOFlushed, LogState, RaftLogReader, RaftLogStorage};

use crate::codec;
use crate::host::Host;
use crate::shared::{ROOM_RETRY_INTERVAL, Shared};
use crate::terms::{self, Terms};
use crate::types::{Content, LogEntry, LogId, TypeConfig, Vote, body_of, entry_id, log_id};

/// Bytes that one read for replication or apply returns at most (one record is always returned).
const READ_BYTES_MAX: usize = 2 << 20;

/// How long to wait before reading a damaged record again.
const MEND_WAIT: Duration = Duration::from_millis(50);
/// Waits after which the log says what is waited for, again and again.
const WARN_EVERY: u32 = 200;

/// openraft's view of the commit log.
#[derive(Clone)]
pub(crate) struct LogStore {
    host: Host,
    shared: Arc<Shared>,
}

impl LogStore {
    pub(crate) fn new(host: Host, shared: Arc<Shared>) -> LogStore {
        LogStore { host, shared }
    }

    /// The log as its contract has it. What belongs to its disk alone is asked of [`Shared::log`] (space, damage, what is in memory).
    fn log(&self) -> &impl DurableLog {
        &self.shared.log
    }

    /// What it is a view of.
    #[cfg(test)]
    pub(crate) fn shared(&self) -> &Arc<Shared> {
        &self.shared
    }

    /// Clamps a range to the entries that are present; `None` when there are none.
    fn clamp(&self, range: &impl RangeBounds<u64>) -> Option<(u64, u64)> {
        let state = self.log().state();
        let last = state.last?.index;
        let start = match range.start_bound() {
            Bound::Included(start) => *start,
            Bound::Excluded(before) => before + 1,
            Bound::Unbounded => 0,
        };
        let end = match range.end_bound() {
            Bound::Included(end) => end + 1,
            Bound::Excluded(end) => *end,
            Bound::Unbounded => u64::MAX,
        };
        let (start, end) = (start.max(state.first_index), end.min(last + 1));
        (start < end).then_some((start, end))
    }

    /// Records that are in files only are read where the disk may be waited for: the group's thread serves everybody.
    async fn read_once(&self, start: u64, end: u64) -> Result<Vec<Record>, ReadError> {
        if self.shared.log.is_in_memory(start) {
            return self.log().read(start, end, READ_BYTES_MAX);
        }
        let log = self.shared.log.clone();
        let read = self.host.blocking(move || log.read(start, end, READ_BYTES_MAX)).await;
        read.unwrap_or_else(|error| Err(ReadError::Io { position: 0, reason: error.to_string() }))
    }

    /// Where a record is damaged, waits until it was mended or the group stops: openraft takes a failed read for the end of
    /// this node.
    async fn read(&self, start: u64, end: u64) -> io::Result<Vec<LogEntry>> {
        let mut waits = 0u32;
        loop {
            if waits > 0 && *self.shared.stopping.borrow() {
                return Err(io::Error::other(
                    "the group stopped while a damaged record waited for its repair",
                ));
            }
            match self.read_once(start, end).await {
                Ok(records) => return Ok(records.into_iter().map(LogEntry::stored).collect()),
                // Truncated, or mended, while it was read, or out of memory or open files: look again.
                Err(ReadError::Changed | ReadError::Io { .. }) if waits < WARN_EVERY => {
                    waits += 1;
                    tokio::time::sleep(MEND_WAIT).await;
                }
                Err(ReadError::Rot { position, index, .. } | ReadError::Misplaced { position, index })
                    if waits < WARN_EVERY || self.shared.log.is_damaged(position) =>
                {
                    if waits.is_multiple_of(WARN_EVERY) {
                        tracing::warn!(position, index, "waiting for a damaged record to be mended");
                    }
                    waits = waits.wrapping_add(1);
                    tokio::time::sleep(MEND_WAIT).await;
                }
                Err(error) => return Err(io::Error::other(error)),
            }
        }
    }

    /// Keeps what was found in a log of which the terms were not known, so that it is not searched again.
    fn learn_terms(&self, firsts: &[EntryId], applied: EntryId) {
        let known = &firsts[..firsts.partition_point(|first| first.index <= applied.index)];
        let mut terms = self.shared.terms.lock();
        if applied.term > 0
            && terms.between(firsts[0], applied).is_none()
            && let Some(learned) = Terms::restore(known.to_vec())
        {
            *terms = learned;
        }
    }

    /// The first entry behind `from` of a later term than that; `last` is of one.
    async fn next_term(&self, from: EntryId, last: EntryId) -> io::Result<EntryId> {
        let (mut before, mut found) = (from.index, last);
        while found.index - before > 1 {
            let middle = before + (found.index - before) / 2;
            let entries = self.read(middle, middle + 1).await?;
            let missing = || io::Error::other(format!("entry {middle} is not in the log"));
            let id = entry_id(&entries.first().ok_or_else(missing)?.log_id());
            if id.term == from.term { before = middle } else { found = id }
        }
        Ok(found)
    }

    fn has(&self, index: u64) -> bool {
        self.log().state().last.is_some_and(|last| last.index >= index)
    }

    fn appended(&self, record: &Record) {
        if planted::is("serve-unapplied") {
            let mut arrivals = Vec::new();
            if self.shared.queues.apply(record, &mut arrivals).is_ok() {
                self.shared.hooks.applied(&arrivals);
            }
        }
    }
}

impl RaftLogReader<TypeConfig> for LogStore {
    async fn try_get_log_entries<RB: RangeBounds<u64> + Clone + Debug + Send>(
        &mut self,
        range: RB,
    ) -> io::Result<Vec<LogEntry>> {
        let Some((mut start, end)) = self.clamp(&range) else { return Ok(Vec::new()) };
        let mut entries = Vec::new();
        while start < end {
            let more = self.read(start, end).await?;
            start += more.len() as u64;
            entries.extend(more);
        }
        Ok(entries)
    }

    /// Reads in pieces: after a restart the range may be gigabytes.
    async fn entries_stream<RB: RangeBounds<u64> + Clone + Debug + Send>(
        &mut self,
        range: RB,
    ) -> impl Stream<Item = io::Result<LogEntry>> + Send {
        let store = self.clone();
        let (start, end) = self.clamp(&range).unwrap_or((0, 0));
        let pieces = stream::unfold((store, start, end), move |(store, next, end)| async move {
            if next >= end {
                return None;
            }
            if next > start {
                // Much is applied at once: heartbeats do not wait behind all of it.
                tokio::task::yield_now().await;
            }
            match store.read(next, end).await {
                Ok(entries) => {
                    let next = next + entries.len() as u64;
                    let entries: Vec<_> = entries.into_iter().map(Ok).collect();
                    Some((entries, (store, next, end)))
                }
                Err(error) => Some((vec![Err(error)], (store, end, end))),
            }
        });
        Box::pin(pieces.map(stream::iter).flatten())
    }

    async fn limited_get_log_entries(&mut self, start: u64, end: u64) -> io::Result<Vec<LogEntry>> {
        match self.read(start, end).await {
            // Purged since a stream of appends was begun: the stream ends by the empty append that openraft makes of this
            // (`transport::replication`). An error here would stop this node.
            Err(_) if start < self.log().state().first_index => Ok(Vec::new()),
            read => read,
        }
    }

    /// The last entry of each term. Those of what is applied are known; what is behind that was just read.
    async fn get_key_log_ids(&mut self, range: RangeInclusive<LogId>) -> io::Result<Vec<LogId>> {
        let (first, last) = (entry_id(range.start()), entry_id(range.end()));
        let applied = EntryId {
            term: self.shared.applied_term.load(Ordering::Acquire),
            index: self.shared.applied_index.load(Ordering::Acquire),
        };
        let known = self.shared.terms.lock().between(first, applied).filter(|_| applied.index <= last.index);
        let (mut firsts, mut from) = match known {
            Some(firsts) => (firsts, applied),
            None => (vec![first], first),
        };
        while from.term < last.term {
            from = self.next_term(from, last).await?;
            firsts.push(from);
        }
        self.learn_terms(&firsts, applied);
        Ok(terms::lasts(&firsts, last).into_iter().map(log_id).collect())
    }

    async fn read_vote(&mut self) -> io::Result<Option<Vote>> {
        let Some(bytes) = self.log().vote() else { return Ok(None) };
        codec::decode_vote(&bytes).map(Some).map_err(io::Error::other)
    }
}

impl RaftLogStorage<TypeConfig> for LogStore {
    type LogReader = LogStore;

    async fn get_log_state(&mut self) -> io::Result<LogState<TypeConfig>> {
        let state = self.log().state();
        let last_purged_log_id = state.purged.map(log_id);
        Ok(LogState { last_purged_log_id, last_log_id: state.last.map(log_id).or(last_purged_log_id) })
    }

    async fn get_log_reader(&mut self) -> LogStore {
        self.clone()
    }

    async fn save_vote(&mut self, vote: &Vote) -> io::Result<()> {
        let bytes = codec::encode_vote(vote);
        self.shared.durably(|done| self.log().save_vote(&bytes, done)).await
    }

    async fn append<I>(&mut self, entries: I, callback: IOFlushed<TypeConfig>) -> io::Result<()>
    where
        I: IntoIterator<Item = LogEntry> + Send,
        I::IntoIter: Send,
    {
        let (mut last, mut early) = (None, Vec::new());
        for entry in entries {
            let id = entry_id(&entry.log_id());
            match entry.content {
                Content::New(payload) => {
                    let body = body_of(payload);
                    body.taken.store(true, Ordering::Release);
                    let record = self.log().append(id, body.draft).map_err(io::Error::other)?;
                    self.appended(&record);
                    early.extend(body.early.map(|answer| (answer.into_inner(), record)));
                }
                Content::Stored(_) if planted::is("skip-truncation") && self.has(id.index) => {}
                Content::Stored(record) => {
                    let record = self.log().append_record(record).map_err(io::Error::other)?;
                    self.appended(&record);
                }
            }
            last = Some(id.index);
        }
        let shared = self.shared.clone();
        self.log().submit(Box::new(move |result| {
            shared.note_durable(last, result.as_ref().err().map(ToString::to_string));
            if result.is_ok() {
                early.into_iter().for_each(|(answer, record)| answer(&record));
            }
            callback.io_completed(result.map_err(io::Error::other));
        }));
        Ok(())
    }

    async fn truncate_after(&mut self, last: Option<LogId>) -> io::Result<()> {
        let keep = last.map(|id| id.index);
        if planted::is("skip-truncation") {
            return Ok(());
        }
        self.shared.durably(|done| self.log().truncate_after(keep, done)).await?;
        self.shared.note_truncated(keep);
        Ok(())
    }

    /// Drops entries up to `upto`. Where `upto` is a snapshot that was just received, the log starts anew
    /// after it: at the snapshot's position, with the snapshot's queue counters.
    async fn purge(&mut self, upto: LogId) -> io::Result<()> {
        let id = entry_id(&upto);
        // It was prepared before a snapshot was installed, whose log has to follow its state at once (`group.I2`). Other purges
        // of the log of an earlier version may have to wait.
        while !self.shared.log.is_purge_prepared() {
            let log = self.shared.log.clone();
            let Err(WriteError::Full) = self.host.blocking(move || log.prepare_purge()).await? else { break };
            tracing::warn!("disk full: old segments are dropped once there is room");
            tokio::time::sleep(ROOM_RETRY_INTERVAL).await;
        }
        let pending = {
            let mut pending = self.shared.pending_reset.lock();
            let taken = pending.remove(&id);
            pending.retain(|other, _| *other > id);
            taken
        };
        let held = self.log().state().last.is_some_and(|last| last.index >= id.index);
        match pending {
            // Everything up to the snapshot and more is here already: keep what follows it.
            Some(base) if !held => {
                self.shared.durably(|done| self.log().reset(base, done)).await?;
                self.shared.note_truncated(None);
                Ok(())
            }
            _ => loop {
                let damages = self.shared.log.damages();
                match self.shared.durably(|done| self.log().purge(id, done)).await {
                    // Finding the place needs the records around it.
                    Err(_) if *self.shared.stopping.borrow() => {
                        return Err(io::Error::other("the group stopped while a purge waited for a repair"));
                    }
                    Err(_) if damages != self.shared.log.damages() || !damages.is_empty() => {
                        tokio::time::sleep(MEND_WAIT).await;
                    }
                    purged => return purged,
                }
            },
        }
    }
}
