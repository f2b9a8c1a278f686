//! How a node introduces itself to its peers.

use std::sync::Arc;

use folio_state::FEATURE_LEVEL;

use super::wire::{Credentials, Hello, Nonce, Purpose};
use crate::config::GroupConfig;
use crate::feature_level::GroupLevel;
use crate::group::group_id::GroupIdFile;
use crate::log_rate_limiter::LogRateLimiter;
use crate::secret::ClusterSecret;

/// What a node says of itself to peers, and expects of them.
#[derive(Debug, Clone)]
pub(crate) struct Identity {
    pub(crate) node_id: u64,
    pub(crate) cluster: String,
    pub(crate) group: String,
    pub(crate) segment_bytes: u64,
    /// Where it listens for peers; empty when it does not know.
    pub(crate) address: String,
    pub(crate) secret: Option<ClusterSecret>,
    /// The feature level that the group uses.
    pub(crate) level: GroupLevel,
}

impl Identity {
    pub(crate) fn of(config: &GroupConfig, level: &GroupLevel) -> Identity {
        let own = config.nodes.get(&config.node_id);
        Identity {
            node_id: config.node_id,
            cluster: config.cluster.clone(),
            group: config.group.clone(),
            segment_bytes: config.segment_bytes,
            address: own.map(|node| node.raft.clone()).unwrap_or_default(),
            secret: config.secret.clone(),
            level: level.clone(),
        }
    }
}

/// What all groups of a node have in common, as a listener needs it.
#[derive(Debug, Clone)]
pub(crate) struct NodeIdentity {
    pub(crate) cluster: String,
    pub(crate) secret: Option<ClusterSecret>,
    /// The groups that the node hosts; never none.
    pub(crate) groups: Vec<String>,
}

/// How this node introduces itself to one peer.
#[derive(Clone)]
pub(crate) struct Introduction {
    pub(super) identity: Arc<Identity>,
    pub(super) group_id: Arc<GroupIdFile>,
    pub(super) to: u64,
    pub(super) purpose: Purpose,
    /// Lines about refusals, of all peers together.
    pub(super) refusals: Arc<LogRateLimiter>,
}

impl Introduction {
    /// With the peer still open.
    pub(crate) fn new(identity: Identity, group_id: Arc<GroupIdFile>) -> Introduction {
        let (identity, to) = (Arc::new(identity), 0);
        Introduction { identity, group_id, to, purpose: Purpose::Requests, refusals: Arc::default() }
    }

    /// The same to another peer, for another purpose.
    pub(crate) fn to(&self, to: u64, purpose: Purpose) -> Introduction {
        Introduction { to, purpose, ..self.clone() }
    }

    pub(crate) fn identity(&self) -> &Identity {
        &self.identity
    }

    /// What the first frame of a connection says that is made now, besides the group.
    pub(crate) fn hello(&self, nonce: Nonce) -> Hello {
        let Identity { node_id, secret, .. } = &*self.identity;
        Hello { from: *node_id, to: self.to, purpose: self.purpose, nonce, has_secret: secret.is_some() }
    }

    /// What is told to a listener that has proved itself.
    pub(crate) fn credentials(&self) -> Credentials {
        let Identity { cluster, group, segment_bytes, address, level, .. } = &*self.identity;
        Credentials {
            cluster: cluster.clone(),
            group: group.clone(),
            segment_bytes: *segment_bytes,
            group_id: self.group_id.get(),
            address: address.clone(),
            supports: FEATURE_LEVEL,
            uses: level.get(),
            more: Vec::new(),
        }
    }
}
