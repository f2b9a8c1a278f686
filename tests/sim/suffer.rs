//! What a fault does to the world.

use std::path::Path;

use folio_raft::status::{Role, Status};

use crate::faults::Fault;
use crate::net::Delay;
use crate::node::{Death, SEGMENT_BYTES};
use crate::rot::{self, Rot, Snapshots, has_checkpoint, has_snapshot};
use crate::world::{Due, World};

impl World {
    pub(crate) fn suffer(&mut self, fault: Fault) {
        self.trace.event(format!("{fault:?}"));
        let name = match fault {
            Fault::Die { node, death, down_ms } => {
                self.end(node, death.into());
                self.later(down_ms, Due::Boot(node));
                "die"
            }
            Fault::DieAtOperation { node, operations } => {
                let disk = &self.nodes[&node].machine.disk;
                disk.cut_power_at(disk.ops() + operations as usize);
                "die at operation"
            }
            Fault::DieAtVote { node, operations, delay } => {
                self.die_at_vote(node, operations, delay);
                "die at vote"
            }
            Fault::FullDisk { node, room, ms } => {
                // A node that was never up has no space for what it must write: it may refuse to start.
                if self.nodes[&node].group().is_none() {
                    return;
                }
                let disk = &self.nodes[&node].machine.disk;
                disk.set_capacity(Some(disk.used() + room));
                self.later(ms, Due::RoomyDisk(node));
                "full disk"
            }
            Fault::Members { leaves, shrinks } => {
                if !self.begin_change(leaves, shrinks) {
                    return;
                }
                self.strike_snapshots_at_times();
                "members"
            }
            Fault::Rot { node, what } => {
                if !self.rot(node, what) {
                    return;
                }
                "rot"
            }
            Fault::Snapshots { nodes, what } => {
                self.strike_snapshots(&nodes, what);
                "snapshots"
            }
            Fault::BadSector { node, what } => {
                if !self.lose_sector(node, what) {
                    return;
                }
                "bad sector"
            }
            Fault::PowerCutOfAll { down_ms } => {
                for id in 1..=self.setup.nodes + 1 {
                    self.end(id, Death::PowerCut);
                    let more = self.random.below(500);
                    self.later(down_ms + more, Due::Boot(id));
                }
                "power cut of all"
            }
            Fault::Partition { links, ms } => {
                self.network.unblock_all();
                self.network.block(links);
                self.later(ms, Due::HealPartition);
                "partition"
            }
            Fault::SlowNode { node, delay, ms } => {
                for other in 1..=self.setup.nodes + 1 {
                    self.network.set_delay((node, other), delay);
                    self.network.set_delay((other, node), delay);
                }
                self.later(ms, Due::UsualDelays);
                "slow node"
            }
            Fault::SlowDisk { node, delay, ms } => {
                self.slow_disk(node, delay);
                self.later(ms, Due::UsualDisk(node));
                "slow disk"
            }
            Fault::BadDisk { node, operations, fault } => {
                let disk = &self.nodes[&node].machine.disk;
                disk.fail_at(disk.ops() + operations as usize, fault.into());
                "bad disk"
            }
            Fault::Stop { node, ms } => {
                self.stop(node, ms);
                "stop"
            }
            Fault::StopAll { ms, apart_ms } => {
                for id in 1..=self.setup.nodes + 1 {
                    self.later((id - 1) * apart_ms, Due::Stop { node: id, ms });
                }
                "stop all"
            }
            Fault::Transfer { to } => {
                self.transfer(to);
                "transfer"
            }
            Fault::WallClock { node, skew_ms } => {
                self.nodes[&node].machine.wall.set_skew(skew_ms);
                "wall clock"
            }
            Fault::LoseDisk { node, down_ms } => {
                if !self.lose_disk(node) {
                    return;
                }
                self.strike_snapshots_at_times();
                self.later(down_ms, Due::Boot(node));
                "lose disk"
            }
        };
        *self.counts.entry(name).or_default() += 1;
    }

    /// The node's process does not run for so long.
    pub(crate) fn stop(&mut self, node: u64, ms: u64) {
        let until = self.clock.now() + ms;
        self.nodes.get_mut(&node).into_iter().for_each(|node| node.stopped_until = until);
    }

    fn slow_disk(&self, node: u64, delay: Delay) {
        let least = delay.least.max(1);
        self.nodes[&node].machine.pace.set(Some(Delay { least, most: delay.most.max(least) }));
    }

    /// Leadership goes to neither the node nor nobody, once records wait for its disk.
    fn die_at_vote(&mut self, node: u64, operations: u64, delay: Delay) {
        let leads = |status: &&Status| status.role == Role::Leader;
        let leader = self.seen.values().find(leads).map(|status| status.node_id);
        let others = self.seen.keys().copied().filter(|id| *id != node && Some(*id) != leader);
        let others: Vec<u64> = others.collect();
        if others.is_empty() {
            return;
        }
        let to = others[self.random.below(others.len() as u64) as usize];
        let slow = Delay { least: delay.least + 30, most: delay.most + 60 };
        self.slow_disk(node, slow);
        self.nodes[&node].machine.disk.cut_power_after_write(Path::new("/data/vote"), operations as usize);
        self.later(slow.least, Due::Transfer(to));
        self.later(1000, Due::UsualDisk(node));
    }

