//! One node: a machine, and the process on it while there is one.
//!
//! A process is a tokio runtime with one thread and paused time. Dropping it is the death of the process: every task
//! goes, wherever it was.

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use folio_engine::disk::sim::SeededChoice;
use folio_engine::queues::Arrival;
use folio_raft::config::{DedupConfig, Flush, GroupConfig, Retention, Scrub, Timing};
use folio_raft::group::{Group, Hooks};
use folio_raft::proposal::{Known, Question};
use folio_raft::secret::ClusterSecret;
use folio_raft::status::{Role, Status};
use folio_raft::types::NodeAddress;
use parking_lot::Mutex;
use tokio::runtime::{Builder, Runtime};
use tokio::time::Instant;

use crate::clock::Clock;
use crate::machine::Machine;
use crate::net::Network;

/// What all nodes of a run have, in the runs with a secret.
const SECRET: &[u8] = b"the simulated nodes have it in common";
/// Small, so that a run rolls, drops and recovers many.
pub(crate) const SEGMENT_BYTES: u64 = 16 << 10;

/// How the processes of a run are started.
#[derive(Debug, Clone)]
pub(crate) struct Setup {
    /// Members that the group is to have.
    pub(crate) nodes: u64,
    /// Members that it was born with: the first ones, and what the configurations list for ever.
    pub(crate) born: u64,
    /// Node 1 has yet to be told that it is not to stay alone.
    pub(crate) single: bool,
    pub(crate) flush: Flush,
    /// Bytes of the log that are kept; `None` keeps all.
    pub(crate) retain: Option<u64>,
    /// Whether peers ask each other for a proof.
    pub(crate) secret: bool,
}

impl Setup {
    pub(crate) fn address(node: u64) -> NodeAddress {
        NodeAddress { raft: format!("10.0.0.{node}:{node}"), ..NodeAddress::default() }
    }

    fn config(&self, node: u64, join: bool) -> GroupConfig {
        let listed = (1..=self.born).chain([node]);
        let nodes: BTreeMap<u64, NodeAddress> = listed.map(|id| (id, Setup::address(id))).collect();
        let listen: SocketAddr = ([10, 0, 0, node as u8], node as u16).into();
        GroupConfig {
            node_id: node,
            cluster: "sim".into(),
            group: "g".into(),
            data_dir: "/data".into(),
            segment_bytes: SEGMENT_BYTES,
            nodes,
            dial: BTreeMap::new(),
            join,
            single_node: self.single && node == 1,
            listen,
            flush: self.flush,
            timing: Timing::default(),
            retention: Retention { age: None, bytes: self.retain, interval: Duration::from_millis(700) },
            secret: self.secret.then(|| ClusterSecret::parse(SECRET).expect("it is long enough")),
            // A pass over all snapshots, whose number grows with the log, and the log fits what a run has to heal in.
            scrub: Scrub { bytes_per_second: 4 << 20, interval: Duration::from_secs(2) },
            // Wall clocks jump by hours here, which is to forget nothing.
            dedup: Some(DedupConfig { keys: 40_000, age: Duration::MAX, ..DedupConfig::default() }),
        }
    }
}

/// The rest of a server: what it knows of its clients' connections, and nothing else.
struct Server {
    network: Network,
    clock: Clock,
}

impl Hooks for Server {
    fn call(&self, _: u64, request: Bytes) -> std::pin::Pin<Box<dyn Future<Output = Bytes> + Send>> {
        Box::pin(std::future::ready(request))
    }
    fn knows(&self, question: Question) -> Known {
        let knows = self.network.clients().knows(&question, self.clock.now());
        if question.same_connection {
            return Known::Now(knows);
        }
        // As long as another node takes to answer.
        Known::Later(Box::pin(async move {
            tokio::time::sleep(Duration::from_millis(2)).await;
            knows
        }))
    }
    fn applied(&self, _: &[Arrival]) {}
    fn state_changed(&self) {}
}

/// A process.
struct Process {
    runtime: Runtime,
    started: Arc<Mutex<Option<Result<Group, String>>>>,
    /// Time it was stopped and has yet to notice.
    missed: Duration,
}

/// What a millisecond was for a node.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Tick {
    Usual,
    /// All the time since it was stopped went by.
    Woke,
}

/// How a process ends.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Death {
    /// kill -9: the kernel keeps what was written.
    Kill,
    /// Power off: what was not synced is kept, lost or torn, by choice.
    PowerCut,
}

