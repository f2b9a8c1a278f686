//! What all groups of one node share, apart from what is one group's own ([`crate::broker::Broker`]).
//!
//! A client registers at each broker port that it connects to, over a connection of its own, so the tables of clients and of
//! held pulls are the group's: one table of the node would take the second registration for another process with the same
//! client id, and would forget both with the first connection. What bounds them is the node's.

use std::net::IpAddr;
use std::sync::Arc;

use crate::ids::Ids;
use crate::reads::Reads;
use crate::stalls::Stalls;

/// What all groups of one node share.
pub struct NodeContext {
    /// The cluster's name.
    pub cluster: String,
    /// This node in its groups.
    pub node_id: u64,
    /// The groups that the node hosts, in the order of its configuration.
    pub groups: Vec<String>,
    /// When this process did not run.
    pub stalls: Stalls,
    /// The memory of what is read from the disk for answers.
    pub(crate) reads: Arc<Reads>,
    /// Ids of messages differ also between groups.
    pub(crate) ids: Ids,
}

impl NodeContext {
    /// Of a node that starts now and is reached at `host`. What its groups read from the disk they take of `reads`.
    pub fn new(
        cluster: &str,
        node_id: u64,
        groups: Vec<String>,
        host: IpAddr,
        reads: Arc<Reads>,
    ) -> Arc<NodeContext> {
        let (cluster, stalls, ids) = (cluster.to_owned(), Stalls::new(), Ids::new(host));
        Arc::new(NodeContext { cluster, node_id, groups, stalls, reads, ids })
    }
}
