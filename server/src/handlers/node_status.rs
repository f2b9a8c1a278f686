//! FolioMQ's own request: one node's view of its group, for `folio cluster status`.
//!
//! Request code [`NODE_STATUS`], no body; the answer's body is a [`NodeStatus`] in JSON. A header field [`NODE`] names another
//! node: it is asked, so that an operator need not reach every node.
//! Codes from 90,001 on are FolioMQ's own; RocketMQ and its clients use none of them.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

pub use folio_broker::status::{NodeAt, NodeStatus, ResourceUse};

use super::answers::json;
use crate::forward;
use crate::net::Usage;
use crate::remoting::Remoting;
use crate::request::Request;

/// Node status request. More than a binary header's 16 bits: always JSON.
pub const NODE_STATUS: i32 = 90_001;

/// The header's field with the id of the node that is asked; default: the one that the request comes to.
pub const NODE: &str = "node";
/// How long another node may take to say how it is: less than the command line waits.
const NODE_PATIENCE: Duration = Duration::from_secs(3);

pub(crate) fn node_status(remoting: &Arc<Remoting>, request: Request) {
    match request.frame.ext.optional::<i64>(NODE).map(|node| node.map(i64::cast_unsigned)) {
        Ok(Some(node)) if node != remoting.broker.node_id() && !request.is_forwarded() => {
            forward::to_node(remoting, node, NODE_PATIENCE, request);
        }
        Ok(_) => json(request, &remoting.broker.node_status(resources(remoting))),
        Err(error) => request.reply.fail(error),
    }
}

fn resources(remoting: &Remoting) -> BTreeMap<String, ResourceUse> {
    let polls = &remoting.broker.polls;
    let held = Usage {
        name: "held_pulls",
        used: polls.len() as u64,
        limit: polls.limit() as u64,
        key: "limits.memory",
    };
    let usage = remoting.resources.usage().into_iter().chain([held]);
    let named = |Usage { name, used, limit, key }| {
        (name.to_owned(), ResourceUse { used, limit, key: key.to_owned() })
    };
    usage.map(named).collect()
}
