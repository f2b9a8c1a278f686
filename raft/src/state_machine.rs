//! What a committed record does: derived structures and state, on every replica alike.
//!
//! openraft feeds committed entries in order, on one task. A record is applied once it is durable on this
//! node (`group.I1`); its effects are visible to readers before its proposer is answered.
//!
//! The state is checkpointed now and then, at a record's end, so that a restart replays little; and at each
//! segment's first record, so that the segments before it can be dropped (a snapshot: the state *as of* the
//! first retained record, which is all a new replica needs besides the retained log itself).

mod captured;
mod commands;
mod content;
mod saved;

use std::io;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use folio_engine::derived::DerivedError;
use folio_engine::log::StampBase;
use folio_engine::planted;
use folio_engine::queues::Arrival;
use folio_engine::record::{Record, RecordKind};
use folio_engine::timers::TimersError;
use folio_state::Outcome;
use futures_util::{Stream, StreamExt};
use openraft::EntryPayload;
use openraft::entry::RaftEntry;
use openraft::storage::{EntryResponder, RaftStateMachine, Snapshot};
use tokio::time::Instant;

use crate::dedup::Dedup;
use crate::group::tasks;
use crate::halves;
use crate::host::Host;
use crate::pending_timers;
use crate::popped;
use crate::shared::{ROOM_RETRY_INTERVAL, Shared};
use crate::snapshots;
use crate::terms::Terms;
use crate::types::{Applied, Content, LogEntry, LogId, StoredMembership, TypeConfig, entry_id, log_id};

pub(crate) use captured::{Captured, SnapshotBuilder, save_checkpoint};
pub(crate) use content::{Received, SnapshotContent, SnapshotMetaOf, SnapshotOf, Wanted};
pub(crate) use saved::SavedState;

/// openraft on this state machine.
pub(crate) type Raft = openraft::Raft<TypeConfig, StateMachine>;

/// Applied log bytes after which a checkpoint is due.
const CHECKPOINT_BYTES: u64 = 256 << 20;
/// Time after which a checkpoint is due if anything was applied.
const CHECKPOINT_INTERVAL: Duration = Duration::from_secs(15);
/// Arrivals that are announced at once at most.
const ARRIVALS_MAX: usize = 4096;

/// openraft's state machine: applies to the derived structures and the state in [`Shared`].
pub(crate) struct StateMachine {
    host: Host,
    shared: Arc<Shared>,
    membership: StoredMembership,
    applied: Option<LogId>,
    /// Position and header checksum after the last applied record.
    position: u64,
    prev_crc: u32,
    checkpointed: (u64, Instant),
    saving: Arc<AtomicBool>,
    /// Whether a checkpoint is due because the timer index holds much in memory.
    sync_wanted: bool,
    arrivals: Vec<Arrival>,
}

impl StateMachine {
    /// The state machine as of `base`, whose effects `shared` already holds.
    pub(crate) fn new(
        host: Host,
        shared: Arc<Shared>,
        membership: StoredMembership,
        base: &StampBase,
    ) -> StateMachine {
        StateMachine {
            host,
            shared,
            membership,
            applied: base.id.map(log_id),
            position: base.position,
            prev_crc: base.prev_crc,
            checkpointed: (base.position, Instant::now()),
            saving: Arc::default(),
            sync_wanted: false,
            arrivals: Vec::new(),
        }
    }

    async fn apply_entry(&mut self, entry: &LogEntry) -> io::Result<Applied> {
        let applied = match &entry.content {
            Content::Stored(record) => self.apply_record(record, entry).await?,
            // Only openraft's own storage tests apply what never was in a log.
            Content::New(EntryPayload::Blank | EntryPayload::Membership(_)) => Applied::Nothing,
            Content::New(EntryPayload::Normal(body)) => {
                return Err(io::Error::other(format!("apply of {body}, which is not in the log")));
            }
        };
        if let Some(membership) = entry.get_membership() {
            self.membership = StoredMembership::new(Some(entry.log_id()), membership);
            self.shared.hooks.state_changed();
        }
        let id = entry.log_id();
        if self.applied.is_none_or(|applied| applied.leader_id != id.leader_id) {
            self.shared.terms.lock().note(entry_id(&id));
        }
        self.applied = Some(id);
        self.shared.note_applied(entry_id(&entry.log_id()), self.position);
        Ok(applied)
    }

