//! What a node does with its files before it takes part: log, queues and state as of one point.
//!
//! The newest checkpoint that fits the log wins; then the snapshots, newest first; then, if the log still has
//! its first record, nothing at all. Whatever is older than the log's durable end is replayed through `apply`
//! once a leader says what is committed.

use std::collections::BTreeSet;
use std::io;
use std::path::PathBuf;
use std::sync::Arc;

use anyhow::Context;
use folio_engine::checkpoint::{Checkpoint, CheckpointError, Checkpoints};
use folio_engine::derived::DerivedError;
use folio_engine::disk::{Disk, create_dir};
use folio_engine::log::StampBase;
use folio_engine::log::{CommitLog, LogConfig, LogState, OnRot, OpenError};
use folio_engine::queues::{ConsumeQueues, QueuesError};
use folio_engine::timers::{TimerIndex, TimersError};
use folio_state::sections::features::TIMERS;

use super::{founding, rewind};
use crate::codec::CodecError;
use crate::config::{Flush, GroupConfig};
use crate::dedup::Dedup;
use crate::derived::{self, DerivedList, Indexes};
use crate::host::Host;
use crate::pending_timers;
use crate::queue_ends;
use crate::skip_entry::SkipEntry;
use crate::snapshots::remake::{Scan, remake};
use crate::snapshots::{self, Boundary};
use crate::state_machine::SavedState;

/// Bytes of recent records kept in memory for replication and apply.
const CACHE_BYTES: usize = 24 << 20;

/// Bytes of the log that are read together for the timer index.
const TIMERS_READ_BYTES: usize = 4 << 20;

/// A node's files, opened.
pub(crate) struct Recovered {
    pub(crate) log: CommitLog,
    pub(crate) queues: ConsumeQueues,
    pub(crate) derived: DerivedList,
    pub(crate) indexes: Indexes,
    pub(crate) timers: TimerIndex,
    pub(crate) checkpoints: Checkpoints,
    pub(crate) base: StampBase,
    pub(crate) saved: SavedState,
    pub(crate) dedup: Option<Dedup>,
}

