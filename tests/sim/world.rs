//! One run: nodes, network, clients, faults and checkers, moved on a millisecond at a time.

mod scripts;

use std::collections::{BTreeMap, BTreeSet};

use folio_engine::disk::sim::SeededChoice;
use folio_raft::config::Flush;
use folio_raft::status::{Role, Status};

use crate::change::Change;
use crate::check::moves::Moves;
use crate::check::{Checked, Checks, Violation, violation};
use crate::client::Clients;
use crate::clock::Clock;
use crate::consumers::Consumers;
use crate::delays::{Producers, Told};
use crate::lockers::Lockers;
use crate::net::Network;
use crate::node::{Death, Node, SEGMENT_BYTES, Setup, Tick};
use crate::panics;
use crate::poppers::{self, Poppers};
use crate::script::Script;
use crate::trace::Trace;
use crate::transactions;

/// A process that can do nothing any more is noticed and killed after that long.
const SUPERVISOR_MS: u64 = 300;

/// What a run is made to do besides its seed.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub(crate) struct Plant {
    /// The disks say that they synced, and did not.
    pub(crate) lying_disks: bool,
    /// Acknowledgements come when a majority has it in memory.
    pub(crate) async_flush: bool,
    /// Acknowledgements come when the leader alone has it durably.
    pub(crate) early_answers: bool,
    /// Faults as this story tells them, among three nodes.
    pub(crate) script: Option<Script>,
}

/// The figures of a run that held.
#[derive(Debug, Clone)]
pub(crate) struct Outcome {
    pub(crate) hash: u64,
    pub(crate) simulated_ms: u64,
    pub(crate) acknowledged: u64,
    /// Messages that were moved for consumers.
    pub(crate) moved: u64,
    /// Those of them that waited, and came.
    pub(crate) waited: u64,
    /// Transactions that were committed.
    pub(crate) paid: u64,
    pub(crate) committed: u64,
    /// Terms that had a leader.
    pub(crate) leaders: u64,
    pub(crate) faults: BTreeMap<&'static str, u64>,
}

pub(crate) struct World {
    pub(crate) clock: Clock,
    pub(crate) trace: Trace,
    pub(crate) network: Network,
    pub(crate) nodes: BTreeMap<u64, Node>,
    pub(crate) checks: Checks,
    pub(crate) clients: Clients,
    lockers: Lockers,
    consumers: Consumers,
    producers: Producers,
    tellers: transactions::Producers,
    poppers: Poppers,
    /// What each node that is up said last.
    pub(crate) seen: BTreeMap<u64, Status>,
    pub(crate) setup: Setup,
    plant: Plant,
    pub(crate) random: SeededChoice,
    /// Things to be undone or done at a time, in order.
    agenda: BTreeMap<u64, Vec<Due>>,
    /// Nodes that are no members; down unless one is about to become one.
    pub(crate) outside: BTreeSet<u64>,
    pub(crate) change: Option<Change>,
    /// The one node of this run that may lose what it acknowledged.
    pub(crate) weak: Option<u64>,
    /// Nodes that have a reason to stop: something rotted on their disk since they were started. A full disk is none.
    pub(crate) strained: BTreeSet<u64>,
    failed_since: BTreeMap<u64, u64>,
    said: BTreeMap<u64, (&'static str, u64)>,
    pub(crate) counts: BTreeMap<&'static str, u64>,
}

pub(crate) enum Due {
    Boot(u64),
    Transfer(u64),
    Members,
    Grow,
    RoomyDisk(u64),
    HealPartition,
    UsualDelays,
    UsualDisk(u64),
    Stop { node: u64, ms: u64 },
}

impl World {
    pub(crate) fn new(seed: u64, plant: Plant) -> World {
        let mut random = SeededChoice::new(seed);
        let nodes = if random.below(3) == 0 && plant.script.is_none() { 5 } else { 3 };
        let born = if random.below(4) == 0 && plant.script.is_none() { 1 } else { nodes };
        let retains = random.below(2) == 0 || plant.script == Some(Script::RottenSnapshots);
        let retain = retains.then_some(4 * SEGMENT_BYTES);
        let flush = if plant.async_flush { Flush::Async } else { Flush::Sync };
        let secret = !seed.is_multiple_of(3);
        let setup = Setup { nodes, born, single: born == 1, flush, retain, secret };
        let clock = Clock::default();
        let trace = Trace::new(&clock);
        trace.event(format!("seed {seed}: {setup:?}"));
        let network = Network::new(random.below(u64::MAX), &clock, &trace);
        let clients = Clients::new(random.below(u64::MAX), retain.is_none(), &clock, &network.clients());
        let lockers = Lockers::new(random.below(u64::MAX));
        let consumers = Consumers::new(random.below(u64::MAX));
        let producers = Producers::new(random.below(u64::MAX));
        let tellers = transactions::Producers::new(random.below(u64::MAX));
        let poppers = Poppers::new(random.below(u64::MAX));
        let mut checks = Checks::default();
        checks.committed.count_copies = !plant.lying_disks;
        checks.retained.bytes = setup.retain;
        checks.oracle.popped.expires = setup.retain.is_some();
        let (seen, agenda, failed_since, said, counts) = Default::default();
        let mut world = World {
            nodes: BTreeMap::new(),
            outside: (born + 1..=nodes + 1).collect(),
            change: None,
            weak: None,
            strained: BTreeSet::new(),
            clock,
            trace,
            network,
            checks,
            clients,
            lockers,
            consumers,
            producers,
            tellers,
            poppers,
            seen,
            setup,
            plant,
            random,
            agenda,
            failed_since,
            said,
            counts,
        };
        for id in 1..=nodes + 1 {
            let seed = world.random.below(u64::MAX);
            let node = Node::new(id, seed, &world.network, &world.clock);
            world.nodes.insert(id, node);
            world.boot(id);
        }
        world.later(0, Due::Grow);
        world
    }

