//! Three `folio node` processes that host two groups.

use std::collections::{BTreeMap, BTreeSet};
use std::fs::{self, File};
use std::net::TcpStream;
use std::path::Path;
use std::process::Child;
use std::time::{Duration, Instant};

use bytes::Bytes;
use folio_protocol::body::{self, ClusterInfo, SubscriptionGroupConfig, TopicRouteData};
use folio_protocol::code::{RequestCode, ResponseCode};
use folio_protocol::flags::pull_sys_flag;
use folio_protocol::frame::Frame;
use folio_protocol::header::{
    GetRouteHeader, Header, NoHeader, PullMessageHeader, SendMessageResponseHeader,
};
use folio_protocol::message::Messages;
use serde_json::Value;
use tempfile::TempDir;

use super::cluster::send;
use super::node::{PATIENCE, ask, folio, free_ports, send_request, wait};

const GROUPS: [&str; 2] = ["broker-a", "broker-b"];
/// Of one node: NameServer, Raft, and a broker port for each group.
const PORTS: u16 = 4;

/// Three processes.
struct Nodes {
    dir: TempDir,
    base: u16,
    children: BTreeMap<u16, Child>,
}

/// A request and its answer; none while the node is gone.
fn try_ask(port: u16, request: &Frame) -> Option<Frame> {
    let mut socket = TcpStream::connect(("127.0.0.1", port)).ok()?;
    socket.set_read_timeout(Some(PATIENCE)).unwrap();
    ask(&mut socket, request)
}

/// Asks until something comes of it.
fn until<T>(what: &str, mut look: impl FnMut() -> Option<T>) -> T {
    let deadline = Instant::now() + PATIENCE;
    loop {
        if let Some(found) = look() {
            return found;
        }
        assert!(Instant::now() < deadline, "{what}: not in time");
        std::thread::sleep(Duration::from_millis(50));
    }
}

impl Nodes {
    fn start() -> Nodes {
        let dir = tempfile::tempdir().unwrap();
        let mut nodes = Nodes { dir, base: free_ports(3 * PORTS), children: BTreeMap::new() };
        for id in 1..=3 {
            fs::write(nodes.file(id), nodes.config(id)).unwrap();
            nodes.boot(id);
        }
        nodes
    }

    fn port(&self, id: u16, which: u16) -> u16 {
        self.base + (id - 1) * PORTS + which
    }

    fn namesrv(&self, id: u16) -> u16 {
        self.port(id, 0)
    }

    fn broker(&self, id: u16, group: usize) -> u16 {
        self.port(id, 2 + group as u16)
    }

    fn file(&self, id: u16) -> std::path::PathBuf {
        self.dir.path().join(format!("node{id}.toml"))
    }

    fn config(&self, id: u16) -> String {
        let at = |port: u16| format!("\"127.0.0.1:{port}\"");
        let data = self.dir.path().join(format!("data{id}"));
        let mut text = format!(
            "node_id = {id}\ndata_dir = {:?}\n[listen]\nnamesrv = {}\nraft = {}\nbroker = {}\n\
             [log]\nsegment_size = \"16MiB\"\n\
             # Each group keeps its leader, on however busy a machine.\n\
             [raft]\nelection_min_ms = 11000\nelection_max_ms = 12000\nheartbeat_ms = 100\n",
            data.display().to_string(),
            at(self.namesrv(id)),
            at(self.port(id, 1)),
            at(self.broker(id, 0)),
        );
        let mut brokers = Vec::new();
        for id in 1..=3 {
            let (raft, broker, namesrv) = (self.port(id, 1), self.broker(id, 0), self.namesrv(id));
            text += &format!(
                "[[nodes]]\nid = {id}\nraft = {}\nbroker = {}\nnamesrv = {}\n",
                at(raft),
                at(broker),
                at(namesrv)
            );
            brokers.push(format!("{id} = {}", at(self.broker(id, 1))));
        }
        let (name, listen) = (GROUPS[1], at(self.broker(id, 1)));
        text + &format!(
            "[[groups]]\nname = {name:?}\nlisten = {listen}\nbrokers = {{ {} }}\n",
            brokers.join(", ")
        )
    }

    fn boot(&mut self, id: u16) {
        let log = File::options().create(true).append(true).open(self.dir.path().join(format!("log{id}")));
        let child = folio().args(["node", "-c"]).arg(self.file(id)).stderr(log.unwrap()).spawn().unwrap();
        self.children.insert(id, child);
    }

