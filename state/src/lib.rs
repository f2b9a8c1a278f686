//! The replicated state machine: what every replica makes of the same log, besides the messages.
//!
//! The crate is pure. It does no I/O, reads no clock and draws no random number, and knows neither openraft nor tokio. A
//! [`Command`] carries every input that it needs: where a rule depends on the time, the time is a field, put there by the
//! leader. So the state is a function of the log.
//!
//! The state is a list of [sections](section::Section): topics, consumer groups, offsets, and so on, one file each below
//! [`sections`]. A section's file defines its data, its commands, and what each command does. [`registry`] lists
//! sections and commands with their numbers. A new kind of state is one new file and its lines in the registry.
//!
//! Everything that is stored or sent is versioned and self-delimiting:
//!
//! - [`operation`]: what one kind of command is, [`command`]: how a command is written into a log record;
//! - [`framing`]: how sections are written into a checkpoint or snapshot;
//! - [`format1`]: both as builds before this crate wrote them. Such logs and checkpoints are still read.
//!
//! An encoding is never changed. It gets a new version, and the golden bytes of the old one stay in the tests.

#![forbid(unsafe_code)]

pub mod bounds;
pub mod codec;
pub mod command;
mod cow_map;
pub mod format1;
pub mod framing;
pub mod operation;
mod queue_ref;
mod recent;
mod registry;
pub mod section;
pub mod sections;
mod state;

pub use command::Command;
pub use operation::{Apply, Operation, Outcome, Unmet};
pub use queue_ref::QueueRef;
pub use section::{FIRST_LEVEL, NextOffsets, NoMessages};
pub use sections::features::{FEATURE_LEVEL, RaiseLevel};
pub use sections::groups::{ConsumerGroup, CreateGroup, DeleteGroup, PutGroup};
pub use sections::locks::{ExpireLocks, LockQueues, UnlockQueues};
pub use sections::offset_commits::CommitOffsets;
pub use sections::offsets::OffsetCommit;
pub use sections::popped::{
    AckPopped, BatchId, Carried, CarriedMessage, CarryPopped, ChangePopped, PopAgain, PopMessages, PopQueue,
    RequestMode, RevivePopped, SetRequestMode,
};
pub use sections::sent_back::{NoteSentBack, RaiseFloor};
pub use sections::timers::{CarryTimers, FireTimers, RecallTimer};
pub use sections::topics::{CreateTopic, DeleteTopic, PERM_INHERIT, PERM_READ, PERM_WRITE, PutTopic, Topic};
pub use sections::transactions::{
    CarryTransactions, EndTransaction, Ending, Half, NoteChecks, ResumeTransaction,
};
pub use state::{STATE_BYTES_MAX, State};