    async fn apply_record(&mut self, record: &Record, entry: &LogEntry) -> io::Result<Applied> {
        self.shared.wait_durable(entry.index()).await?;
        let durable = self.shared.log.state().durable_position;
        assert!(
            record.end() <= durable,
            "group.I2: applying up to {}, durable up to {durable}",
            record.end()
        );
        if record.position().is_multiple_of(self.shared.segment_bytes) && record.position() > 0 {
            self.save_boundary(record);
        }
        let applied = match record.header.kind {
            RecordKind::Messages => {
                self.derive(record).await?;
                self.shared.dedup.iter().for_each(|dedup| dedup.apply(record));
                Applied::Messages(record.clone())
            }
            RecordKind::Command => {
                let command = self.shared.skip_entry.command(record.id(), &record.payload())?;
                // skip_entry.I2
                let apply = |command| commands::apply(&self.shared, command, record.id());
                let outcome = command.map_or(Outcome::NotFound, apply);
                self.derive(record).await?;
                Applied::Command(outcome)
            }
            RecordKind::Transition => {
                // skip_entry.I2: its messages have their offsets.
                if let Some(commands) = self.shared.skip_entry.commands(record.id(), record.commands())? {
                    commands::apply_all(&self.shared, commands, record.id());
                }
                self.derive(record).await?;
                Applied::Transition(record.clone())
            }
            RecordKind::Blank | RecordKind::Membership => {
                self.derive(record).await?;
                Applied::Nothing
            }
        };
        self.index_timers(record).await?;
        halves::apply(&self.shared, record).map_err(io::Error::other)?;
        popped::apply(&self.shared, record).map_err(io::Error::other)?;
        self.position = record.end();
        self.prev_crc = record.header.crc;
        Ok(applied)
    }

    /// Adds the record to what is derived; on a full disk, where memory holds no more of it, once there is room (`room.I1`).
    /// Meanwhile this node votes and serves what it has applied.
    async fn derive(&mut self, record: &Record) -> io::Result<()> {
        let mut waits = 0u64;
        loop {
            match self.shared.derived.apply(record, &mut self.arrivals) {
                Err(error @ DerivedError::DiskFull { .. }) => {
                    if waits == 0 {
                        tracing::warn!(%error, position = record.position(), "apply waits for room on the disk");
                    }
                    waits += 1;
                    self.announce();
                    self.wait_for_room().await?;
                }
                applied => return applied.map_err(io::Error::other),
            }
        }
    }

    /// Adds the record's parked messages to the timer index. Where memory holds as many as it may, they are written first.
    async fn index_timers(&mut self, record: &Record) -> io::Result<()> {
        loop {
            match self.shared.timers.apply(record) {
                Ok(sync_wanted) => {
                    self.sync_wanted |= sync_wanted;
                    return Ok(());
                }
                Err(TimersError::Busy) => {}
                Err(error) => return Err(io::Error::other(error)),
            }
            self.announce();
            let index = self.shared.timers.clone();
            if let Err(error) = self.host.blocking(move || index.sync()).await? {
                tracing::warn!(%error, position = record.position(), "apply waits for the timer index to be written");
                self.wait_for_room().await?;
            }
        }
    }

    /// Waits for the next attempt; fails when the group stops.
    async fn wait_for_room(&self) -> io::Result<()> {
        let mut stopping = self.shared.stopping.subscribe();
        tokio::select! {
            () = tokio::time::sleep(ROOM_RETRY_INTERVAL) => Ok(()),
            _ = stopping.wait_for(|stopping| *stopping) => {
                Err(io::Error::other("the group stopped while apply waited for room on the disk"))
            }
        }
    }

