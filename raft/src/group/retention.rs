//! Drops old segments: whole ones, oldest first, once a snapshot of the state at the next one's start was read back whole
//! (`snapshots.I2`).
//!
//! - `retention.I1`: what may go does not wait for the next interval where its room is wanted: on a full disk, and where the
//!   log is larger than it is to be by an eighth.
//!
//! All that reads the disk does so on a blocking thread: the group's own has a lease to keep.

use std::io;
use std::sync::Arc;
use std::time::Duration;

use folio_engine::counters::QueueCounters;
use folio_engine::record::{EntryId, RecordKind};
use folio_protocol::message;
use tokio::time::{Instant, sleep};

use crate::config::Retention;
use crate::host::Host;
use crate::shared::Shared;
use crate::snapshots;
use crate::state_machine::{SnapshotMetaOf, State, Wanted};
use crate::types::{Raft, log_id};

/// How long openraft may take to build a snapshot and purge the log.
const PURGE_TIMEOUT: Duration = Duration::from_secs(60);

/// How often is seen whether a pass is pressing (`retention.I1`).
const LOOK_INTERVAL: Duration = Duration::from_secs(1);

/// Drops what may go every `retention.interval`, and when it is pressing, until its task is aborted.
pub(crate) async fn run(raft: Raft, host: Host, shared: Arc<Shared>, retention: Retention) {
    let mut last = Instant::now();
    loop {
        sleep(LOOK_INTERVAL.min(retention.interval)).await;
        if last.elapsed() < retention.interval && !is_pressing(&shared, &retention) {
            continue;
        }
        last = Instant::now();
        if let Err(error) = pass(&raft, &host, &shared, &retention).await {
            tracing::warn!(%error, "old segments not dropped, trying again later");
        }
    }
}

/// `retention.I1`
fn is_pressing(shared: &Shared, retention: &Retention) -> bool {
    !shared.has_room(1) || retention.bytes.is_some_and(|limit| is_far_over(shared, limit))
}

/// Whether so much may go for the log's size that it is an eighth of what it is to be.
fn is_far_over(shared: &Shared, limit: u64) -> bool {
    let log = shared.log.state();
    let Some(upto) = log.next_position.checked_sub(limit) else { return false };
    let starts = shared.log.segment_starts();
    let last = starts.iter().rev().map(|(position, _)| *position).find(|position| *position <= upto);
    last.is_some_and(|position| position.saturating_sub(log.start_position) >= (limit / 8).max(1))
}

/// Drops what may go now.
async fn pass(raft: &Raft, host: &Host, shared: &Arc<Shared>, retention: &Retention) -> anyhow::Result<()> {
    let (reading, limits, now) = (shared.clone(), retention.clone(), host.system.wall_clock());
    match host.blocking(move || droppable(&reading, &limits, now)).await?? {
        Some(found) => drop_before(raft, host, shared, found).await,
        None => Ok(()),
    }
}

/// A segment's start before which everything may go, and the snapshot there.
struct Droppable {
    position: u64,
    id: EntryId,
    meta: SnapshotMetaOf,
    /// Where queues begin then.
    counters: QueueCounters,
}

/// The latest one. Blocks on the disk.
fn droppable(shared: &Shared, retention: &Retention, now: Duration) -> io::Result<Option<Droppable>> {
    let log = shared.log.state();
    let applied = shared.applied_position.load(std::sync::atomic::Ordering::Acquire);
    let saved = shared.checkpoints.snapshots().map_err(io::Error::other)?;
    let mut starts = shared.log.segment_starts();
    starts.retain(|(position, _)| *position > log.start_position && *position <= applied);
    let too_many =
        |position: &u64| retention.bytes.is_some_and(|limit| log.next_position - position >= limit);
    let many = starts.partition_point(|(position, _)| too_many(position));
    let old = retention.age.map_or(0, |age| count_old(shared, &starts[many..], age, now));
    let due = starts[..many + old].iter().rev().map(|(position, _)| *position);
    // One that is damaged is passed over for an earlier one, and is repaired meanwhile.
    let mut whole = due.filter(|position| saved.contains(position)).filter_map(|position| {
        let (checkpoint, _) = snapshots::load(shared, position).ok()?;
        Some((checkpoint.base.id?, checkpoint))
    });
    let Some((id, checkpoint)) = whole.next() else { return Ok(None) };
    let state = State::decode(&checkpoint.state).map_err(io::Error::other)?;
    let meta = SnapshotMetaOf { last_log_id: Some(log_id(id)), last_membership: state.membership };
    let (position, counters) = (checkpoint.base.position, checkpoint.base.counters);
    Ok(Some(Droppable { position, id, meta, counters }))
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
    let record = records.first().filter(|record| record.header.kind == RecordKind::Messages)?;
    let payload = record.payload();
    let message = message::MessageView::parse(&payload).ok()?;
    let limit = now.saturating_sub(age).as_millis() as i64;
    Some(message.store_timestamp() < limit)
}

/// Has openraft take the boundary's snapshot and purge the log below it, then trims what was derived.
async fn drop_before(raft: &Raft, host: &Host, shared: &Arc<Shared>, found: Droppable) -> anyhow::Result<()> {
    let log = shared.log.clone();
    host.blocking(move || log.prepare_purge()).await??;
    let Droppable { position, id, meta, counters } = found;
    *shared.wanted_snapshot.lock() = Some(Wanted { position, meta });
    raft.trigger().snapshot().await?;
    let taken = raft.wait(Some(PURGE_TIMEOUT));
    taken
        .metrics(|m| m.snapshot.is_some_and(|taken| taken.index >= id.index), "snapshot for retention")
        .await?;
    raft.trigger().purge_log(id.index).await?;
    let purged = raft.wait(Some(PURGE_TIMEOUT));
    purged
        .metrics(|m| m.purged.is_some_and(|purged| purged.index >= id.index), "purge for retention")
        .await?;
    let shared = shared.clone();
    let trimming = host.blocking(move || {
        shared.queues.trim(&counters)?;
        shared.checkpoints.remove_snapshots_below(position)?;
        anyhow::Ok(())
    });
    trimming.await??;
    tracing::info!(position, "old segments dropped");
    Ok(())
}
