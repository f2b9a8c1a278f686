//! Where a node is reached.

use std::fmt;

use serde::{Deserialize, Serialize};

/// Where a node is reached; replicated with the membership.
#[derive(Debug, Clone, Default, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub struct NodeAddress {
    /// Peers connect here, `host:port`.
    pub raft: String,
    /// Clients' broker connections, `host:port`.
    pub broker: String,
    /// Clients' NameServer connections, `host:port`.
    pub namesrv: String,
}

impl fmt::Display for NodeAddress {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}", self.raft)
    }
}
