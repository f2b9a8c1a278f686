//! The snapshots of one group on one node: which ones the node needs, and whether they are whole.
//!
//! A snapshot is the state as of a segment's first record. A new replica starts from the one of the log's first record;
//! each later one takes its place when retention drops the segments before it. Like everything derived they may rot or be
//! deleted: they are read back by the scrub ([`crate::group`]), before retention counts on one, and before one is sent. A
//! damaged one is fetched from a peer ([`repair`]) or made again from a later state and the log ([`remake`]).
//!
//! Not here: saving them (`state_machine`), sending them (`transport/network.rs`), installing them (`transport/peer.rs`).
//!
//! - `snapshots.I1`: a replica is sent the state as of the sender's first record, verified when it is read, and never a
//!   later one: it would lack messages that the sender retains. While no whole one is there, the replica waits.
//! - `snapshots.I2`: retention drops segments only up to a snapshot that was read back whole.
//! - `snapshots.I3`: a state made again is one from which the log leads to the state that it was made of.

mod damages;
pub(crate) mod fetch;
pub(crate) mod remake;
pub(crate) mod repair;
pub(crate) mod starting;

use std::collections::BTreeSet;
use std::io;
use std::sync::Arc;
use std::sync::atomic::Ordering;

use bytes::Bytes;
use folio_engine::checkpoint::{Checkpoint, Checkpoints};
use folio_engine::log::CommitLog;
use folio_engine::record::{EntryId, Record};

pub(crate) use damages::Damages;

use crate::host::Host;
use crate::shared::Shared;
use crate::state_machine::SavedState;
use crate::types::StoredMembership;

/// The place that a snapshot stands for, as the log has it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Boundary {
    /// Position of the first record behind it.
    pub(crate) position: u64,
    /// The last entry before it.
    pub(crate) id: EntryId,
    /// Index of the first record behind it and the header crc that this record chains to; none while the log is empty.
    pub(crate) first: Option<(u64, u32)>,
}

impl Boundary {
    /// The boundary at `position`, a segment's start or the log's. Blocks on the disk.
    pub(crate) fn at(log: &CommitLog, position: u64) -> io::Result<Boundary> {
        let starts = log.segment_starts();
        let Some((_, index)) = starts.iter().find(|(start, _)| *start == position) else {
            let empty = begin(log).filter(|(start, _)| *start == position && starts.is_empty());
            let unknown = || io::Error::other(format!("no segment of the log starts at {position}"));
            return empty.map(|(_, id)| Boundary { position, id, first: None }).ok_or_else(unknown);
        };
        let record = record(log, *index)?;
        let id = match log.state() {
            state if state.first_index == *index => state.purged,
            _ => Some(self::record(log, index.saturating_sub(1))?.id()),
        };
        let id = id.ok_or_else(|| io::Error::other("the log has its first record: no state is before it"))?;
        Ok(Boundary { position, id, first: Some((*index, record.header.prev_crc)) })
    }

    /// Whether a checkpoint is the state there: the chained checksum covers all of the log before it.
    pub(crate) fn is_of(&self, checkpoint: &Checkpoint) -> bool {
        let base = &checkpoint.base;
        (base.position, base.id) == (self.position, Some(self.id))
            && self.first.is_none_or(|(_, crc)| crc == base.prev_crc)
    }
}

fn record(log: &CommitLog, index: u64) -> io::Result<Record> {
    let read = log.read(index, index + 1, 1).map_err(io::Error::other)?;
    read.into_iter().next().ok_or_else(|| io::Error::other(format!("entry {index} is not in the log")))
}

/// Where the log begins, and the last entry before that; none while it has its first record.
pub(crate) fn begin(log: &CommitLog) -> Option<(u64, EntryId)> {
    let state = log.state();
    let first = log.segment_starts().first().map(|(position, _)| *position);
    Some((first.unwrap_or(state.start_position), state.purged?))
}

/// The positions of the snapshots that this node is to have: of the log's first record, and of each later segment's that was
/// applied a whole segment ago. Before that it may be on its way to the disk.
pub(crate) fn needed(shared: &Shared) -> BTreeSet<u64> {
    let applied = shared.applied_position.load(Ordering::Acquire);
    let begin = begin(&shared.log).map(|(position, _)| position);
    let starts = shared.log.segment_starts().into_iter().map(|(position, _)| position);
    let due = starts.filter(|position| {
        position.is_multiple_of(shared.segment_bytes)
            && *position > begin.unwrap_or(0)
            && position + shared.segment_bytes <= applied
    });
    due.chain(begin).collect()
}

/// Reads the snapshot at `position` whole, with the bytes of its file. Where that fails, it is noted as damaged if it is
/// needed. Blocks on the disk.
pub(crate) fn load(shared: &Shared, position: u64) -> io::Result<(Checkpoint, Bytes)> {
    let reason = match read(&shared.checkpoints, position) {
        Ok(whole) => return Ok(whole),
        Err(error) => error.to_string(),
    };
    if needed(shared).contains(&position) && shared.snapshots.note(position) {
        tracing::warn!(position, reason, "a snapshot is damaged or gone: it is fetched or made again");
    }
    Err(io::Error::other(reason))
}

fn read(checkpoints: &Checkpoints, position: u64) -> io::Result<(Checkpoint, Bytes)> {
    let found = checkpoints.load_snapshot_file(position).map_err(io::Error::other)?;
    found.ok_or_else(|| {
        io::Error::new(io::ErrorKind::NotFound, format!("there is no snapshot of position {position}"))
    })
}

/// A snapshot that is about to be sent.
pub(crate) struct Outgoing {
    pub(crate) id: EntryId,
    pub(crate) membership: StoredMembership,
    /// Its file.
    pub(crate) file: Bytes,
}

/// Reads snapshots for peers.
#[derive(Clone)]
pub(crate) struct Stored {
    pub(crate) host: Host,
    pub(crate) shared: Arc<Shared>,
}

impl Stored {
    /// The snapshot at `position`, whole, which ends with the entry `id` (`snapshots.I1`).
    pub(crate) async fn read(&self, position: u64, id: EntryId) -> io::Result<Outgoing> {
        let shared = self.shared.clone();
        let read = self.host.blocking(move || {
            let (checkpoint, file) = load(&shared, position)?;
            if checkpoint.base.id != Some(id) {
                // Retention has moved the log's start meanwhile.
                return Err(io::Error::other(format!("the snapshot of {position} does not end with {id}")));
            }
            let state = SavedState::decode(&checkpoint.state).map_err(io::Error::other)?;
            Ok(Outgoing { id, membership: state.membership, file })
        });
        read.await?
    }
}
