//! The only user of bincode: what FolioMQ alone reads (peer requests' headers, the vote, memberships,
//! the state inside checkpoints and snapshots). Never a message, the RocketMQ wire or the record frame.
//!
//! | part | size | meaning |
//! |---|---|---|
//! | magic | 2 | `FQ` |
//! | version | 2, little-endian | 1; 2 for the state inside checkpoints and snapshots, as builds from now on write it |
//! | body | rest | bincode 1.3: fixed-width little-endian integers, trailing bytes rejected |
//!
//! Length and checksum of the envelope come from what carries it: a record, a checkpoint file, a vote
//! slot or a peer frame, each with a length and a crc of its own (TCP's, for the peer frame).
//! Decoding is bounded by [`DECODED_BYTES_MAX`].

use std::collections::{BTreeMap, BTreeSet};

use bincode::Options;
use serde::de::DeserializeOwned;
use serde::{Deserialize, Serialize};

use crate::types::{LogId, Membership, NodeAddress, Vote, entry_id, log_id};
use folio_engine::checkpoint::CHECKPOINT_BYTES_MAX;
use folio_engine::record::EntryId;

/// Most bytes that one value takes: those of the largest checkpoint. A decode allocates no more than the slice it reads.
pub(crate) const DECODED_BYTES_MAX: u64 = CHECKPOINT_BYTES_MAX;

fn envelope(version: u8) -> [u8; 4] {
    [b'F', b'Q', version, 0]
}

/// Bytes that are not what this version writes.
#[derive(Debug, thiserror::Error)]
pub enum CodecError {
    /// Not our envelope, or another version's.
    #[error("not a FolioMQ value, or not of this version")]
    Envelope,
    /// The envelope is ours, the body is not.
    #[error("body does not decode or encode: {0}")]
    Body(String),
}

fn options() -> impl Options {
    bincode::DefaultOptions::new()
        .with_fixint_encoding()
        .with_limit(DECODED_BYTES_MAX)
        .reject_trailing_bytes()
}

/// Encodes a value in its envelope.
pub(crate) fn encode<T: Serialize>(value: &T) -> Vec<u8> {
    // Writing to a vector cannot fail; a value over the limit is a bug of the caller, not of the input.
    try_encode(value).unwrap_or_else(|error| panic!("codec.I1: a value of ours does not encode: {error}"))
}

/// Encodes a value that grows with what users do; fails if it is over the limit of [`decode`].
pub(crate) fn try_encode<T: Serialize>(value: &T) -> Result<Vec<u8>, CodecError> {
    try_encode_as(1, value)
}

/// The same in the envelope of a later version.
pub(crate) fn try_encode_as<T: Serialize>(version: u8, value: &T) -> Result<Vec<u8>, CodecError> {
    let mut out = envelope(version).to_vec();
    options().serialize_into(&mut out, value).map_err(|error| CodecError::Body(error.to_string()))?;
    Ok(out)
}

/// Decodes a value from its envelope.
pub(crate) fn decode<T: DeserializeOwned>(bytes: &[u8]) -> Result<T, CodecError> {
    decode_as(1, bytes)
}

/// The same from the envelope of a later version.
pub(crate) fn decode_as<T: DeserializeOwned>(version: u8, bytes: &[u8]) -> Result<T, CodecError> {
    let body = bytes.strip_prefix(&envelope(version)).ok_or(CodecError::Envelope)?;
    options().deserialize(body).map_err(|error| CodecError::Body(error.to_string()))
}

/// Bytes of an encoded value, without the envelope.
pub(crate) fn encoded_bytes<T: Serialize + ?Sized>(value: &T) -> u64 {
    // Nothing is written, so nothing can fail but the limit.
    options().with_no_limit().serialized_size(value).unwrap_or(u64::MAX)
}

/// A vote as it is stored and sent.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct WireVote {
    term: u64,
    node: u64,
    committed: bool,
}

impl From<&Vote> for WireVote {
    fn from(vote: &Vote) -> Self {
        WireVote { term: vote.leader_id.term, node: vote.leader_id.voted_for, committed: vote.committed }
    }
}

impl WireVote {
    /// The term, as said by `node`, which voted for nobody else in it.
    pub(crate) fn of_term(term: u64, node: u64) -> WireVote {
        WireVote { term, node, committed: false }
    }

    pub(crate) fn term(self) -> u64 {
        self.term
    }

    /// Who leads by it, or stands.
    pub(crate) fn node(self) -> u64 {
        self.node
    }

    /// Whether a quorum has given it: then it is a leader's.
    pub(crate) fn is_committed(self) -> bool {
        self.committed
    }

