//! What a node says of itself and of its log to one that asks.

use std::collections::{BTreeMap, BTreeSet};

use folio_engine::record::EntryId;
use openraft::RaftMetrics;
use serde::{Deserialize, Serialize};

use super::group_id::GroupId;
use crate::codec::WireLogId;
use crate::types::{StoredMembership, TypeConfig};

/// What a node says of itself to one that asks.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct LogSummary {
    /// Term of the last entry; 0 when there is none.
    pub(crate) last_term: u64,
    /// Index of the last entry; the founding membership alone is 0.
    pub(crate) last_index: Option<u64>,
    /// The number of the member's start: another one each time, and never the one before.
    pub(crate) start: u64,
    /// Whether the member itself may lack what it once acknowledged.
    pub(crate) lost: bool,
    /// Whether it knows that its group runs, also when its log is empty.
    pub(crate) joined: bool,
    /// The term of its vote, 0 before it ever took part.
    pub(crate) term: u64,
    /// Whether it leads in that term.
    pub(crate) leads: bool,
    /// The group it belongs to, once it knows that.
    pub(crate) group_id: Option<GroupId>,
    /// The members as its log has them, once it has any.
    pub(crate) members: Option<Members>,
    /// The highest feature level that its build supports.
    pub(crate) supports: u16,
}

impl LogSummary {
    /// The last entry.
    pub(crate) fn last(&self) -> Option<EntryId> {
        self.last_index.map(|index| EntryId { term: self.last_term, index })
    }

    /// Whether entries may have been committed in the group. Index 0 is the founding membership; 1 is the first leader's
    /// entry, after which entries may be committed.
    pub(crate) fn group_runs(&self) -> bool {
        self.last_index >= Some(1) || self.joined
    }
}

/// The members as one log has them: two sets of voters while they are being changed.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Members {
    /// The entry that made them the members.
    pub(crate) id: WireLogId,
    pub(crate) voters: Vec<BTreeSet<u64>>,
    pub(crate) addresses: BTreeMap<u64, String>,
}

impl Members {
    /// Those of this node's log, if it has any.
    pub(crate) fn of(metrics: &RaftMetrics<TypeConfig>) -> Option<Members> {
        Members::of_stored(&metrics.membership_config)
    }

    /// Those of a membership as a log has it, if it is an entry of that log.
    pub(crate) fn of_stored(stored: &StoredMembership) -> Option<Members> {
        let membership = stored.membership();
        Some(Members {
            id: stored.log_id().as_ref().map(WireLogId::from)?,
            voters: membership.get_joint_config().clone(),
            addresses: membership.nodes().map(|(id, node)| (*id, node.raft.clone())).collect(),
        })
    }

    /// All that vote, in one set or the other.
    pub(crate) fn all_voters(&self) -> BTreeSet<u64> {
        self.voters.iter().flatten().copied().collect()
    }
}