    async fn apply_all<S>(&mut self, mut entries: S) -> io::Result<()>
    where
        S: Stream<Item = Result<EntryResponder<TypeConfig>, io::Error>> + Unpin + Send,
    {
        while let Some(item) = entries.next().await {
            let (entry, responder) = item?;
            let applied = self.apply_entry(&entry).await?;
            if let Some(responder) = responder {
                responder.send(applied);
            }
            if self.arrivals.len() >= ARRIVALS_MAX {
                self.announce();
            }
        }
        self.announce();
        self.checkpoint_if_due();
        Ok(())
    }

    fn announce(&mut self) {
        if !self.arrivals.is_empty() {
            self.shared.hooks.applied(&self.arrivals);
            self.arrivals.clear();
        }
    }

    /// The state after everything applied so far, for any node.
    pub(crate) fn capture(&self) -> Captured {
        self.capture_with(None)
    }

    /// The same with what this node alone may use.
    pub(crate) fn capture_here(&self) -> Captured {
        let terms = {
            let mut terms = self.shared.terms.lock();
            terms.forget_before(self.shared.log.state().first_index);
            terms.clone()
        };
        let trimmed = std::mem::take(&mut *self.shared.trimmed.lock());
        Captured { trimmed, ..self.capture_with(Some(terms)) }
    }

    fn capture_with(&self, terms: Option<Terms>) -> Captured {
        let base = StampBase {
            id: self.applied.as_ref().map(entry_id),
            position: self.position,
            prev_crc: self.prev_crc,
            counters: self.shared.queues.counters(),
        };
        let dedup_from = self.shared.dedup.as_ref().and_then(Dedup::oldest);
        let state = self.shared.state.read().clone();
        let state_bytes = self.shared.state_bytes.load(Ordering::Relaxed);
        let applied = self.applied.map_or(0, |id| id.index);
        let ordered_as_of =
            Some(self.shared.ordered_as_of.load(Ordering::Relaxed)).filter(|as_of| *as_of > applied);
        let saved =
            SavedState { membership: self.membership.clone(), state, dedup_from, terms, ordered_as_of };
        Captured { base, saved, state_bytes, trimmed: Vec::new() }
    }

    /// Saves the state as of a segment's start. `first` is the segment's first record, not applied yet.
    fn save_boundary(&self, first: &Record) {
        let position = first.position();
        let mut captured = self.capture();
        captured.base.position = position;
        let shared = self.shared.clone();
        self.host.system.block(Box::new(move || {
            let saved = captured
                .encode()
                .and_then(|snapshot| shared.checkpoints.save_snapshot(&snapshot).map_err(io::Error::other));
            if let Err(error) = saved {
                // Not fatal: the scrub makes it again.
                tracing::warn!(position, %error, "snapshot at a segment's start not saved");
            }
        }));
    }

    fn checkpoint_if_due(&mut self) {
        let (position, at) = self.checkpointed;
        let bytes = self.position.saturating_sub(position);
        let due = bytes >= CHECKPOINT_BYTES
            || self.sync_wanted
            || (bytes > 0 && at.elapsed() >= CHECKPOINT_INTERVAL);
        if due && !self.saving.swap(true, Ordering::AcqRel) {
            self.checkpointed = (self.position, Instant::now());
            self.sync_wanted = false;
            let (captured, shared, saving) = (self.capture_here(), self.shared.clone(), self.saving.clone());
            self.host.system.block(Box::new(move || {
                save_checkpoint(&shared, captured);
                saving.store(false, Ordering::Release);
            }));
        }
    }
}

impl RaftStateMachine<TypeConfig> for StateMachine {
    type SnapshotData = SnapshotContent;
    type SnapshotBuilder = SnapshotBuilder;

