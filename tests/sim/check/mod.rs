//! What must hold at every moment of a run, one file for each family; each names the invariant it found broken.
//!
//! The checkers look from outside: at what each node says and at the records its log gives out. They do not trust a
//! node's word for what another one has.

pub(crate) mod committed;
pub(crate) mod deleted;
pub(crate) mod elections;
pub(crate) mod logs;
pub(crate) mod moves;
pub(crate) mod oracle;
pub(crate) mod place;
pub(crate) mod popped;
pub(crate) mod retained;
pub(crate) mod served;
pub(crate) mod timers;
pub(crate) mod transactions;
mod violation;
pub(crate) mod votes;
pub(crate) mod watermarks;

use std::collections::BTreeMap;

use folio_raft::group::Group;
use folio_raft::status::{Role, Status};

use committed::Committed;
use elections::Elections;
use logs::{Logs, Replica};
use oracle::Oracle;
use retained::Retained;
use served::Served;
pub(crate) use violation::{Checked, Violation, violation};
use votes::Votes;

/// All checkers with what they remember.
#[derive(Default)]
pub(crate) struct Checks {
    logs: Logs,
    pub(crate) elections: Elections,
    pub(crate) committed: Committed,
    pub(crate) oracle: Oracle,
    pub(crate) votes: Votes,
    served: Served,
    pub(crate) retained: Retained,
    replicas: BTreeMap<u64, Replica>,
}

impl Checks {
    /// Looks at one node that is up.
    pub(crate) fn look(&mut self, group: &Group, status: &Status) -> Checked {
        let id = status.node_id;
        watermarks::check(group, status)?;
        let replica = self.replicas.entry(id).or_default();
        self.logs.follow(replica, group, status)?;
        self.elections.check(status)?;
        self.votes.look(id, group.log().vote(), group.log().state().last)?;
        self.served.look(group, status)?;
        self.retained.reached(group.log().state().next_position);
        self.retained.check(status)
    }

    /// What one node has applied is committed. To be called once all nodes were looked at, since it counts copies.
    pub(crate) fn look_at_applied(&mut self, status: &Status) -> Checked {
        let term = self.elections.newest();
        self.committed.follow(status, term, &mut self.replicas, &mut self.oracle)?;
        if status.role == Role::Leader && self.elections.is_new_leader(status) {
            self.committed.check_leader(status, &self.replicas[&status.node_id])?;
        }
        Ok(())
    }

    /// The planted defect: a leader acknowledges what it alone has durably.
    pub(crate) fn acknowledge_early(&mut self, leader: &Status) -> Checked {
        let Some(replica) = self.replicas.get(&leader.node_id) else { return Ok(()) };
        for record in replica.records.range(leader.applied + 1..).map(|(_, record)| record) {
            if replica.holds(record) {
                self.oracle.told_early(record)?;
            }
        }
        Ok(())
    }

    /// The node's process ended: what it said of its log may be less true after the next start, and if it is the weak node,
    /// may not be true any more.
    pub(crate) fn died(&mut self, node: u64, is_weak: bool) {
        let replica = self.replicas.entry(node).or_default();
        replica.died();
        self.votes.died(node);
        if is_weak {
            self.committed.held_before(replica);
            self.votes.forget(node);
        }
    }

    /// The node's disk is gone: it holds nothing any more.
    pub(crate) fn lost_disk(&mut self, node: u64) {
        // What it held was noted when it died.
        self.replicas.remove(&node);
        self.votes.forget(node);
    }
}
