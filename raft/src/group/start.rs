//! Brings a group up on this node, step by step: the files, what its parts share, the listener for peers, openraft, the tasks around
//! them. The order is [`Group::start_on`]'s.

use std::io;
use std::path::Path;
use std::sync::atomic::{AtomicI64, AtomicU64, Ordering};
use std::sync::{Arc, OnceLock};
use std::time::Duration;

use folio_engine::disk::{Disk, RESERVE_BYTES, Reserve, create_dir};
use openraft::async_runtime::WatchReceiver;
use openraft::{Config, SnapshotPolicy};
use parking_lot::{Mutex, RwLock};
use tokio::sync::{mpsc, watch};
use tokio::task::{AbortHandle, JoinHandle};
use tokio::time::Instant;

use super::closed_connections::ClosedConnections;
use super::detecting;
use super::discovery::Asker;
use super::eligibility::{Eligibility, Reason};
use super::failure_detector::FailureDetector;
use super::founding::Founding;
use super::recover::Recovered;
use super::status_messages::StatusMessages;
use super::tasks::spawn;
use super::{
    Group, Hooks, Inner, StartError, begin, bring_up, disk_space, health, lock_expiry, mend, repair_derived,
    retention, scrub, upgrade, watch as status,
};
use crate::accepting::Accepting;
use crate::config::{Flush, GroupConfig};
use crate::dedup::Dedup;
use crate::driver;
use crate::driver::popped;
use crate::driver::send_back::SendBacks;
use crate::driver::term_fence::TermFence;
use crate::driver::timers::Timers;
use crate::driver::transactions;
use crate::feature_level::GroupLevel;
use crate::host::{Host, UnderWay};
use crate::lease_clock::LeaseClock;
use crate::log_store::LogStore;
use crate::pending_timers;
use crate::port::{PortConfig, RaftPort};
use crate::proposer::Proposer;
use crate::shared::{Durable, Shared};
use crate::skip_entry::SkipEntry;
use crate::snapshots::repair::Repair;
use crate::snapshots::{Stored, starting};
use crate::state_machine::{Raft, StateMachine};
use crate::status::Status;
use crate::terms::Terms;
use crate::transport::introduction::{Identity, Introduction};
use crate::transport::network::Connections;
use crate::transport::peer::{Parts, Peers};

/// Waits between attempts to reach a peer that is down, milliseconds: it is back in the group soon after it is
/// back at all.
const BACKOFF: &str = "50ms 100ms 200ms 200ms 200ms";
/// Ended connections that wait to be looked at; more of them at once tell nothing new.
const CONNECTIONS_ENDED_MAX: usize = 16;
/// Records that one append carries at most; bytes are limited by the reader.
const APPEND_RECORDS_MAX: u64 = 64;

fn raft_config(config: &GroupConfig, may_stand: bool) -> Result<Config, StartError> {
    let ms = |duration: Duration| duration.as_millis() as u64;
    let raft = Config {
        cluster_name: config.group.clone(),
        election_timeout_min: ms(config.timing.election_min),
        election_timeout_max: ms(config.timing.election_max),
        heartbeat_interval: ms(config.timing.heartbeat),
        max_payload_entries: APPEND_RECORDS_MAX,
        // A record is on its way to the followers while this node writes it, not a round of the core later.
        broadcast_submitted_on_append: Some(true),
        snapshot_policy: SnapshotPolicy::Never,
        max_in_snapshot_log_to_keep: 0,
        enable_elect: may_stand,
        enable_pre_vote: Some(true),
        enable_leader_restore: Some(false),
        // A member that lost its disk starts over and does not vote until it has caught up (founding.I2).
        allow_log_reversion: Some(true),
        backoff: BACKOFF.to_owned(),
        ..Config::default()
    };
    raft.validate().map_err(|error| StartError::Raft(error.to_string()))
}

/// Makes the data directory and its reserve, and reads what an operator has laid down there. A full disk does not keep a node from starting: what it has to write is small, or
/// has its space already.
fn prepare(dir: &Path, reserve: &Reserve) -> io::Result<SkipEntry> {
    create_dir(reserve, dir)?;
    match reserve.refill() {
        Ok(true) => {}
        Ok(false) => tracing::warn!("disk full: this node takes no records before there is room"),
        Err(error) => tracing::warn!(%error, "the reserve cannot be made, trying again later"),
    }
    SkipEntry::read(reserve, dir)
}

