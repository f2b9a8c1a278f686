//! Drops old segments: whole ones, oldest first, once a snapshot of the state at the next one's start was read back whole
//! (`snapshots.I2`).
//!
//! - `retention.I1`: what may go does not wait for the next interval where its room is wanted: on a full disk, and where the
//!   log is larger than it is to be by an eighth.
//! - `retention.I2`: it waits for nothing that waits for the room which it makes. openraft may: a vote is stored behind records
//!   that have no place yet, and apply waits once too many units of queues have none. The log is purged without it then, of
//!   what is applied and has its snapshot on the disk; it hears of that later.
//!
//! - `timers.I5`: no segment is dropped that holds a pending delayed message. The leader carries it forward first
//!   (`crate::driver::timers`), which needs room; until then an earlier boundary does, and the next look comes soon.
//!
//! - `transactions.I3`: nor one that holds the half message of an open transaction (`crate::driver::transactions`).
//!
//! - `pop.I4`: nor one that holds a message in flight by POP (`crate::driver::popped`). A message gets into flight long after it was stored, and
//!   that may be on its way while a segment is chosen here. So a leader pops nothing that these limits let go, and a node drops nothing that
//!   wider ones would keep: an eighth wider, for size at most [`POPS_BYTES`], for age at most [`POPS_TIME`], which is more than is on its way at
//!   any time, and more than clocks differ by. What is in its log and not applied yet it looks through. Where there is room it drops nothing by age
//!   while it hears no leader, or has not applied what its leader had committed some seconds ago: time goes by, and it does not know what is
//!   popped. On a full disk that would wait for the room that it makes (`retention.I2`).
//!
//! All that reads the disk does so on a blocking thread: the group's own has a lease to keep.

use std::io;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

use folio_engine::log::StampBase;
use folio_engine::record::EntryId;
use folio_protocol::message;
use folio_state::sections::features::POP;
use tokio::time::{Instant, sleep, timeout};

use crate::carried_forward;
use crate::config::Retention;
use crate::host::Host;
use crate::popped;
use crate::shared::Shared;
use crate::snapshots::{self, Boundary};
use crate::state_machine::{Raft, SavedState, SnapshotMetaOf, Wanted};
use crate::types::log_id;

/// How long openraft may take to build a snapshot, and to purge the log.
const PURGE_TIMEOUT: Duration = Duration::from_secs(60);
/// How long it may take for both, waiting for its turn included.
const TELL_TIMEOUT: Duration = Duration::from_secs(150);
/// How long a disk may be full meanwhile, before openraft is taken to wait for room itself.
const FULL_PATIENCE: Duration = Duration::from_secs(2);
/// How often is seen whether it still is.
const FULL_POLL: Duration = Duration::from_millis(200);
/// How often the same trouble is told.
const SAY_INTERVAL: Duration = Duration::from_secs(60);
/// The same as bytes and as time by which a segment is kept longer than leaders pop from it (`pop.I4`).
const POPS_BYTES: u64 = 64 << 20;
const POPS_TIME: Duration = Duration::from_secs(60);
/// What was committed is known so long after that at least.
const KNOWN_FOR: Duration = Duration::from_secs(4);
/// How often is seen whether a pass is pressing (`retention.I1`).
const LOOK_INTERVAL: Duration = Duration::from_secs(1);

/// Drops what may go every `retention.interval`, and when it is pressing, until its task is aborted.
pub(crate) async fn run(raft: Raft, host: Host, shared: Arc<Shared>, retention: Retention) {
    let floor = note_floor(host.clone(), shared.clone(), retention.clone());
    let passes = Passes { raft, host, shared, retention, due: None };
    tokio::join!(floor, run_passes(passes));
}

async fn run_passes(mut passes: Passes) {
    let (mut last, mut said) = (Instant::now(), None::<Instant>);
    loop {
        sleep(LOOK_INTERVAL.min(passes.retention.interval)).await;
        if last.elapsed() < passes.retention.interval && !passes.is_pressing() {
            continue;
        }
        last = Instant::now();
        let passed = passes.one().await;
        if let Err(error) = passed
            && said.is_none_or(|said| said.elapsed() >= SAY_INTERVAL)
        {
            said = Some(Instant::now());
            tracing::warn!(%error, "old segments not dropped, trying again");
        }
    }
}

/// Notes what is older than retention keeps: it is popped no more (`pop.I4`). Apart from the passes, which may wait for minutes.
async fn note_floor(host: Host, shared: Arc<Shared>, retention: Retention) {
    let Some(age) = retention.age else { return };
    let mut asked = (shared.heard_commit.load(Ordering::Acquire), Instant::now());
    loop {
        note_commit(&shared, &mut asked);
        let (noted, now) = (shared.clone(), host.system.wall_clock());
        let noting = host.blocking(move || {
            let mut starts = noted.log.segment_starts();
            starts.retain(|(_, first)| *first > noted.log.state().first_index);
            let old = count_old(&noted, &starts, age, now);
            if let Some((floor, _)) = starts[..old].last() {
                noted.popped_floor.fetch_max(*floor, Ordering::Relaxed);
            }
        });
        // It fails where the node stops.
        drop(noting.await);
        sleep(LOOK_INTERVAL.min(retention.interval)).await;
    }
}

