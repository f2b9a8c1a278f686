//! Votes, log ids and memberships as they are stored and sent. Their envelope and encoding are [`folio_state::codec`]'s.

use std::collections::{BTreeMap, BTreeSet};

use serde::{Deserialize, Serialize};

use crate::ids::{LogId, Membership, Vote, entry_id, log_id};
use crate::node_address::NodeAddress;
use folio_engine::checkpoint::CHECKPOINT_BYTES_MAX;
use folio_engine::record::EntryId;

pub use folio_state::codec::CodecError;
pub(crate) use folio_state::codec::{DECODED_BYTES_MAX, decode, decode_as, decode_body, encode, encode_body};

// What a checkpoint may hold can be decoded.
const _: () = assert!(DECODED_BYTES_MAX == CHECKPOINT_BYTES_MAX);

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
            let framed = [b"FQ\x01\0", &bytes[..]].concat();
            let _ = decode_membership(&framed);
            let _ = decode_vote(&framed);
        }
    }
}
