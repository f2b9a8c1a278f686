//! Nodes in one process, on real sockets and real files.

use std::collections::BTreeMap;
use std::net::{SocketAddr, TcpListener};
use std::sync::Arc;
use std::sync::atomic::{AtomicU16, Ordering};
use std::time::{Duration, Instant};

use bytes::{Bytes, BytesMut};
use folio_engine::disk::RealDisk;
use folio_engine::queues::{Arrival, Unit};
use folio_protocol::message::NewMessage;
use folio_protocol::properties::{self, UNIQUE_KEY};
use folio_raft::config::{DedupConfig, Flush, GroupConfig, Retention, Scrub, Timing};
use folio_raft::group::{Group, Hooks};
use folio_raft::proposal::{Proposal, ProposeError, Receipt, Repeat};
use folio_raft::secret::ClusterSecret;
use folio_raft::status::Role;
use folio_raft::types::NodeAddress;
use folio_state::{Command, FEATURE_LEVEL};
use openraft::base::BoxFuture;
use tempfile::TempDir;

pub(crate) const SEGMENT_BYTES: u64 = 64 << 10;
/// Nothing a test waits for takes longer, on however busy a machine.
pub(crate) const PATIENCE: Duration = Duration::from_secs(60);

/// Answers a call with who called and what was said.
pub(crate) struct Echo;

impl Hooks for Echo {
    fn call(&self, from: u64, request: Bytes) -> BoxFuture<'static, Bytes> {
        Box::pin(async move { [&from.to_le_bytes()[..], &request].concat().into() })
    }
    fn applied(&self, _: &[Arrival]) {}
    fn state_changed(&self) {}
}

/// Hooks of a node that serves nobody.
pub(crate) struct NoHooks;

impl Hooks for NoHooks {
    fn call(&self, _: u64, request: Bytes) -> BoxFuture<'static, Bytes> {
        Box::pin(std::future::ready(request))
    }
    fn applied(&self, _: &[Arrival]) {}
    fn state_changed(&self) {}
}

/// Nodes by id, each with its folder.
pub(crate) struct Cluster {
    pub(crate) dirs: BTreeMap<u64, TempDir>,
    pub(crate) nodes: BTreeMap<u64, NodeAddress>,
    pub(crate) groups: BTreeMap<u64, Group>,
    /// What each node has of the cluster's secret.
    pub(crate) secrets: BTreeMap<u64, ClusterSecret>,
    pub(crate) retention: Retention,
    pub(crate) timing: Timing,
}

/// A port nothing listens on, below those the system gives to outgoing connections: one of these could be taken while its
/// node is down.
fn free_port() -> u16 {
    static NEXT: AtomicU16 = AtomicU16::new(0);
    let first = 26_000 + (std::process::id() % 400) as u16 * 10;
    loop {
        let port = first + NEXT.fetch_add(1, Ordering::Relaxed) % 2_000;
        if TcpListener::bind(("127.0.0.1", port)).is_ok() {
            return port;
        }
    }
}

/// For stories that need one leader throughout: no machine is so busy that another one stands for election. One that dies
/// or hands over is still replaced at once.
pub(crate) fn steady() -> Timing {
    Timing {
        election_min: Duration::from_secs(11),
        election_max: Duration::from_secs(12),
        heartbeat: Duration::from_millis(100),
    }
}

/// For stories in which a leader is replaced before its lease has run out: that would take longer than a test waits.
pub(crate) fn endless_lease() -> Timing {
    Timing { election_min: 10 * PATIENCE, election_max: 11 * PATIENCE, ..steady() }
}

pub(crate) fn address() -> NodeAddress {
    NodeAddress { raft: format!("127.0.0.1:{}", free_port()), broker: String::new(), namesrv: String::new() }
}

impl Cluster {
    pub(crate) async fn start(
        ids: impl IntoIterator<Item = u64>,
        retention: Retention,
        timing: Timing,
    ) -> Cluster {
        Cluster::start_with(None, ids, retention, timing).await
    }

    /// The same with a secret that all nodes have.
    pub(crate) async fn start_with(
        secret: Option<&ClusterSecret>,
        ids: impl IntoIterator<Item = u64>,
        retention: Retention,
        timing: Timing,
    ) -> Cluster {
        let filter = tracing_subscriber::EnvFilter::try_from_env("FOLIO_LOG").unwrap_or_default();
        let _ = tracing_subscriber::fmt().with_env_filter(filter).with_test_writer().try_init();
        let nodes: BTreeMap<u64, NodeAddress> = ids.into_iter().map(|id| (id, address())).collect();
        let dirs = nodes.keys().map(|id| (*id, TempDir::new().unwrap())).collect();
        let secrets = nodes.keys().flat_map(|id| secret.map(|secret| (*id, secret.clone()))).collect();
        let groups = BTreeMap::new();
        let mut cluster = Cluster { dirs, nodes: nodes.clone(), groups, secrets, retention, timing };
        for id in nodes.keys() {
            cluster.boot(*id, false).await;
        }
        cluster
    }

