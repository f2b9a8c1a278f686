//! What a node is told, and what is wrong with it.

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::path::PathBuf;

use folio_broker::delays::DelayLevels;
use folio_broker::transactions::TransactionSettings;
use folio_raft::config::{DedupConfig, Flush, GroupConfig, Retention, Scrub, Timing};
use folio_raft::secret::ClusterSecret;
use folio_raft::types::NodeAddress;

pub(super) use super::bad_value::{BadValue, bad};
use super::groups::{self, FurtherGroup};
use crate::net::NetConfig;

/// RocketMQ's NameServer port.
pub const NAMESRV_PORT: u16 = 9876;
/// RocketMQ's broker port.
pub const BROKER_PORT: u16 = 10911;
/// Raft's port, four above the broker's as in `folio cluster`.
pub const RAFT_PORT: u16 = 10915;
/// RocketMQ's default cluster.
pub const DEFAULT_CLUSTER: &str = "DefaultCluster";
/// The group of `folio cluster`, and RocketMQ's first broker in its samples.
pub const DEFAULT_GROUP: &str = "broker-a";
/// Size of a log segment: RocketMQ's `mappedFileSizeCommitLog`.
pub const SEGMENT_BYTES: u64 = 1 << 30;
/// A record of the largest size, its neighbour and the filler must fit a segment.
pub const SEGMENT_BYTES_MIN: u64 = 16 << 20;
/// A segment is removed as a whole, and a start may have to go over the headers of one.
pub const SEGMENT_BYTES_MAX: u64 = 4 << 30;

/// Messages whose repeats are recognised: 2 GiB of memory.
pub const DEDUP_KEYS_MAX: u64 = 100_000_000;

/// Everything one node needs to know.
#[derive(Debug, Clone)]
pub struct NodeConfig {
    /// The cluster's name.
    pub cluster: String,
    /// The first group's name, RocketMQ's `brokerName`.
    pub group: String,
    /// The other groups that the node hosts.
    pub groups: Vec<FurtherGroup>,
    /// This node's id in its groups.
    pub node_id: u64,
    /// Where everything this node writes is.
    pub data_dir: PathBuf,
    /// The host clients and peers are told.
    pub host: String,
    /// Where to listen.
    pub listen: Listen,
    /// The members at the group's birth.
    pub nodes: BTreeMap<u64, NodeAddress>,
    /// Where this node connects to a peer instead of the peer's own address.
    pub dial: BTreeMap<u64, String>,
    /// Wait to be added to a running group.
    pub join: bool,
    /// The group has one voter, this node.
    pub single_node: bool,
    /// Size of a log segment.
    pub segment_bytes: u64,
    /// When a message is acknowledged.
    pub flush: Flush,
    /// When old segments go.
    pub retention: Retention,
    /// How old records are checked.
    pub scrub: Scrub,
    /// How repeated sends are recognised, if they are.
    pub dedup: Option<DedupConfig>,
    /// How long messages of each delay level wait.
    pub delay_levels: DelayLevels,
    /// How long a message may be delayed, seconds.
    pub timer_delay_max_s: u64,
    /// Whether popped messages come again in retry topics of the second kind.
    pub pop_retry_v2: bool,
    /// Whether a send of another kind than its topic's `message.type` is refused.
    pub checks_message_type: bool,
    /// When producers are asked about their transactions.
    pub transactions: TransactionSettings,
    /// Election timing.
    pub timing: Timing,
    /// What the nodes of the cluster prove to each other that they have.
    pub secret: Option<ClusterSecret>,
    /// Limits of connections.
    pub net: NetConfig,
    /// Threads of the runtime.
    pub workers: usize,
    /// Keys of the file that mean something to RocketMQ and nothing here.
    pub ignored: Vec<String>,
}

/// Listening sockets, with the key that moves each.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Listen {
    /// Clients ask for routes here.
    pub namesrv: SocketAddr,
    /// Clients send and pull here.
    pub broker: SocketAddr,
    /// Peers connect here.
    pub raft: SocketAddr,
    /// Operators connect here, if anywhere of their own.
    pub admin: Option<SocketAddr>,
    /// Do without a NameServer port if another process has it.
    pub namesrv_optional: bool,
}