/// Reads what retries are recognised by, up to the entry `upto`, while the node takes part already.
async fn rebuild_window(host: Host, shared: Arc<Shared>, upto: u64) {
    let (reading, now, wall_ms) = (shared.clone(), Instant::now(), host.now_ms());
    let read = host.blocking(move || {
        if let Some(dedup) = &reading.dedup {
            dedup.rebuild(&reading.log, upto, now, wall_ms);
        }
    });
    if let Err(error) = read.await {
        // A leader waits for the window: without it retries are stored again, but all else goes on.
        tracing::error!(%error, "retries of messages from before the start are not recognised");
        shared.dedup.iter().for_each(Dedup::reset);
    }
    shared.progress.made();
}

/// What is on the disk, read and verified.
struct Opened {
    /// Its disk keeps the reserve back.
    host: Host,
    reserve: Arc<Reserve>,
    skip_entry: SkipEntry,
    recovered: Recovered,
    founding: Founding,
}

impl Opened {
    async fn open(host: Host, config: &GroupConfig) -> Result<Opened, StartError> {
        let data =
            |reason: anyhow::Error| StartError::Data { dir: config.data_dir.display().to_string(), reason };
        let reserve = RESERVE_BYTES.min(config.segment_bytes);
        let reserve = Arc::new(Reserve::new(host.disk.clone(), &config.data_dir, reserve));
        let host = Host { disk: reserve.clone(), ..host };
        let (dir, room) = (config.data_dir.clone(), reserve.clone());
        let prepared = host.blocking(move || prepare(&dir, &room)).await;
        let skip_entry = prepared.and_then(|prepared| prepared).map_err(|error| data(error.into()))?;
        let recovered = starting::open(config, &host).await.map_err(data)?;
        let boot = (config.flush == Flush::Async).then(|| host.system.boot_id());
        let is_empty = recovered.log.state().last.is_none();
        let names = (config.cluster.as_str(), config.group.as_str());
        let founding = Founding::open(host.disk.clone(), &config.data_dir, names, is_empty, boot.as_deref());
        let founding = founding.map_err(|error| data(error.into()))?;
        Ok(Opened { host, reserve, skip_entry, recovered, founding })
    }

    /// What the parts of the group share, and the state machine on it.
    fn share(self, config: GroupConfig, hooks: Arc<dyn Hooks>) -> (Node, StateMachine) {
        let Opened { host, reserve, skip_entry, recovered, founding } = self;
        let Recovered { log, queues, derived, indexes, timers, checkpoints, saved, base, dedup } = recovered;
        let durable = Durable { index: log.state().last.map(|id| id.index), failed: None };
        let applied = base.id.unwrap_or_default();
        let shared = Arc::new(Shared {
            vote_at_start: log.vote(),
            log,
            queues,
            derived,
            indexes,
            timers,
            carry_wanted: AtomicU64::new(0),
            halves_wanted: AtomicU64::new(0),
            popped_wanted: AtomicU64::new(0),
            popped_floor: AtomicU64::new(0),
            heard_commit: AtomicU64::new(0),
            commit_known_at: Mutex::default(),
            retention_bytes: config.retention.bytes,
            lease_clock: LeaseClock::new(saved.state.lease_clock_ms()),
            ordered_as_of: saved.ordered_as_of.unwrap_or(0).into(),
            state_bytes: AtomicI64::new(saved.state.encoded_bytes() as i64),
            level: GroupLevel::new(saved.state.level()),
            state: RwLock::new(saved.state),
            checkpoints,
            durable: watch::Sender::new(durable),
            hooks,
            pending_reset: Mutex::default(),
            trimmed: Mutex::default(),
            wanted_snapshot: Mutex::default(),
            snapshots: Default::default(),
            applied_index: AtomicU64::new(applied.index),
            applied_position: AtomicU64::new(base.position),
            applied_term: AtomicU64::new(applied.term),
            progress: Default::default(),
            terms: Mutex::new(saved.terms.unwrap_or_else(|| Terms::after(base.id))),
            dedup,
            segment_bytes: config.segment_bytes,
            calls: Default::default(),
            rot: Default::default(),
            unmet_preconditions: AtomicU64::new(0),
            skip_entry,
            eligibility: Eligibility::default(),
            status_messages: StatusMessages::new(founding.group_id.clone()),
            detector: FailureDetector::new(config.node_id, config.timing.clone()),
            failed: OnceLock::new(),
            reserve,
            stopping: watch::Sender::new(false),
        });
        pending_timers::note(&shared, &shared.state.read());
        shared.eligibility.set(Reason::CatchingUp, founding.refuses_votes());
        let machine = StateMachine::new(host.clone(), shared.clone(), saved.membership, &base);
        let stored = Stored { host: host.clone(), shared: shared.clone() };
        let introduction = Introduction::new(Identity::of(&config, &shared.level), founding.group_id.clone());
        let connections = Connections::new(introduction, config.dial.clone(), stored);
        let (founding, started) = (Arc::new(founding), Arc::default());
        (Node { config, host, shared, founding, connections, started }, machine)
    }
}

