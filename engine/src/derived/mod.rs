//! Structures derived from the log: one trait for consume queues, indexes and whatever else is built from committed records.
//!
//! A derived structure holds nothing that the log does not hold. It is built record by record, can be deleted and is built
//! again, is checked by a scrub, repaired from the log, and trimmed with it. Who owns the list of structures applies to
//! them, syncs and trims them without knowing what they are; reads go to each structure's own typed functions.
//!
//! The log's axis, and where a structure stands on it:
//!
//! ```text
//!     log start            durable             reached           applied
//!         |--------------------|------------------|-----------------|------> positions
//!         | here after a power cut                |                 |
//!                              | a sync moves it to `reached`       |
//!                                                 | `apply` moves it on, record by record
//! ```
//!
//! Invariants, for every implementation; `conformance` checks them.
//! - `derived.I1` Built again from the log's start, it holds what it holds when it was built without a break.
//! - `derived.I2` After a sync everything applied before it survives a power cut. A power cut at any moment, in a sync too,
//!   leaves a structure that opens at a point of the log, holds exactly the retained records before that point, and goes on
//!   from there.
//! - `derived.I3` What lies below the log's start is not needed for anything: trimmed, it holds what it holds when it was
//!   built from there. It may keep such a part until the file around it goes.
//! - `derived.I4` A damaged part is never handed out. It is found, counted, and built again from the log.
//! - `derived.I5` A refused record has changed nothing: it can be applied again later.

#[cfg(test)]
pub(crate) mod conformance;

use std::error::Error;
use std::path::PathBuf;

use thiserror::Error;

use crate::log::{CommitLog, StampBase, Watcher};
use crate::queues::Arrival;
use crate::record::{EntryId, Record};

/// A place between two records of the log.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct LogPoint {
    /// The entry before it; `None` before the first one.
    pub id: Option<EntryId>,
    /// Where that entry's record ends, or the next one begins: at a segment's start they differ.
    pub position: u64,
    /// Header crc of that record. It chains to all records before, so it tells one history from another.
    pub crc: u32,
}

impl LogPoint {
    /// The place behind a record.
    pub fn after(record: &Record) -> LogPoint {
        LogPoint { id: Some(record.id()), position: record.end(), crc: record.header.crc }
    }

    /// Whether it is the place behind this entry, of the history that its crc stands for.
    pub fn is_after(&self, id: Option<EntryId>, crc: u32) -> bool {
        (self.id, self.crc) == (id, crc)
    }

    /// Index of the entry behind it.
    pub fn next_index(&self) -> u64 {
        self.id.map_or(0, |id| id.index + 1)
    }
}

impl From<&StampBase> for LogPoint {
    fn from(base: &StampBase) -> LogPoint {
        LogPoint { id: base.id, position: base.position, crc: base.prev_crc }
    }
}

/// What [`Derived::apply`] has done with a record.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Taken {
    /// It is held.
    Held,
    /// It is held, and so much is in memory now that a sync is wanted before the next checkpoint.
    SyncWanted,
}

/// What a step of a scrub has done.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct ScrubStep {
    /// Bytes read from the disk.
    pub bytes: u64,
    /// Whether the pass is over; the next step begins a new one.
    pub over: bool,
}

/// What a step of a repair has done.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum RepairStep {
    /// Every damaged part that is known was tried; the next step begins anew.
    RoundOver,
    /// The log was read, and the part is not whole yet.
    Searching,
    /// So many units of the structure are right again, durably after the next sync.
    Repaired(usize),
}

/// Why a derived structure refused or failed.
#[derive(Debug, Error)]
pub enum DerivedError {
    /// Transient: the disk is full, and memory holds as much as it may. Apply the record again once there is room.
    #[error("{path}: the disk is full")]
    DiskFull {
        /// The file or directory that could not grow.
        path: PathBuf,
    },
    /// Transient: memory holds as much as it may. Sync, then apply the record again.
    #[error("{0} holds as many entries in memory as it may")]
    Busy(&'static str),
    /// Transient: a damaged part is not repaired yet.
    #[error(transparent)]
    NotRepaired(Box<dyn Error + Send + Sync>),
    /// Fatal for the structure: its disk failed, or the record cannot be one of this log.
    #[error(transparent)]
    Failed(Box<dyn Error + Send + Sync>),
}

/// See the module. An implementation is a handle that many threads use; calls that change it take turns inside.
///
/// How one is opened is its own matter: it gives the structure, and the [`LogPoint`] up to which it holds the log. That
/// point is the structure's own: no checkpoint has to agree with it. (Consume queues keep it in the checkpoint, which is
/// saved after their sync.) Opening never fails because of what is in the files: what cannot be used counts as deleted.
pub trait Derived: Send + Sync {
    /// A name for people, such as "consume queues".
    fn name(&self) -> &'static str;

    /// Takes a committed record, the one behind the last; what it adds is visible to readers when this returns. Messages
    /// that become visible to consumers by it are added to `arrivals`: only consume queues have such.
    ///
    /// Called once for each record, on the thread that everything waits for: it writes little and syncs nothing.
    fn apply(&self, record: &Record, arrivals: &mut Vec<Arrival>) -> Result<Taken, DerivedError>;

    /// Makes what was applied before this call durable (`derived.I2`). Blocks on the disk; `apply` goes on meanwhile.
    fn sync(&self) -> Result<(), DerivedError>;

    /// Empties the structure: it goes on with the first record behind `at`, perhaps of another history. Blocks on the disk.
    fn reset(&self, at: &StampBase) -> Result<(), DerivedError>;

    /// The log begins at `start` now, which is not behind what was applied: drops what is only about records before
    /// (`derived.I3`). Blocks on the disk.
    fn trim(&self, start: &StampBase) -> Result<(), DerivedError>;

    /// Checks about `bytes` bytes of what is on the disk, read from the disk itself, and notes what is damaged. A pass goes
    /// on where the last step has ended. Blocks on the disk.
    fn scrub(&self, bytes: u64) -> ScrubStep;

    /// How many damaged parts are known.
    fn damaged(&self) -> usize;

    /// Calls `watcher` whenever damage is found from now on.
    fn on_damage(&self, watcher: Watcher);

    /// Reads about `bytes` of the log, entries up to `upto`, to build a damaged part again (`derived.I4`). After an error the
    /// next step is about the next part. Blocks on the disk.
    fn repair(&self, log: &CommitLog, upto: u64, bytes: usize) -> Result<RepairStep, DerivedError>;

    /// Whether the disk had no room for what is to be written, and has shown none since.
    fn disk_full(&self) -> bool;

    /// Tries once more what a full disk has refused; whether there is room now. Blocks on the disk.
    fn retry(&self) -> Result<bool, DerivedError>;
}
