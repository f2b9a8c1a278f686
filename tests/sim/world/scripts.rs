//! Runs whose faults are not drawn but told: a story that a seed would hardly ever find.

use folio_raft::status::Role;

use super::World;
use crate::check::{Checked, violation};
use crate::node::Death;

/// How long a story waits for what it tells next, milliseconds.
const PATIENCE_MS: u64 = 10_000;
/// Messages that show that a leader serves.
const ENOUGH: u64 = 10;

/// A story.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Script {
    /// A leader is deposed while it is cut off; the node that helped to depose it loses its disk, and hears the deposed
    /// one first when it comes back.
    DeposedLeader,
}

impl World {
    pub(super) fn play(&mut self, script: Script) -> Checked {
        match script {
            Script::DeposedLeader => self.depose_a_leader(),
        }
    }

    fn depose_a_leader(&mut self) -> Checked {
        let old = self.serving_leader(0)?;
        self.network.block(self.links_of(old.0));
        let new = self.serving_leader(old.1)?;
        let helper = self.nodes.keys().copied().find(|id| *id != old.0 && *id != new.0).unwrap_or_default();
        self.trace.event(format!("{old:?} deposed by {new:?} with the help of {helper}"));
        self.end(helper, Death::PowerCut);
        self.nodes.get_mut(&helper).into_iter().for_each(|node| node.lose_disk());
        self.checks.lost_disk(helper);
        self.network.unblock_all();
        self.network.block(self.links_of(new.0));
        self.boot(helper);
        for _ in 0..PATIENCE_MS / 2 {
            self.step()?;
        }
        Ok(())
    }

    /// Waits for a leader of a term after `after` that acknowledges messages: its id and its term.
    fn serving_leader(&mut self, after: u64) -> Result<(u64, u64), crate::check::Violation> {
        let deadline = self.clock.now() + PATIENCE_MS;
        let mut before = None;
        while self.clock.now() < deadline {
            self.step()?;
            let leads = self.seen.values().find(|status| status.role == Role::Leader && status.term > after);
            let Some(leader) = leads.map(|status| (status.node_id, status.term)) else { continue };
            let enough = *before.get_or_insert(self.checks.oracle.acknowledged) + ENOUGH;
            if self.checks.oracle.acknowledged >= enough {
                return Ok(leader);
            }
        }
        Err(violation("heals", format!("no leader after term {after} in {PATIENCE_MS} ms")))
    }

    fn links_of(&self, node: u64) -> Vec<(u64, u64)> {
        let others = self.nodes.keys().copied().filter(|other| *other != node);
        others.flat_map(|other| [(node, other), (other, node)]).collect()
    }
}