/// A node that is about to take part in its group.
struct Node {
    config: GroupConfig,
    host: Host,
    shared: Arc<Shared>,
    founding: Arc<Founding>,
    connections: Connections,
    /// Set once openraft runs.
    started: Arc<OnceLock<Raft>>,
}

impl Node {
    fn spawn(&self, name: &'static str, task: impl Future<Output = ()> + Send + 'static) -> JoinHandle<()> {
        spawn(&self.shared, name, task)
    }

    /// Takes the peers that call at `port`; their connections that end are told to `ended`.
    fn listen(&self, port: &RaftPort, ended: mpsc::Sender<u64>) -> Result<JoinHandle<()>, StartError> {
        let parts = Parts {
            raft: self.started.clone(),
            host: self.host.clone(),
            shared: self.shared.clone(),
            founding: self.founding.clone(),
            ended,
        };
        let peers = Arc::new(Peers::new(&self.config, parts));
        let refused =
            || format!("the Raft port is not open for group {}, or hosts it already", self.config.group);
        let calls = port.host(&self.config.group, &peers).ok_or_else(|| StartError::Raft(refused()))?;
        Ok(self.spawn("the listener", calls.serve(peers)))
    }

    /// What goes on while openraft reads the log, and behind that: a damaged record that it needs is mended meanwhile.
    fn repair(&self) -> [JoinHandle<()>; 3] {
        let Node { config, host, shared, connections, started, .. } = self;
        let repair = Repair {
            raft: started.clone(),
            config: config.clone(),
            host: host.clone(),
            shared: shared.clone(),
            connections: connections.clone(),
        };
        let upto = shared.applied_index.load(Ordering::Acquire);
        let records = mend::run(started.clone(), config.clone(), shared.clone(), connections.clone());
        [
            self.spawn("the window of repeats", rebuild_window(host.clone(), shared.clone(), upto)),
            self.spawn("the repair of snapshots", repair.run()),
            self.spawn("the repair of records", records),
        ]
    }

    /// Starts openraft, which reads the log.
    async fn start_raft(&self, machine: StateMachine) -> Result<Raft, StartError> {
        let Node { config, shared, .. } = self;
        let raft_config = Arc::new(raft_config(config, shared.eligibility.may_stand())?);
        let store = LogStore::new(self.host.clone(), shared.clone());
        let raft = Raft::new(config.node_id, raft_config, self.connections.clone(), store, machine)
            .await
            .map_err(|error| StartError::Raft(error.to_string()))?;
        let elects = raft.clone();
        shared.eligibility.attach(move |may| elects.runtime_config().elect(may));
        let _ = self.started.set(raft.clone());
        Ok(raft)
    }

    /// The tasks beside openraft that need no handle of the group. `connections_ended` is what the listener tells.
    fn attend(
        &self,
        raft: &Raft,
        connections_ended: mpsc::Receiver<u64>,
        publish: watch::Sender<Status>,
    ) -> [JoinHandle<()>; 8] {
        let Node { config, host, shared, founding, connections, .. } = self;
        let closed = ClosedConnections {
            raft: raft.clone(),
            shared: shared.clone(),
            connections: connections.clone(),
        };
        let retention = retention::run(raft.clone(), host.clone(), shared.clone(), config.retention.clone());
        let asker = Asker {
            raft: raft.clone(),
            shared: shared.clone(),
            founding: founding.clone(),
            connections: connections.clone(),
            config: config.clone(),
        };
        [
            self.spawn("the watch on closed connections", closed.run(connections_ended)),
            self.spawn("the status", status::follow(raft.clone(), shared.clone(), publish)),
            self.spawn("the retention", retention),
            self.spawn("the reserve", disk_space::keep(host.clone(), shared.clone())),
            self.spawn("the repair of what is derived", repair_derived::run(host.clone(), shared.clone())),
            self.spawn("the bringing up of what is derived", bring_up::run(host.clone(), shared.clone())),
            self.spawn("the scrub", scrub::run(host.clone(), shared.clone(), config.scrub.clone())),
            self.spawn("the beginning", begin::run(asker)),
        ]
    }

