//! Peers: replication streams, requests and heartbeats over TCP, each kind on a connection of its own.
//!
//! A slow replication stream never delays a heartbeat or a vote. Every wait has a timeout of our own.
//! Not here: what a request means (openraft's handlers) and what servers tell each other
//! ([`crate::hooks::Hooks::call`]).
//!
//! Read in this order: [`wire`] (what frames say), [`frames`] (on a socket), [`introduction`] and [`handshake`] (who is there), [`crate::port`] (which group the caller
//! looks for), [`listener`] (who is let in), [`peer`] (what peers ask), [`admission`] (how many
//! connections), [`authority`] (who may send what), [`terms_known`] (how far a term may jump), [`appends`] (what a leader
//! sends), [`elections`] (votes and heartbeats there), [`requests`] (request and response), [`replication`] (the pipelined
//! stream), [`watchdog`] (connections on which nothing goes on), [`parts`] (large snapshots), [`incoming_snapshot`] (what
//! becomes of a received one), [`network`] (openraft's view).

pub(crate) mod admission;
pub(crate) mod appends;
mod authority;
mod elections;
pub(crate) mod frames;
pub(crate) mod handshake;
mod incoming_snapshot;
pub(crate) mod introduction;
pub(crate) mod listener;
pub(crate) mod network;
pub(crate) mod parts;
pub(crate) mod peer;
pub(crate) mod replication;
pub(crate) mod requests;
mod terms_known;
mod watchdog;
pub(crate) mod wire;
