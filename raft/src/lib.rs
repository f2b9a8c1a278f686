//! FolioMQ's replication: openraft on the commit log, with no second log.
//!
//! This crate decides when a position is committed. The engine below it knows disks and records, the
//! server above it speaks RocketMQ's protocols; neither knows openraft.
//!
//! Read in this order: [`types`] (an entry is a log record), `log_store` (the commit log as Raft log),
//! `state_machine` (what a committed record does), `snapshots` (where a new replica starts), `proposer` (many messages, one record), `dedup` (a retry
//! stores nothing twice), [`driver`] (messages and state that change together), `transport` (peers), [`port`] (where they
//! connect, for all groups of a node), [`group`] (the handle everybody holds), [`host`] (what a simulation replaces).

mod accepting;
mod calls;
mod carried_forward;
pub mod codec;
pub mod config;
mod dedup;
mod derived;
pub mod driver;
mod feature_level;
#[cfg(fuzzing)]
pub mod fuzz;
pub mod group;
mod halves;
mod hand_over;
mod hooks;
pub mod host;
mod ids;
mod lease_clock;
pub mod log_rate_limiter;
mod log_store;
mod node_address;
mod pending_timers;
pub mod popped;
pub mod port;
mod progress;
pub mod proposal;
mod proposer;
mod queue_ends;
pub mod secret;
mod shared;
mod skip_entry;
mod snapshots;
mod state_machine;
pub mod status;
mod terms;
mod transport;
pub mod types;

#[cfg(test)]
mod storage_suite;