    fn log(&self, id: u16) -> String {
        fs::read_to_string(self.dir.path().join(format!("log{id}"))).unwrap()
    }

    /// What `folio cluster status` says, by group and node.
    fn status(&self, id: u16) -> BTreeMap<(String, u64), Value> {
        let address = format!("127.0.0.1:{}", self.namesrv(id));
        let output = folio().args(["cluster", "status", "--json", "-n", &address]).output().unwrap();
        let nodes: Vec<Value> = serde_json::from_slice(&output.stdout).unwrap_or_default();
        let key = |node: &Value| Some((node["group"].as_str()?.to_owned(), node["node_id"].as_u64()?));
        nodes.into_iter().filter_map(|node| Some((key(&node)?, node))).collect()
    }

    /// The leader of a group, once all that answer agree on one.
    fn leader(&self, asked: u16, group: usize) -> u16 {
        until("a leader", || {
            let status = self.status(asked);
            let of_group = status.iter().filter(|((name, _), _)| name == GROUPS[group]);
            let answers: Vec<&Value> =
                of_group.map(|(_, node)| node).filter(|node| node["role"] != "unreachable").collect();
            let leaders: BTreeSet<Option<u64>> = answers.iter().map(|node| node["leader"].as_u64()).collect();
            let leader = leaders.first().copied().flatten()?;
            let leads = answers.iter().any(|node| node["node_id"] == leader && node["role"] == "leader");
            (leaders.len() == 1 && leads && answers.len() >= 2).then_some(leader as u16)
        })
    }

    /// Sends to a group through a node, and reads the message back through another one.
    fn send_and_pull(&self, group: usize, through: u16, read_at: u16, body: &str) {
        let stored = until("a send", || {
            let answer = try_ask(self.broker(through, group), &send_request(0, None, body.to_owned()))?;
            (answer.code == ResponseCode::Success.code())
                .then(|| SendMessageResponseHeader::from_ext(&answer.ext).unwrap())
        });
        let pull = PullMessageHeader {
            consumer_group: "readers".into(),
            topic: "orders".into(),
            queue_id: 0,
            queue_offset: stored.queue_offset,
            max_msg_nums: 1,
            sys_flag: pull_sys_flag::SUBSCRIPTION,
            commit_offset: 0,
            suspend_timeout_millis: 0,
            subscription: Some("*".to_owned()),
            sub_version: 0,
            expression_type: None,
            max_msg_bytes: None,
            request_source: None,
            proxy_forward_client_id: None,
        };
        let pull = Frame::request(RequestCode::PullMessage, &pull, Bytes::new());
        until("a pull", || {
            let answer = try_ask(self.broker(read_at, group), &pull)?;
            let (_, message) = Messages::new(&answer.body).next()?.ok()?;
            (message.body() == body.as_bytes()).then_some(())
        });
    }

    /// Creates the consumer group that pulls in a group.
    fn create_readers(&self, group: usize) {
        let config = SubscriptionGroupConfig {
            group_name: "readers".to_owned(),
            ..SubscriptionGroupConfig::default()
        };
        let body = body::encode(&config).unwrap();
        let create =
            Frame { code: RequestCode::UpdateAndCreateSubscriptionGroup.code(), body, ..Frame::default() };
        let port = self.broker(1, group);
        until("a consumer group", || {
            (try_ask(port, &create)?.code == ResponseCode::Success.code()).then_some(())
        });
    }

    fn route(&self, id: u16) -> Option<TopicRouteData> {
        let header = GetRouteHeader { topic: "orders".into(), accept_standard_json_only: None };
        let answer = try_ask(
            self.namesrv(id),
            &Frame::request(RequestCode::GetRouteInfoByTopic, &header, Bytes::new()),
        )?;
        (answer.code == ResponseCode::Success.code()).then(|| body::decode(&answer.body).unwrap())
    }
}

impl Drop for Nodes {
    fn drop(&mut self) {
        for child in self.children.values_mut() {
            drop(child.kill());
            drop(child.wait());
        }
    }
}

fn files_of(dir: &Path) -> BTreeSet<String> {
    let entries = fs::read_dir(dir).unwrap();
    entries.map(|entry| entry.unwrap().file_name().to_string_lossy().into_owned()).collect()
}