/// One node.
pub(crate) struct Node {
    pub(crate) id: u64,
    pub(crate) machine: Machine,
    process: Option<Process>,
    /// Not scheduled until then.
    pub(crate) stopped_until: u64,
    /// Its processes are started to join the group, not to found it.
    pub(crate) joins: bool,
    network: Network,
    clock: Clock,
}

impl Node {
    pub(crate) fn new(id: u64, seed: u64, network: &Network, clock: &Clock) -> Node {
        let machine = Machine::new(seed, clock);
        let (network, clock) = (network.clone(), clock.clone());
        Node { id, machine, process: None, stopped_until: 0, joins: false, network, clock }
    }

    pub(crate) fn is_up(&self) -> bool {
        self.process.is_some()
    }

    /// The group, once the process has it.
    pub(crate) fn group(&self) -> Option<Group> {
        self.process.as_ref()?.started.lock().as_ref()?.as_ref().ok().cloned()
    }

    /// Why the process can do nothing any more; `status` is what its group says.
    pub(crate) fn failure(&self, status: Option<&Status>) -> Option<String> {
        let started = self.process.as_ref()?.started.lock();
        match started.as_ref()? {
            Err(reason) => Some(format!("it did not start: {reason}")),
            Ok(group) => match status.map(|status| &status.role) {
                Some(Role::Stopped(reason)) => Some(reason.clone()),
                _ => group.log().state().poisoned,
            },
        }
    }

    /// The process's own time.
    pub(crate) fn now(&self) -> Instant {
        let _in_the_process = self.process.as_ref().map(|process| process.runtime.enter());
        Instant::now()
    }

    /// Runs a task in the process.
    pub(crate) fn spawn(&self, task: impl Future<Output = ()> + Send + 'static) {
        if let Some(process) = &self.process {
            process.runtime.spawn(task);
        }
    }

    pub(crate) fn boot(&mut self, setup: &Setup) {
        self.network.lit(self.id);
        self.machine.boots += 1;
        let runtime = Builder::new_current_thread().enable_time().start_paused(true).build();
        let runtime = runtime.expect("a runtime");
        let started: Arc<Mutex<Option<Result<Group, String>>>> = Arc::default();
        let (host, config) = (self.machine.host(&self.network, self.id), setup.config(self.id, self.joins));
        let slot = started.clone();
        let server = Arc::new(Server { network: self.network.clone(), clock: self.clock.clone() });
        runtime.spawn(async move {
            let group = Group::start_on(host, config, server).await;
            *slot.lock() = Some(group.map_err(|error| error.to_string()));
        });
        self.process = Some(Process { runtime, started, missed: Duration::ZERO });
    }

    /// Lets a millisecond pass.
    pub(crate) fn tick(&mut self) -> Tick {
        let stopped = self.stopped_until > self.clock.now();
        let Some(process) = &mut self.process else { return Tick::Usual };
        let millisecond = Duration::from_millis(1);
        if stopped {
            process.missed += millisecond;
            return Tick::Usual;
        }
        let missed = std::mem::take(&mut process.missed);
        process.runtime.block_on(async {
            if !missed.is_zero() {
                tokio::time::advance(missed).await;
            }
            tokio::time::sleep(millisecond).await;
        });
        if missed.is_zero() { Tick::Usual } else { Tick::Woke }
    }

    /// Ends the process, if there is one, and leaves the disk as that way of dying leaves it.
    pub(crate) fn die(&mut self, death: Death, choice: &mut SeededChoice) {
        let Some(process) = self.process.take() else { return };
        self.network.clients().died(self.id);
        let left = match death {
            Death::Kill => self.machine.disk.kill(),
            Death::PowerCut => self.machine.disk.crash(choice),
        };
        match death {
            Death::Kill => self.network.killed(self.id),
            Death::PowerCut => self.network.darkened(self.id),
        }
        // What the dying process still writes goes to a disk that nobody will read.
        let old = std::mem::replace(&mut self.machine.disk, left);
        old.cut_power_at(old.ops());
        self.stopped_until = 0;
        process.started.lock().take();
        drop(process);
    }

    /// The machine's disk is replaced by an empty one.
    pub(crate) fn lose_disk(&mut self) {
        self.machine.replace_disk();
    }
}

/// One of the nodes that say that they lead; several may.
pub(crate) fn a_leader<'a>(
    random: &mut SeededChoice,
    nodes: &'a BTreeMap<u64, Node>,
    seen: &BTreeMap<u64, Status>,
) -> Option<&'a Node> {
    let leaders: Vec<u64> =
        seen.values().filter(|status| status.role == Role::Leader).map(|status| status.node_id).collect();
    if leaders.is_empty() {
        return None;
    }
    nodes.get(&leaders[random.below(leaders.len() as u64) as usize])
}
