//! The segmented commit log: the only copy of every message, and the Raft log at the same time.
//!
//! It is not a replicated log: it knows no peers, and what is committed is told to it. Raft's core task is the one
//! appender; replication, apply and pulls read from any thread; one writer owns the files.
//!
//! ```text
//!   start (purged)        durable        written        end (appended)
//!     |                      |              |              |
//!     v                      v              v              v
//! ----[======== segments ====|==============|==== cache ===]........
//!     <----- acknowledged --->
//! ```
//!
//! Invariants; each is asserted where it is kept and has a test of that name:
//! - `log.I1`: completions are called in the order of submission, and only after all that was appended before is
//!   durable; `durable <= written <= end` (with `sync: false`: after it is written).
//! - `log.I2`: a segment file and its name are durable before a record in it is acknowledged.
//! - `log.I3`: after a failed write or sync nothing is written or acknowledged any more.
//! - `log.I4`: a vote is durable only after all that was appended before it.
//! - `log.I5`: a damaged record below the durable mark is rot: opening refuses and changes nothing, unless told to cut
//!   there ([`OnRot::Cut`]).
//! - `log.I6`: a truncation is durable before a later append is acknowledged; a crash inside it leaves the old tail, the
//!   new one, or one in between.
//! - `log.I7`: bytes of a cut or truncated tail never become part of the log again: they are zeroed, and the chain
//!   (position, index, term, previous crc) does not continue with them.
//! - `log.I8`: positions and stamps are a function of the records before and the segment size alone.
//! - `log.I9`: what a cut for rot takes off the log is kept beside it until [`CommitLog::discard_cut`].
//! - `log.I10`: what a purge lets go of is removed after the start is durable above it, apart from the writer; until then,
//!   and when a crash brings it back, it is no part of the log.
//! - `log.I11`: a full disk ends nothing. What would need room is refused before anything was changed, or waits for it; a
//!   purge, which makes room, waits for nothing that waits for room.
//! - `log.I12`: a vote or a mark that is missing beside a log counts as lost, not as a new one's.
//! - `log.I13`: a reset does not wait for room for the records that it makes void; it is durable before they count as stored.

mod bad_filler;
mod cache;
mod config;
mod contract;
mod cut;
mod damage;
mod error;
mod filler;
mod gather;
mod index;
mod mark;
mod mend;
mod open;
mod prepare;
mod queue;
mod reader;
mod reads;
mod recovery;
mod remove;
mod scrub;
mod segment;
mod shared;
mod slots;
mod stamp_base;
mod tail;
mod truncate;
mod verified_cache;
mod view;
mod workers;
mod writer;
mod zero_fill;

#[cfg(test)]
mod tests;

use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

use bytes::Bytes;
use parking_lot::Mutex;

pub use config::{LogConfig, OnRot};
pub use contract::DurableLog;
pub use damage::{Damage, Watcher};
pub use error::{AppendError, NoCut, NoMend, OpenError, ReadError, Refusal, WriteError};
pub use gather::{Span, Ungathered};
pub use queue::Completion;
pub use scrub::Scrubbed;
pub use stamp_base::StampBase;
pub use workers::{Running, Stepped, Threads, Worker, Workers};

use crate::counters::QueueCounters;
use crate::record::{Draft, EntryId, Record};
use prepare::Preparer;
use queue::{Change, Job};
use shared::Shared;
use tail::Tail;

/// Where the log stands.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct LogState {
    /// Index of the first entry kept, or of the next one when none is.
    pub first_index: u64,
    /// The last entry; the last purged one when none is kept.
    pub last: Option<EntryId>,
    /// The last entry purged.
    pub purged: Option<EntryId>,
    /// The position after the last purged record.
    pub start_position: u64,
    /// The position after the last record.
    pub next_position: u64,
    /// The position after the last record this node may acknowledge.
    pub durable_position: u64,
    /// The last record this node may acknowledge.
    pub durable: Option<EntryId>,
    /// Why the log accepts nothing more.
    pub poisoned: Option<String>,
}

struct Inner {
    shared: Arc<Shared>,
    preparer: Arc<Preparer>,
    tail: Mutex<Tail>,
    running: Mutex<Vec<Box<dyn Running>>>,
}

/// A handle to an open commit log; cheap to clone. The log is closed when the last handle goes.
#[derive(Clone)]
pub struct CommitLog {
    inner: Arc<Inner>,
}

impl CommitLog {
    /// Leader: makes `draft` the entry `id`: stamps its messages, seals it and hands it to the writer. Returns at once;
    /// [`CommitLog::submit`] tells when it is durable.
    pub fn append(&self, id: EntryId, draft: Draft) -> Result<Record, AppendError> {
        self.inner.tail.lock().append(&self.inner.shared, id, draft)
    }

