//! The TOML file: its keys, their defaults, and an example with all of them.

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};

use folio_broker::delays::DEFAULT_LEVELS;
use folio_broker::settings::TIMER_DELAY_MAX_S;
use folio_raft::config::{DedupConfig, Flush, Retention, Scrub, Timing};
use folio_raft::types::NodeAddress;
use serde::Deserialize;

use super::bounds::{HOUR_MS, SECOND_MS, number, size, time, within};
use super::groups::GroupTable;
pub(super) use super::host_port::host_of;
use super::secret;
use super::size::ByteSize;
use super::transactions;
use super::values::{
    BROKER_PORT, BadValue, DEFAULT_CLUSTER, DEFAULT_GROUP, Listen, NAMESRV_PORT, NodeConfig, RAFT_PORT,
    SEGMENT_BYTES, bad, default_workers, delay_levels,
};
use crate::admin::Network;
use crate::net::NetConfig;

/// A complete configuration of the first of three nodes, with every default spelled out.
pub const EXAMPLE: &str = include_str!("example.toml");

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct File {
    cluster: Option<String>,
    group: Option<String>,
    node_id: i64,
    data_dir: PathBuf,
    host: Option<String>,
    #[serde(default)]
    join: bool,
    #[serde(default)]
    single_node: bool,
    workers: Option<i64>,
    secret_file: Option<PathBuf>,
    #[serde(default)]
    listen: ListenSection,
    nodes: Vec<Node>,
    #[serde(default)]
    groups: Vec<GroupTable>,
    #[serde(default)]
    dial: BTreeMap<String, String>,
    #[serde(default)]
    log: Log,
    #[serde(default)]
    dedup: Dedup,
    #[serde(default)]
    timers: Timers,
    #[serde(default)]
    transactions: transactions::Table,
    #[serde(default)]
    pop: Pop,
    #[serde(default)]
    topics: Topics,
    #[serde(default)]
    raft: Raft,
    #[serde(default)]
    limits: Limits,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields, default)]
struct ListenSection {
    namesrv: SocketAddr,
    broker: SocketAddr,
    raft: SocketAddr,
    admin: Option<SocketAddr>,
    admin_from: Vec<String>,
}