    /// The handle, with what proposes.
    fn group(
        self,
        raft: Raft,
        status: watch::Receiver<Status>,
        listener: AbortHandle,
        port: Option<Accepting>,
        tasks: Vec<JoinHandle<()>>,
        under_way: Arc<UnderWay>,
    ) -> Group {
        let Node { config, host, shared, founding, connections, .. } = self;
        let fence = TermFence::new(raft.clone(), shared.clone(), status.clone());
        let proposer = Proposer::start(fence.clone(), host.clone(), shared.clone());
        let parts =
            driver::Parts { host: host.clone(), shared: shared.clone(), fence, proposer: proposer.clone() };
        let timers = Timers::start(parts.clone());
        let transactions = transactions::start(parts.clone());
        let popped = popped::start(parts.clone());
        let send_backs = driver::start(SendBacks::new(host.clone(), shared.clone()), parts);
        Group(Arc::new(Inner {
            node_id: config.node_id,
            single_node: config.single_node,
            flush: config.flush,
            host,
            raft,
            shared,
            founding,
            proposer,
            send_backs,
            timers,
            transactions,
            popped,
            proofs: Arc::default(),
            connections,
            status,
            listener,
            port,
            tasks: Mutex::new(tasks),
            under_way,
        }))
    }
}

/// The tasks that watch over the group through its handle, and end with it.
fn watch_over(group: &Group) -> [JoinHandle<()>; 6] {
    let (shared, inner) = (&group.0.shared, || Arc::downgrade(&group.0));
    [
        spawn(shared, "the watch on the disk's speed", health::run(inner())),
        tokio::spawn(health::end_when_failed(inner())),
        spawn(shared, "the watch on the disk's room", disk_space::run(inner())),
        spawn(shared, "the failure detector", detecting::run(inner())),
        spawn(shared, "the expiry of locks", lock_expiry::run(inner())),
        spawn(shared, "the rise of the feature level", upgrade::run(inner())),
    ]
}

impl Group {
    /// Opens the data directory, recovers, listens for peers and takes part in the group.
    ///
    /// Returns as soon as the node takes part; it may not have a leader yet.
    pub async fn start(
        config: GroupConfig,
        disk: Arc<dyn Disk>,
        hooks: Arc<dyn Hooks>,
    ) -> Result<Group, StartError> {
        Group::start_on(Host::new(disk), config, hooks).await
    }

    /// Like [`Group::start`], on a machine that may be simulated.
    pub async fn start_on(
        host: Host,
        config: GroupConfig,
        hooks: Arc<dyn Hooks>,
    ) -> Result<Group, StartError> {
        let (net, address) = (host.net.clone(), config.listen);
        let port = RaftPort::open(&*net, PortConfig::of(&config)).await;
        let port = port.map_err(|source| StartError::Listen { address, source })?;
        let started = Group::start_at(&port, host, config, hooks).await;
        if started.is_err() {
            port.close().await;
        }
        started
    }

    /// Like [`Group::start_on`], with a port that the groups of a node share. The key `listen` of the configuration means
    /// nothing then; its cluster and secret are the port's.
    pub async fn start_at(
        port: &RaftPort,
        host: Host,
        config: GroupConfig,
        hooks: Arc<dyn Hooks>,
    ) -> Result<Group, StartError> {
        let under_way = Arc::new(UnderWay::new(host.system.clone()));
        let host = Host { system: under_way.clone(), ..host };
        let opened = Opened::open(host, &config).await?;
        let (node, machine) = opened.share(config, hooks);

        // Before openraft reads the log: peers repair what it needs, and are helped to what they need.
        let (ended, connections_ended) = mpsc::channel(CONNECTIONS_ENDED_MAX);
        let listening = node.listen(port, ended)?;
        let listener = listening.abort_handle();
        let mut tasks = vec![listening];
        tasks.extend(node.repair());

        let raft = node.start_raft(machine).await?;
        let first = status::status_of(&raft.metrics().borrow_watched(), &node.shared);
        let (publish, status) = watch::channel(first);
        tasks.extend(node.attend(&raft, connections_ended, publish));

        let group = node.group(raft, status, listener, port.of_one_group(), tasks, under_way);
        let watchers = watch_over(&group);
        group.0.tasks.lock().extend(watchers);
        Ok(group)
    }
}
