//! Runs whose faults are not drawn but told: a story that a seed would hardly ever find.

use folio_raft::status::{Role, Status};

use super::World;
use crate::check::{Checked, violation};
use crate::faults::Fault;
use crate::net::Delay;
use crate::node::SEGMENT_BYTES;
use crate::rot::Snapshots;
use crate::script::Script;

/// How long a story waits for what it tells next, milliseconds.
const PATIENCE_MS: u64 = 10_000;
/// Messages that show that a leader serves.
const ENOUGH: u64 = 10;

/// How long a story of stalls lasts, and the longest pause between two, milliseconds.
const STALLS_MS: u64 = 60_000;
const STALL_PAUSE_MS: u64 = 300;
/// How long stalls last, at least and less than: short ones, and such that a leader misses its lease.
const SHORT_STALLS_MS: (u64, u64) = (50, 400);
const STALL_MS: (u64, u64) = (50, 800);
/// Changes of leader that a minute of stalls may cause.
const STALL_CHANGES_MAX: u64 = 1;
/// A leader that hangs on a quiet machine is replaced within so long: openraft's lease, its longest timeout, and an
/// election that had to be held twice.
const HUNG_MS_MAX: u64 = 900;
/// The same on a machine that has just had short stalls: twice such a stall with a heartbeat, and an election.
const HUNG_AFTER_STALLS_MS_MAX: u64 = 1_500;

/// How long all disks are slow, and how slow: above a heartbeat's interval, within which openraft wants its answer.
const SLOW_DISKS_MS: u64 = 5_000;
const SLOW_SYNC: Delay = Delay { least: 120, most: 180 };
/// A leader with a majority hears of it at each heartbeat.
const SLOW_SILENCE_MS_MAX: u128 = 200;

impl World {
    pub(crate) fn play(&mut self, script: Script) -> Checked {
        match script {
            Script::DeposedLeader => self.depose_a_leader(),
            Script::Stalls => self.stall_for(STALLS_MS, STALL_MS),
            Script::HungLeader => self.hang_leaders(),
            Script::SlowDisks => self.slow_all_disks(),
            Script::RottenSnapshots => self.rot_all_snapshots(),
        }
    }

    /// All processes stall again and again, at once or one after the other. The first time it is at once: leaders that hang one after the
    /// other on a quiet machine are to be replaced (`failure_detector.I2`).
    fn stall_for(&mut self, ms: u64, (least, less_than): (u64, u64)) -> Checked {
        self.serving_leader(0)?;
        let (before, end) = (self.checks.elections.leaders(), self.clock.now() + ms);
        let mut is_first = true;
        while self.clock.now() < end {
            let stall = least + self.random.below(less_than - least);
            let apart = if std::mem::take(&mut is_first) { 0 } else { self.random.below(2) * stall };
            self.suffer(Fault::StopAll { ms: stall, apart_ms: apart });
            let pause = stall + 2 * apart + self.random.below(STALL_PAUSE_MS);
            self.wait(pause)?;
        }
        let changes = self.checks.elections.leaders() - before;
        self.trace.event(format!("{changes} changes of leader"));
        if changes > STALL_CHANGES_MAX {
            return Err(violation(
                "failure_detector.I1",
                format!("{changes} changes of leader in {ms} ms of stalls"),
            ));
        }
        Ok(())
    }

    fn hang_leaders(&mut self) -> Checked {
        self.hang_the_leader(HUNG_MS_MAX)?;
        self.stall_for(STALLS_MS / 6, SHORT_STALLS_MS)?;
        self.hang_the_leader(HUNG_AFTER_STALLS_MS_MAX)
    }

    /// The leader's process is stopped: another one has to lead within so long.
    fn hang_the_leader(&mut self, ms_max: u64) -> Checked {
        let (leader, term) = self.serving_leader(0)?;
        let hung = self.clock.now();
        self.stop(leader, PATIENCE_MS);
        loop {
            self.step()?;
            let led = self.seen.values().any(|s| s.role == Role::Leader && s.term > term);
            let ms = self.clock.now() - hung;
            if led {
                self.trace.event(format!("a new leader {ms} ms after the old one hung"));
                break;
            }
            if ms > ms_max {
                return Err(violation(
                    "failure_detector.I2",
                    format!("no leader {ms} ms after the old one hung"),
                ));
            }
        }
        self.stop(leader, 0);
        self.wait(STALL_PAUSE_MS)
    }

    /// The leader keeps its majority, and what it acknowledges, however long the disks take.
    fn slow_all_disks(&mut self) -> Checked {
        let (leader, term) = self.serving_leader(0)?;
        for id in self.nodes.keys().copied().collect::<Vec<_>>() {
            self.suffer(Fault::SlowDisk { node: id, delay: SLOW_SYNC, ms: SLOW_DISKS_MS });
        }
        let before = self.checks.oracle.acknowledged;
        for _ in 0..SLOW_DISKS_MS {
            self.step()?;
            let silence = self.seen.get(&leader).map(|status| status.leader_silence.as_millis());
            if silence.is_none_or(|ms| ms > SLOW_SILENCE_MS_MAX) {
                let seen =
                    format!("no majority has answered the leader for {silence:?} ms while disks were slow");
                return Err(violation("heartbeat.I1", seen));
            }
        }
        let same = self.seen.get(&leader).is_some_and(|s| (&s.role, s.term) == (&Role::Leader, term));
        let acknowledged = self.checks.oracle.acknowledged - before;
        if !same || acknowledged < ENOUGH {
            let seen = format!("{acknowledged} messages acknowledged, the same leader: {same}");
            return Err(violation("heartbeat.I1", seen));
        }
        Ok(())
    }

    fn wait(&mut self, ms: u64) -> Checked {
        (0..ms).try_for_each(|_| self.step())
    }

    /// The follower starts where its leader's log does, or not at all (`snapshots.I1`).
    fn rot_all_snapshots(&mut self) -> Checked {
        let dropped = |status: &Status| status.start_position >= SEGMENT_BYTES;
        self.until("retention drops a segment", |world| {
            !world.seen.is_empty() && world.seen.values().all(dropped)
        })?;
        let (leader, _) = self.serving_leader(0)?;
        let ids: Vec<u64> = self.nodes.keys().copied().collect();
        let follower =
            ids.iter().copied().find(|id| *id != leader && !self.outside.contains(id)).unwrap_or_default();
        let struck: usize =
            self.nodes.values().map(|node| Snapshots::Rotten.strike(&node.machine.disk)).sum();
        self.trace.event(format!("{struck} snapshots are rotten, node {follower} loses its disk"));
        self.take_disk(follower);
        self.boot(follower);
        self.until("the follower has the log again", |world| {
            world.seen.get(&follower).is_some_and(|s| s.role == Role::Follower && dropped(s))
        })
    }

    /// Goes on until the world is like that.
    fn until(&mut self, what: &str, holds: impl Fn(&World) -> bool) -> Checked {
        let deadline = self.clock.now() + PATIENCE_MS;
        while self.clock.now() < deadline {
            self.step()?;
            if holds(self) {
                return Ok(());
            }
        }
        Err(violation("heals", format!("not within {PATIENCE_MS} ms: {what}")))
    }

    fn depose_a_leader(&mut self) -> Checked {
        let old = self.serving_leader(0)?;
        self.network.block(self.links_of(old.0));
        let new = self.serving_leader(old.1)?;
        let helper = self.nodes.keys().copied().find(|id| *id != old.0 && *id != new.0).unwrap_or_default();
        self.trace.event(format!("{old:?} deposed by {new:?} with the help of {helper}"));
        self.take_disk(helper);
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
