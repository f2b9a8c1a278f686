//! The TOML file: its keys, their defaults, and an example with all of them.

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::path::PathBuf;
use std::time::Duration;

use folio_raft::config::{DedupConfig, Flush, Retention, Scrub, Timing};
use folio_raft::types::NodeAddress;
use serde::Deserialize;

use super::{BadValue, ByteSize, Listen, NodeConfig, bad, milliseconds};
use crate::net::NetConfig;

/// A complete configuration of the first of three nodes, with every default spelled out.
pub const EXAMPLE: &str = include_str!("example.toml");

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct File {
    cluster: Option<String>,
    group: Option<String>,
    node_id: u64,
    data_dir: PathBuf,
    host: Option<String>,
    #[serde(default)]
    join: bool,
    #[serde(default)]
    single_node: bool,
    workers: Option<usize>,
    #[serde(default)]
    listen: ListenSection,
    nodes: Vec<Node>,
    #[serde(default)]
    dial: BTreeMap<String, String>,
    #[serde(default)]
    log: Log,
    #[serde(default)]
    dedup: Dedup,
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
}

impl Default for ListenSection {
    fn default() -> Self {
        let any = |port| SocketAddr::from(([0, 0, 0, 0], port));
        Self {
            namesrv: any(super::NAMESRV_PORT),
            broker: any(super::BROKER_PORT),
            raft: any(super::RAFT_PORT),
        }
    }
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Node {
    id: u64,
    raft: String,
    broker: String,
    namesrv: String,
}

#[derive(Deserialize, Default)]
#[serde(deny_unknown_fields, default)]
struct Log {
    segment_size: Option<ByteSize>,
    flush: FlushKey,
    keep_hours: Option<u64>,
    keep_size: Option<ByteSize>,
    scrub_rate: Option<ByteSize>,
    scrub_hours: Option<u64>,
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
    keys: Option<usize>,
    seconds: Option<u64>,
    log_size: Option<ByteSize>,
}

#[derive(Deserialize, Default)]
#[serde(deny_unknown_fields, default)]
struct Raft {
    election_min_ms: Option<u64>,
    election_max_ms: Option<u64>,
    heartbeat_ms: Option<u64>,
}

#[derive(Deserialize, Default)]
#[serde(deny_unknown_fields, default)]
struct Limits {
    connections: Option<usize>,
    idle_seconds: Option<u64>,
    frame_seconds: Option<u64>,
    client_queue: Option<ByteSize>,
}

impl File {
    pub(super) fn into_config(self) -> Result<NodeConfig, BadValue> {
        let nodes = nodes(&self.nodes)?;
        let host = match (self.host, nodes.get(&self.node_id)) {
            (Some(host), _) => host,
            (None, Some(own)) => host_of(&own.broker).unwrap_or_default().to_owned(),
            (None, None) => return Err(bad("host", "missing: the host clients reach this node at")),
        };
        let dial = dial(&self.dial, self.node_id)?;
        Ok(NodeConfig {
            cluster: self.cluster.unwrap_or_else(|| super::DEFAULT_CLUSTER.to_owned()),
            group: self.group.unwrap_or_else(|| super::DEFAULT_GROUP.to_owned()),
            node_id: self.node_id,
            data_dir: self.data_dir,
            host,
            listen: Listen {
                namesrv: self.listen.namesrv,
                broker: self.listen.broker,
                raft: self.listen.raft,
                namesrv_optional: false,
            },
            nodes,
            dial,
            join: self.join,
            single_node: self.single_node,
            segment_bytes: self.log.segment_size.map_or(super::SEGMENT_BYTES, |size| size.0),
            flush: match self.log.flush {
                FlushKey::Sync => Flush::Sync,
                FlushKey::Async => Flush::Async,
            },
            retention: self.log.retention(),
            scrub: self.log.scrub(),
            dedup: self.dedup.config(),
            timing: self.raft.timing(),
            net: self.limits.net(),
            workers: self.workers.unwrap_or_else(super::default_workers).max(1),
            ignored: Vec::new(),
        })
    }
}

fn nodes(written: &[Node]) -> Result<BTreeMap<u64, NodeAddress>, BadValue> {
    let mut nodes = BTreeMap::new();
    for node in written {
        for (key, address) in [("raft", &node.raft), ("broker", &node.broker), ("namesrv", &node.namesrv)] {
            if host_of(address).is_none() {
                let key = format!("nodes (id {}): {key}", node.id);
                return Err(bad(key, format!("{address:?} is not host:port")));
            }
        }
        let address = NodeAddress {
            raft: node.raft.clone(),
            broker: node.broker.clone(),
            namesrv: node.namesrv.clone(),
        };
        if nodes.insert(node.id, address).is_some() {
            return Err(bad("nodes", format!("id {} is there twice", node.id)));
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

/// The host of `host:port`, if it is that.
pub(super) fn host_of(address: &str) -> Option<&str> {
    let (host, port) = address.rsplit_once(':')?;
    let port: u16 = port.parse().ok()?;
    (port > 0 && !host.is_empty()).then_some(host)
}

impl Log {
    fn retention(&self) -> Retention {
        let usual = Retention::default();
        Retention {
            // 0 keeps for ever: no limit by age.
            age: match self.keep_hours {
                None => usual.age,
                Some(0) => None,
                Some(hours) => Some(Duration::from_secs(hours.saturating_mul(3_600))),
            },
            bytes: self.keep_size.map(|size| size.0),
            interval: usual.interval,
        }
    }

    fn scrub(&self) -> Scrub {
        let usual = Scrub::default();
        let hours = |hours: u64| Duration::from_secs(hours.saturating_mul(3_600));
        Scrub {
            bytes_per_second: self.scrub_rate.map_or(usual.bytes_per_second, |rate| rate.0),
            interval: self.scrub_hours.map_or(usual.interval, hours),
        }
    }
}

impl Dedup {
    fn config(&self) -> Option<DedupConfig> {
        let usual = DedupConfig::default();
        self.enabled.unwrap_or(true).then(|| DedupConfig {
            keys: self.keys.unwrap_or(usual.keys),
            age: self.seconds.map_or(usual.age, Duration::from_secs),
            bytes: self.log_size.map_or(usual.bytes, |size| size.0),
        })
    }
}

impl Raft {
    fn timing(&self) -> Timing {
        let usual = Timing::default();
        Timing {
            election_min: self.election_min_ms.map_or(usual.election_min, milliseconds),
            election_max: self.election_max_ms.map_or(usual.election_max, milliseconds),
            heartbeat: self.heartbeat_ms.map_or(usual.heartbeat, milliseconds),
        }
    }
}

impl Limits {
    fn net(&self) -> NetConfig {
        let usual = NetConfig::default();
        NetConfig {
            idle_timeout: self.idle_seconds.map_or(usual.idle_timeout, Duration::from_secs),
            frame_timeout: self.frame_seconds.map_or(usual.frame_timeout, Duration::from_secs),
            connections_max: self.connections.unwrap_or(usual.connections_max),
            outgoing_bytes_max: self.client_queue.map_or(usual.outgoing_bytes_max, |size| size.0 as usize),
        }
    }
}
