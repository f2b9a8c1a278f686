//! What a broker is called and where it is.

use std::net::SocketAddr;

use crate::clients::Addresses;

/// What a broker is called and where it is; fixed while the node runs.
#[derive(Debug, Clone)]
pub struct Identity {
    /// The cluster's name.
    pub cluster: String,
    /// The group's name, RocketMQ's `brokerName`.
    pub broker_name: String,
    /// This node in the group.
    pub node_id: u64,
    /// The advertised broker address: the store host in messages and in message ids.
    pub store_host: SocketAddr,
    /// Where clients reach this node.
    pub addresses: Addresses,
}