    /// A millisecond passes, then everything is looked at.
    pub(crate) fn step(&mut self) -> Checked {
        self.clock.tick();
        self.network.advance();
        while let Some(due) = self.agenda.first_entry().filter(|due| *due.key() <= self.clock.now()) {
            due.remove().into_iter().for_each(|due| self.act(due));
        }
        let sent = self.clients.step(&self.nodes, &self.seen);
        for message in sent.messages {
            self.checks.oracle.sent(message, sent.why);
        }
        self.lockers.step(self.clock.now(), &self.nodes, &self.seen);
        if self.clients.rate > 0 {
            self.consumers.step(&self.nodes, &self.seen, &mut self.checks.oracle);
            self.producers.step(&self.nodes, &self.seen);
            self.tellers.step(&self.nodes, &self.seen);
            self.poppers.step(&self.nodes, &self.seen);
        }
        let clocks = self.nodes.values().map(|node| node.machine.wall.now().as_millis() as u64);
        clocks.for_each(|now_ms| self.checks.oracle.timers.saw(now_ms));
        for (id, node) in &mut self.nodes {
            // Many steps at once: what happened between them was not seen.
            if node.tick() == Tick::Woke {
                self.checks.votes.forget(*id);
            }
        }
        let groups = self.nodes.iter().filter_map(|(id, node)| Some((*id, node.group()?)));
        let mut said: BTreeMap<u64, Status> = groups.map(|(id, group)| (id, group.status())).collect();
        let died = self.bury(&mut said)?;
        self.look(said, !died)
    }

    /// Checks everything against what each node says.
    fn look(&mut self, said: BTreeMap<u64, Status>, all: bool) -> Checked {
        if let Some(panic) = panics::first() {
            return Err(violation("no panic", panic));
        }
        self.seen = said;
        for (id, status) in &self.seen {
            let Some(group) = self.nodes[id].group() else { continue };
            self.checks.look(&group, status)?;
            let says = (status.role.name(), status.term);
            if self.said.insert(*id, says) != Some(says) {
                self.trace.event(format!("node {id}: {} in term {}", says.0, says.1));
            }
            self.trace.note((id, status.term, status.applied, status.durable_position));
        }
        for status in self.seen.values() {
            self.checks.look_at_applied(status)?;
        }
        for (id, status) in &self.seen {
            let Some(group) = self.nodes[id].group() else { continue };
            self.checks.oracle.deleted.look(&group, status)?;
        }
        self.lockers.check(self.clock.now())?;
        if self.plant.early_answers {
            for status in self.seen.values().filter(|status| status.role == Role::Leader) {
                self.checks.acknowledge_early(status)?;
            }
        }
        for answer in self.clients.answers() {
            self.trace.note((&answer.messages, answer.result.is_ok()));
            self.checks.oracle.answered(&answer, all)?;
        }
        for (key, answer) in self.consumers.answers() {
            self.trace.note((&key, answer.is_ok()));
            self.checks.oracle.moves.answered(&key, &answer, all)?;
        }
        for told in self.producers.told() {
            match told {
                Told::Sent(number, stored) => self.checks.oracle.timers.answered(number, stored),
                Told::Recalled(number, answer) => {
                    self.checks.oracle.timers.recall_answered(number, &answer);
                }
            }
        }
        for told in self.tellers.told() {
            match told {
                transactions::Told::Begun(number, id) => self.checks.oracle.transactions.begun(number, id),
                transactions::Told::Ended(id, how) => self.checks.oracle.transactions.ended(id, how),
            }
        }
        for told in self.poppers.told() {
            match told {
                poppers::Told::Sent(number) => self.checks.oracle.popped.sent(number),
                poppers::Told::Acked(number) => self.checks.oracle.popped.told_acked(number),
            }
        }
        self.seen.values().try_for_each(Moves::look)
    }

