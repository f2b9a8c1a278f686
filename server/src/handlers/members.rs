//! FolioMQ's own requests about who is in the group, for `folio cluster add-node` and `remove-node`.
//!
//! | code | body | answer |
//! |---|---|---|
//! | 90,002 | [`AddNode`] in JSON | SUCCESS when the node votes |
//! | 90,003 | [`RemoveNode`] in JSON | SUCCESS when it is out of the membership |
//!
//! Only the leader serves them; another node brings them there.

use std::sync::Arc;
use std::time::Duration;

use folio_broker::error::BrokerError;
use folio_raft::types::NodeAddress;
use serde::{Deserialize, Serialize};

use super::answers::{decode, when_done};
use super::node_status::NodeAt;
use crate::forward;
use crate::remoting::Remoting;
use crate::request::Request;

/// "Take this node in."
pub const ADD_NODE: i32 = 90_002;
/// "Take this node out."
pub const REMOVE_NODE: i32 = 90_003;

/// How long the leader may take for a change: a node that is added has to catch up first.
pub const CHANGE_PATIENCE: Duration = Duration::from_secs(600);
/// Objects in one request.
const OBJECTS_MAX: usize = 8;

/// A node that runs with `join = true` and waits.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct AddNode {
    /// Its id: never used before in this group.
    pub id: u64,
    /// Where it is.
    pub at: NodeAt,
}

/// A member, dead or alive.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct RemoveNode {
    /// Its id.
    pub id: u64,
}

/// The request, if this node has to serve it itself.
fn unless_forwarded(remoting: &Arc<Remoting>, request: Request) -> Option<Request> {
    let broker = &remoting.broker;
    if broker.leads() || request.is_forwarded() {
        return Some(request);
    }
    match broker.group.status().leader.filter(|leader| *leader != broker.node_id()) {
        Some(leader) => forward::to_node(remoting, leader, CHANGE_PATIENCE, request),
        None => request.reply.fail(BrokerError::NoLeader),
    }
    None
}

pub(crate) fn add_node(remoting: &Arc<Remoting>, request: Request) {
    let Some(request) = unless_forwarded(remoting, request) else { return };
    let AddNode { id, at } = match decode(&request.frame.body, OBJECTS_MAX) {
        Ok(add) => add,
        Err(error) => return request.reply.fail(error),
    };
    let address = NodeAddress { raft: at.raft, broker: at.broker, namesrv: at.namesrv };
    let broker = remoting.broker.clone();
    when_done(request, async move { broker.add_node(id, address).await });
}

pub(crate) fn remove_node(remoting: &Arc<Remoting>, request: Request) {
    let Some(request) = unless_forwarded(remoting, request) else { return };
    let RemoveNode { id } = match decode(&request.frame.body, OBJECTS_MAX) {
        Ok(remove) => remove,
        Err(error) => return request.reply.fail(error),
    };
    let broker = remoting.broker.clone();
    when_done(request, async move { broker.remove_node(id).await });
}
