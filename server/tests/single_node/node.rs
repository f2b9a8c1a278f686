//! A node of its own on a simulated disk, and a client that speaks frames to it.

use std::collections::BTreeMap;
use std::io::IoSlice;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicU16, Ordering};
use std::time::Duration;

use bytes::{Bytes, BytesMut};
use folio_broker::broker::Broker;
use folio_broker::clients::Addresses;
use folio_broker::gossip;
use folio_broker::identity::Identity;
use folio_broker::settings::Settings;
use folio_broker::transactions;
use folio_engine::disk::sim::SimDisk;
use folio_engine::disk::{Disk, OpenMode};
use folio_engine::queues::UNIT_BYTES;
use folio_protocol::body::{self, SubscriptionGroupConfig};
use folio_protocol::code::{RequestCode, ResponseCode};
use folio_protocol::flags::pull_sys_flag;
use folio_protocol::frame::Frame;
use folio_protocol::header::{Header, PullMessageHeader, SendMessageHeader};
use folio_protocol::message::{MessageView, Messages};
use folio_raft::config::{DedupConfig, Flush, GroupConfig, Retention, Scrub, Timing};
use folio_raft::group::Group;
use folio_raft::status::{Role, Status};
use folio_raft::types::NodeAddress;
use folio_server::admin::Network;
use folio_server::net::{Listener, NetConfig, Resources};
use folio_server::remoting::Remoting;
use folio_server::service;
use folio_state::{Command, FEATURE_LEVEL};
use serde::Serialize;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpSocket, TcpStream};

use crate::misheard::Misheard;

/// No answer of a test takes longer, on however busy a machine.
const PATIENCE: Duration = Duration::from_secs(30);

/// A running node.
pub(crate) struct Node {
    pub(crate) address: SocketAddr,
    pub(crate) remoting: Arc<Remoting>,
    pub(crate) broker: Arc<Broker>,
    pub(crate) disk: SimDisk,
    /// Answers to commits that other nodes forward here, given in turn instead of serving them.
    pub(crate) misheard: Arc<Misheard>,
    /// Its port for operators.
    pub(crate) admin: SocketAddr,
    pub(crate) listener: Listener,
}

/// From where a node takes administrative requests at the port for everybody.
#[derive(Clone, Copy)]
pub(crate) enum Operators {
    Loopback,
    At(&'static str),
    Nowhere,
}

impl Operators {
    fn networks(self) -> Vec<Network> {
        match self {
            Operators::Loopback => Network::LOOPBACK.to_vec(),
            Operators::At(network) => vec![network.parse().expect("a network")],
            Operators::Nowhere => Vec::new(),
        }
    }
}

fn net_of(operators: Operators) -> NetConfig {
    NetConfig { operators: operators.networks(), ..NetConfig::default() }
}

/// Whether all of them know the same leader, of the same term.
fn agree(nodes: &[Node]) -> bool {
    let known = |node: &Node| {
        let status = node.broker.group.status();
        (status.leader, status.term)
    };
    let first = known(&nodes[0]);
    first.0.is_some() && nodes.iter().all(|node| known(node) == first)
}

/// A port nothing listens on, below those the system gives to outgoing connections.
fn free_port() -> u16 {
    static NEXT: AtomicU16 = AtomicU16::new(0);
    // Copies that run at once have neighbouring ids, and ports far apart.
    let first = 20_000 + (std::process::id().wrapping_mul(389) % 1_000) as u16 * 10;
    loop {
        let port = first + NEXT.fetch_add(1, Ordering::Relaxed) % 2_000;
        if std::net::TcpListener::bind(("127.0.0.1", port)).is_ok() {
            return port;
        }
    }
}

fn member(operators: Operators) -> NodeAddress {
    // Who connects to another address of this machine than his own comes from elsewhere.
    let host = if let Operators::Loopback = operators { "127.0.0.1" } else { "127.0.0.2" };
    let broker = format!("{host}:{}", free_port());
    NodeAddress { raft: format!("127.0.0.1:{}", free_port()), broker: broker.clone(), namesrv: broker }
}

impl Node {
    /// Starts a node and waits until it leads.
    pub(crate) async fn start() -> Node {
        Node::cluster(1).await.remove(0)
    }

