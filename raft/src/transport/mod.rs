//! Peers: replication streams, requests and heartbeats over TCP, each kind on a connection of its own.
//!
//! A slow replication stream never delays a heartbeat or a vote. Every wait has a timeout of our own.
//! Not here: what a request means (openraft's handlers) and what servers tell each other
//! ([`crate::group::Hooks::call`]).
//!
//! Read in this order: [`wire`] (frames), [`peer`] (the listening side), [`appends`] (what a leader sends), [`elections`]
//! (votes and heartbeats there), [`requests`] (request and response), [`replication`] (the pipelined stream), [`parts`]
//! (large snapshots), [`incoming_snapshot`] (what becomes of a received one), [`network`] (openraft's view).

pub(crate) mod appends;
mod elections;
mod incoming_snapshot;
pub(crate) mod network;
pub(crate) mod parts;
pub(crate) mod peer;
pub(crate) mod replication;
pub(crate) mod requests;
pub(crate) mod wire;