#[test]
fn two_groups_on_three_nodes_serve_and_fail_over_each_by_itself() {
    let mut nodes = Nodes::start();
    let leaders = [nodes.leader(1, 0), nodes.leader(1, 1)];
    let status = nodes.status(1);
    assert_eq!(status.len(), 6, "each group on each node: {status:?}");
    let ids: BTreeSet<&str> = status.values().filter_map(|node| node["group_id"].as_str()).collect();
    assert_eq!(ids.len(), 2, "{ids:?}");

    // Both groups serve, whatever node a client is connected to.
    for group in 0..2 {
        nodes.create_readers(group);
        for id in 1..=3 {
            nodes.send_and_pull(group, id, id % 3 + 1, &format!("{group} through {id}"));
        }
    }
    // The topic has queues in both, at any NameServer port; the leader's address is the broker's 0.
    for id in 1..=3 {
        let route = until("a route through both groups", || {
            nodes.route(id).filter(|route| route.broker_datas.len() == 2)
        });
        let names: Vec<&str> = route.queue_datas.iter().map(|queues| queues.broker_name.as_str()).collect();
        assert_eq!(names, GROUPS);
        for (group, data) in route.broker_datas.iter().enumerate() {
            let port = nodes.broker(leaders[group], group);
            assert_eq!((data.broker_name.as_str(), data.broker_addrs.len()), (GROUPS[group], 3));
            assert_eq!(data.broker_addrs[&0], format!("127.0.0.1:{port}"));
        }
    }
    let info = try_ask(
        nodes.namesrv(2),
        &Frame::request(RequestCode::GetBrokerClusterInfo, &NoHeader, Bytes::new()),
    );
    let info: ClusterInfo = body::decode(&info.unwrap().body).unwrap();
    assert_eq!(info.cluster_addr_table["DefaultCluster"], GROUPS);
    assert!(info.broker_addr_table.keys().eq(GROUPS));

    // A topic that exists nowhere is denied, after all groups were asked.
    let header = GetRouteHeader { topic: "absent".into(), accept_standard_json_only: None };
    let absent = Frame::request(RequestCode::GetRouteInfoByTopic, &header, Bytes::new());
    assert_eq!(try_ask(nodes.namesrv(3), &absent).unwrap().code, ResponseCode::TopicNotExist.code());

    // The command line creates a topic in both.
    let address = format!("127.0.0.1:{}", nodes.namesrv(3));
    let created = folio().args(["topic", "create", "both", "-q", "3", "-n", &address]).output().unwrap();
    assert!(created.status.success(), "{}", String::from_utf8_lossy(&created.stderr));
    let listed = folio().args(["topic", "list", "--json", "-n", &address]).output().unwrap();
    let listed: Value = serde_json::from_slice(&listed.stdout).unwrap();
    assert!(GROUPS.iter().all(|group| listed[group]["both"]["readQueueNums"] == 3), "{listed}");

    // A node dies. Both groups serve; one that was not led there keeps its leader and its term.
    let dead = leaders[0];
    let survivor = dead % 3 + 1;
    let before = nodes.status(survivor);
    let child = nodes.children.get_mut(&dead).unwrap();
    send("KILL", &child.id().to_string());
    drop(child.wait());
    for (group, led) in leaders.into_iter().enumerate() {
        nodes.send_and_pull(group, survivor, survivor % 3 + 1, "after a death");
        let leader = nodes.leader(survivor, group);
        if led == dead {
            assert_ne!(leader, dead);
        } else {
            let key = (GROUPS[group].to_owned(), u64::from(survivor));
            let term = nodes.status(survivor)[&key]["term"].clone();
            assert_eq!((leader, &term), (led, &before[&key]["term"]));
        }
    }

    // It comes back, and takes part in both.
    nodes.boot(dead);
    until("the node is back in both groups", || {
        let status = nodes.status(survivor);
        let back = GROUPS.iter().all(|group| {
            let node = &status.get(&((*group).to_owned(), u64::from(dead)));
            node.is_some_and(|node| node["role"] == "follower" || node["role"] == "leader")
        });
        back.then_some(())
    });
    for group in 0..2 {
        nodes.send_and_pull(group, dead, dead, "after a restart");
    }
    let data = files_of(&nodes.dir.path().join(format!("data{dead}")));
    assert!(GROUPS.iter().all(|group| data.contains(*group)), "{data:?}");

    // A stop in order hands both over.
    for (id, mut child) in std::mem::take(&mut nodes.children) {
        send("TERM", &child.id().to_string());
        assert!(wait(&mut child).success(), "{}", nodes.log(id));
    }
}