    pub(crate) fn vote(self) -> Vote {
        if self.committed {
            Vote::new_committed(self.term, self.node)
        } else {
            Vote::new(self.term, self.node)
        }
    }
}

/// A log id as it is stored and sent.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
pub(crate) struct WireLogId {
    term: u64,
    index: u64,
}

impl From<&LogId> for WireLogId {
    fn from(id: &LogId) -> Self {
        let EntryId { term, index } = entry_id(id);
        WireLogId { term, index }
    }
}

impl WireLogId {
    pub(crate) fn new(term: u64, index: u64) -> WireLogId {
        WireLogId { term, index }
    }

    pub(crate) fn term(self) -> u64 {
        self.term
    }

    pub(crate) fn index(self) -> u64 {
        self.index
    }

    pub(crate) fn log_id(self) -> LogId {
        log_id(EntryId { term: self.term, index: self.index })
    }
}

/// A membership as it is stored and sent.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct WireMembership {
    configs: Vec<BTreeSet<u64>>,
    nodes: BTreeMap<u64, NodeAddress>,
}

impl From<&Membership> for WireMembership {
    fn from(membership: &Membership) -> Self {
        WireMembership {
            configs: membership.get_joint_config().clone(),
            nodes: membership.nodes().map(|(id, node)| (*id, node.clone())).collect(),
        }
    }
}

impl WireMembership {
    pub(crate) fn membership(self) -> Result<Membership, CodecError> {
        Membership::new(self.configs, self.nodes).map_err(|error| CodecError::Body(error.to_string()))
    }
}

pub(crate) fn encode_membership(membership: &Membership) -> Vec<u8> {
    encode(&WireMembership::from(membership))
}

pub(crate) fn decode_membership(bytes: &[u8]) -> Result<Membership, CodecError> {
    decode::<WireMembership>(bytes)?.membership()
}

pub(crate) fn encode_vote(vote: &Vote) -> Vec<u8> {
    encode(&WireVote::from(vote))
}

pub(crate) fn decode_vote(bytes: &[u8]) -> Result<Vote, CodecError> {
    Ok(decode::<WireVote>(bytes)?.vote())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn golden_bytes_of_a_vote() {
        let bytes = encode_vote(&Vote::new_committed(7, 3));
        assert_eq!(bytes, b"FQ\x01\x00\x07\0\0\0\0\0\0\0\x03\0\0\0\0\0\0\0\x01");
        assert_eq!(decode_vote(&bytes).ok(), Some(Vote::new_committed(7, 3)));
    }

    #[test]
    fn golden_bytes_of_a_membership() {
        let address = NodeAddress { raft: "a:1".into(), broker: "b:2".into(), namesrv: "c:3".into() };
        let membership = Membership::new(vec![BTreeSet::from([1])], BTreeMap::from([(1, address)])).unwrap();
        let bytes = encode_membership(&membership);
        let expected = [
            &b"FQ\x01\x00"[..],
            &[1, 0, 0, 0, 0, 0, 0, 0], // one configuration
            &[1, 0, 0, 0, 0, 0, 0, 0], // of one voter
            &[1, 0, 0, 0, 0, 0, 0, 0], // node 1
            &[1, 0, 0, 0, 0, 0, 0, 0], // one address
            &[1, 0, 0, 0, 0, 0, 0, 0], // of node 1
            &[3, 0, 0, 0, 0, 0, 0, 0, b'a', b':', b'1'],
            &[3, 0, 0, 0, 0, 0, 0, 0, b'b', b':', b'2'],
            &[3, 0, 0, 0, 0, 0, 0, 0, b'c', b':', b'3'],
        ];
        assert_eq!(bytes, expected.concat());
        assert_eq!(decode_membership(&bytes).unwrap(), membership);
    }

    #[test]
    fn trailing_bytes_and_foreign_envelopes_are_rejected() {
        let mut bytes = encode_vote(&Vote::new(1, 1));
        bytes.push(0);
        assert!(decode_vote(&bytes).is_err());
        assert!(decode_vote(b"FQ\x02\x00").is_err());
        assert!(decode_vote(b"").is_err());
    }

    proptest::proptest! {
        #[test]
        fn arbitrary_bytes_never_panic(bytes in proptest::collection::vec(proptest::prelude::any::<u8>(), 0..64)) {
            let framed = [&envelope(1)[..], &bytes].concat();
            let _ = decode_membership(&framed);
            let _ = decode_vote(&framed);
            let _ = decode::<crate::command::Command>(&framed);
        }
    }
}
