//! The floor: the least that still acknowledges a message only when the leader and one of two followers
//! have it fdatasync'ed. Three processes; no terms, no elections, no checksums, no protocol to speak of.
//! What a queue adds to this is what it costs.
//!
//! | bytes | what a message is, on the wire and in the log |
//! |---|---|
//! | 4 | length of the body, little-endian |
//! | 8 | number, given back in the acknowledgement |
//! | n | body |
//!
//! A follower answers each read with the bytes it has durable so far, 8 bytes little-endian.

pub(super) mod client;
pub(super) mod follower;
pub(super) mod leader;
mod log;

pub(super) use log::Kind;

/// Bytes before the body.
const HEAD_BYTES: usize = 12;
/// Longest body.
const BODY_BYTES_MAX: usize = 1 << 20;
/// Room for what is read at once; more than the longest message.
const READ_BYTES: usize = 4 << 20;
