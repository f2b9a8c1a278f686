//! What the log store, the state machine and the handle of one group on one node share.
//!
//! - `group.I1`: nothing is applied before it is durable on this node ([`Shared::wait_durable`]).
//! - `group.I2`: the watermarks stand in one line, `retained <= applied <= committed <= durable <= written`.

use std::collections::BTreeMap;
use std::io;
use std::sync::atomic::{AtomicI64, AtomicU64, Ordering};
use std::sync::{Arc, OnceLock};
use std::time::Duration;

use bytes::Bytes;
use folio_engine::checkpoint::Checkpoints;
use folio_engine::disk::Reserve;
use folio_engine::log::{CommitLog, Completion, StampBase, WriteError};
use folio_engine::queues::{ConsumeQueues, Trimmed};
use folio_engine::record::EntryId;
use folio_engine::timers::TimerIndex;
use folio_state::{Command, STATE_BYTES_MAX, State};
use parking_lot::{Mutex, RwLock};
use tokio::sync::{oneshot, watch};

use crate::calls::Calls;
use crate::dedup::Dedup;
use crate::derived::{DerivedList, Indexes};
use crate::feature_level::GroupLevel;
use crate::group::eligibility::Eligibility;
use crate::group::failure_detector::FailureDetector;
use crate::group::status_messages::StatusMessages;
use crate::hooks::Hooks;
use crate::lease_clock::LeaseClock;
use crate::progress::Progress;
use crate::proposal::ProposeError;
use crate::queue_ends::QueueEnds;
use crate::skip_entry::SkipEntry;
use crate::snapshots::Damages;
use crate::state_machine::Wanted;
use crate::terms::Terms;

/// How often is tried again what the disk had no room for.
pub(crate) const ROOM_RETRY_INTERVAL: Duration = Duration::from_secs(1);

/// How far the log is durable on this node, by index.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(crate) struct Durable {
    /// The last durable index, `None` before the first.
    pub(crate) index: Option<u64>,
    /// Set once a write or a sync failed: nothing becomes durable any more.
    pub(crate) failed: Option<String>,
}

impl Durable {
    /// Whether anything is new.
    fn note(&mut self, index: Option<u64>, failed: Option<String>) -> bool {
        if self.failed.is_some() {
            return false;
        }
        if failed.is_some() {
            // What was to become durable with it did not.
            self.failed = failed;
            return true;
        }
        let newer = index > self.index;
        self.index = self.index.max(index);
        newer
    }
}

