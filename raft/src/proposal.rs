//! What a caller hands to the group to be stored, and what it gets back.

use std::net::SocketAddr;

use folio_protocol::message::NewMessage;
use smallvec::SmallVec;

use crate::metadata::size::METADATA_BYTES_MAX;

/// Messages that are stored together: all in one log record, or none.
pub struct Proposal {
    /// At least one message. The store timestamp is put by the proposer.
    pub messages: Vec<NewMessage>,
    /// Whether a client may send them again without knowing that they are stored: then they are stored once, and a
    /// repeat gets the first one's receipt.
    pub once: bool,
    /// Called exactly once, from a task of the group: it must not block.
    pub reply: Reply,
}

/// The answer to a [`Proposal`].
pub type Reply = Box<dyn FnOnce(Result<Receipt, ProposeError>) + Send>;

/// A number for each message of a proposal. Most proposals are of one message: its number lies inline.
pub type PerMessage = SmallVec<[u64; 1]>;

/// Where the messages of a proposal are, for ever and on every replica.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Receipt {
    /// The queue; for a repeat that of the first one, whichever it was to go to.
    pub queue_id: u32,
    /// Queue offset of each message, in the order of the proposal.
    pub queue_offsets: PerMessage,
    /// Commit-log position of each message, in the order of the proposal.
    pub positions: PerMessage,
    /// For a repeat: the store host that the stored messages carry.
    pub store_host: Option<SocketAddr>,
}

/// Why a proposal was not, or may not have been, stored.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum ProposeError {
    /// Refused before it was proposed: another node leads. A retry there is safe.
    #[error("this node does not lead the group{}", .leader.map(|l| format!(", node {l} does")).unwrap_or_default())]
    NotLeader {
        /// The leader, where it is known.
        leader: Option<u64>,
    },
    /// Refused before it was proposed: the bounded queue is full. A retry later is safe.
    #[error("the group's queue of waiting messages is full")]
    Busy,
    /// Refused before it was proposed: the leader's disk has no room.
    #[error("the leader's disk is full")]
    DiskFull,
    /// Refused: it would not fit in a log record.
    #[error("{bytes} bytes do not fit in a log record of at most {limit}")]
    TooLarge {
        /// Bytes asked for.
        bytes: usize,
        /// Bytes a record may hold.
        limit: usize,
    },
    /// Refused before it was proposed: topics, groups, offsets and locks together may not grow any more.
    #[error(
        "topics, groups, offsets and locks take {METADATA_BYTES_MAX} bytes, which is as much as they may: delete topics or \
         groups that nobody uses"
    )]
    MetadataFull,
    /// Refused: no log could hold it; the reason.
    #[error("{0}")]
    Refused(String),
    /// It was proposed and this node cannot tell what became of it: stored, or not, or not yet.
    #[error("[OUTCOME_UNKNOWN] stored or not, this node cannot tell: {0}")]
    Unknown(String),
    /// The group on this node has stopped.
    #[error("the group has stopped on this node: {0}")]
    Stopped(String),
}