impl Default for ListenSection {
    fn default() -> Self {
        let any = |port| SocketAddr::from(([0, 0, 0, 0], port));
        Self {
            namesrv: any(NAMESRV_PORT),
            broker: any(BROKER_PORT),
            raft: any(RAFT_PORT),
            admin: None,
            admin_from: Vec::new(),
        }
    }
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Node {
    id: i64,
    raft: String,
    broker: String,
    namesrv: String,
}

#[derive(Deserialize, Default)]
#[serde(deny_unknown_fields, default)]
struct Log {
    segment_size: Option<ByteSize>,
    flush: FlushKey,
    keep_hours: Option<i64>,
    keep_size: Option<ByteSize>,
    scrub_rate: Option<ByteSize>,
    scrub_hours: Option<i64>,
}

#[derive(Deserialize, Default, Clone, Copy)]
#[serde(rename_all = "lowercase")]
enum FlushKey {
    #[default]
    Sync,
    Async,
}

#[derive(Deserialize, Default)]
#[serde(deny_unknown_fields, default)]
struct Dedup {
    enabled: Option<bool>,
    keys: Option<i64>,
    seconds: Option<i64>,
    log_size: Option<ByteSize>,
}

#[derive(Deserialize, Default)]
#[serde(deny_unknown_fields, default)]
struct Timers {
    levels: Option<String>,
    max_delay_seconds: Option<i64>,
}

#[derive(Deserialize, Default)]
#[serde(deny_unknown_fields, default)]
struct Pop {
    retry_topic_v2: bool,
}

#[derive(Deserialize, Default)]
#[serde(deny_unknown_fields, default)]
struct Topics {
    check_message_type: bool,
}

#[derive(Deserialize, Default)]
#[serde(deny_unknown_fields, default)]
struct Raft {
    election_min_ms: Option<i64>,
    election_max_ms: Option<i64>,
    heartbeat_ms: Option<i64>,
}

#[derive(Deserialize, Default)]
#[serde(deny_unknown_fields, default)]
struct Limits {
    memory: Option<ByteSize>,
    connections: Option<i64>,
    connections_per_address: Option<i64>,
    idle_seconds: Option<i64>,
    frame_seconds: Option<i64>,
    write_seconds: Option<i64>,
    client_queue: Option<ByteSize>,
    requests: Option<i64>,
}

impl File {
    /// `folder` is the file's.
    pub(super) fn into_config(self, folder: &Path) -> Result<NodeConfig, BadValue> {
        let node_id = within("node_id", self.node_id)?;
        let nodes = nodes(&self.nodes)?;
        let host = match (self.host, nodes.get(&node_id)) {
            (Some(host), _) => host,
            (None, Some(own)) => host_of(&own.broker).unwrap_or_default().to_owned(),
            (None, None) => return Err(bad("host", "missing: the host clients reach this node at")),
        };
        let (dial, retention) = (dial(&self.dial, node_id)?, self.log.retention()?);
        let groups: Result<_, BadValue> =
            self.groups.into_iter().map(|group| group.into_group(self.join)).collect();
        let secret = self.secret_file.map(|file| secret::read("secret_file", folder, &file)).transpose()?;
        Ok(NodeConfig {
            cluster: self.cluster.unwrap_or_else(|| DEFAULT_CLUSTER.to_owned()),
            group: self.group.unwrap_or_else(|| DEFAULT_GROUP.to_owned()),
            groups: groups?,
            node_id,
            data_dir: self.data_dir,
            host,
            listen: Listen {
                namesrv: self.listen.namesrv,
                broker: self.listen.broker,
                raft: self.listen.raft,
                admin: self.listen.admin,
                namesrv_optional: false,
            },
            nodes,
            dial,
            join: self.join,
            single_node: self.single_node,
            segment_bytes: size("log.segment_size", self.log.segment_size)?.unwrap_or(SEGMENT_BYTES),
            flush: match self.log.flush {
                FlushKey::Sync => Flush::Sync,
                FlushKey::Async => Flush::Async,
            },
            transactions: self.transactions.settings(retention.age)?,
            retention,
            scrub: self.log.scrub()?,
            dedup: self.dedup.config()?,
            delay_levels: delay_levels(
                "timers.levels",
                self.timers.levels.as_deref().unwrap_or(DEFAULT_LEVELS),
            )?,
            timer_delay_max_s: match self.timers.max_delay_seconds {
                Some(seconds) => within("timers.max_delay_seconds", seconds)?,
                None => TIMER_DELAY_MAX_S,
            },
            pop_retry_v2: self.pop.retry_topic_v2,
            checks_message_type: self.topics.check_message_type,
            timing: self.raft.timing()?,
            secret,
            net: self.limits.net(operators("listen.admin_from", &self.listen.admin_from)?)?,
            workers: number("workers", self.workers)?.unwrap_or_else(default_workers),
            ignored: Vec::new(),
        })
    }
}

fn nodes(written: &[Node]) -> Result<BTreeMap<u64, NodeAddress>, BadValue> {
    let mut nodes = BTreeMap::new();
    for node in written {
        let id = within("nodes.id", node.id)?;
        for (key, address) in [("raft", &node.raft), ("broker", &node.broker), ("namesrv", &node.namesrv)] {
            if host_of(address).is_none() {
                let key = format!("nodes (id {id}): {key}");
                return Err(bad(key, format!("{address:?} is not host:port")));
            }
        }
        let address = NodeAddress {
            raft: node.raft.clone(),
            broker: node.broker.clone(),
            namesrv: node.namesrv.clone(),
        };
        if nodes.insert(id, address).is_some() {
            return Err(bad("nodes", format!("id {id} is there twice")));
        }
    }
    Ok(nodes)
}

/// Ways to peers, by their ids; a peer that is added later may have one already.
fn dial(written: &BTreeMap<String, String>, own: u64) -> Result<BTreeMap<u64, String>, BadValue> {
    let mut dial = BTreeMap::new();
    for (id, address) in written {
        let key = || format!("dial.{id}");
        let peer: u64 = id.parse().map_err(|_| bad(key(), "the key must be a node's id, as in [[nodes]]"))?;
        if peer == own {
            return Err(bad(key(), "this node does not connect to itself; remove the line"));
        }
        if host_of(address).is_none() {
            return Err(bad(key(), format!("{address:?} is not host:port")));
        }
        dial.insert(peer, address.clone());
    }
    Ok(dial)
}

/// Where operators are: on this machine, and in these networks.
pub(super) fn operators<T: AsRef<str>>(key: &str, networks: &[T]) -> Result<Vec<Network>, BadValue> {
    let parse = |text: &T| text.as_ref().parse::<Network>().map_err(|error| bad(key, error.to_string()));
    let written = networks.iter().map(parse);
    Network::LOOPBACK.map(Ok).into_iter().chain(written).collect()
}

impl Log {
    fn retention(&self) -> Result<Retention, BadValue> {
        let usual = Retention::default();
        Ok(Retention {
            age: match time("log.keep_hours", self.keep_hours, HOUR_MS)? {
                None => usual.age,
                // 0 keeps for ever: no limit by age.
                Some(age) => Some(age).filter(|age| !age.is_zero()),
            },
            bytes: size("log.keep_size", self.keep_size)?,
            interval: usual.interval,
        })
    }

