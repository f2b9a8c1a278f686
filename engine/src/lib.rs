//! The storage of one group: the commit log, the structures derived from it, and the disk under both.
//!
//! This crate knows disks and records. It is never the case that it knows a peer, a socket or consensus (which
//! record is committed is told to it), lets a clock decide what is stored, or touches a file except through
//! [`disk::Disk`].

#![forbid(unsafe_code)]

pub mod checkpoint;
pub mod counters;
pub mod derived;
pub mod disk;
mod envelope;
pub mod keys;
pub mod log;
pub mod planted;
pub mod queues;
pub mod record;
mod stamp;
pub mod timers;
pub mod transition;

#[cfg(test)]
mod sample;

pub use checkpoint::{Checkpoint, CheckpointDamage, CheckpointError, Checkpoints};
pub use counters::QueueCounters;
pub use derived::{Derived, DerivedError, LogPoint};
pub use keys::{KeyIndex, KeysError};
pub use log::{CommitLog, Completion, LogConfig, LogState, StampBase};
pub use queues::{Arrival, ConsumeQueues, QueuesError, Unit};
pub use record::{Draft, EntryId, HEADER_BYTES, RECORD_BYTES_MAX, Record, RecordHeader, RecordKind};
pub use stamp::StampError;