    pub(crate) fn transfer(&self, to: Option<u64>) {
        let leader = self.seen.values().find(|status| status.role == Role::Leader);
        let Some(node) = leader.map(|leader| &self.nodes[&leader.node_id]) else { return };
        let Some(group) = node.group() else { return };
        node.spawn(async move { drop(group.transfer_leadership(to).await) });
    }

    /// Whether this node may lose what it acknowledged: it is the only one of this run, or the first.
    fn may_lose(&mut self, node: u64) -> bool {
        *self.weak.get_or_insert(node) == node
    }

    /// The group is founded, its members do not change, and all nodes are up and have something.
    pub(crate) fn is_whole(&self) -> bool {
        let caught_up = |status: &Status| status.role != Role::Learner && status.applied > 0;
        self.change.is_none() && self.seen.len() == self.members() && self.seen.values().all(caught_up)
    }

    fn lose_disk(&mut self, node: u64) -> bool {
        // The only copy is not promised to survive.
        if !self.is_whole() || self.members() < 2 || self.outside.contains(&node) || !self.may_lose(node) {
            return false;
        }
        self.take_disk(node);
        true
    }

    /// Cuts a node's power and empties its disk.
    pub(crate) fn take_disk(&mut self, node: u64) {
        self.end(node, Death::PowerCut);
        self.nodes.get_mut(&node).into_iter().for_each(|node| node.lose_disk());
        self.checks.lost_disk(node);
    }

    fn strike_snapshots(&self, nodes: &[u64], what: Snapshots) {
        for node in nodes {
            let disk = &self.nodes[node].machine.disk;
            // Without either a node may be refused: its peers may have dropped the whole of what its log holds.
            if !has_checkpoint(disk) {
                continue;
            }
            let struck = what.strike(disk);
            self.trace.event(format!("node {node}: {struck} snapshots {what:?}"));
        }
    }

    /// An empty node is about to need one: now and then no node has a whole one.
    fn strike_snapshots_at_times(&mut self) {
        let what = match self.random.below(4) {
            0 => Snapshots::Rotten,
            1 => Snapshots::Deleted,
            _ => return,
        };
        let nodes: Vec<u64> = self.nodes.keys().copied().collect();
        self.strike_snapshots(&nodes, what);
    }

    /// Nothing is excused by it but a start with a damaged snapshot: a node that runs goes on (`reads.I1`, `damage.I3`).
    fn lose_sector(&mut self, node: u64, what: Rot) -> bool {
        let founded = self.checks.committed.last() > 0;
        let Some(status) = self.seen.get(&node).filter(|_| founded) else { return false };
        let applied = status.applied_position;
        let may_be_alone = self.setup.born == 1 && node == 1;
        if may_be_alone || self.outside.contains(&node) || !self.may_lose(node) {
            return false;
        }
        let disk = &self.nodes[&node].machine.disk;
        let struck = rot::lose(what, disk, applied, SEGMENT_BYTES, &mut self.random);
        let Some(struck) = struck else { return false };
        self.trace.event(format!("node {node}: a bad sector in {struck}"));
        if what == Rot::Checkpoint {
            self.strained.insert(node);
        }
        true
    }

    fn rot(&mut self, node: u64, what: Rot) -> bool {
        let founded = self.checks.committed.last() > 0;
        // Node 1 of a group that was born as one refuses to start as long as its newest checkpoint is from before there were
        // others: it cannot know that they have the record.
        let may_be_alone = self.setup.born == 1 && node == 1;
        // Snapshots and indexes are derived: whoever loses one has lost nothing.
        let is_derived = matches!(what, Rot::Snapshot | Rot::Index);
        let costs = !is_derived && (may_be_alone || !self.may_lose(node));
        if !founded || self.outside.contains(&node) || costs {
            return false;
        }
        if what == Rot::Vote || what == Rot::Index {
            // A torn copy of a vote beside a rotten one is more than is promised: the process is killed, not the power cut. The timer
            // index is verified when it is opened.
            self.end(node, Death::Kill);
            self.later(100, Due::Boot(node));
        }
        let disk = &self.nodes[&node].machine.disk;
        if what == Rot::Checkpoint && !has_snapshot(disk) || what == Rot::Snapshot && !has_checkpoint(disk) {
            return false;
        }
        let Some(struck) = what.strike(disk, &mut self.random) else { return false };
        self.trace.event(format!("node {node}: rot in {struck}"));
        if !is_derived {
            self.strained.insert(node);
        }
        true
    }
}
