//! Brings a group up on this node: files, openraft, peers, the tasks around them.

use std::io;
use std::path::Path;
use std::sync::atomic::{AtomicI64, AtomicU64, AtomicUsize};
use std::sync::{Arc, OnceLock};
use std::time::Duration;

use folio_engine::disk::{Disk, RESERVE_BYTES, Reserve, create_dir};
use openraft::async_runtime::WatchReceiver;
use openraft::{Config, SnapshotPolicy};
use parking_lot::{Mutex, RwLock};
use tokio::sync::{mpsc, watch};
use tokio::time::Instant;

use super::census::Asker;
use super::detecting;
use super::failure_detector::FailureDetector;
use super::founding::Founding;
use super::notices::Notices;
use super::standing::{Reason, Standing};
use super::tasks::spawn;
use super::vigil::Vigil;
use super::{
    Group, Hooks, Inner, StartError, begin, health, lock_expiry, mend, mend_units, retention, room, scrub,
    upgrade, watch as status,
};
use crate::config::{Flush, GroupConfig};
use crate::dedup::Dedup;
use crate::driver;
use crate::driver::send_back::SendBacks;
use crate::driver::term_fence::TermFence;
use crate::driver::timers::Timers;
use crate::feature_level::GroupLevel;
use crate::host::Host;
use crate::lease_clock::LeaseClock;
use crate::log_store::LogStore;
use crate::pending_timers;
use crate::proposer::Proposer;
use crate::shared::{Durable, Shared};
use crate::skip_entry::SkipEntry;
use crate::snapshots::repair::Repair;
use crate::snapshots::{Stored, starting};
use crate::state_machine::{Raft, StateMachine};
use crate::terms::Terms;
use crate::transport::handshake;
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
        handshake::warn_if_open(&config);
        let listening = host.net.listen(config.listen).await;
        let listener = listening.map_err(|source| StartError::Listen { address: config.listen, source })?;
        let data =
            |reason: anyhow::Error| StartError::Data { dir: config.data_dir.display().to_string(), reason };
        let reserve = RESERVE_BYTES.min(config.segment_bytes);
        let reserve = Arc::new(Reserve::new(host.disk.clone(), &config.data_dir, reserve));
        let host = Host { disk: reserve.clone(), ..host };
        let (dir, room) = (config.data_dir.clone(), reserve.clone());
        let prepared = host.blocking(move || prepare(&dir, &room)).await;
        let skip_entry = prepared.and_then(|prepared| prepared).map_err(|error| data(error.into()))?;
        let recovered = starting::open(&config, &host).await.map_err(data)?;
        let log = recovered.log.state();
        let boot = (config.flush == Flush::Async).then(|| host.system.boot_id());
        let empty = log.last.is_none();
        let names = (config.cluster.as_str(), config.group.as_str());
        let founding = Founding::open(host.disk.clone(), &config.data_dir, names, empty, boot.as_deref());
        let founding = Arc::new(founding.map_err(|error| data(error.into()))?);
        let durable = Durable { index: log.last.map(|id| id.index), failed: None };
        let shared = Arc::new(Shared {
            log: recovered.log,
            queues: recovered.queues,
            timers: recovered.timers,
            carry_wanted: AtomicU64::new(0),
            lease_clock: LeaseClock::new(recovered.saved.state.lease_clock_ms()),
            ordered_as_of: recovered.saved.ordered_as_of.unwrap_or(0).into(),
            state_bytes: AtomicI64::new(recovered.saved.state.encoded_bytes() as i64),
            level: GroupLevel::new(recovered.saved.state.level()),
            state: RwLock::new(recovered.saved.state),
            checkpoints: recovered.checkpoints,
            durable: watch::Sender::new(durable),
            hooks,
            pending_reset: Mutex::default(),
            trimmed: Mutex::default(),
            wanted_snapshot: Mutex::default(),
            snapshots: Default::default(),
            applied_index: AtomicU64::new(recovered.base.id.map_or(0, |id| id.index)),
            applied_position: AtomicU64::new(recovered.base.position),
            applied_term: AtomicU64::new(recovered.base.id.map_or(0, |id| id.term)),
            terms: Mutex::new(recovered.saved.terms.unwrap_or_else(|| Terms::after(recovered.base.id))),
            dedup: recovered.dedup,
            segment_bytes: config.segment_bytes,
            calls: AtomicUsize::new(0),
            rot: Default::default(),
            unmet_preconditions: AtomicU64::new(0),
            skip_entry,
            standing: Standing::default(),
            notices: Notices::new(founding.group_id.clone()),
            detector: FailureDetector::new(config.node_id, config.timing.clone()),
            failed: OnceLock::new(),
            reserve,
            stopping: watch::Sender::new(false),
        });
        pending_timers::note(&shared, &shared.state.read());
        shared.standing.set(Reason::CatchingUp, founding.refuses_votes());
        let machine =
            StateMachine::new(host.clone(), shared.clone(), recovered.saved.membership, &recovered.base);
        let upto = recovered.base.id.map_or(0, |id| id.index);
        let stored = Stored { host: host.clone(), shared: shared.clone() };
        let introduction = Introduction::new(Identity::of(&config, &shared.level), founding.group_id.clone());
        let connections = Connections::new(introduction, config.dial.clone(), stored);
        let started = Arc::new(OnceLock::new());
        let (ended, connections_ended) = mpsc::channel(CONNECTIONS_ENDED_MAX);
        let parts = Parts {
            raft: started.clone(),
            host: host.clone(),
            shared: shared.clone(),
            founding: founding.clone(),
            ended,
        };
        let peers = Peers::new(&config, parts);
        let repair = Repair {
            raft: started.clone(),
            config: config.clone(),
            host: host.clone(),
            shared: shared.clone(),
            connections: connections.clone(),
        };
        // Before openraft reads the log: a damaged record it needs is mended meanwhile, here and on the peers.
        let listening = spawn(&shared, "the listener", Arc::new(peers).listen(listener));
        let listener = listening.abort_handle();
        let mut tasks = vec![
            listening,
            spawn(&shared, "the window of repeats", rebuild_window(host.clone(), shared.clone(), upto)),
            spawn(&shared, "the repair of snapshots", repair.run()),
            spawn(
                &shared,
                "the repair of records",
                mend::run(started.clone(), config.clone(), shared.clone(), connections.clone()),
            ),
        ];
        let raft_config = Arc::new(raft_config(&config, shared.standing.may_stand())?);
        let store = LogStore::new(host.clone(), shared.clone());
        let raft = Raft::new(config.node_id, raft_config, connections.clone(), store, machine)
            .await
            .map_err(|error| StartError::Raft(error.to_string()))?;
        let elects = raft.clone();
        shared.standing.attach(move |may| elects.runtime_config().elect(may));
        let _ = started.set(raft.clone());

        let first = status::status_of(&raft.metrics().borrow_watched(), &shared);
        let (publish, status) = watch::channel(first);
        let vigil = Vigil { raft: raft.clone(), shared: shared.clone(), connections: connections.clone() };
        tasks.extend([
            spawn(&shared, "the vigil", vigil.run(connections_ended)),
            spawn(&shared, "the status", status::follow(raft.clone(), shared.clone(), publish)),
            spawn(
                &shared,
                "the retention",
                retention::run(raft.clone(), host.clone(), shared.clone(), config.retention.clone()),
            ),
            spawn(&shared, "the reserve", room::keep(host.clone(), shared.clone())),
            spawn(&shared, "the repair of queues", mend_units::run(host.clone(), shared.clone())),
            spawn(&shared, "the scrub", scrub::run(host.clone(), shared.clone(), config.scrub.clone())),
            spawn(
                &shared,
                "the beginning",
                begin::run(Asker {
                    raft: raft.clone(),
                    shared: shared.clone(),
                    founding: founding.clone(),
                    connections: connections.clone(),
                    config: config.clone(),
                }),
            ),
        ]);
        let fence = TermFence::new(raft.clone(), shared.clone(), status.clone());
        let proposer = Proposer::start(fence.clone(), host.clone(), shared.clone());
        let parts =
            driver::Parts { host: host.clone(), shared: shared.clone(), fence, proposer: proposer.clone() };
        let timers = Timers::start(parts.clone());
        let send_backs = driver::start(SendBacks::new(shared.clone()), parts);
        let inner = Inner {
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
            proofs: Arc::default(),
            connections,
            status,
            listener,
            tasks: Mutex::new(tasks),
        };
        let group = Group(Arc::new(inner));
        let (of, inner) = (&group.0.shared, || Arc::downgrade(&group.0));
        let watchers = [
            spawn(of, "the watch on the disk's speed", health::run(inner())),
            tokio::spawn(health::end_when_failed(inner())),
            spawn(of, "the watch on the disk's room", room::run(inner())),
            spawn(of, "the failure detector", detecting::run(inner())),
            spawn(of, "the expiry of locks", lock_expiry::run(inner())),
            spawn(of, "the rise of the feature level", upgrade::run(inner())),
        ];
        group.0.tasks.lock().extend(watchers);
        Ok(group)
    }
}
