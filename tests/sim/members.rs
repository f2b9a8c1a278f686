//! Members that change while everything else goes wrong: a spare node joins with an empty disk, is made a voter, and
//! another one leaves, whose emptied machine is the next spare.
//!
//! One thing at a time, each asked of whoever leads then, and again when nothing came of it. A machine is emptied only when
//! a majority of the voters that are left knows that it is none of them: then its leaving is committed, or will be.

use std::collections::BTreeSet;

use folio_raft::status::{Role, Status};

use crate::node::{Death, Setup};
use crate::world::{Due, World};

/// Pause between two looks at how far a change is.
const LOOK_MS: u64 = 150;

/// A change of the members under way.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Change {
    joins: u64,
    leaves: u64,
}

impl World {
    /// Begins a change in which `leaves` leaves; false while another one is under way, or when it may not.
    pub(crate) fn begin_change(&mut self, leaves: u64) -> bool {
        let joins = self.spare;
        let nobody = leaves == joins || self.weak == Some(leaves) || self.change.is_some();
        if nobody || !self.is_whole() {
            return false;
        }
        if let Some(node) = self.nodes.get_mut(&joins) {
            node.lose_disk();
            node.joins = true;
        }
        self.change = Some(Change { joins, leaves });
        self.boot(joins);
        self.later(LOOK_MS, Due::Members);
        true
    }

    /// Takes the change under way one step further.
    pub(crate) fn go_on_with_change(&mut self) {
        let Some(change) = self.change else { return };
        if self.is_gone(change) {
            self.trace.event(format!("node {} left, node {} is a member", change.leaves, change.joins));
            self.end(change.leaves, Death::PowerCut);
            self.checks.lost_disk(change.leaves);
            (self.spare, self.change) = (change.leaves, None);
            return;
        }
        self.ask(change);
        self.later(LOOK_MS, Due::Members);
    }

    fn ask(&self, change: Change) {
        let leader = self.seen.values().filter(|status| status.role == Role::Leader).max_by_key(|s| s.term);
        let Some(leader) = leader else { return };
        let node = &self.nodes[&leader.node_id];
        let Some(group) = node.group() else { return };
        let Change { joins, leaves } = change;
        let (is_member, votes) = (leader.members.contains_key(&joins), leader.voters.contains(&joins));
        node.spawn(async move {
            let done = match (is_member, votes) {
                (false, _) => group.add_learner(joins, Setup::address(joins)).await,
                (true, false) => group.promote(joins).await,
                (true, true) => group.remove_member(leaves).await,
            };
            drop(done);
        });
    }

    /// Whether a majority of the voters that are left says that the new member votes and the old one is none.
    fn is_gone(&self, change: Change) -> bool {
        let says = |status: &&Status| {
            status.voters.contains(&change.joins) && !status.members.contains_key(&change.leaves)
        };
        let left: BTreeSet<u64> = match self.seen.values().find(says) {
            Some(status) => status.voters.clone(),
            None => return false,
        };
        let agreed = self.seen.values().filter(says).filter(|status| left.contains(&status.node_id)).count();
        agreed * 2 > left.len()
    }
}
