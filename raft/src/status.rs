//! What a node knows of its group, as one value.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use folio_engine::record::EntryId;

use crate::types::NodeAddress;

/// The part a node plays in its group.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Role {
    /// It takes proposals.
    Leader,
    /// It follows a leader, or waits for one, and votes.
    Follower,
    /// It follows and does not vote.
    Learner,
    /// It asks for votes.
    Candidate,
    /// It takes no part any more; the reason.
    Stopped(String),
}

impl Role {
    /// The role in one lower-case word.
    pub fn name(&self) -> &'static str {
        match self {
            Role::Leader => "leader",
            Role::Follower => "follower",
            Role::Learner => "learner",
            Role::Candidate => "candidate",
            Role::Stopped(_) => "stopped",
        }
    }
}

/// One node's view of its group.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Status {
    /// This node.
    pub node_id: u64,
    /// What it does.
    pub role: Role,
    /// The leader, if this node knows one.
    pub leader: Option<u64>,
    /// The term of this node's vote.
    pub term: u64,
    /// Index of the last entry known to be committed, 0 before the first.
    pub committed: u64,
    /// Index of the last applied entry, 0 before the first.
    pub applied: u64,
    /// The last entry in the log.
    pub last: Option<EntryId>,
    /// Position up to which the log is durable on this node.
    pub durable_position: u64,
    /// Position up to which the log is applied on this node: what it serves.
    pub applied_position: u64,
    /// Every member and learner.
    pub members: BTreeMap<u64, NodeAddress>,
    /// The members that vote.
    pub voters: BTreeSet<u64>,
    /// On the leader: entries that each other node has not acknowledged yet.
    pub lag: BTreeMap<u64, u64>,
    /// Whether the disk has no room for another segment.
    pub disk_full: bool,
    /// Records found damaged on this node's disk and not mended yet.
    pub damaged: u64,
    /// Damaged records that were mended with a peer's copy since the start.
    pub mended: u64,
    /// Damaged parts of derived structures, such as units of consume queues, found on this node's disk and not mended yet; of
    /// a stretch perhaps only one.
    pub damaged_units: u64,
    /// Damaged parts of derived structures that were mended from the log since the start.
    pub mended_units: u64,
    /// Snapshots found damaged or gone on this node's disk and not repaired yet. While the one of the log's start is among
    /// them, no new replica can start from this node.
    pub damaged_snapshots: u64,
    /// Snapshots that were fetched from a peer or made again since the start.
    pub repaired_snapshots: u64,
    /// Position at which the log begins on this node: what is before it was dropped by retention.
    pub start_position: u64,
    /// Repeated sends that this node answered with the first one's place since it started.
    pub repeats: u64,
    /// Transitions that this node applied since the start though they were not to be proposed: 0 unless this program has a
    /// defect (`transitions.I2`).
    pub unmet_preconditions: u64,
    /// The feature level that the group uses, as this node has applied it.
    pub feature_level: u16,
    /// The highest feature level that this node's build supports.
    pub feature_level_max: u16,
    /// The group's id, once this node knows it.
    pub group_id: Option<String>,
    /// What this node waits for before it takes its part, and what an operator can do; `None` once it does.
    pub waiting: Option<String>,
    /// Why this node does not stand for election, if it does not.
    pub no_election: Vec<&'static str>,
    /// Peers that were refused since the start because they belong to another group of the same name.
    pub foreign: Vec<String>,
    /// How long the leader has been silent while this node ran; on a leader, how long no majority has answered.
    pub leader_silence: Duration,
    /// The silence after which this node takes its leader for dead.
    pub election_threshold: Duration,
}
