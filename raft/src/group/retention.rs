//! Drops old segments: whole ones, oldest first, once a snapshot of the state at the next one's start exists.

use std::sync::Arc;
use std::time::Duration;

use folio_engine::record::RecordKind;
use folio_protocol::message;

use crate::config::Retention;
use crate::host::Host;
use crate::shared::Shared;
use crate::state_machine::load_snapshot;
use crate::types::Raft;

/// How long openraft may take to build a snapshot and purge the log.
const PURGE_TIMEOUT: Duration = Duration::from_secs(60);

/// Looks every `retention.interval` until its task is aborted.
pub(crate) async fn run(raft: Raft, host: Host, shared: Arc<Shared>, retention: Retention) {
    loop {
        tokio::time::sleep(retention.interval).await;
        if let Some(boundary) = droppable(&host, &shared, &retention)
            && let Err(error) = drop_before(&raft, &host, &shared, boundary).await
        {
            tracing::warn!(boundary, %error, "old segments not dropped, trying again later");
        }
    }
}

/// The latest segment start before which everything may go.
fn droppable(host: &Host, shared: &Shared, retention: &Retention) -> Option<u64> {
    let log = shared.log.state();
    let applied = shared.applied_position.load(std::sync::atomic::Ordering::Acquire);
    let starts = shared.log.segment_starts();
    let saved = shared.checkpoints.snapshots().ok()?;
    let candidates = starts.into_iter().filter(|(position, _)| {
        *position > log.start_position && *position <= applied && saved.contains(position)
    });
    let mut boundaries: Vec<u64> = candidates
        .filter(|(position, first)| {
            let too_many = retention.bytes.is_some_and(|limit| log.next_position - position >= limit);
            too_many || retention.age.is_some_and(|age| is_older(host, shared, *first, age))
        })
        .map(|(position, _)| position)
        .collect();
    boundaries.sort_unstable();
    // One that is damaged is passed over for an earlier one.
    boundaries.into_iter().rev().find(|position| load_snapshot(shared, *position).is_ok())
}

/// Whether the segment that begins with entry `first` begins after `age` ago: then all before it is older.
fn is_older(host: &Host, shared: &Shared, first: u64, age: Duration) -> bool {
    let Ok(records) = shared.log.read(first, first + 1, 1) else { return false };
    let Some(record) = records.first().filter(|record| record.header.kind == RecordKind::Messages) else {
        return false;
    };
    let payload = record.payload();
    let Ok(message) = message::MessageView::parse(&payload) else { return false };
    let limit = host.system.wall_clock().saturating_sub(age).as_millis() as i64;
    message.store_timestamp() < limit
}

/// Has openraft take the boundary's snapshot and purge the log below it, then trims what was derived.
async fn drop_before(raft: &Raft, host: &Host, shared: &Arc<Shared>, boundary: u64) -> anyhow::Result<()> {
    let snapshot = load_snapshot(shared, boundary)?;
    let Some(id) = snapshot.base.id else { return Ok(()) };
    *shared.retain_from.lock() = Some(boundary);
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
        shared.queues.trim(&snapshot.base.counters)?;
        shared.checkpoints.remove_snapshots_below(boundary)?;
        anyhow::Ok(())
    });
    trimming.await??;
    tracing::info!(boundary, "old segments dropped");
    Ok(())
}
