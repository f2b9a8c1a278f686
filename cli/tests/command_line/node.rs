//! Nodes of this process that take its machine for a stranger's: an operator is who connects to a node's port for operators.

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::{AtomicU16, Ordering};
use std::time::Duration;

use folio_broker::broker::Broker;
use folio_broker::clients::Addresses;
use folio_broker::gossip;
use folio_broker::identity::Identity;
use folio_broker::settings::Settings;
use folio_broker::transactions;
use folio_engine::disk::sim::SimDisk;
use folio_raft::config::{DedupConfig, Flush, GroupConfig, Retention, Scrub, Timing};
use folio_raft::group::Group;
use folio_raft::status::Status;
use folio_raft::types::NodeAddress;
use folio_server::hooks::NodeHooks;
use folio_server::net::{Listener, NetConfig, Resources};
use folio_server::service;
use tokio::net::TcpListener;

/// Nothing a test waits for takes longer, on however busy a machine.
const PATIENCE: Duration = Duration::from_secs(30);

/// A running node.
pub(crate) struct Node {
    /// Its port for everybody.
    pub(crate) address: SocketAddr,
    /// Its port for operators.
    pub(crate) admin: SocketAddr,
    pub(crate) broker: Arc<Broker>,
    _listener: Listener,
}

/// A port nothing listens on, below those the system gives to outgoing connections.
fn free_port() -> u16 {
    static NEXT: AtomicU16 = AtomicU16::new(0);
    let first = 28_000 + (std::process::id() % 300) as u16 * 10;
    loop {
        let port = first + NEXT.fetch_add(1, Ordering::Relaxed) % 1_000;
        if std::net::TcpListener::bind(("127.0.0.1", port)).is_ok() {
            return port;
        }
    }
}

fn member() -> NodeAddress {
    // Who connects to another address of this machine than his own comes from elsewhere.
    let broker = format!("127.0.0.2:{}", free_port());
    NodeAddress { raft: format!("127.0.0.1:{}", free_port()), broker: broker.clone(), namesrv: broker }
}

impl Node {
    /// Starts a group of three and waits until one leads; that one comes first.
    pub(crate) async fn three() -> Vec<Node> {
        let members: BTreeMap<u64, NodeAddress> = (1..=3).map(|id| (id, member())).collect();
        let mut nodes = Vec::new();
        for id in members.keys() {
            nodes.push(Node::join(*id, members.clone()).await);
        }
        for node in &nodes {
            let mut status = node.broker.group.watch();
            let knows = |status: &Status| status.leader.is_some() && status.members.len() == members.len();
            let led = status.wait_for(knows);
            drop(tokio::time::timeout(PATIENCE, led).await.expect("a leader in time").expect("a leader"));
        }
        while !nodes[0].broker.leads() {
            nodes.rotate_left(1);
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
        nodes
    }

    async fn join(node_id: u64, members: BTreeMap<u64, NodeAddress>) -> Node {
        let own = members[&node_id].clone();
        let address: SocketAddr = own.broker.parse().expect("an address");
        // No machine is so busy that another one stands for election.
        let (election_min, election_max) = (Duration::from_secs(11), Duration::from_secs(12));
        let config = GroupConfig {
            node_id,
            cluster: "c1".to_owned(),
            group: "b1".to_owned(),
            data_dir: PathBuf::from("/data"),
            segment_bytes: 32 << 20,
            nodes: members,
            dial: BTreeMap::new(),
            join: false,
            single_node: true,
            listen: own.raft.parse().expect("an address"),
            flush: Flush::Sync,
            timing: Timing { election_min, election_max, heartbeat: Duration::from_millis(100) },
            retention: Retention::default(),
            scrub: Scrub::default(),
            secret: None,
            dedup: Some(DedupConfig::default()),
        };
        let hooks = Arc::new(NodeHooks::default());
        let group = Group::start(config, Arc::new(SimDisk::new()), hooks.clone()).await.expect("a group");
        let identity = Identity {
            cluster: "c1".to_owned(),
            broker_name: "b1".to_owned(),
            node_id,
            store_host: address,
            addresses: Addresses { broker: own.broker, namesrv: own.namesrv },
        };
        let net = NetConfig { operators: Vec::new(), ..NetConfig::default() };
        let remoting = service::open(identity, Settings::default(), Resources::new(&net), group);
        hooks.attach(&remoting);
        let broker = remoting.broker.clone();
        drop(tokio::spawn(gossip::run(broker.clone())));
        drop(tokio::spawn(transactions::run(broker.clone())));
        let listener = service::listener(net, &remoting);
        listener.serve(TcpListener::bind(address).await.expect("a free port"));
        let socket = TcpListener::bind(("127.0.0.1", 0)).await.expect("a free port");
        let admin = socket.local_addr().expect("an address");
        listener.serve_operators(socket);
        Node { address, admin, broker, _listener: listener }
    }
}