    /// Follower: appends a record as the leader made it, after checking that it is what this replica would have made.
    pub fn append_record(&self, record: Record) -> Result<Record, AppendError> {
        self.inner.tail.lock().append_record(&self.inner.shared, record)
    }

    /// Calls `done` once everything appended before is durable.
    pub fn submit(&self, done: Completion) {
        self.inner.shared.push(Job::Done(done));
    }

    /// Stores a vote; it is durable, after everything appended before, when `done` is called.
    pub fn save_vote(&self, vote: &[u8], done: Completion) {
        let vote = Bytes::copy_from_slice(vote);
        if vote.is_empty() || vote.len() > slots::VALUE_BYTES_MAX {
            let refusal = Refusal::VoteSize { bytes: vote.len(), max: slots::VALUE_BYTES_MAX };
            return self.inner.shared.push(Job::Fail(done, refusal.into()));
        }
        self.inner.shared.push(Job::Change(Change::Vote(vote), done));
    }

    /// The last vote that is durable.
    pub fn vote(&self) -> Option<Bytes> {
        self.inner.shared.vote.lock().clone()
    }

    /// Drops the entries above `keep` (`None`: all). In memory at once; `done` is called when it is durable, and every
    /// later completion implies it.
    pub fn truncate_after(&self, keep: Option<u64>, done: Completion) {
        let mut tail = self.inner.tail.lock();
        let cut = tail.truncate_after(&self.inner.shared, keep);
        self.change(cut.map_err(|reason| Refusal::Truncate { keep, reason }), done);
    }

    /// Has space for what a purge or a reset writes (`mark.I2`): from then on none of them is refused for a full disk. Only the
    /// log of an earlier version may lack it.
    pub fn prepare_purge(&self) -> Result<(), WriteError> {
        if self.is_purge_prepared() {
            return Ok(());
        }
        let Shared { start, disk, start_has_space, .. } = &*self.inner.shared;
        match start.lock().prepare_if_room(&**disk) {
            Ok(true) => {
                start_has_space.store(true, Ordering::Release);
                Ok(())
            }
            Ok(false) => Err(WriteError::Full),
            Err(error) => Err(Refusal::Io(error.to_string()).into()),
        }
    }

    /// Whether [`CommitLog::prepare_purge`] has nothing to do: it does not look at the disk then.
    pub fn is_purge_prepared(&self) -> bool {
        self.inner.shared.start_has_space.load(Ordering::Acquire)
    }

    /// Moves the front of the log to after `upto`, which may also lie beyond the last entry: then the log is empty and
    /// goes on after it. Segments wholly below are removed, soon after.
    pub fn purge(&self, upto: EntryId, done: Completion) {
        if let Err(error) = self.prepare_purge() {
            return self.inner.shared.push(Job::Fail(done, error));
        }
        let mut tail = self.inner.tail.lock();
        let cut = tail.purge(&self.inner.shared, upto);
        self.change(cut.map(Some).map_err(|reason| Refusal::Purge { upto, reason }), done);
    }

    /// Empties the log; the next record is the one after `start`. For a snapshot that replaces the log.
    pub fn reset(&self, start: StampBase, done: Completion) {
        if let Err(error) = self.prepare_purge() {
            return self.inner.shared.push(Job::Fail(done, error));
        }
        let mut tail = self.inner.tail.lock();
        let change = tail.reset(&self.inner.shared, start);
        self.change(Ok(Some(change)), done);
    }

    /// Entries `start` to before `end`, consecutive, at least one if `start` is there, no more once `max_bytes` are
    /// reached, and none from a damaged one on. Nothing if `start` is beyond the last entry.
    pub fn read(&self, start: u64, end: u64, max_bytes: usize) -> Result<Vec<Record>, ReadError> {
        reads::read(&self.inner.shared, start, end, max_bytes)
    }

    /// Whether the entry is in memory: then a read of it waits for no disk.
    pub fn is_in_memory(&self, index: u64) -> bool {
        self.inner.shared.view.lock().cache.first_index().is_some_and(|first| index >= first)
    }

    /// Stored bytes. They lie inside one record, which is whole (`damage.I1`), and share memory with it where that is not
    /// much more than they are.
    pub fn bytes(&self, position: u64, len: usize) -> Result<Bytes, ReadError> {
        let pieces = self.gather(&[(position, len)]).map_err(|ungathered| ungathered.error)?;
        Ok(pieces.into_iter().next().unwrap_or_default())
    }

    /// Stored bytes of several records, one behind the other. They come in as few pieces as possible, each of which holds
    /// whole spans; otherwise as [`CommitLog::bytes`].
    pub fn gather(&self, spans: &[Span]) -> Result<Vec<Bytes>, Ungathered> {
        gather::gather(&self.inner.shared, spans)
    }

