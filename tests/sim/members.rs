//! Members that change while everything else goes wrong: a node from outside joins with an empty disk and is made a voter, or
//! a member leaves, or both, one for the other. Whoever has left is outside again, with an empty disk.
//!
//! One change at a time, each asked of whoever leads then, and again when nothing came of it. A machine is emptied only when
//! a majority of the voters that are left knows that it is none of them: then its leaving is committed, or will be.
//!
//! A group that is smaller than the run wants it takes nodes in, one after the other: also one that was born as one node.

use std::collections::BTreeSet;

use folio_raft::status::{Role, Status};

use crate::change::Change;
use crate::node::{Death, Setup};
use crate::world::{Due, World};

/// Pause between two looks at how far a change is.
const LOOK_MS: u64 = 150;
/// Pause between two looks at whether the group is to grow.
const GROW_MS: u64 = 400;
/// Fewer members than that are never left.
const MEMBERS_MIN: usize = 3;

impl World {
    /// Begins a change in which `leaves` leaves, for another node or for none; false while another one is under way, or when it
    /// may not.
    pub(crate) fn begin_change(&mut self, leaves: u64, shrinks: bool) -> bool {
        let may = !self.outside.contains(&leaves) && self.weak != Some(leaves) && self.is_whole();
        let joins = if shrinks { None } else { self.outside.first().copied() };
        let enough = self.members() > MEMBERS_MIN || joins.is_some();
        if !may || !enough || self.members() < MEMBERS_MIN {
            return false;
        }
        self.begin(Change { joins, leaves: Some(leaves) });
        true
    }

    /// A group that is too small takes the next node in; looks again later.
    pub(crate) fn grow(&mut self) {
        self.later(GROW_MS, Due::Grow);
        let joins = self.outside.first().copied().filter(|_| self.members() < self.setup.nodes as usize);
        if joins.is_none() || !self.is_whole() {
            return;
        }
        if self.is_born_alone() {
            // Only from now on its leader takes anybody in.
            self.trace.event("node 1: single no more");
            self.end(1, Death::Kill);
            self.setup.single = false;
            self.boot(1);
            return;
        }
        self.begin(Change { joins, leaves: None });
    }

    fn begin(&mut self, change: Change) {
        self.change = Some(change);
        if let Some(joins) = change.joins {
            if let Some(node) = self.nodes.get_mut(&joins) {
                node.lose_disk();
                node.joins = true;
            }
            self.boot(joins);
        }
        self.later(LOOK_MS, Due::Members);
    }

    /// Takes the change under way one step further.
    pub(crate) fn go_on_with_change(&mut self) {
        let Some(change) = self.change else { return };
        if self.is_done(change) {
            self.trace.event(format!("done: {change:?}"));
            self.outside.retain(|id| !change.joins(*id));
            if let Some(leaves) = change.leaves {
                self.end(leaves, Death::PowerCut);
                self.checks.lost_disk(leaves);
                self.outside.insert(leaves);
            }
            if let Some(joined) = change.joins.and_then(|id| self.nodes.get_mut(&id)) {
                // Some operators leave the key where it was, others do not.
                joined.joins = self.random.below(2) == 0;
            }
            self.change = None;
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
        let joins = change.joins.filter(|id| !leader.voters.contains(id));
        let is_member = joins.is_some_and(|id| leader.members.contains_key(&id));
        node.spawn(async move {
            let done = match (joins, change.leaves) {
                (Some(joins), _) if is_member => group.promote(joins).await,
                (Some(joins), _) => group.add_learner(joins, Setup::address(joins)).await,
                (None, Some(leaves)) => group.remove_member(leaves).await,
                (None, None) => Ok(()),
            };
            drop(done);
        });
    }

    /// Whether a majority of the voters that are left says that the new member votes and the old one is none.
    fn is_done(&self, change: Change) -> bool {
        let says = |status: &&Status| {
            change.joins.is_none_or(|joins| status.voters.contains(&joins))
                && change.leaves.is_none_or(|leaves| !status.members.contains_key(&leaves))
        };
        let left: BTreeSet<u64> = match self.seen.values().find(says) {
            Some(status) => status.voters.clone(),
            None => return false,
        };
        let agreed = self.seen.values().filter(says).filter(|status| left.contains(&status.node_id)).count();
        agreed * 2 > left.len()
    }

    /// How many members the group has, or will have.
    pub(crate) fn members(&self) -> usize {
        self.nodes.len() - self.outside.len()
    }

    fn is_born_alone(&self) -> bool {
        self.setup.single
    }
}
