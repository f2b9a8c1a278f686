//! What replication may count on of a log, wherever the log is stored.
//!
//! Two logs keep this contract: [`CommitLog`], and a list in memory, which the tests use as the model. One suite runs over
//! both, on a disk that loses power as on a real one (`engine/src/log/tests/contract`).

use bytes::Bytes;

use super::{AppendError, CommitLog, Completion, LogState, ReadError, StampBase};
use crate::counters::QueueCounters;
use crate::record::{Draft, EntryId, Record};

/// A log of entries that outlives a crash.
///
/// ```text
///     purged            durable                end
///       |                  |                    |
///  .....[==================|--------------------].....
///       first index        what a completion    last entry
///                          has told of
/// ```
///
/// **Who calls.** One task appends, votes, truncates, purges and resets. Any number of threads read.
///
/// **Requests.** A request that changes the log (append, truncate, purge, reset) has changed what readers see when it returns.
/// What was asked for is durable when its completion is called with `Ok`; an append has no completion of its own, but that of
/// any later request.
///
/// - *Order* (`log.I1`). Every completion is called, and called once, in the order of the requests; with `Ok` only when all that was
///   asked for before is durable. One exception: a purge waits for nothing that waits for disk space (`log.I11`).
/// - *Failure* (`log.I3`). After a write or a sync that failed no completion is called with `Ok`, and every append fails.
/// - *Refusal*. A request that is refused has changed nothing, and the log goes on. Its completion is called in its place.
/// - *Votes* (`log.I4`). A vote is durable only after all that was asked for before it. [`DurableLog::vote`] gives none that is not
///   durable.
/// - *Truncation* (`log.I6`, `log.I7`). Entries that were truncated never come back once a later completion was called with `Ok`.
///   Until then a crash leaves the old tail, the new one, or one in between. What is purged or settled is never truncated.
/// - *Offsets* (`log.I8`). Positions and queue offsets are a function of the entries before, and of the length of a segment. So replicas
///   agree on them, and a leader gives them again after a truncation.
/// - *Reads*. A read gives entries as they were appended, in order and without a gap, or an error: never something else.
///
/// **Crashes.** A log that is opened again has all that a completion told of, in the order of the requests a part of what was asked
/// for since, and nothing else. What it shows once it is open is durable (`durable == last`).
pub trait DurableLog: Clone + Send + Sync + 'static {
    /// Leader: makes `draft` the entry `id` behind the last one: stamps its messages and seals it. The first entry of a log from
    /// which nothing was purged may have any index; every other one has the next. Terms never go back.
    fn append(&self, id: EntryId, draft: Draft) -> Result<Record, AppendError>;

    /// Follower: appends a record as the leader made it. One that this replica would have made otherwise is refused:
    /// [`AppendError::Divergence`].
    fn append_record(&self, record: Record) -> Result<Record, AppendError>;

    /// Calls `done` once all that was asked for before is durable.
    fn submit(&self, done: Completion);

    /// Stores a vote, which takes the place of the one before. An empty one, or one that is too long, is refused.
    fn save_vote(&self, vote: &[u8], done: Completion);

    /// The last durable vote.
    fn vote(&self) -> Option<Bytes>;

    /// Drops the entries above `keep`; `None`: all. Refused where one of them is purged or settled. Nothing to do where
    /// there is none.
    fn truncate_after(&self, keep: Option<u64>, done: Completion);

    /// Drops the entries up to `upto`, which counts as settled then; where the log ends before it, all of them, and the log goes
    /// on after `upto`. Refused where another entry has that index. Nothing to do where it was purged before.
    fn purge(&self, upto: EntryId, done: Completion);

    /// Drops all entries: the log goes on after `start`, with its position and counters.
    fn reset(&self, start: StampBase, done: Completion);

    /// Entries `start` to before `end`: at least one if `start` is there, and no more once `max_bytes` are reached. None where
    /// `start` is behind the last entry; [`ReadError::Purged`] where it is before the first.
    fn read(&self, start: u64, end: u64, max_bytes: usize) -> Result<Vec<Record>, ReadError>;

    /// Where the log stands.
    fn state(&self) -> LogState;

    /// The next offset of every queue, behind the last entry.
    fn counters(&self) -> QueueCounters;

    /// Entries up to `index` are settled: they will not be truncated. So are those up to the base that a log is opened with.
    fn forget_undo(&self, index: u64);

    /// Makes durable what was asked for, and ends the log. Later requests get an error.
    fn close(&self);
}

impl DurableLog for CommitLog {
    fn append(&self, id: EntryId, draft: Draft) -> Result<Record, AppendError> {
        CommitLog::append(self, id, draft)
    }

    fn append_record(&self, record: Record) -> Result<Record, AppendError> {
        CommitLog::append_record(self, record)
    }

    fn submit(&self, done: Completion) {
        CommitLog::submit(self, done);
    }

    fn save_vote(&self, vote: &[u8], done: Completion) {
        CommitLog::save_vote(self, vote, done);
    }

    fn vote(&self) -> Option<Bytes> {
        CommitLog::vote(self)
    }

    fn truncate_after(&self, keep: Option<u64>, done: Completion) {
        CommitLog::truncate_after(self, keep, done);
    }

    fn purge(&self, upto: EntryId, done: Completion) {
        CommitLog::purge(self, upto, done);
    }

    fn reset(&self, start: StampBase, done: Completion) {
        CommitLog::reset(self, start, done);
    }

    fn read(&self, start: u64, end: u64, max_bytes: usize) -> Result<Vec<Record>, ReadError> {
        CommitLog::read(self, start, end, max_bytes)
    }

    fn state(&self) -> LogState {
        CommitLog::state(self)
    }

    fn counters(&self) -> QueueCounters {
        CommitLog::counters(self)
    }

    fn forget_undo(&self, index: u64) {
        CommitLog::forget_undo(self, index);
    }

    fn close(&self) {
        CommitLog::close(self);
    }
}