    /// Starts a group of `count` nodes and waits until one leads; that one comes first, and leads until it stops or hands
    /// over: no machine is so busy that another one stands for election.
    pub(crate) async fn cluster(count: u64) -> Vec<Node> {
        Node::cluster_of(count, Operators::Loopback).await
    }

    /// The same, with operators elsewhere.
    pub(crate) async fn cluster_of(count: u64, operators: Operators) -> Vec<Node> {
        let heartbeat = Duration::from_millis(100);
        let (election_min, election_max) = (Duration::from_secs(11), Duration::from_secs(12));
        let timing = Timing { election_min, election_max, heartbeat };
        Node::grow(count, timing, operators, Settings::default()).await
    }

    /// A group as [`Node::cluster`], with a timing of its own.
    pub(crate) async fn cluster_with(count: u64, timing: Timing) -> Vec<Node> {
        Node::grow(count, timing, Operators::Loopback, Settings::default()).await
    }

    /// A group as [`Node::cluster`], set like this.
    pub(crate) async fn cluster_set(count: u64, settings: Settings) -> Vec<Node> {
        let (election_min, election_max) = (Duration::from_secs(11), Duration::from_secs(12));
        let timing = Timing { election_min, election_max, heartbeat: Duration::from_millis(100) };
        Node::grow(count, timing, Operators::Loopback, settings).await
    }

