//! The storage of one group: the commit log, the consume queues derived from it, and the disk under both.
//!
//! This crate knows disks and records. It is never the case that it knows a peer, a socket or consensus (which
//! record is committed is told to it), reads a clock to decide something, or touches a file except through
//! [`disk::Disk`].

pub mod counters;
pub mod disk;