    /// For a reader that is about to read the records from entry `index`, which begins at `position`, to the end: the place is
    /// not searched, and the bytes are brought into memory meanwhile.
    pub fn expect_reads(&self, index: u64, position: u64) {
        reads::expect_reads(&self.inner.shared, index, position);
    }

    /// The entry whose record holds the byte at `position`.
    pub fn index_at(&self, position: u64) -> Result<u64, ReadError> {
        reads::index_at(&self.inner.shared, position)
    }

    /// Where the log stands.
    pub fn state(&self) -> LogState {
        let view = self.inner.shared.view.lock();
        LogState {
            first_index: view.first_index(),
            last: view.last,
            purged: view.start.id,
            start_position: view.start.position,
            next_position: view.end,
            durable_position: view.durable_end,
            durable: view.durable,
            poisoned: self.inner.shared.poisoned(),
        }
    }

    /// The next offset of every queue after the last record.
    pub fn counters(&self) -> QueueCounters {
        self.inner.tail.lock().stamper.counters().clone()
    }

    /// Leader: has every parked message that is appended from now on be due after this time, ms since the epoch (`timers.I2`).
    /// Returns where the log ends: all that is due up to there and not yet delivered lies before it.
    pub fn raise_due_floor(&self, due_ms: u64) -> u64 {
        let mut tail = self.inner.tail.lock();
        tail.stamper.raise_due_floor(due_ms);
        tail.end()
    }

    /// Entries up to `committed_index` will not be truncated any more.
    pub fn forget_undo(&self, committed_index: u64) {
        self.inner.tail.lock().stamper.forget(committed_index);
    }

    /// How long the log's writer has waited for the disk to sync, all together. In a second it is a second at most.
    pub fn synced_for(&self) -> Duration {
        Duration::from_micros(self.inner.shared.synced_us.load(Ordering::Relaxed))
    }

    /// False when `bytes` can not be stored: the disk is full, or no record is that long. A full disk is tried again in
    /// the background.
    pub fn has_room(&self, bytes: u64) -> bool {
        bytes <= self.inner.shared.record_bytes_max() && !self.inner.preparer.is_full()
    }

    /// Whether records of `bytes` together have a place: in the rest of the segment that is being written, or in the next one. On a
    /// full disk there is only that rest.
    pub fn has_place(&self, bytes: u64) -> bool {
        let Shared { config, view, .. } = &*self.inner.shared;
        let place = segment::place(view.lock().end, bytes, config.segment_bytes);
        !self.inner.preparer.lacks(segment::base_of(place, config.segment_bytes))
    }

    /// Bytes of each segment.
    pub fn segment_bytes(&self) -> u64 {
        self.inner.shared.config.segment_bytes
    }

    /// Bytes of the longest record that this log takes, its header included.
    pub fn record_bytes_max(&self) -> usize {
        self.inner.shared.record_bytes_max() as usize
    }

    /// Position and index of the first entry of every segment.
    pub fn segment_starts(&self) -> Vec<(u64, u64)> {
        let view = self.inner.shared.view.lock();
        view.segments.iter().map(|live| (live.first.1, live.first.0)).collect()
    }

    /// Removes what cuts for rot have taken off the log and kept (`log.I9`): the caller has it all back from its peers.
    pub fn discard_cut(&self) -> std::io::Result<()> {
        let Shared { disk, directory, .. } = &*self.inner.shared;
        let kept: Vec<PathBuf> =
            disk.list(directory)?.into_iter().filter(|path| cut::is_kept(path)).collect();
        for path in &kept {
            disk.remove(path)?;
            tracing::info!(file = %path.display(), "what was cut off the log is here again: the copy is removed");
        }
        if kept.is_empty() { Ok(()) } else { disk.sync_dir(directory) }
    }

    /// Writes and syncs what is queued and ends the workers. Later appends and completions get an error.
    pub fn close(&self) {
        self.inner.close();
    }

    /// Queues a change, still under the lock under which it was decided.
    fn change(&self, change: Result<Option<Change>, Refusal>, done: Completion) {
        if matches!(change, Ok(Some(Change::Truncate { .. } | Change::Purge { .. } | Change::Reset { .. }))) {
            let state = self.state();
            self.inner.shared.damages.keep_within(state.start_position, state.next_position);
        }
        self.inner.shared.push(match change {
            Ok(Some(change)) => Job::Change(change, done),
            Ok(None) => Job::Done(done),
            Err(refusal) => Job::Fail(done, refusal.into()),
        });
    }
}

impl Inner {
    fn close(&self) {
        self.tail.lock().closed = true;
        self.preparer.closing();
        self.shared.push(Job::Change(Change::Close, Box::new(|_| {})));
        let running = std::mem::take(&mut *self.running.lock());
        running.into_iter().for_each(Running::join);
    }
}

impl Drop for Inner {
    fn drop(&mut self) {
        self.close();
    }
}
