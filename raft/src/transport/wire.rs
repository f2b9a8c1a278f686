//! Frames between peers.
//!
//! | field | size | meaning |
//! |---|---|---|
//! | length | 4, little-endian | bytes that follow: 9 + body |
//! | kind | 1 | [`Kind`] |
//! | id | 8, little-endian | a request's number, echoed by its answer |
//! | body | rest | by kind; `Append`: length of the head (4), head, then log records back to back |
//!
//! Reading and writing them is [`super::frames`]'s business. A connection begins with a handshake ([`super::handshake`]).

use std::io;

use bytes::Bytes;
use serde::{Deserialize, Serialize};

use crate::codec::{WireLogId, WireMembership, WireVote};
use crate::group::group_id::GroupId;
use crate::hand_over::HandOver;
use crate::secret::Proof;

/// A number of one connection.
pub(crate) type Nonce = [u8; 32];

/// What a frame is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[repr(u8)]
pub(crate) enum Kind {
    Hello = 1,
    Append = 2,
    Vote = 3,
    PreVote = 4,
    Transfer = 5,
    Snapshot = 6,
    Call = 7,
    /// Asks what the node is and what its log holds.
    Summary = 8,
    /// Asks for one committed record, as it is stored.
    Record = 9,
    /// Asks whether the node's disk has room.
    Room = 10,
    /// Tells, before the group is founded, that all members' logs were empty.
    AllEmpty = 11,
    /// A part of the checkpoint of the snapshot that follows, see [`super::parts`].
    SnapshotPart = 12,
    /// Asks for a part of a stored snapshot, see [`crate::snapshots`].
    StoredSnapshot = 14,
    /// Asks the leader to append and commit an entry now, see `group::fence`.
    Fence = 13,
    /// The listener's answer to a hello, see [`super::handshake`].
    Challenge = 15,
    /// The caller's answer to that: its proof, and who it is.
    Credentials = 16,
    /// A hello that names the group.
    GroupHello = 17,
    /// The answer to any of the above.
    Answer = 100,
    /// The answer when the peer cannot: its text.
    Failure = 101,
}

impl Kind {
    pub(super) fn parse(byte: u8) -> Option<Kind> {
        use Kind::*;
        [
            Hello,
            Append,
            Vote,
            PreVote,
            Transfer,
            Snapshot,
            Call,
            Summary,
            Record,
            Room,
            AllEmpty,
            SnapshotPart,
            StoredSnapshot,
            Fence,
            Challenge,
            Credentials,
            GroupHello,
            Answer,
            Failure,
        ]
        .into_iter()
        .find(|kind| *kind as u8 == byte)
    }
}

/// What a connection is for.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) enum Purpose {
    /// Pipelined appends, answered in order.
    Replication,
    /// Requests, answered in any order.
    Requests,
}

/// Who connects: all that is said before the listener has proved that it has the cluster's secret.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Hello {
    pub(crate) from: u64,
    pub(crate) to: u64,
    pub(crate) purpose: Purpose,
    pub(crate) nonce: Nonce,
    /// Whether the caller has a secret and asks for a proof.
    pub(crate) has_secret: bool,
}

/// The same, with the name of the group that the caller looks for. A node has one listener for all its groups.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct GroupHello {
    pub(crate) hello: Hello,
    pub(crate) group: String,
}

/// The listener's answer to a hello.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Challenge {
    pub(crate) nonce: Nonce,
    /// All zeroes without a secret.
    pub(crate) proof: Proof,
}

/// What the caller believes about the group; its proof stands before it in the frame.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Credentials {
    pub(crate) cluster: String,
    pub(crate) group: String,
    pub(crate) segment_bytes: u64,
    /// The group that the node belongs to. A node that does not know it yet asks for a summary and nothing else.
    pub(crate) group_id: Option<GroupId>,
    /// Where the node listens for peers; empty when it does not know.
    pub(crate) address: String,
    /// The feature levels that the caller's build supports, up to this one, and the one that its group uses
    /// (`features.I2`).
    pub(crate) supports: u16,
    pub(crate) uses: u16,
    /// What later builds say besides. A build that does not know it leaves it alone.
    pub(crate) more: Vec<u8>,
}

/// The head of an append; the records follow it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct AppendHead {
    pub(crate) vote: WireVote,
    pub(crate) prev: Option<WireLogId>,
    pub(crate) commit: Option<WireLogId>,
    /// With a heartbeat and with the first append of a stream: the last entry that the receiver has acknowledged to this leader in its term.
    pub(crate) acknowledged: Option<WireLogId>,
}

/// The answer to an append.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) enum AppendAnswer {
    Matching(Option<WireLogId>),
    Conflict(WireLogId),
    HigherVote(WireVote),
}

#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct VoteBody {
    pub(crate) vote: WireVote,
    pub(crate) last: Option<WireLogId>,
    pub(crate) transfer: bool,
}

#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct VoteAnswer {
    pub(crate) vote: WireVote,
    pub(crate) granted: bool,
    pub(crate) last: Option<WireLogId>,
}

#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct TransferBody {
    pub(crate) from: WireVote,
    pub(crate) to: u64,
    pub(crate) last: Option<WireLogId>,
    pub(crate) why: HandOver,
}

/// The answer to a transfer: why it was refused, if it was.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) enum TransferAnswer {
    Done,
    VoteChanged { expected: WireVote, actual: WireVote },
    LogNotFlushed { expected: Option<WireLogId>, actual: Option<WireLogId> },
}

#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct SnapshotBody {
    pub(crate) vote: WireVote,
    pub(crate) last: Option<WireLogId>,
    pub(crate) membership_log_id: Option<WireLogId>,
    pub(crate) membership: WireMembership,
    /// The checkpoint in its file format; empty if it was sent in parts.
    pub(crate) checkpoint: Vec<u8>,
}

/// Which record is asked for; the answer's body is the record.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct RecordBody {
    pub(crate) index: u64,
    pub(crate) position: u64,
}

/// Which part of which stored snapshot is asked for; the answer's body is a [`super::parts::PartHead`] and the part.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct SnapshotPartBody {
    pub(crate) position: u64,
    pub(crate) offset: u64,
}

/// One frame, its body not looked at.
#[derive(Debug, Clone)]
pub(crate) struct Frame {
    pub(crate) kind: Kind,
    pub(crate) id: u64,
    pub(crate) body: Bytes,
}

pub(crate) fn invalid(what: impl Into<String>) -> io::Error {
    io::Error::new(io::ErrorKind::InvalidData, what.into())
}