/// State of one group on one node.
pub(crate) struct Shared {
    pub(crate) log: CommitLog,
    /// The vote that the log had when this process opened it.
    pub(crate) vote_at_start: Option<Bytes>,
    /// The consume queues, for readers; they are the first of `derived`.
    pub(crate) queues: ConsumeQueues,
    pub(crate) derived: DerivedList,
    /// The others of them, for readers.
    pub(crate) indexes: Indexes,
    pub(crate) timers: TimerIndex,
    /// Nothing pending is to lie before this position of the log: retention wants to drop what is there.
    pub(crate) carry_wanted: AtomicU64,
    /// The same of half messages of open transactions.
    pub(crate) halves_wanted: AtomicU64,
    /// The same of messages in flight by POP.
    pub(crate) popped_wanted: AtomicU64,
    /// What lies before is older than retention keeps (`pop.I4`).
    pub(crate) popped_floor: AtomicU64,
    /// What the leader has said to have committed.
    pub(crate) heard_commit: AtomicU64,
    /// When this node knew all that its leader had committed.
    pub(crate) commit_known_at: Mutex<Option<tokio::time::Instant>>,
    /// How many bytes retention keeps.
    pub(crate) retention_bytes: Option<u64>,
    pub(crate) state: RwLock<State>,
    /// The feature level of that state.
    pub(crate) level: GroupLevel,
    pub(crate) lease_clock: LeaseClock,
    /// What depends on order in the state is as after this entry, until more than that is applied; 0 for none (`snapshots.I3`).
    pub(crate) ordered_as_of: AtomicU64,
    /// Bytes of the state when they are encoded, about (`state.I1`).
    pub(crate) state_bytes: AtomicI64,
    pub(crate) checkpoints: Checkpoints,
    pub(crate) durable: watch::Sender<Durable>,
    pub(crate) hooks: Arc<dyn Hooks>,
    /// Snapshots that were received and saved, waiting for openraft to purge the log up to one of them.
    pub(crate) pending_reset: Mutex<BTreeMap<EntryId, StampBase>>,
    /// Files of queues that were deleted, to be removed once a checkpoint knows of it: an earlier one counts on them.
    pub(crate) trimmed: Mutex<Vec<Trimmed>>,
    /// The snapshot that retention has read, for openraft's next one.
    pub(crate) wanted_snapshot: Mutex<Option<Wanted>>,
    /// Snapshots that are not whole.
    pub(crate) snapshots: Damages,
    pub(crate) applied_index: AtomicU64,
    pub(crate) applied_position: AtomicU64,
    /// Term of the last entry applied.
    pub(crate) applied_term: AtomicU64,
    /// For tasks that wait until more is applied, or for what else it tells of.
    pub(crate) progress: Progress,
    /// Of what is applied.
    pub(crate) terms: Mutex<Terms>,
    pub(crate) dedup: Option<Dedup>,
    pub(crate) segment_bytes: u64,
    /// Calls of other nodes that are not answered yet.
    pub(crate) calls: Arc<Calls>,
    pub(crate) rot: Rot,
    /// Commands of transitions whose preconditions did not hold here since the start (`transitions.I2`).
    pub(crate) unmet_preconditions: AtomicU64,
    /// Entries that are not applied here.
    pub(crate) skip_entry: SkipEntry,
    /// Whether this node may stand for election, and why not.
    pub(crate) eligibility: Eligibility,
    /// What an operator should know.
    pub(crate) status_messages: StatusMessages,
    pub(crate) detector: FailureDetector,
    /// Why this node's part in the group has ended, where openraft does not know it (`tasks.I1`).
    pub(crate) failed: OnceLock<String>,
    /// Space kept back for small files.
    pub(crate) reserve: Arc<Reserve>,
    /// Set once the group stops on this node.
    pub(crate) stopping: watch::Sender<bool>,
}

/// What became of damaged records since the start.
#[derive(Debug, Default)]
pub(crate) struct Rot {
    pub(crate) mended: AtomicU64,
    /// Units of derived structures.
    pub(crate) mended_units: AtomicU64,
}

impl Shared {
    /// Ends this node's part in the group: see `group::health`, which watches for it.
    pub(crate) fn fail(&self, reason: &str) {
        tracing::error!(reason, "tasks.I1: this node takes no part any more");
        let _ = self.failed.set(reason.to_owned());
    }

    /// Whether a record of so many bytes may enter the log: its segment is there, and there is room for what follows from it,
    /// derived structures and checkpoints.
    pub(crate) fn has_room(&self, bytes: u64) -> bool {
        self.log.has_room(bytes) && self.reserve.is_whole() && !self.derived.disk_full()
    }

    /// Whether a record of so many bytes may be proposed that makes room (`room.I2`). On a full disk it has the rest of a segment, whose
    /// space is reserved, and memory holds what is derived from it. Some of that rest is left: for a record that another task proposes
    /// meanwhile, and for those of an election.
    pub(crate) fn has_place(&self, bytes: u64) -> bool {
        let log = &self.log;
        let left = (log.record_bytes_max() as u64).min(log.segment_bytes() / 4);
        self.has_room(1) || log.has_place(bytes + left)
    }

    /// `state.I1`
    pub(crate) fn check_growth(&self, command: &Command) -> Result<(), ProposeError> {
        let bytes = self.state_bytes.load(Ordering::Relaxed);
        let limit = STATE_BYTES_MAX as i64;
        // No command is as large as half of it.
        if bytes < limit / 2 {
            return Ok(());
        }
        let growth = self.state.read().growth(command, &QueueEnds(&self.queues));
        if growth > 0 && bytes.saturating_add(growth) > limit {
            return Err(ProposeError::StateFull);
        }
        Ok(())
    }

    /// Tries once more what the disk had no room for, segments aside. Blocks on the disk.
    pub(crate) fn look_for_room(&self) -> anyhow::Result<()> {
        self.reserve.refill()?;
        self.derived.retry()?;
        Ok(())
    }