    pub(crate) async fn boot(&mut self, id: u64, join: bool) {
        self.boot_with(id, join, Arc::new(Echo)).await;
    }

    pub(crate) async fn boot_with(&mut self, id: u64, join: bool, hooks: Arc<dyn Hooks>) {
        let config = self.config(id, join);
        let group = Group::start(config, Arc::new(RealDisk), hooks).await.unwrap();
        self.groups.insert(id, group);
    }

    pub(crate) fn config(&self, id: u64, join: bool) -> GroupConfig {
        let listen: SocketAddr = self.nodes[&id].raft.parse().unwrap();
        GroupConfig {
            node_id: id,
            cluster: "c".into(),
            group: "g".into(),
            data_dir: self.dirs[&id].path().to_owned(),
            segment_bytes: SEGMENT_BYTES,
            nodes: self.nodes.clone(),
            dial: BTreeMap::new(),
            join,
            single_node: !join && self.nodes.len() == 1,
            listen,
            flush: Flush::Sync,
            timing: self.timing.clone(),
            retention: self.retention.clone(),
            secret: self.secrets.get(&id).cloned(),
            scrub: Scrub { bytes_per_second: 64 << 20, interval: Duration::from_millis(500) },
            dedup: Some(DedupConfig::default()),
        }
    }

    pub(crate) async fn stop(&mut self, id: u64) {
        self.groups.remove(&id).unwrap().shutdown().await;
    }