    async fn applied_state(&mut self) -> io::Result<(Option<LogId>, StoredMembership)> {
        Ok((self.applied, self.membership.clone()))
    }

    async fn apply<S>(&mut self, entries: S) -> io::Result<()>
    where
        S: Stream<Item = Result<EntryResponder<TypeConfig>, io::Error>> + Unpin + Send,
    {
        let shared = self.shared.clone();
        // openraft would go on without the task that applies.
        tasks::guarded(&shared, "the applier", self.apply_all(entries)).await
    }

    /// None without a wish of retention: a state as of now would be one that lacks retained messages.
    async fn try_create_snapshot_builder(&mut self, _force: bool) -> Option<SnapshotBuilder> {
        let wanted = self.shared.wanted_snapshot.lock().take()?;
        Some(SnapshotBuilder { wanted: Some(wanted) })
    }

    async fn get_snapshot_builder(&mut self) -> SnapshotBuilder {
        SnapshotBuilder { wanted: self.shared.wanted_snapshot.lock().take() }
    }

    /// The snapshot was saved and the log is being reset to it (see `transport::peer`).
    async fn install_snapshot(&mut self, meta: &SnapshotMetaOf, snapshot: SnapshotContent) -> io::Result<()> {
        let shared = self.shared.clone();
        // Files are made and removed, and a large state is decoded: not on this thread.
        let installing = self.host.blocking(move || {
            let received = match snapshot {
                SnapshotContent::Received(received) => *received,
                SnapshotContent::Stored(position) => captured::stored(&shared, position)?,
            };
            shared.derived.reset(&received.base).map_err(io::Error::other)?;
            shared.timers.reset(pending_timers::point(&received.base)).map_err(io::Error::other)?;
            let state_bytes = received.state.encoded_bytes() as i64;
            Ok::<_, io::Error>((received, state_bytes))
        });
        let (Received { base, state, ordered_as_of }, state_bytes) = installing.await??;
        let term = meta.last_log_id.map_or(0, |id| id.leader_id.term);
        self.shared.lease_clock.note(state.lease_clock_ms(), term);
        self.shared.level.set(state.level());
        pending_timers::note(&self.shared, &state);
        *self.shared.state.write() = state;
        self.shared.ordered_as_of.store(ordered_as_of.unwrap_or(0), Ordering::Relaxed);
        self.shared.state_bytes.store(state_bytes, Ordering::Relaxed);
        self.membership = meta.last_membership.clone();
        self.applied = meta.last_log_id;
        self.position = base.position;
        self.prev_crc = base.prev_crc;
        self.checkpointed = (self.position, Instant::now());
        self.shared.dedup.iter().for_each(Dedup::reset);
        *self.shared.terms.lock() = Terms::after(self.applied.as_ref().map(entry_id));
        self.shared.note_applied(self.applied.as_ref().map(entry_id).unwrap_or_default(), self.position);
        self.shared.hooks.state_changed();
        tracing::info!(
            position = self.position,
            index = self.applied.map(|id| id.index),
            "snapshot installed"
        );
        Ok(())
    }

    /// The one of the log's first record, always (`snapshots.I1`). It is not read here, where records are applied: if it
    /// turns out to be damaged, whoever sends it waits and asks again.
    async fn get_current_snapshot(&mut self) -> io::Result<Option<SnapshotOf>> {
        if planted::is("later-start-leads") {
            return captured::later_start(&self.shared, || self.capture());
        }
        // While the log has its first record nobody needs one.
        let Some((position, id)) = snapshots::begin(&self.shared.log) else { return Ok(None) };
        // The members are read with the rest.
        let meta = SnapshotMetaOf { last_log_id: Some(log_id(id)), last_membership: self.membership.clone() };
        Ok(Some(Snapshot { meta, snapshot: SnapshotContent::Stored(position) }))
    }
}

#[cfg(test)]
mod tests;