    fn scrub(&self) -> Result<Scrub, BadValue> {
        let usual = Scrub::default();
        Ok(Scrub {
            bytes_per_second: size("log.scrub_rate", self.scrub_rate)?.unwrap_or(usual.bytes_per_second),
            interval: time("log.scrub_hours", self.scrub_hours, HOUR_MS)?.unwrap_or(usual.interval),
        })
    }
}

impl Dedup {
    /// The numbers are checked also where they are not used.
    fn config(&self) -> Result<Option<DedupConfig>, BadValue> {
        let usual = DedupConfig::default();
        let config = DedupConfig {
            keys: number("dedup.keys", self.keys)?.unwrap_or(usual.keys),
            age: time("dedup.seconds", self.seconds, SECOND_MS)?.unwrap_or(usual.age),
            bytes: size("dedup.log_size", self.log_size)?.unwrap_or(usual.bytes),
        };
        Ok(self.enabled.unwrap_or(true).then_some(config))
    }
}

impl Raft {
    fn timing(&self) -> Result<Timing, BadValue> {
        let usual = Timing::default();
        Ok(Timing {
            election_min: time("raft.election_min_ms", self.election_min_ms, 1)?
                .unwrap_or(usual.election_min),
            election_max: time("raft.election_max_ms", self.election_max_ms, 1)?
                .unwrap_or(usual.election_max),
            heartbeat: time("raft.heartbeat_ms", self.heartbeat_ms, 1)?.unwrap_or(usual.heartbeat),
        })
    }
}

impl Limits {
    fn net(&self, operators: Vec<Network>) -> Result<NetConfig, BadValue> {
        let memory = size("limits.memory", self.memory)?;
        let usual = memory.map_or_else(NetConfig::default, |bytes| NetConfig::with_memory(bytes as usize));
        let client_queue = size("limits.client_queue", self.client_queue)?.map(|bytes| bytes as usize);
        Ok(NetConfig {
            idle_timeout: time("limits.idle_seconds", self.idle_seconds, SECOND_MS)?
                .unwrap_or(usual.idle_timeout),
            frame_timeout: time("limits.frame_seconds", self.frame_seconds, SECOND_MS)?
                .unwrap_or(usual.frame_timeout),
            write_timeout: time("limits.write_seconds", self.write_seconds, SECOND_MS)?
                .unwrap_or(usual.write_timeout),
            connections_max: number("limits.connections", self.connections)?.unwrap_or(usual.connections_max),
            connections_per_address_max: number(
                "limits.connections_per_address",
                self.connections_per_address,
            )?,
            outgoing_bytes_max: client_queue.unwrap_or(usual.outgoing_bytes_max),
            requests_max: number("limits.requests", self.requests)?.unwrap_or(usual.requests_max),
            memory_bytes: usual.memory_bytes,
            operators,
        })
    }
}