/// Notes when all was known that the leader had committed: what it had said at some time is applied, and it is heard still.
fn note_commit(shared: &Shared, (said, at): &mut (u64, Instant)) {
    if shared.applied_index.load(Ordering::Acquire) < *said {
        return;
    }
    if !shared.detector.suspects(&shared.eligibility) {
        *shared.commit_known_at.lock() = Some(*at);
    }
    (*said, *at) = (shared.heard_commit.load(Ordering::Acquire), Instant::now());
}

struct Passes {
    raft: Raft,
    host: Host,
    shared: Arc<Shared>,
    retention: Retention,
    /// What is to be dropped, until openraft knows that it was.
    due: Option<Droppable>,
}

impl Passes {
    /// `retention.I1`
    fn is_pressing(&self) -> bool {
        let limit = self.retention.bytes;
        self.due.as_ref().is_some_and(|due| self.is_dropped(due))
            || !self.shared.has_room(1)
            || carried_forward::is_wanted(&self.shared)
            || limit.is_some_and(|limit| is_far_over(&self.shared, limit))
    }

    fn is_dropped(&self, due: &Droppable) -> bool {
        self.shared.log.state().purged >= Some(due.id)
    }

    /// Drops what may go now.
    async fn one(&mut self) -> anyhow::Result<()> {
        let (reading, limits) = (self.shared.clone(), self.retention.clone());
        let now = self.host.system.wall_clock();
        if let Some(found) = self.host.blocking(move || droppable(&reading, &limits, now)).await?? {
            self.due = Some(found);
        }
        let Some(due) = self.due.take() else { return Ok(()) };
        let known = self.drop_before(&due).await;
        if !matches!(known, Ok(true)) && self.is_dropped(&due) {
            self.due = Some(due);
        }
        known.map(drop)
    }

    /// Drops what lies before, in the log and in what was derived from it. Whether openraft knows of it.
    async fn drop_before(&self, due: &Droppable) -> anyhow::Result<bool> {
        let log = self.shared.log.clone();
        self.host.blocking(move || log.prepare_purge()).await??;
        tokio::select! {
            told = timeout(TELL_TIMEOUT, self.tell(due)) => {
                told??;
                self.trim(due).await?;
                return Ok(true);
            }
            () = self.full_for(FULL_PATIENCE) => {}
        }
        if !self.is_dropped(due) {
            // retention.I2
            self.shared.durably(|done| self.shared.log.purge(due.id, done)).await?;
            self.trim(due).await?;
            tracing::warn!("old segments were dropped while replication waits for room");
        }
        Ok(false)
    }

    /// Returns once the disk has been full for so long without a break.
    async fn full_for(&self, patience: Duration) {
        let mut since = Instant::now();
        while since.elapsed() < patience {
            sleep(FULL_POLL).await;
            if self.shared.has_room(1) {
                since = Instant::now();
            }
        }
    }

    /// Has openraft take the boundary's snapshot and purge the log below it. It may be asked again.
    async fn tell(&self, found: &Droppable) -> anyhow::Result<()> {
        let (index, raft) = (found.id.index, &self.raft);
        *self.shared.wanted_snapshot.lock() =
            Some(Wanted { position: found.position, meta: found.meta.clone() });
        raft.trigger().snapshot().await?;
        let taken = raft.wait(Some(PURGE_TIMEOUT));
        taken
            .metrics(|m| m.snapshot.is_some_and(|taken| taken.index >= index), "snapshot for retention")
            .await?;
        raft.trigger().purge_log(index).await?;
        let purged = raft.wait(Some(PURGE_TIMEOUT));
        purged
            .metrics(|m| m.purged.is_some_and(|purged| purged.index >= index), "purge for retention")
            .await?;
        Ok(())
    }

    /// Trims what was derived from what is gone.
    async fn trim(&self, found: &Droppable) -> anyhow::Result<()> {
        let (shared, position, start) = (self.shared.clone(), found.position, found.start.clone());
        let trimming = self.host.blocking(move || {
            shared.derived.trim(&start)?;
            shared.checkpoints.remove_snapshots_below(position)?;
            anyhow::Ok(())
        });
        trimming.await??;
        tracing::info!(position, "old segments dropped");
        Ok(())
    }
}

/// Whether so much may go for the log's size that it is an eighth of what it is to be.
fn is_far_over(shared: &Shared, limit: u64) -> bool {
    let log = shared.log.state();
    let Some(upto) = log.next_position.checked_sub(limit) else { return false };
    let starts = shared.log.segment_starts();
    let later = starts.iter().rev().filter(|(_, first)| *first > log.first_index);
    let last = later.map(|(position, _)| *position).find(|position| *position <= upto);
    last.is_some_and(|position| position.saturating_sub(log.start_position) >= (limit / 8).max(1))
}

