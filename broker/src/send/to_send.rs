//! What a client sends.

use std::net::SocketAddr;

use bytes::Bytes;
use folio_raft::proposal::Attempt;
use smallvec::SmallVec;

/// A unique key until it is answered: clients make them of 32 characters, or of 56 where addresses are long.
pub(super) type UniqueKey = SmallVec<[u8; 64]>;

/// What a client sends.
#[derive(Debug, Clone, Copy)]
pub struct ToSend<'a> {
    /// The topic.
    pub topic: &'a str,
    /// Template for a topic that does not exist.
    pub default_topic: &'a str,
    /// Queues the client would like such a topic to have.
    pub default_queues: i32,
    /// The queue's number; negative: the server picks one.
    pub queue: i32,
    /// Flag bits of the message, RocketMQ's.
    pub sys_flag: i32,
    /// When the client made it, ms since the epoch.
    pub born_timestamp: i64,
    /// The application's flag.
    pub flag: i32,
    /// Encoded; of a batch each message has its own.
    pub properties: &'a str,
    /// How often it was retried.
    pub reconsume_times: i32,
    /// How often it may be, where the client says so.
    pub max_reconsume_times: Option<i32>,
    /// Whether the body is a batch of messages.
    pub batch: bool,
    /// A body, or the encoded messages of a batch.
    pub body: &'a Bytes,
    /// The client's end of its connection.
    pub client: SocketAddr,
    /// How it came, if it is answered.
    pub attempt: Option<Attempt>,
}