    /// Hands a job to the log and waits until it is durable.
    pub(crate) async fn durably(&self, job: impl FnOnce(Completion)) -> io::Result<()> {
        let (done, durable) = oneshot::channel::<Result<(), WriteError>>();
        job(Box::new(move |result| {
            let _ = done.send(result);
        }));
        match durable.await {
            Ok(result) => result.map_err(io::Error::other),
            Err(_) => Err(io::Error::other("the log was closed before the job was durable")),
        }
    }

    /// Notes that the log is durable up to `index`, or that making it so failed.
    pub(crate) fn note_durable(&self, index: Option<u64>, failed: Option<String>) {
        self.durable.send_if_modified(|durable| durable.note(index, failed));
    }

    /// Notes that entries after `keep` are gone: an index written again is durable only when it is again.
    pub(crate) fn note_truncated(&self, keep: Option<u64>) {
        self.durable.send_modify(|durable| durable.index = durable.index.min(keep));
    }

    /// Whether a leader of `term` has applied all that was acknowledged before it was elected: its first entry of its own
    /// follows all of that.
    pub(crate) fn is_settled(&self, term: u64) -> bool {
        self.applied_term.load(Ordering::Acquire) >= term
    }

    /// Waits until the entry of `index` is durable on this node (`group.I1`).
    pub(crate) async fn wait_durable(&self, index: u64) -> std::io::Result<()> {
        if self.durable.borrow().index >= Some(index) {
            return Ok(());
        }
        let mut durable = self.durable.subscribe();
        let reached = durable.wait_for(|d| d.failed.is_some() || d.index >= Some(index)).await;
        match reached {
            Ok(state) if state.index >= Some(index) => Ok(()),
            Ok(state) => Err(std::io::Error::other(state.failed.clone().unwrap_or_default())),
            Err(_) => Err(std::io::Error::other("the log was closed")),
        }
    }

    /// Whether exactly this entry is in this node's log, durable or not yet; with it then are, by log matching, all before it.
    pub(crate) fn has(&self, id: EntryId) -> bool {
        let read = self.log.read(id.index, id.index + 1, 1);
        read.is_ok_and(|records| records.first().is_some_and(|record| record.id() == id))
    }

    /// Whether this entry, once written here, is certainly not in this node's log any more. What is damaged is not lacking.
    pub(crate) fn lacks(&self, id: EntryId) -> bool {
        let state = self.log.state();
        if id.index < state.first_index || state.purged.is_some_and(|purged| purged.index >= id.index) {
            return false;
        }
        // An append that a leader sends again is all of this kind, and the group's thread waits for no disk.
        if id.index <= self.applied_index.load(Ordering::Acquire)
            && let Some(term) = self.terms.lock().of(id.index)
        {
            return term != id.term;
        }
        match self.log.read(id.index, id.index + 1, 1) {
            Ok(records) => records.first().is_none_or(|record| record.id() != id),
            Err(_) => false,
        }
    }

    /// Publishes how far this node has applied, after the effects are visible to readers.
    pub(crate) fn note_applied(&self, id: EntryId, position: u64) {
        self.applied_position.store(position, Ordering::Release);
        self.applied_index.store(id.index, Ordering::Release);
        self.applied_term.store(id.term, Ordering::Release);
        // What is applied is committed: it will never be truncated.
        self.log.forget_undo(id.index);
        self.progress.made();
    }

    /// What waits for a full disk, for a repair or for progress waits no longer.
    pub(crate) fn stop(&self) {
        self.stopping.send_replace(true);
        self.progress.made();
    }
}

#[cfg(test)]
mod tests {
    use super::Durable;

    #[test]
    fn a_failed_sync_makes_nothing_durable() {
        let mut durable = Durable::default();
        assert!(durable.note(Some(3), None));
        assert!(!durable.note(Some(2), None), "it never goes back");
        assert!(durable.note(Some(9), Some("EIO".into())));
        assert_eq!(durable, Durable { index: Some(3), failed: Some("EIO".into()) });
        assert!(!durable.note(Some(9), None), "a sync that seems to work after a failed one is not believed");
        assert_eq!(durable.index, Some(3));
    }
}