    /// Ends processes whose power was cut by their disk, or which cannot go on, and takes them out of `said`; true if there was
    /// one.
    fn bury(&mut self, said: &mut BTreeMap<u64, Status>) -> Result<bool, Violation> {
        let mut died = false;
        let ids: Vec<u64> = self.nodes.keys().copied().collect();
        for id in ids {
            let node = &self.nodes[&id];
            if node.is_up() && node.machine.disk.is_off() {
                self.trace.event(format!("node {id}: power cut at operation {}", node.machine.disk.ops()));
                self.end(id, Death::PowerCut);
                (died, _) = (true, said.remove(&id));
                let down_ms = self.random.below(1500);
                self.later(down_ms, Due::Boot(id));
                continue;
            }
            let Some(reason) = node.failure(said.get(&id)) else {
                self.failed_since.remove(&id);
                continue;
            };
            let strained = self.plant.lying_disks || self.strained.contains(&id);
            if node.machine.disk.faults_struck() == 0 && !strained {
                let seen = format!("node {id}, whose disk is whole: {reason}");
                return Err(violation("stops for its disk only", seen));
            }
            let now = self.clock.now();
            let since = *self.failed_since.entry(id).or_insert_with(|| {
                self.trace.event(format!("node {id} failed: {reason}"));
                now
            });
            if now >= since + SUPERVISOR_MS {
                self.failed_since.remove(&id);
                self.end(id, Death::Kill);
                (died, _) = (true, said.remove(&id));
                self.later(200, Due::Boot(id));
            }
        }
        Ok(died)
    }

    pub(crate) fn boot(&mut self, id: u64) {
        if self.outside.contains(&id) && !self.change.is_some_and(|change| change.joins(id)) {
            return;
        }
        if let Some(node) = self.nodes.get_mut(&id).filter(|node| !node.is_up()) {
            if self.plant.lying_disks {
                node.machine.disk.lie_about_syncs();
            }
            // What rotted is kept before it is cut off, which takes room.
            if node.machine.disk.capacity().is_none() {
                self.strained.remove(&id);
            }
            node.boot(&self.setup);
            self.trace.event(format!("node {id}: started"));
        }
    }

    pub(crate) fn end(&mut self, id: u64, death: Death) {
        if let Some(node) = self.nodes.get_mut(&id) {
            node.die(death, &mut self.random);
            self.seen.remove(&id);
            self.checks.died(id, self.weak == Some(id));
            self.said.remove(&id);
        }
    }

    pub(crate) fn later(&mut self, ms: u64, due: Due) {
        self.agenda.entry(self.clock.now() + ms + 1).or_default().push(due);
    }

    fn act(&mut self, due: Due) {
        match due {
            Due::Boot(id) => self.boot(id),
            Due::Transfer(to) => self.transfer(Some(to)),
            Due::Members => self.go_on_with_change(),
            Due::Grow => self.grow(),
            Due::RoomyDisk(id) => self.nodes[&id].machine.disk.set_capacity(None),
            Due::HealPartition => {
                self.trace.event("links open");
                self.network.unblock_all();
            }
            Due::UsualDelays => self.network.usual_delays(),
            Due::UsualDisk(id) => self.nodes[&id].machine.pace.set(None),
            Due::Stop { node, ms } => self.stop(node, ms),
        }
    }

    /// Nothing goes wrong any more; whoever is down is started.
    pub(crate) fn calm(&mut self) {
        self.trace.event("the faults end");
        self.agenda.clear();
        // A change of the members comes to its end.
        self.later(0, Due::Members);
        self.network.unblock_all();
        self.network.usual_delays();
        let ids: Vec<u64> = self.nodes.keys().copied().collect();
        for id in ids {
            if let Some(node) = self.nodes.get_mut(&id) {
                node.machine.pace.set(None);
                node.machine.wall.set_skew(0);
                node.stopped_until = 0;
                node.machine.disk.forget_faults();
                node.machine.disk.set_capacity(None);
            }
            self.boot(id);
        }
    }
}
