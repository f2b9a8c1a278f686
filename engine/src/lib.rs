//! The commit log, the consume queues and the disk under them.
//!
//! This crate knows disks and records. It knows no peers, no sockets and no consensus: which record is
//! committed is told to it.

pub mod counters;