/// Why the files were not opened.
#[derive(Debug, thiserror::Error)]
pub(crate) enum RecoverError {
    /// Nothing here tells the state at any record of the log; the last checkpoint that did not fit, if one was readable.
    #[error(
        "no checkpoint and no snapshot in {} is whole and fits the log, whose first records were dropped: the state cannot be \
         built again from it; put a snapshot of another node of the group into its place, or move the data directory away and \
         start with an empty one: the node gets its log from the others", .dir.display()
    )]
    NoState { dir: PathBuf, source: Option<OpenError> },
    /// What a checkpoint has applied was durable first (`group.I1`): a log that ends before it has lost acknowledged records.
    /// With asynchronous flushing a power cut does that, and is noted elsewhere; a snapshot that was received lies ahead of the
    /// log until that is reset.
    #[error(transparent)]
    EndsEarly(OpenError),
    #[error(transparent)]
    Log(#[from] OpenError),
    /// Acknowledged records are damaged or gone, and no other voter has them.
    #[error(
        "{loss}. This node is the group's only voter, so no other has what is missing: nothing was changed. Put a whole copy of \
         the file in its place; or, to go on without this record and all behind it, create the file {} and start again: \
         what is cut off is kept beside the log", .accept.display()
    )]
    OnlyVoter { loss: OpenError, accept: PathBuf },
    /// The data directory.
    #[error("the log in {} does not start where any snapshot is", .0.display())]
    NoStart(PathBuf),
    #[error(transparent)]
    Checkpoint(#[from] CheckpointError),
    /// A newer build has written it: an older one, too, would meet what this build does not know.
    #[error("the checkpoint in {}: {error}", .dir.display())]
    NewerState { dir: PathBuf, error: CodecError },
    #[error(transparent)]
    State(#[from] CodecError),
    #[error(transparent)]
    Queues(#[from] QueuesError),
    #[error(transparent)]
    Derived(#[from] DerivedError),
    #[error(transparent)]
    Timers(#[from] TimersError),
    #[error(transparent)]
    Io(#[from] io::Error),
    #[error(transparent)]
    Other(#[from] anyhow::Error),
}

/// Opens everything below `config.data_dir`. Blocks on the disk.
///
/// Where records are damaged that this node has acknowledged, or what it has acknowledged is not known any more, it is
/// noted that it must not vote before it has caught up; then the log is cut there, and replication brings back what is
/// missing.
pub(crate) fn open(config: &GroupConfig, host: &Host) -> Result<Recovered, RecoverError> {
    let mut recovered = open_and_cut(config, host)?;
    let from = recovered.saved.dedup_from.filter(|_| recovered.base.id.is_some());
    recovered.dedup = config.dedup.as_ref().map(|config| Dedup::new(config, from));
    Ok(recovered)
}

fn open_and_cut(config: &GroupConfig, host: &Host) -> Result<Recovered, RecoverError> {
    match open_on_rot(config, host, OnRot::Refuse) {
        Err(RecoverError::EndsEarly(loss)) => {
            let loss = refuse_if_alone(config, host, loss)?;
            tracing::error!(error = %loss, "acknowledged records are gone: no vote until they are back from the other nodes");
        }
        Err(RecoverError::Log(rot @ OpenError::Rot { .. })) => {
            let rot = refuse_if_alone(config, host, rot)?;
            tracing::error!(error = %rot, "acknowledged records are damaged: no vote until they are back from the other nodes");
        }
        Err(RecoverError::Log(mark)) if is_mark(&mark) => {
            tracing::error!(error = %mark, "how far this node has acknowledged is lost: no vote until it has caught up");
        }
        opened => return opened,
    }
    founding::note_loss(&*host.disk, &config.data_dir)?;
    open_on_rot(config, host, OnRot::Cut)
}

/// Whether it is the file that says how far this node has acknowledged.
fn is_mark(error: &OpenError) -> bool {
    matches!(error, OpenError::StateFile { file, .. } if file.ends_with("durable"))
}

/// A group of one voter has nobody to bring back what is damaged, nor what lies whole behind it: the files are left as they
/// are, unless an operator has laid down that the loss is accepted. Gives the loss back otherwise.
fn refuse_if_alone(config: &GroupConfig, host: &Host, loss: OpenError) -> Result<OpenError, RecoverError> {
    let dir = &config.data_dir;
    let voters = last_known_voters(config, &Checkpoints::open(host.disk.clone(), dir)?)?;
    if voters.iter().any(|id| *id != config.node_id) || founding::is_loss_accepted(&*host.disk, dir)? {
        return Ok(loss);
    }
    Err(RecoverError::OnlyVoter { loss, accept: founding::loss_acceptance(dir) })
}

/// The voters as the newest readable checkpoint has them; before there is one, those of the configuration.
fn last_known_voters(
    config: &GroupConfig,
    checkpoints: &Checkpoints,
) -> Result<BTreeSet<u64>, CheckpointError> {
    let states =
        candidates(checkpoints)?.into_iter().filter_map(|found| SavedState::decode(&found.state).ok());
    let newest = states.map(|saved| saved.membership.membership().clone()).next();
    let known: BTreeSet<u64> = newest.iter().flat_map(|membership| membership.voter_ids()).collect();
    Ok(if known.is_empty() { config.nodes.keys().copied().collect() } else { known })
}

fn open_on_rot(config: &GroupConfig, host: &Host, on_rot: OnRot) -> Result<Recovered, RecoverError> {
    let (dir, disk) = (&config.data_dir, &host.disk);
    create_dir(&**disk, dir)?;
    let checkpoints = Checkpoints::open(disk.clone(), dir)?;
    let (mut refused, limit) = (None, rewind::limit(&**disk, dir)?);
    for checkpoint in undisputed_first(candidates(&checkpoints)?, limit) {
        let saved = match SavedState::decode(&checkpoint.state) {
            Ok(saved) => saved,
            Err(error) if error.is_newer() => {
                return Err(RecoverError::NewerState { dir: dir.clone(), error });
            }
            Err(error) => {
                tracing::warn!(position = checkpoint.base.position, %error, "checkpoint not readable, trying an older one");
                continue;
            }
        };
        let log = match open_log(config, host, checkpoint.base.clone(), on_rot) {
            Ok(log) => log,
            Err(error) if is_mismatch(&error) => {
                let is_early = matches!(error, OpenError::BaseBeyondTail { .. });
                let may_be = config.flush == Flush::Async || on_rot == OnRot::Cut;
                if is_early && !may_be && is_latest(&checkpoints, &checkpoint) {
                    return Err(RecoverError::EndsEarly(error));
                }
                tracing::warn!(position = checkpoint.base.position, %error, "checkpoint does not fit the log, trying an older one");
                refused = Some(error);
                continue;
            }
            Err(error) => return Err(error.into()),
        };
        let opened = open_queues(&log, &checkpoints, disk, config, (&checkpoint, &saved)).and_then(
            |(queues, begin)| {
                let timers = open_timers(&log, disk, config, (&checkpoint, &saved))?;
                Ok((queues, begin, timers))
            },
        );
        match opened {
            Ok((queues, begin, timers)) => {
                let of = (&checkpoint.base, &begin);
                let (indexes, derived) = open_derived(&log, config, host, &queues, of, limit)?;
                if (refused.is_some() || limit.is_some()) && !is_latest(&checkpoints, &checkpoint) {
                    // The next start would take the log for one that has lost what this one gives up.
                    checkpoints.remove_latest()?;
                }
                rewind::obeyed(&**disk, dir)?;
                let base = checkpoint.base;
                return Ok(Recovered {
                    log,
                    queues,
                    derived,
                    indexes,
                    timers,
                    checkpoints,
                    base,
                    saved,
                    dedup: None,
                });
            }
            Err(error) => {
                tracing::warn!(%error, "consume queues or timer index not usable, rebuilding them from the log");
                log.close();
                let recovered = rebuild(config, host, checkpoints, on_rot, limit)?;
                // Built again from the log's start, they are within any limit.
                rewind::obeyed(&**disk, dir)?;
                return Ok(recovered);
            }
        }
    }
    Err(RecoverError::NoState { dir: dir.clone(), source: refused })
}

/// Whether it is the checkpoint, and no snapshot.
fn is_latest(checkpoints: &Checkpoints, checkpoint: &Checkpoint) -> bool {
    let latest = checkpoints.load_latest().ok().flatten();
    latest.is_some_and(|latest| latest.base == checkpoint.base)
}

/// Checkpoints to try, best first; the last is the beginning of the log.
fn candidates(checkpoints: &Checkpoints) -> Result<Vec<Checkpoint>, CheckpointError> {
    let mut found = Vec::new();
    match checkpoints.load_latest() {
        Ok(latest) => found.extend(latest),
        Err(error) => tracing::warn!(%error, "checkpoint not readable, trying the snapshots"),
    }
    found.extend(snapshots_newest_first(checkpoints)?);
    found.push(beginning());
    Ok(found)
}

/// States within the limit first (`rewind.I1`), in the order they had.
fn undisputed_first(mut found: Vec<Checkpoint>, limit: Option<u64>) -> Vec<Checkpoint> {
    let index = |checkpoint: &Checkpoint| checkpoint.base.id.map_or(0, |id| id.index);
    found.sort_by_key(|checkpoint| limit.is_some_and(|limit| index(checkpoint) > limit));
    found
}

fn snapshots_newest_first(checkpoints: &Checkpoints) -> Result<Vec<Checkpoint>, CheckpointError> {
    let mut found = Vec::new();
    for position in checkpoints.snapshots()?.into_iter().rev() {
        match checkpoints.load_snapshot(position) {
            Ok(snapshot) => found.extend(snapshot),
            Err(error) => tracing::warn!(position, %error, "snapshot not readable, trying an older one"),
        }
    }
    Ok(found)
}

fn beginning() -> Checkpoint {
    Checkpoint { base: StampBase::default(), state: bytes::Bytes::new() }
}

fn open_log(
    config: &GroupConfig,
    host: &Host,
    base: StampBase,
    on_rot: OnRot,
) -> Result<CommitLog, OpenError> {
    let sync = config.flush == Flush::Sync;
    let log = LogConfig { segment_bytes: config.segment_bytes, cache_bytes: CACHE_BYTES, sync };
    CommitLog::open_on(host.disk.clone(), host.workers.clone(), &config.data_dir, log, base, on_rot)
}

fn open_queues(
    log: &CommitLog,
    checkpoints: &Checkpoints,
    disk: &Arc<dyn Disk>,
    config: &GroupConfig,
    (at, saved): (&Checkpoint, &SavedState),
) -> anyhow::Result<(ConsumeQueues, StampBase)> {
    let begin = match beginning_of(log, checkpoints)? {
        Some(begin) => begin,
        None => {
            tracing::warn!(
                "the snapshot of the log's start is damaged: where queues begin is read off the log"
            );
            scanned_beginning(log, &at.base)?
        }
    };
    let mut min = begin.counters.clone();
    // min_offsets.I1: what is deleted stays so, whatever the log still holds.
    queue_ends::raise_firsts(&mut min, saved.state.min_offsets());
    let queues = ConsumeQueues::open(disk.clone(), &config.data_dir, &at.base.counters, &min)?;
    queues.hold_at_most(held_max(config.segment_bytes));
    Ok((queues, begin))
}

/// The list of derived structures, for a node whose state is as of `base`. The log begins at `begin`.
fn open_derived(
    log: &CommitLog,
    config: &GroupConfig,
    host: &Host,
    queues: &ConsumeQueues,
    (base, begin): (&StampBase, &StampBase),
    limit: Option<u64>,
) -> Result<(Indexes, DerivedList), DerivedError> {
    let (indexes, others) = derived::open(&host.disk, &config.data_dir, config.segment_bytes, begin)?;
    let list = DerivedList::new(queues.clone(), others, (log, begin), base, limit)?;
    Ok((indexes, list))
}

/// The timer index as of the checkpoint: what it lacks is read from the log.
fn open_timers(
    log: &CommitLog,
    disk: &Arc<dyn Disk>,
    config: &GroupConfig,
    (at, saved): (&Checkpoint, &SavedState),
) -> anyhow::Result<TimerIndex> {
    let base = pending_timers::point(&at.base);
    let gone = pending_timers::gone(&saved.state);
    let (timers, from) = TimerIndex::open(disk.clone(), &config.data_dir, base, gone)?;
    if saved.state.level() < TIMERS {
        timers.skip_to(base);
        return Ok(timers);
    }
    let Some(last) = base.id else { return Ok(timers) };
    let mut index = from.id.map_or(0, |id| id.index + 1).max(log.state().first_index);
    let mut before = Some(from.crc).filter(|_| from.id.is_some_and(|id| id.index + 1 == index));
    if index < last.index {
        tracing::info!(from = index, upto = last.index, "the timer index lacks records: they are read");
    }
    while index <= last.index {
        let records = log.read(index, last.index + 1, TIMERS_READ_BYTES)?;
        let Some(end) = records.last() else { anyhow::bail!("the log ends before entry {index}") };
        let next = end.header.index + 1;
        for record in &records {
            anyhow::ensure!(
                before.take().is_none_or(|crc| crc == record.header.prev_crc),
                "the timer index is of another log"
            );
            if timers.apply(record)? {
                timers.sync()?;
            }
        }
        index = next;
    }
    timers.skip_to(base);
    Ok(timers)
}

/// Memory for units that a full disk has no room for. The log has room of its own for the rest of a segment and for the one
/// after it, and what comes there has to be applied. This is enough for messages of 160 bytes; beyond it apply waits.
fn held_max(segment_bytes: u64) -> usize {
    usize::try_from(segment_bytes / 4).unwrap_or(usize::MAX)
}

/// The place of the first retained record; `None` when the snapshot of that is not readable.
fn beginning_of(log: &CommitLog, checkpoints: &Checkpoints) -> Result<Option<StampBase>, CheckpointError> {
    let state = log.state();
    if state.purged.is_none() {
        return Ok(Some(StampBase::default()));
    }
    let found = snapshots_newest_first(checkpoints)?.into_iter().find(|snapshot| begins(&state, snapshot));
    Ok(found.map(|snapshot| snapshot.base))
}

/// Whether a snapshot is the state as of the log's first record.
fn begins(log: &LogState, snapshot: &Checkpoint) -> bool {
    snapshot.base.id == log.purged
}

/// The same, read off the log: a queue begins at its first message there, and at its end when it has none.
fn scanned_beginning(log: &CommitLog, at: &StampBase) -> anyhow::Result<StampBase> {
    let mut scan = Scan::new(at.counters.clone());
    if let Some(last) = at.id {
        // No command says where a queue stands.
        scan.read(log, log.state().first_index, last.index, &SkipEntry::default())?;
    }
    let (position, id) = snapshots::begin(log).context("the log has its first record")?;
    // An empty log begins where the state is.
    let first = Boundary::at(log, position)?.first;
    let prev_crc = first.map_or(at.prev_crc, |(_, crc)| crc);
    Ok(StampBase { id: Some(id), position, prev_crc, counters: scan.counters })
}

/// Whether another checkpoint may fit: the log itself is not at fault.
fn is_mismatch(error: &OpenError) -> bool {
    matches!(
        error,
        OpenError::BaseBeyondTail { .. } | OpenError::BaseBelowStart { .. } | OpenError::BaseMismatch { .. }
    )
}

/// The state as of the log's first record, made again from a later one.
fn remade_beginning(
    log: &CommitLog,
    later: &Checkpoint,
    skip_entry: &SkipEntry,
) -> anyhow::Result<Checkpoint> {
    let (position, _) = snapshots::begin(log).context("the log has its first record")?;
    tracing::warn!(
        position,
        "the snapshot of the log's start is damaged or gone: it is made again from a later state"
    );
    remake(log, &Boundary::at(log, position)?, later, skip_entry)
}

fn no_beginning(config: &GroupConfig) -> String {
    format!(
        "the consume queues in {dir} are not usable, and the snapshot of the log's start, from which they could be built \
         again, is damaged or gone and cannot be made again; move the data directory away and start with an empty one: the \
         node gets its log from the others",
        dir = config.data_dir.display()
    )
}

/// Drops state and consume queues and starts from the first retained record.
fn rebuild(
    config: &GroupConfig,
    host: &Host,
    checkpoints: Checkpoints,
    on_rot: OnRot,
    limit: Option<u64>,
) -> Result<Recovered, RecoverError> {
    let mut oldest: Vec<Checkpoint> = checkpoints.load_latest().ok().flatten().into_iter().collect();
    oldest.extend(snapshots_newest_first(&checkpoints)?);
    oldest.push(beginning());
    for checkpoint in oldest.into_iter().rev() {
        let log = match open_log(config, host, checkpoint.base.clone(), on_rot) {
            Ok(log) => log,
            Err(error) if is_mismatch(&error) => continue,
            Err(error) => return Err(error.into()),
        };
        let checkpoint = match begins(&log.state(), &checkpoint) {
            true => checkpoint,
            // Queues that begin later than the log would hide messages.
            false => {
                let skip_entry = SkipEntry::read(&*host.disk, &config.data_dir);
                let made = skip_entry
                    .map_err(anyhow::Error::from)
                    .and_then(|skip_entry| remade_beginning(&log, &checkpoint, &skip_entry));
                log.close();
                let made = made.with_context(|| no_beginning(config))?;
                checkpoints.save_snapshot(&made)?;
                return rebuild(config, host, checkpoints, on_rot, limit);
            }
        };
        // With both counters alike nothing is needed of the files: the queues open empty.
        let at = &checkpoint.base.counters;
        let queues = ConsumeQueues::open(host.disk.clone(), &config.data_dir, at, at)?;
        queues.hold_at_most(held_max(config.segment_bytes));
        let base = checkpoint.base;
        let (indexes, derived) = open_derived(&log, config, host, &queues, (&base, &base), limit)?;
        let saved = SavedState::decode(&checkpoint.state)?;
        // Whatever it held behind the log's start is void.
        let (point, gone) = (pending_timers::point(&base), pending_timers::gone(&saved.state));
        let (timers, _) = TimerIndex::open(host.disk.clone(), &config.data_dir, point, gone)?;
        timers.skip_to(point);
        return Ok(Recovered {
            log,
            queues,
            derived,
            indexes,
            timers,
            checkpoints,
            base,
            saved,
            dedup: None,
        });
    }
    Err(RecoverError::NoStart(config.data_dir.clone()))
}
