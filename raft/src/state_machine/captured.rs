//! A state that is taken out of the state machine, and one that is put into it: what openraft is handed as a snapshot.
//!
//! To capture a state copies little; to encode and to save it is for a blocking thread.

use std::io;
use std::sync::atomic::Ordering;

use folio_engine::checkpoint::Checkpoint;
use folio_engine::log::StampBase;
use folio_engine::queues::Trimmed;
use openraft::storage::{RaftSnapshotBuilder, Snapshot};

use super::content::{Received, SnapshotContent, SnapshotMetaOf, SnapshotOf, Wanted};
use super::saved::SavedState;
use crate::pending_timers;
use crate::shared::Shared;
use crate::snapshots;
use crate::types::{TypeConfig, log_id};

/// The state at one moment, not encoded yet.
pub(crate) struct Captured {
    pub(super) base: StampBase,
    pub(super) saved: SavedState,
    /// As counted then.
    pub(super) state_bytes: i64,
    /// Files that this state needs no more, and earlier ones do.
    pub(super) trimmed: Vec<Trimmed>,
}

impl Captured {
    pub(crate) fn encode(self) -> io::Result<Checkpoint> {
        let state = self.saved.encode().map_err(io::Error::other)?;
        Ok(Checkpoint { base: self.base, state })
    }

    /// As if it had been received.
    #[cfg(test)]
    pub(crate) fn into_snapshot(self) -> SnapshotOf {
        let last_log_id = self.base.id.map(log_id);
        let meta = SnapshotMetaOf { last_log_id, last_membership: self.saved.membership.clone() };
        let received = Received::of(self.base, self.saved);
        Snapshot { meta, snapshot: SnapshotContent::Received(Box::new(received)) }
    }
}

/// Derived structures are durable before the checkpoint that counts on them is. Blocks on the disk.
pub(crate) fn save_checkpoint(shared: &Shared, mut captured: Captured) {
    let trimmed = std::mem::take(&mut captured.trimmed);
    // What is counted command by command is at times too much: see `State::growth`.
    let gone = pending_timers::gone(&captured.saved.state);
    let exact = captured.saved.state.encoded_bytes() as i64;
    shared.state_bytes.fetch_add(exact - captured.state_bytes, Ordering::Relaxed);
    let save = || {
        let checkpoint = captured.encode()?;
        shared.derived.sync().map_err(io::Error::other)?;
        shared.timers.sync().map_err(io::Error::other)?;
        shared.checkpoints.save(&checkpoint).map_err(io::Error::other)
    };
    if let Err(error) = save() {
        // Derived data: a restart replays more of the log instead.
        tracing::warn!(%error, "checkpoint not saved");
        shared.trimmed.lock().extend(trimmed);
        return;
    }
    shared.timers.forget(gone);
    for files in trimmed {
        // The next start removes what is left.
        if let Err(error) = shared.queues.remove_trimmed(files) {
            tracing::warn!(%error, "files of deleted queues are not removed yet");
        }
    }
}

/// What a snapshot that is saved here already makes of the state machine. Blocks on the disk.
pub(super) fn stored(shared: &Shared, position: u64) -> io::Result<Received> {
    let (checkpoint, _) = snapshots::load(shared, position)?;
    let saved = SavedState::decode(&checkpoint.state).map_err(io::Error::other)?;
    Ok(Received::of(checkpoint.base, saved))
}

/// Hands openraft the snapshot that retention has read.
pub(crate) struct SnapshotBuilder {
    pub(super) wanted: Option<Wanted>,
}

impl RaftSnapshotBuilder<TypeConfig> for SnapshotBuilder {
    type SnapshotData = SnapshotContent;

    async fn build_snapshot(&mut self) -> io::Result<SnapshotOf> {
        let Wanted { position, meta } =
            self.wanted.take().ok_or_else(|| io::Error::other("no snapshot is wanted"))?;
        Ok(Snapshot { meta, snapshot: SnapshotContent::Stored(position) })
    }
}

/// The planted defect `later-start-leads`: in the place of a snapshot that is not whole a later one, or the state of now.
pub(super) fn later_start(shared: &Shared, now: impl Fn() -> Captured) -> io::Result<Option<SnapshotOf>> {
    let Some((begin, _)) = snapshots::begin(&shared.log) else { return Ok(None) };
    let positions = shared.checkpoints.snapshots().map_err(io::Error::other)?;
    let from_begin = positions.into_iter().filter(|position| *position >= begin);
    let mut whole = from_begin.filter_map(|position| shared.checkpoints.load_snapshot(position).ok()?);
    let checkpoint = match whole.next() {
        Some(whole) => whole,
        None => now().encode()?,
    };
    shared.checkpoints.save_snapshot(&checkpoint).map_err(io::Error::other)?;
    let last_log_id = checkpoint.base.id.map(log_id);
    let meta = SnapshotMetaOf { last_log_id, ..Default::default() };
    Ok(Some(Snapshot { meta, snapshot: SnapshotContent::Stored(checkpoint.base.position) }))
}
