//! Nodes that host two groups behind one Raft port each.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::{Duration, Instant};

use folio_engine::disk::RealDisk;
use folio_raft::config::GroupConfig;
use folio_raft::group::Group;
use folio_raft::host::{Host, Tcp};
use folio_raft::port::{PortConfig, RaftPort};
use folio_raft::secret::ClusterSecret;
use folio_raft::status::{Role, Status};
use folio_state::{FEATURE_LEVEL, FIRST_LEVEL};
use tempfile::TempDir;

use crate::cluster::{Cluster, Echo, PATIENCE, SEGMENT_BYTES, address, no_retention, steady};
use crate::peers::raw::{ANSWER, FAILURE, RawPeer, Says};

/// Nodes 1 to 3 with the groups `g` and `h`.
struct Nodes {
    ports: BTreeMap<u64, RaftPort>,
    g: Cluster,
    h: Cluster,
}

fn secret() -> ClusterSecret {
    ClusterSecret::parse(&[b'x'; 32]).unwrap()
}

fn config_of(cluster: &Cluster, group: &str, id: u64) -> GroupConfig {
    GroupConfig { group: group.to_owned(), ..cluster.config(id, false) }
}

async fn open(cluster: &Cluster, id: u64) -> RaftPort {
    let config = cluster.config(id, false);
    let groups = vec!["g".to_owned(), "h".to_owned()];
    let port = PortConfig { cluster: config.cluster, listen: config.listen, secret: config.secret, groups };
    RaftPort::open(&Tcp, port).await.unwrap()
}

async fn host(port: &RaftPort, cluster: &mut Cluster, group: &str, id: u64) {
    let config = config_of(cluster, group, id);
    let started = Group::start_at(port, Host::new(Arc::new(RealDisk)), config, Arc::new(Echo)).await;
    cluster.groups.insert(id, started.unwrap());
}

impl Nodes {
    async fn start() -> Nodes {
        let nodes: BTreeMap<_, _> = (1..=3).map(|id| (id, address())).collect();
        let cluster = || Cluster {
            dirs: nodes.keys().map(|id| (*id, TempDir::new().unwrap())).collect(),
            nodes: nodes.clone(),
            groups: BTreeMap::new(),
            secrets: nodes.keys().map(|id| (*id, secret())).collect(),
            retention: no_retention(),
            timing: steady(),
        };
        let (mut g, mut h, mut ports) = (cluster(), cluster(), BTreeMap::new());
        for id in nodes.keys() {
            let port = open(&g, *id).await;
            host(&port, &mut g, "g", *id).await;
            host(&port, &mut h, "h", *id).await;
            ports.insert(*id, port);
        }
        Nodes { ports, g, h }
    }

    async fn send(&self, range: std::ops::Range<u64>) {
        self.g.send_all(range.clone()).await;
        self.h.send_all(range).await;
    }
}

/// Has a node of a group lead.
async fn lead(cluster: &Cluster, to: u64) {
    let deadline = Instant::now() + PATIENCE;
    while cluster.groups[&to].status().role != Role::Leader {
        assert!(Instant::now() < deadline, "node {to} does not lead");
        drop(cluster.leader().await.transfer_leadership(Some(to)).await);
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
}

/// Term and leader, as each node that runs has them.
fn terms(cluster: &Cluster) -> Vec<(u64, Option<u64>)> {
    cluster.groups.values().map(Group::status).map(|Status { term, leader, .. }| (term, leader)).collect()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn port_i2_two_groups_behind_one_port_lead_and_fail_over_each_by_itself() {
    let mut nodes = Nodes::start().await;
    nodes.send(0..20).await;
    lead(&nodes.g, 1).await;
    lead(&nodes.h, 2).await;
    nodes.send(20..40).await;
    nodes.g.assert_identical().await;
    nodes.h.assert_identical().await;
    let ids = [&nodes.g, &nodes.h].map(|cluster| cluster.groups[&1].status().group_id.unwrap());
    assert_ne!(ids[0], ids[1]);

    // The leader of one group ends its part in it; its node goes on with the other group.
    let before = terms(&nodes.h);
    nodes.g.stop(1).await;
    nodes.send(40..60).await;
    assert_ne!(nodes.g.leader().await.node_id(), 1);
    assert_eq!(terms(&nodes.h), before, "the other group has noticed nothing");

    // It comes back behind the same port, which stayed open for the other group.
    host(&nodes.ports[&1], &mut nodes.g, "g", 1).await;
    nodes.send(60..80).await;
    nodes.g.assert_identical().await;
    nodes.h.assert_identical().await;

    // A whole node goes: both groups fail over, one because it led there.
    lead(&nodes.h, 1).await;
    lead(&nodes.g, 2).await;
    nodes.ports.remove(&1).unwrap().close().await;
    nodes.h.stop(1).await;
    nodes.g.stop(1).await;
    nodes.send(80..100).await;
    let port = open(&nodes.g, 1).await;
    host(&port, &mut nodes.h, "h", 1).await;
    host(&port, &mut nodes.g, "g", 1).await;
    nodes.g.assert_identical().await;
    nodes.h.assert_identical().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn port_i1_a_hello_for_a_group_that_the_node_does_not_host_is_refused_by_name() {
    let nodes = Nodes::start().await;
    nodes.send(0..2).await;
    let address = nodes.g.nodes[&1].raft.clone();
    let says = |group: &str, group_id: Option<String>| Says {
        from: 2,
        to: 1,
        cluster: "c".into(),
        group: group.into(),
        segment_bytes: SEGMENT_BYTES,
        group_id,
        secret: Some(secret()),
        nonce: [2; 32],
        levels: [FEATURE_LEVEL, FIRST_LEVEL],
    };
    for (group, cluster) in [("g", &nodes.g), ("h", &nodes.h)] {
        let says = says(group, cluster.groups[&1].status().group_id);
        let (kind, told) = RawPeer::connect(&address).await.introduce_named(&says).await.unwrap();
        assert_eq!(kind, ANSWER, "{}", String::from_utf8_lossy(&told));
    }
    let (kind, told) = RawPeer::connect(&address).await.introduce_named(&says("x", None)).await.unwrap();
    assert_eq!(kind, FAILURE);
    assert_eq!(String::from_utf8(told).unwrap(), "this node hosts g, h, the peer looks for group \"x\"");

    // One group's id in the name of the other one, as after an exchange of data directories.
    let of_g = nodes.g.groups[&1].status().group_id;
    let (kind, told) = RawPeer::connect(&address).await.introduce_named(&says("h", of_g)).await.unwrap();
    assert!(kind == FAILURE && !told.is_empty(), "{}", String::from_utf8_lossy(&told));

    // Without a name: the first group, and none of the others.
    RawPeer::admitted(&address, &says("g", nodes.g.groups[&1].status().group_id)).await;
    let (kind, _) = RawPeer::connect(&address).await.introduce(&says("h", None)).await.unwrap();
    assert_eq!(kind, FAILURE);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_port_takes_each_of_its_groups_once() {
    let nodes = Nodes::start().await;
    let dir = TempDir::new().unwrap();
    for group in ["g", "x"] {
        let config = GroupConfig { data_dir: dir.path().join(group), ..config_of(&nodes.g, group, 1) };
        let host = Host::new(Arc::new(RealDisk));
        let refused = Group::start_at(&nodes.ports[&1], host, config, Arc::new(Echo)).await.err().unwrap();
        assert!(refused.to_string().contains(&format!("not open for group {group}")), "{refused}");
    }
    nodes.send(0..2).await;
}
