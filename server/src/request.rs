//! One request on its way to its handler, from this node's own client or forwarded by another node.

use std::net::SocketAddr;
use std::sync::Arc;

use folio_broker::reads::ReadTurn;
use folio_broker::turns::Order;
use folio_raft::proposal::Attempt;

use crate::incoming::Incoming;
use crate::net::Channel;
use crate::reply::Reply;

/// A request and everything its handler needs to know of where it came from.
pub(crate) struct Request {
    /// The request. Shared with the reply of a request that may have to be forwarded.
    pub frame: Arc<Incoming>,
    /// The client's address, also when another node forwarded the request: the born host of messages.
    pub remote: SocketAddr,
    /// Whether its connection is an operator's, as the node that the client is connected to says (`admin.I2`).
    pub(crate) is_operator: bool,
    /// To be used exactly once. Dropped unused, it answers SYSTEM_ERROR.
    pub reply: Reply,
    /// Its place among the commits of its node's clients, if it is a commit.
    pub(crate) order: Option<Order>,
    /// How it came, if it is a send that is answered.
    pub(crate) attempt: Option<Attempt>,
    /// Whether asking twice is as good as asking once: what its line in the table says.
    pub(crate) is_repeatable: bool,
}

impl Request {
    /// The client's connection; `None` for a request that another node forwarded.
    pub(crate) fn channel(&self) -> Option<&Channel> {
        self.reply.channel()
    }

    /// Waits until a read from the disk may begin for its client (`disk_reads.I1`); `None` if the client's connection is closed. A
    /// request that another node forwarded needs no turn here: the inner `None`.
    pub(crate) async fn read_turn(&self) -> Option<Option<ReadTurn>> {
        match self.channel() {
            Some(channel) => channel.read_turn().await.map(Some),
            None => Some(None),
        }
    }

    /// Whether another node forwarded it: then it must not be forwarded again.
    pub(crate) fn is_forwarded(&self) -> bool {
        self.channel().is_none()
    }
}
