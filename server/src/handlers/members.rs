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

use folio_protocol::body::{self, BodyError};
use folio_protocol::code::ResponseCode;
use folio_raft::group::AdminError;
use folio_raft::types::NodeAddress;
use serde::{Deserialize, Serialize};

use super::node_status::NodeAt;
use crate::broker::Broker;
use crate::error::ServerError;
use crate::forward;
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
fn unless_forwarded(broker: &Arc<Broker>, request: Request) -> Option<Request> {
    if broker.leads() || request.is_forwarded() {
        return Some(request);
    }
    match broker.group.status().leader.filter(|leader| *leader != broker.node_id()) {
        Some(leader) => forward::to_node(broker, leader, CHANGE_PATIENCE, request),
        None => request.reply.fail(ServerError::NoLeader),
    }
    None
}

pub(crate) fn add_node(broker: &Arc<Broker>, request: Request) {
    let Some(request) = unless_forwarded(broker, request) else { return };
    let AddNode { id, at } = match body::decode_request(&request.frame.body, OBJECTS_MAX) {
        Ok(add) => add,
        Err(BodyError { reason }) => return request.reply.fail(ServerError::Body(reason)),
    };
    let address = NodeAddress { raft: at.raft, broker: at.broker, namesrv: at.namesrv };
    let broker = broker.clone();
    tokio::spawn(async move {
        tracing::info!(node = id, raft = address.raft, "a node is being added");
        let added = match broker.group.add_learner(id, address).await {
            Ok(()) => broker.group.promote(id).await,
            Err(error) => Err(error),
        };
        answer(request, added);
    });
}

pub(crate) fn remove_node(broker: &Arc<Broker>, request: Request) {
    let Some(request) = unless_forwarded(broker, request) else { return };
    let RemoveNode { id } = match body::decode_request(&request.frame.body, OBJECTS_MAX) {
        Ok(remove) => remove,
        Err(BodyError { reason }) => return request.reply.fail(ServerError::Body(reason)),
    };
    let broker = broker.clone();
    tokio::spawn(async move {
        tracing::info!(node = id, "a node is being removed");
        answer(request, broker.group.remove_member(id).await);
    });
}

fn answer(request: Request, result: Result<(), AdminError>) {
    match result {
        Ok(()) => request.reply.done(),
        Err(error @ AdminError::NotLeader(_)) => {
            request.reply.error(ResponseCode::ServiceNotAvailable, error.to_string());
        }
        Err(error @ AdminError::Refused(_)) => {
            request.reply.error(ResponseCode::SystemError, error.to_string())
        }
    }
}
