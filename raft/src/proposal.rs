//! What a caller hands to the group to be stored, and what it gets back.

use std::net::SocketAddr;
use std::time::Duration;

use bytes::Bytes;
use folio_protocol::Name;
use folio_protocol::message::NewMessage;
use folio_state::STATE_BYTES_MAX;
use folio_state::bounds::OutOfBounds;
use openraft::base::BoxFuture;
use smallvec::SmallVec;
use tokio::time::Instant;

/// A client waits at least this long for an answer before it gives a send up, and an answer within this time is prompt.
///
/// RocketMQ's clients wait three seconds if nothing else is set. A third of that leaves room for the way of the answer and
/// for applications that wait less, and a change of the leader takes less.
pub const PROMPT: Duration = Duration::from_secs(1);

/// Messages that are stored together: all in one log record, or none.
pub struct Proposal {
    /// At least one message. The store timestamp is put by the proposer.
    pub messages: Vec<NewMessage>,
    /// What to do if they are stored or under way already.
    pub repeat: Repeat,
    /// Called exactly once, from a task of the group: it must not block.
    pub reply: Reply,
}

/// What becomes of a proposal whose messages are stored or under way already.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Repeat {
    /// It is stored again.
    Store,
    /// It means the same thing, whoever repeats it: it gets the first one's receipt.
    Same,
    /// It is a client's send: a retry gets the first one's receipt, a new message is stored.
    Send(Attempt),
}

/// A client's send as its connection knows it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Attempt {
    /// Which one of its connection's sends it is.
    pub number: u64,
    /// When it came to the node that the client is connected to.
    pub arrived: Instant,
    /// When that connection was made.
    pub connected: Instant,
    /// Whether any earlier send of this connection may have been given up when this one came.
    pub doubts: bool,
    /// Whether the connection leads to this node; otherwise another one forwarded the send.
    pub here: bool,
}

/// The question what a client knows of an earlier send, for the node that its connection leads to.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Question {
    /// The client's end of the connection.
    pub client: SocketAddr,
    /// Whether the repeat came by this very connection.
    pub same_connection: bool,
    /// Which one of the connection's sends it was, where that is known.
    pub number: Option<u64>,
    /// Where its message is stored; nothing for one that is known by its number.
    pub position: Option<u64>,
    /// The message's topic.
    pub topic: Name,
    /// The message's `UNIQ_KEY`.
    pub key: Bytes,
    /// The length of its body.
    pub body_bytes: usize,
    /// The checksum of its body.
    pub body_crc: u32,
    /// The send had come by then: a connection made later is another one.
    pub sent_by: Instant,
    /// When the repeat came.
    pub repeated: Instant,
    /// Its client's end, if that connection leads to this node.
    pub repeat: Option<SocketAddr>,
}

/// What a client knows of an earlier send.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Knows {
    /// It was answered promptly, or it is too young to be given up: a repeat is a new message.
    Settled,
    /// Its answer was late, unknown, or is yet to come: a repeat is a retry.
    Doubtful,
    /// Its connection is gone, or the node that it led to: no node can tell.
    Gone,
}

/// The answer to a [`Question`].
pub enum Known {
    /// At once.
    Now(Knows),
    /// After other nodes were asked.
    Later(BoxFuture<'static, Knows>),
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
        "topics, groups, offsets and locks take {STATE_BYTES_MAX} bytes, which is as much as they may: delete topics or \
         groups that nobody uses"
    )]
    StateFull,
    /// Refused before it was proposed: not all members know such a command yet. A retry after the upgrade is safe.
    #[error(
        "this needs feature level {needs}, and the group uses {level}: it is raised by itself once every member runs a build \
         that supports it"
    )]
    Level {
        /// The level that the command needs.
        needs: u16,
        /// The group's level.
        level: u16,
    },
    /// Refused before it was proposed: a part of the command is larger than any client needs.
    #[error(transparent)]
    OutOfBounds(Box<OutOfBounds>),
    /// Refused: no log could hold it; the reason.
    #[error("{0}")]
    Refused(String),
    /// It was proposed and this node cannot tell what became of it: stored, or not, or not yet.
    #[error("[OUTCOME_UNKNOWN] stored or not, this node cannot tell: {0}")]
    Unknown(String),
    /// Refused before it was proposed: the group on this node has stopped. A retry at another node is safe.
    #[error("the group has stopped on this node: {0}")]
    Stopped(String),
}

/// What a retry of something that failed may do.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Retry {
    /// Nothing was changed, and nothing will be. A retry is safe; later, or at another node, it may succeed.
    Safe,
    /// Nothing was changed, and the same request is refused again: what is asked for has to change.
    Useless,
    /// It may have been done, or be done yet: a retry may do it once more.
    MayRepeat,
}

impl ProposeError {
    /// What a retry of the proposal may do.
    pub fn retry(&self) -> Retry {
        match self {
            ProposeError::NotLeader { .. }
            | ProposeError::Busy
            | ProposeError::DiskFull
            | ProposeError::StateFull
            | ProposeError::Level { .. }
            | ProposeError::Stopped(_) => Retry::Safe,
            ProposeError::TooLarge { .. } | ProposeError::OutOfBounds(_) | ProposeError::Refused(_) => {
                Retry::Useless
            }
            ProposeError::Unknown(_) => Retry::MayRepeat,
        }
    }
}

impl From<OutOfBounds> for ProposeError {
    fn from(error: OutOfBounds) -> ProposeError {
        ProposeError::OutOfBounds(Box::new(error))
    }
}