/// A segment's start before which everything may go, and the snapshot there.
struct Droppable {
    position: u64,
    id: EntryId,
    meta: SnapshotMetaOf,
    /// Where the log begins then.
    start: StampBase,
}

/// The latest one. Blocks on the disk.
fn droppable(shared: &Shared, retention: &Retention, now: Duration) -> io::Result<Option<Droppable>> {
    let log = shared.log.state();
    let applied = shared.applied_position.load(Ordering::Acquire);
    let saved = shared.checkpoints.snapshots().map_err(io::Error::other)?;
    let mut starts = shared.log.segment_starts();
    starts.retain(|(position, first)| *first > log.first_index && *position <= applied);
    let due = count_due(shared, &starts, retention, log.next_position, now);
    let Some((last, _)) = starts[..due].last() else { return Ok(None) };
    // Before what is applied is asked: a pop that is applied in between is seen by one of them.
    let beyond = beyond_pops(shared, &starts, retention, now)?;
    let clear = carried_forward::clear_before(shared, *last)?.min(beyond);
    let due = starts[..due].iter().rev().map(|(position, _)| *position);
    // One that is damaged is passed over for an earlier one, and is repaired meanwhile.
    let due = due.filter(|position| saved.contains(position)).filter(|position| *position <= clear);
    let mut whole = due.filter_map(|position| {
        let (checkpoint, _) = snapshots::load(shared, position).ok()?;
        // One of another history is none of this log's. Where damage keeps that from being seen, its position stands for it.
        let is_other = Boundary::at(&shared.log, position).is_ok_and(|boundary| !boundary.is_of(&checkpoint));
        let id = checkpoint.base.id.filter(|id| !is_other && log.last >= Some(*id))?;
        Some((id, checkpoint))
    });
    let Some((id, checkpoint)) = whole.next() else { return Ok(None) };
    let state = SavedState::decode(&checkpoint.state).map_err(io::Error::other)?;
    let meta = SnapshotMetaOf { last_log_id: Some(log_id(id)), last_membership: state.membership };
    Ok(Some(Droppable { position: checkpoint.base.position, id, meta, start: checkpoint.base }))
}

/// How many of these segments, ascending, are due where the log ends there.
fn count_due(shared: &Shared, starts: &[(u64, u64)], limits: &Retention, end: u64, now: Duration) -> usize {
    let too_many = |position: &u64| limits.bytes.is_some_and(|limit| end.saturating_sub(*position) >= limit);
    let many = starts.partition_point(|(position, _)| too_many(position));
    many + limits.age.map_or(0, |age| count_old(shared, &starts[many..], age, now))
}

/// From where on a pop that is not applied yet may bring messages into flight (`pop.I4`).
fn beyond_pops(shared: &Shared, starts: &[(u64, u64)], limits: &Retention, now: Duration) -> io::Result<u64> {
    if shared.level.get() < POP {
        return Ok(u64::MAX);
    }
    let margin = limits.age.map_or(Duration::ZERO, |age| (age / 8).min(POPS_TIME));
    let known_at = *shared.commit_known_at.lock();
    let knows_all = known_at.is_some_and(|at| at.elapsed() <= (margin / 2).max(KNOWN_FOR));
    let wider = Retention {
        bytes: limits.bytes.map(|bytes| bytes + (bytes / 8).min(POPS_BYTES)),
        age: limits.age.filter(|_| knows_all || !shared.has_room(1)).map(|age| age + margin),
        ..limits.clone()
    };
    let due = count_due(shared, starts, &wider, shared.log.state().next_position, now);
    let due = starts[..due].last().map_or(0, |(position, _)| *position);
    if shared.derived.disk_full() {
        // Applying waits for room.
        return Ok(due);
    }
    Ok(due.min(popped::lowest_not_applied(shared).map_err(io::Error::other)?))
}

/// How many of these segments, ascending, begin after `age` ago: the first one known to be younger ends the search.
fn count_old(shared: &Shared, starts: &[(u64, u64)], age: Duration, now: Duration) -> usize {
    let told = starts.iter().map(|(_, first)| is_older(shared, *first, age, now));
    let told = told.take_while(|older| *older != Some(false));
    told.enumerate().filter(|(_, older)| older.is_some()).map(|(at, _)| at + 1).last().unwrap_or(0)
}

/// Whether the segment that begins with entry `first` begins after `age` ago: then all before it is older. None when its
/// first record does not tell.
fn is_older(shared: &Shared, first: u64, age: Duration, now: Duration) -> Option<bool> {
    let records = shared.log.read(first, first + 1, 1).ok()?;
    let message = message::MessageView::parse(records.first()?.messages()).ok()?;
    let limit = now.saturating_sub(age).as_millis() as i64;
    Some(message.store_timestamp() < limit)
}
