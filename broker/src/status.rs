//! One node's view of its group, as an operator is told it.

use std::collections::BTreeMap;

use folio_raft::config::Flush;
use folio_raft::status::Role;
use serde::{Deserialize, Serialize};

use crate::broker::Broker;

/// One node's view of its group.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct NodeStatus {
    /// The cluster's name.
    pub cluster: String,
    /// The group's name.
    pub group: String,
    /// The names of all groups that the node hosts; empty from a build that hosts one.
    #[serde(default)]
    pub groups: Vec<String>,
    /// The node that says this.
    pub node_id: u64,
    /// `leader`, `follower`, `learner`, `candidate` or `stopped`.
    pub role: String,
    /// Why it stopped, if it did.
    pub stopped: Option<String>,
    /// The leader it knows.
    pub leader: Option<u64>,
    /// Its term.
    pub term: u64,
    /// Index of the last entry it knows to be committed.
    pub committed: u64,
    /// Index of the last entry it applied.
    pub applied: u64,
    /// Index of the last entry in its log.
    pub last: u64,
    /// Bytes of its log that are on its disk.
    pub durable_position: u64,
    /// Bytes of its log that it serves.
    pub applied_position: u64,
    /// Whether its disk is full.
    pub disk_full: bool,
    /// Damaged records on its disk that are not mended yet.
    #[serde(default)]
    pub damaged: u64,
    /// Damaged records it has mended with another node's copy since it started.
    #[serde(default)]
    pub mended: u64,
    /// Damaged units of consume queues on its disk that are not mended yet.
    #[serde(default)]
    pub damaged_units: u64,
    /// Damaged units of consume queues it has mended from its log since it started.
    #[serde(default)]
    pub mended_units: u64,
    /// Snapshots on its disk that are damaged or gone, and not repaired yet.
    #[serde(default)]
    pub damaged_snapshots: u64,
    /// Snapshots it has fetched from another node or made again since it started.
    #[serde(default)]
    pub repaired_snapshots: u64,
    /// Position at which its log begins.
    #[serde(default)]
    pub start_position: u64,
    /// Repeated sends that it answered with the first one's place since it started.
    #[serde(default)]
    pub repeats: u64,
    /// The feature level that the group uses, as the node has applied it.
    #[serde(default)]
    pub feature_level: u16,
    /// Transitions that the node applied though they were not to be proposed (`transitions.I2`): 0 unless the program has a defect.
    #[serde(default)]
    pub unmet_preconditions: u64,
    /// The highest feature level that the node's build supports.
    #[serde(default)]
    pub feature_level_max: u16,
    /// The group's id, once the node knows it.
    #[serde(default)]
    pub group_id: Option<String>,
    /// What it waits for before it takes its part, and what an operator can do.
    #[serde(default)]
    pub waiting: Option<String>,
    /// Why it does not stand for election.
    #[serde(default)]
    pub no_election: Vec<String>,
    /// Peers it refused because they belong to another group of the same name.
    #[serde(default)]
    pub foreign: Vec<String>,
    /// How long its leader has been silent while it ran; on the leader, how long no majority has answered; milliseconds.
    #[serde(default)]
    pub leader_silence_ms: u64,
    /// The silence after which it takes its leader for dead, milliseconds.
    #[serde(default)]
    pub election_threshold_ms: u64,
    /// What clients use of it, by name.
    #[serde(default)]
    pub resources: BTreeMap<String, ResourceUse>,
    /// When it acknowledges: `fdatasync` or `memory`.
    pub flush: String,
    /// The ids that vote.
    pub voters: Vec<u64>,
    /// On the leader: entries each other node has yet to acknowledge.
    pub lag: BTreeMap<u64, u64>,
    /// Where all nodes are, as this one knows it.
    pub nodes: BTreeMap<u64, NodeAt>,
}

/// How much of one resource clients use.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct ResourceUse {
    /// So much.
    pub used: u64,
    /// The most that may be.
    pub limit: u64,
    /// The key of the configuration that changes it.
    pub key: String,
}

/// Where one node is.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct NodeAt {
    /// Its broker port.
    pub broker: String,
    /// Its NameServer port.
    pub namesrv: String,
    /// Its Raft port.
    pub raft: String,
}

impl Broker {
    /// How this node is. `resources`: what clients use of it, by name.
    pub fn node_status(&self, resources: BTreeMap<String, ResourceUse>) -> NodeStatus {
        let status = self.group.status();
        let nodes = status.members.iter().map(|(id, address)| {
            let mut at = NodeAt {
                broker: address.broker.clone(),
                namesrv: address.namesrv.clone(),
                raft: address.raft.clone(),
            };
            let told = if *id == self.node_id() {
                Some(self.identity.addresses.clone())
            } else {
                self.clients.addresses_of(*id)
            };
            if let Some(told) = told {
                (at.broker, at.namesrv) = (told.broker, told.namesrv);
            }
            (*id, at)
        });
        NodeStatus {
            cluster: self.identity.cluster.clone(),
            group: self.identity.broker_name.clone(),
            groups: self.node.groups.clone(),
            node_id: status.node_id,
            role: status.role.name().to_owned(),
            stopped: if let Role::Stopped(why) = &status.role { Some(why.clone()) } else { None },
            leader: status.leader,
            term: status.term,
            committed: status.committed,
            applied: status.applied,
            last: status.last.map_or(0, |id| id.index),
            durable_position: status.durable_position,
            applied_position: status.applied_position,
            disk_full: status.disk_full,
            damaged: status.damaged,
            mended: status.mended,
            damaged_units: status.damaged_units,
            mended_units: status.mended_units,
            damaged_snapshots: status.damaged_snapshots,
            repaired_snapshots: status.repaired_snapshots,
            start_position: status.start_position,
            repeats: status.repeats,
            feature_level: status.feature_level,
            unmet_preconditions: status.unmet_preconditions,
            feature_level_max: status.feature_level_max,
            group_id: status.group_id.clone(),
            waiting: status.waiting.clone(),
            no_election: status.no_election.iter().map(|why| (*why).to_owned()).collect(),
            foreign: status.foreign.clone(),
            leader_silence_ms: status.leader_silence.as_millis() as u64,
            election_threshold_ms: status.election_threshold.as_millis() as u64,
            resources,
            flush: match self.group.flush() {
                Flush::Sync => "fdatasync",
                Flush::Async => "memory",
            }
            .to_owned(),
            voters: status.voters.iter().copied().collect(),
            lag: status.lag.clone(),
            nodes: nodes.collect(),
        }
    }
}