    async fn grow(count: u64, timing: Timing, operators: Operators, settings: Settings) -> Vec<Node> {
        let members: BTreeMap<u64, NodeAddress> = (1..=count).map(|id| (id, member(operators))).collect();
        let mut nodes = Vec::new();
        for id in members.keys() {
            let (members, settings) = (members.clone(), settings.clone());
            nodes.push(Node::join(*id, members, timing.clone(), settings, net_of(operators)).await);
        }
        for node in &nodes {
            let mut status = node.broker.group.watch();
            let knows = |status: &Status| status.leader.is_some() && status.members.len() == members.len();
            let led = status.wait_for(knows);
            drop(tokio::time::timeout(PATIENCE, led).await.expect("a leader in time").expect("a leader"));
        }
        // One that was replaced right after it was elected, and does not know it yet, leads no more.
        let deadline = tokio::time::Instant::now() + PATIENCE;
        while !agree(&nodes) {
            assert!(tokio::time::Instant::now() < deadline, "the nodes do not agree on a leader");
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
        while !nodes[0].broker.leads() {
            nodes.rotate_left(1);
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
        nodes
    }

    /// Waits until the node uses all that this build supports.
    pub(crate) async fn reach_level(&self) {
        let deadline = tokio::time::Instant::now() + PATIENCE;
        while self.broker.group.status().feature_level < FEATURE_LEVEL {
            assert!(tokio::time::Instant::now() < deadline, "the feature level stays");
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
    }

    /// Starts a node that is set like this and waits until it leads.
    pub(crate) async fn start_with(settings: Settings) -> Node {
        Node::alone(settings, net_of(Operators::Loopback)).await
    }

    /// Starts a node whose connections are limited like this and waits until it leads.
    pub(crate) async fn start_limited(net: NetConfig) -> Node {
        Node::alone(Settings::default(), net).await
    }

    async fn alone(settings: Settings, net: NetConfig) -> Node {
        let members = BTreeMap::from([(1, member(Operators::Loopback))]);
        let node = Node::join(1, members, Timing::default(), settings, net).await;
        let mut status = node.broker.group.watch();
        let led = status.wait_for(|status| status.role == Role::Leader);
        drop(tokio::time::timeout(PATIENCE, led).await.expect("a leader in time").expect("a leader"));
        node
    }

    async fn join(
        node_id: u64,
        members: BTreeMap<u64, NodeAddress>,
        timing: Timing,
        settings: Settings,
        net: NetConfig,
    ) -> Node {
        let own = members[&node_id].clone();
        let address: SocketAddr = own.broker.parse().expect("an address");
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
            timing,
            retention: Retention::default(),
            scrub: Scrub::default(),
            secret: None,
            dedup: Some(DedupConfig::default()),
        };
        let hooks = Arc::new(Misheard::default());
        let disk = SimDisk::new();
        let group = Group::start(config, Arc::new(disk.clone()), hooks.clone()).await.expect("a group");
        let identity = Identity {
            cluster: "c1".to_owned(),
            broker_name: "b1".to_owned(),
            node_id,
            store_host: address,
            addresses: Addresses { broker: own.broker, namesrv: own.namesrv },
        };
        let remoting = service::open(identity, settings, Resources::new(&net), group);
        hooks.hooks.attach(&remoting);
        let broker = remoting.broker.clone();
        drop(tokio::spawn(gossip::run(broker.clone())));
        drop(tokio::spawn(transactions::run(broker.clone())));
        let listener = service::listener(net, &remoting);
        listener.serve(TcpListener::bind(address).await.expect("a free port"));
        let socket = TcpListener::bind(("127.0.0.1", 0)).await.expect("a free port");
        let admin = socket.local_addr().expect("an address");
        listener.serve_operators(socket);
        Node { address, remoting, broker, disk, misheard: hooks, admin, listener }
    }

    /// Zeroes units of queue 0 of a topic on the disk, from `offset` on.
    pub(crate) fn rot_units(&self, topic: &str, offset: u64, count: usize) {
        self.broker.group.queues().sync().expect("written");
        let path = format!("/data/consumequeue/{topic}/0/00000000000000000000");
        let file = self.disk.open(Path::new(&path), OpenMode::ReadWrite).expect("a file of units");
        let zeros = vec![0; count * UNIT_BYTES];
        file.write_all_at(&[IoSlice::new(&zeros)], offset * UNIT_BYTES as u64).expect("rotten");
    }

    /// A new connection, from 127.0.0.1.
    pub(crate) async fn client(&self) -> Client {
        Client::new(TcpStream::connect(self.address).await.expect("a connection"))
    }

    /// A new connection from an address of this machine.
    pub(crate) async fn client_from(&self, address: &str) -> Client {
        let socket = TcpSocket::new_v4().expect("a socket");
        socket
            .bind(SocketAddr::new(address.parse().expect("an address"), 0))
            .expect("an address of this machine");
        Client::new(socket.connect(self.address).await.expect("a connection"))
    }

    /// A new connection to the port for operators.
    pub(crate) async fn operator(&self) -> Client {
        Client::new(TcpStream::connect(self.admin).await.expect("a connection"))
    }

    /// A new connection, after the group `g` was created.
    pub(crate) async fn client_of_group(&self) -> Client {
        let mut client = self.client().await;
        let config =
            SubscriptionGroupConfig { group_name: "g".to_owned(), ..SubscriptionGroupConfig::default() };
        let body = folio_protocol::body::encode(&config).expect("a body");
        let request =
            Frame { code: RequestCode::UpdateAndCreateSubscriptionGroup.code(), body, ..Frame::default() };
        expect(&client.call(request).await, ResponseCode::Success);
        client
    }
}

/// One connection of a client.
pub(crate) struct Client {
    socket: TcpStream,
    received: BytesMut,
    opaque: i32,
}

impl Client {
    fn new(socket: TcpStream) -> Client {
        Client { socket, received: BytesMut::new(), opaque: 0 }
    }

    /// Sends a request and returns its opaque.
    pub(crate) async fn put(&mut self, mut request: Frame) -> i32 {
        self.opaque += 1;
        request.opaque = self.opaque;
        let mut bytes = BytesMut::new();
        request.encode(&mut bytes).expect("a frame");
        self.socket.write_all(&bytes).await.expect("written");
        self.opaque
    }

    /// The next frame.
    pub(crate) async fn take(&mut self) -> Frame {
        loop {
            if let Some(frame) = Frame::decode(&mut self.received).expect("a frame") {
                return frame;
            }
            let read = tokio::time::timeout(PATIENCE, self.socket.read_buf(&mut self.received)).await;
            assert!(
                read.expect("an answer in time").expect("readable") > 0,
                "the server closed the connection"
            );
        }
    }

    /// Sends a request and waits for its answer.
    pub(crate) async fn call(&mut self, request: Frame) -> Frame {
        let opaque = self.put(request).await;
        let answer = self.take().await;
        assert_eq!((answer.opaque, answer.is_response()), (opaque, true), "{answer:?}");
        answer
    }

    /// Sends a typed request without a body and waits for its answer.
    pub(crate) async fn ask(&mut self, code: RequestCode, header: &impl Header) -> Frame {
        self.call(Frame::request(code, header, Bytes::new())).await
    }

    /// Sends one message and expects it stored; the answer.
    pub(crate) async fn send(&mut self, topic: &str, tag: &str, body: &str) -> Frame {
        let answer = self.call(message(&send_header(topic, tag), body)).await;
        expect(&answer, ResponseCode::Success);
        answer
    }
}

/// Has whoever leads execute a command that may be executed twice: on a busy machine the leader changes.
pub(crate) async fn execute(nodes: &[Node], command: impl Into<Command>) {
    let command = command.into();
    let deadline = tokio::time::Instant::now() + PATIENCE;
    loop {
        for node in nodes {
            if node.broker.leads() && node.broker.group.execute(command.clone()).await.is_ok() {
                return;
            }
        }
        assert!(tokio::time::Instant::now() < deadline, "nobody executes {command:?}");
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
}

/// Whoever leads, once it has proved so and has applied all that was acknowledged.
pub(crate) async fn leader_of(nodes: &[Node]) -> &Node {
    let deadline = tokio::time::Instant::now() + PATIENCE;
    loop {
        for node in nodes {
            if node.broker.leads() && node.broker.group.confirm().await.is_ok() {
                return node;
            }
        }
        assert!(tokio::time::Instant::now() < deadline, "nobody leads");
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
}

/// Fails unless the answer has this code.
pub(crate) fn expect(answer: &Frame, code: ResponseCode) {
    assert_eq!(answer.code, code.code(), "{:?}", answer.remark);
}

/// The typed header of an answer.
pub(crate) fn header<T: Header>(answer: &Frame) -> T {
    T::from_ext(&answer.ext).expect("a header")
}

/// A request whose body is JSON.
pub(crate) fn with_body(code: RequestCode, body: &impl Serialize) -> Frame {
    Frame { code: code.code(), body: body::encode(body).expect("a body"), ..Frame::default() }
}

/// A SEND request.
pub(crate) fn message(header: &SendMessageHeader, body: &str) -> Frame {
    Frame::request(RequestCode::SendMessageV2, header, Bytes::copy_from_slice(body.as_bytes()))
}

/// The header of a message to queue 0, under a unique key of its own.
pub(crate) fn send_header(topic: &str, tag: &str) -> SendMessageHeader {
    static KEYS: AtomicU16 = AtomicU16::new(0);
    let key = KEYS.fetch_add(1, Ordering::Relaxed);
    let tags = if tag.is_empty() { String::new() } else { format!("TAGS\u{1}{tag}\u{2}") };
    SendMessageHeader {
        producer_group: "p".into(),
        topic: topic.into(),
        default_topic: "TBW102".into(),
        default_topic_queue_nums: 4,
        queue_id: 0,
        sys_flag: 0,
        born_timestamp: 1_700_000_000_000,
        flag: 7,
        properties: Some(format!("UNIQ_KEY\u{1}U{key}\u{2}{tags}")),
        reconsume_times: Some(0),
        unit_mode: false,
        max_reconsume_times: None,
        batch: false,
        broker_name: None,
    }
}

/// A pull of queue 0 for the group `g` that is not held.
pub(crate) fn pull_header(topic: &str, offset: i64) -> PullMessageHeader {
    PullMessageHeader {
        consumer_group: "g".into(),
        topic: topic.into(),
        queue_id: 0,
        queue_offset: offset,
        max_msg_nums: 32,
        sys_flag: pull_sys_flag::SUBSCRIPTION,
        commit_offset: 0,
        suspend_timeout_millis: 0,
        subscription: Some("*".to_owned()),
        sub_version: 0,
        expression_type: None,
        max_msg_bytes: None,
        request_source: None,
        proxy_forward_client_id: None,
    }
}

/// The messages of a pull's answer.
pub(crate) fn messages(body: &[u8]) -> Vec<MessageView<'_>> {
    Messages::new(body).map(|message| message.expect("a message").1).collect()
}