impl NodeConfig {
    /// What its keys have to do with each other.
    pub(super) fn check(&self) -> Result<(), BadValue> {
        folio_protocol::names::check_group(&self.cluster)
            .map_err(|error| bad("cluster", error.to_string()))?;
        self.check_ports()?;
        groups::check(&self.group, &self.groups, &self.nodes, self.node_id)?;
        if !self.join && !self.nodes.contains_key(&self.node_id) {
            return Err(bad("nodes", format!("this node, id {}, is not among them", self.node_id)));
        }
        let is_alone = !self.join && self.nodes.keys().eq([&self.node_id]);
        if self.single_node && !is_alone {
            let remedy = "is for a group of one voter: remove the key, or `join = true` and the other nodes";
            return Err(bad("single_node", remedy));
        }
        self.check_timing()
    }

    fn check_timing(&self) -> Result<(), BadValue> {
        let Timing { election_min, election_max, heartbeat } = self.timing;
        if election_min > election_max {
            return Err(bad("raft.election_min_ms", "must not be above raft.election_max_ms"));
        }
        // Two heartbeats may be lost before a follower gives its leader up.
        if heartbeat * 3 > election_min {
            let text = format!(
                "{} is out of range: it must be at most a third of raft.election_min_ms",
                heartbeat.as_millis()
            );
            return Err(bad("raft.heartbeat_ms", text));
        }
        Ok(())
    }

    /// A port that the system chooses is one that nobody can be told.
    fn check_ports(&self) -> Result<(), BadValue> {
        let Listen { namesrv, broker, raft, admin, .. } = self.listen;
        let mut all = [
            Some(("listen.namesrv", namesrv)),
            Some(("listen.broker", broker)),
            Some(("listen.raft", raft)),
            admin.map(|admin| ("listen.admin", admin)),
        ]
        .into_iter()
        .flatten();
        match all.find(|(_, address)| address.port() == 0) {
            Some((key, address)) => {
                Err(bad(key, format!("{address} has no port: it must be between 1 and 65535")))
            }
            None => Ok(()),
        }
    }

    /// What each group needs of it, the first one first.
    pub fn group_configs(&self) -> Vec<GroupConfig> {
        let further = self.groups.iter().map(|group| self.further_config(group));
        std::iter::once(self.group_config()).chain(further).collect()
    }

    fn further_config(&self, group: &FurtherGroup) -> GroupConfig {
        let mut nodes = group.members(&self.nodes);
        nodes.entry(self.node_id).or_insert_with(|| self.advertised_for(group.listen));
        GroupConfig {
            group: group.name.clone(),
            data_dir: self.data_dir.join(&group.name),
            nodes,
            join: group.join,
            ..self.group_config()
        }
    }

    /// Where each group's broker port is, the first one's first.
    pub fn broker_listeners(&self) -> Vec<SocketAddr> {
        let further = self.groups.iter().map(|group| group.listen);
        std::iter::once(self.listen.broker).chain(further).collect()
    }

    /// What the first group needs of it.
    pub fn group_config(&self) -> GroupConfig {
        let mut nodes = self.nodes.clone();
        // A node that joins need not list itself. Its peers hear from it where it is: one that has lost its disk, and lists no
        // other node, knows them by nothing else.
        nodes.entry(self.node_id).or_insert_with(|| self.advertised());
        GroupConfig {
            node_id: self.node_id,
            cluster: self.cluster.clone(),
            group: self.group.clone(),
            data_dir: self.data_dir.join(&self.group),
            segment_bytes: self.segment_bytes,
            nodes,
            dial: self.dial.clone(),
            join: self.join,
            single_node: self.single_node,
            listen: self.listen.raft,
            flush: self.flush,
            timing: self.timing.clone(),
            retention: self.retention.clone(),
            scrub: self.scrub.clone(),
            secret: self.secret.clone(),
            dedup: self.dedup.clone(),
        }
    }

    /// Where this node says it is reached.
    pub fn advertised(&self) -> NodeAddress {
        self.advertised_for(self.listen.broker)
    }

    /// The same with another group's broker port.
    pub fn advertised_for(&self, broker: SocketAddr) -> NodeAddress {
        let at = |address: SocketAddr| format!("{}:{}", self.host, address.port());
        NodeAddress { raft: at(self.listen.raft), broker: at(broker), namesrv: at(self.listen.namesrv) }
    }
}

/// Delay levels as RocketMQ writes them.
pub(super) fn delay_levels(key: &str, text: &str) -> Result<DelayLevels, BadValue> {
    DelayLevels::parse(text).map_err(|why| bad(key, why))
}

/// All cores, at least two: one busy task must not stop the others.
pub(super) fn default_workers() -> usize {
    std::thread::available_parallelism().map_or(2, std::num::NonZero::get).max(2)
}