    pub(crate) async fn leader(&self) -> Group {
        let deadline = Instant::now() + PATIENCE;
        loop {
            // Openraft says it first, and the group takes nothing before it has heard of it.
            let takes = |group: &Group| group.watch().borrow().role == Role::Leader;
            let leads = |group: &&Group| group.status().role == Role::Leader && takes(group);
            if let Some(leader) = self.groups.values().find(leads) {
                return leader.clone();
            }
            assert!(
                Instant::now() < deadline,
                "no leader: {:?}",
                self.groups.values().map(Group::status).collect::<Vec<_>>()
            );
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    }

    pub(crate) async fn send_all(&self, range: std::ops::Range<u64>) -> Vec<Receipt> {
        let mut receipts = Vec::new();
        for number in range {
            receipts.push(self.send_one(number).await);
        }
        receipts
    }

    /// Sends until it is acknowledged. A refusal is safe to repeat; what may be stored is sent again under its key.
    pub(crate) async fn send_one(&self, number: u64) -> Receipt {
        let (deadline, mut repeat) = (Instant::now() + PATIENCE, Repeat::Store);
        loop {
            let mut properties = BytesMut::new();
            properties::append(&mut properties, UNIQUE_KEY, &number.to_string());
            let message = NewMessage { properties: properties.freeze(), ..numbered(number) };
            match propose(&self.leader().await, message, repeat).await {
                Ok(receipt) => return receipt,
                Err(error) => {
                    assert!(Instant::now() < deadline, "message {number}: {error}");
                    if let ProposeError::Unknown(_) = error {
                        repeat = Repeat::Same;
                    }
                }
            }
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    }

    /// Has whoever leads execute a command that may be executed twice. A leader whose disk is slower than the others' for
    /// seconds hands over, whatever the timing.
    pub(crate) async fn execute(&self, command: impl Into<Command>) {
        let command = command.into();
        let deadline = Instant::now() + PATIENCE;
        while let Err(error) = self.leader().await.execute(command.clone()).await {
            assert!(Instant::now() < deadline, "not executed: {error}");
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    }

    /// Has this node lead, and waits until it has applied what its predecessors left. On a busy machine a transfer takes longer
    /// than a leader waits for it, and another node may have come to lead meanwhile.
    pub(crate) async fn lead(&self, id: u64) {
        let deadline = Instant::now() + PATIENCE;
        loop {
            let leader = self.leader().await;
            if leader.node_id() == id && leader.settle(PATIENCE).await {
                return;
            }
            let moved = leader.transfer_leadership(Some(id)).await;
            assert!(Instant::now() < deadline, "node {id} does not lead: {moved:?}");
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    }

    /// The leader, once it has proved that it leads and has applied all that was acknowledged.
    pub(crate) async fn confirmed(&self) -> Group {
        let deadline = Instant::now() + PATIENCE;
        loop {
            let leader = self.leader().await;
            match leader.confirm().await {
                Ok(()) => return leader,
                Err(error) => assert!(Instant::now() < deadline, "node {}: {error}", leader.node_id()),
            }
        }
    }

    /// Waits until every node uses all that this build supports.
    pub(crate) async fn reach_level(&self) {
        let deadline = Instant::now() + PATIENCE;
        while self.groups.values().any(|group| group.status().feature_level < FEATURE_LEVEL) {
            assert!(Instant::now() < deadline, "the feature level stays");
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    }

    /// Puts node `new` in the place of `old`, whoever leads.
    pub(crate) async fn replace(&self, old: u64, new: u64) {
        let deadline = Instant::now() + PATIENCE;
        loop {
            let leader = self.leader().await;
            let replaced = leader.replace_member(old, new, self.nodes[&new].clone());
            match tokio::time::timeout(PATIENCE, replaced).await.expect("in time") {
                Ok(()) => return,
                Err(error) => assert!(Instant::now() < deadline, "{old} not replaced by {new}: {error}"),
            }
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    }

    /// Waits until every node has applied what the leader has, and compares their log files byte for byte.
    pub(crate) async fn assert_identical(&self) {
        let target = self.leader().await.status();
        let deadline = Instant::now() + PATIENCE;
        for group in self.groups.values() {
            while group.status().applied_position < target.applied_position {
                assert!(Instant::now() < deadline, "behind {target:?}: {:?}", group.status());
                tokio::time::sleep(Duration::from_millis(20)).await;
            }
        }
        let logs: Vec<BTreeMap<String, Vec<u8>>> =
            self.groups.keys().map(|id| log_bytes(self.dirs[id].path(), target.applied_position)).collect();
        for log in &logs[1..] {
            let common: Vec<&String> = log.keys().filter(|name| logs[0].contains_key(*name)).collect();
            assert!(!common.is_empty(), "no segment in common: {:?}, {:?}", logs[0].keys(), log.keys());
            for name in common {
                assert!(logs[0][name] == log[name], "segment {name} differs");
            }
        }
    }
}

/// The segments of the log at `dir` up to the position `upto`, by name. A segment that retention removes meanwhile is left out.
pub(crate) fn log_bytes(dir: &std::path::Path, upto: u64) -> BTreeMap<String, Vec<u8>> {
    let mut files = BTreeMap::new();
    for entry in std::fs::read_dir(dir.join("commitlog")).unwrap() {
        let path = entry.unwrap().path();
        let name = path.file_name().unwrap().to_string_lossy().into_owned();
        let Ok(start) = name.parse::<u64>() else { continue };
        if start < upto {
            let Ok(mut bytes) = std::fs::read(&path) else {
                assert!(!path.exists(), "{name} is there and cannot be read");
                continue;
            };
            // A removed file loses its name before its blocks, so what still has its name was read whole.
            if !path.exists() {
                continue;
            }
            bytes.truncate((upto - start).min(SEGMENT_BYTES) as usize);
            files.insert(name, bytes);
        }
    }
    files
}

/// A message of the topic `orders`, without properties.
pub(crate) fn message(queue_id: u32, body: impl Into<Bytes>) -> NewMessage {
    let local: SocketAddr = ([127, 0, 0, 1], 1).into();
    NewMessage {
        topic: "orders".into(),
        queue_id,
        flag: 0,
        sys_flag: 0,
        born_timestamp: 0,
        born_host: local,
        store_timestamp: 0,
        store_host: local,
        reconsume_times: 0,
        prepared_transaction_offset: 0,
        body: body.into(),
        properties: Bytes::new(),
    }
}

fn numbered(number: u64) -> NewMessage {
    message((number % 4) as u32, format!("message {number} {}", "x".repeat(500)))
}

pub(crate) async fn send(group: &Group, number: u64) -> Result<Receipt, ProposeError> {
    propose(group, numbered(number), Repeat::Store).await
}

async fn propose(group: &Group, message: NewMessage, repeat: Repeat) -> Result<Receipt, ProposeError> {
    let (answer, answered) = tokio::sync::oneshot::channel();
    let reply = Box::new(move |result| drop(answer.send(result)));
    group.propose(Proposal { messages: vec![message], repeat, reply }).map_err(|(_, error)| error)?;
    answered.await.unwrap()
}

/// Whether retention, which keeps so many bytes and an eighth (`pop.I4`), has nothing left to drop: not in the log, and not in the
/// queues of the topic `orders`.
pub(crate) fn has_dropped_all(group: &Group, kept_bytes: u64) -> bool {
    let log = group.log().state();
    let starts = group.log().segment_starts();
    let mut later = starts.iter().filter(|(_, first)| *first > log.first_index);
    let is_trimmed = |queue| {
        let Some((first, end)) = group.queues().bounds("orders", queue) else { return true };
        let units = group.queues().units("orders", queue, first, 1);
        let is_kept = |unit: &Unit| unit.position >= log.start_position;
        first == end || units.is_ok_and(|units| units.first().is_some_and(is_kept))
    };
    log.start_position > 0
        && later.all(|(position, _)| log.next_position - position < kept_bytes + kept_bytes / 8)
        && (0..4).all(is_trimmed)
}

/// Whether the log ends so early in a segment that retention drops nothing more for what a test appends, with or without its eighth.
pub(crate) fn ends_early_in_a_segment(group: &Group) -> bool {
    group.log().state().next_position % SEGMENT_BYTES < SEGMENT_BYTES / 4
}

pub(crate) fn no_retention() -> Retention {
    Retention { age: None, bytes: None, interval: Duration::from_secs(3600) }
}
