//! Starts that must fail say what is wrong and where; stops are clean.

use std::fs;
use std::process::Output;

use folio_protocol::body::ClusterInfo;
use folio_protocol::code::RequestCode;
use folio_protocol::frame::Frame;

use super::node::{Node, ask, config, folio, free_ports};

fn fails(output: &Output) -> String {
    assert!(!output.status.success(), "it started");
    String::from_utf8_lossy(&output.stderr).into_owned()
}

#[test]
fn a_port_in_use_is_named_with_its_key() {
    let node = Node::start();
    let dir = tempfile::tempdir().unwrap();
    let output = folio().args(["node", "-c"]).arg(config(dir.path(), node.port)).output().unwrap();
    let error = fails(&output);
    assert!(
        error.contains(&format!("cannot listen on 127.0.0.1:{} (key `listen.namesrv`", node.port)),
        "{error}"
    );
}

#[test]
fn a_data_directory_in_use_is_refused() {
    let node = Node::start();
    let output = folio().args(["node", "-c"]).arg(node.dir.path().join("node.toml")).output().unwrap();
    let error = fails(&output);
    assert!(error.contains("is in use by another process"), "{error}");
}

#[test]
fn another_nodes_data_directory_is_refused() {
    let mut node = Node::start();
    node.signal("TERM");
    assert!(node.wait().success());
    let file = node.dir.path().join("node.toml");
    let text = fs::read_to_string(&file).unwrap().replace("node_id = 1", "cluster = \"other\"\nnode_id = 1");
    fs::write(&file, text).unwrap();
    let error = fails(&folio().args(["node", "-c"]).arg(&file).output().unwrap());
    let expected = "belongs to cluster DefaultCluster, the configuration says cluster other";
    assert!(error.contains(expected), "{error}");
}

#[test]
fn a_wrong_configuration_is_named_by_file_and_key() {
    let dir = tempfile::tempdir().unwrap();
    let file = config(dir.path(), free_ports(3));
    let text = fs::read_to_string(&file).unwrap();
    fs::write(&file, text.replace("frame_seconds", "frame_secodns")).unwrap();
    let error = fails(&folio().args(["node", "-c"]).arg(&file).output().unwrap());
    assert!(error.contains("node.toml") && error.contains("frame_secodns"), "{error}");
    let error = fails(&folio().args(["node", "-c", "/nowhere/node.toml"]).output().unwrap());
    assert!(error.contains("/nowhere/node.toml"), "{error}");
}

#[test]
fn sigterm_stops_a_node_cleanly_and_it_starts_again() {
    let mut node = Node::start();
    let term = node.status().unwrap().term;
    node.signal("TERM");
    assert!(node.wait().success(), "{}", node.log());
    assert!(node.log().contains("node stopped"), "{}", node.log());
    let log = fs::File::create(node.dir.path().join("log")).unwrap();
    node.child =
        folio().args(["node", "-c"]).arg(node.dir.path().join("node.toml")).stderr(log).spawn().unwrap();
    let deadline = std::time::Instant::now() + super::node::PATIENCE;
    while node.status().is_none_or(|status| status.role != "leader" || status.term <= term) {
        assert!(std::time::Instant::now() < deadline, "{}", node.log());
        std::thread::sleep(std::time::Duration::from_millis(20));
    }
}

#[test]
fn commands_without_a_cluster_say_what_to_do() {
    let port = free_ports(1);
    let address = format!("127.0.0.1:{port}");
    let error = fails(&folio().args(["cluster", "status", "-n", &address]).output().unwrap());
    assert!(
        error.contains(&format!("cannot connect to {address}: is a FolioMQ node running there?")),
        "{error}"
    );
}

#[test]
fn three_broker_confs_on_one_host_find_each_other() {
    let dir = tempfile::tempdir().unwrap();
    let base = free_ports(7);
    let peers: Vec<String> = (0..3).map(|n| format!("n{n}-127.0.0.1:{}", base + 4 + n)).collect();
    let mut children: Vec<Stopped> = Vec::new();
    for n in 0..3 {
        let text = format!(
            "brokerClusterName=RaftCluster\nbrokerName=RaftNode00\nlistenPort={}\nnamesrvListenPort={base}\n\
             bindAddress=127.0.0.1\nstorePathRootDir={}\nenableDLegerCommitLog=true\n\
             dLegerGroup=RaftNode00\ndLegerPeers={}\ndLegerSelfId=n{n}\nsendMessageThreadPoolNums=16\n\
             mappedFileSizeCommitLog=16777216\n",
            base + 1 + n,
            dir.path().join(format!("store{n}")).display(),
            peers.join(";")
        );
        let file = dir.path().join(format!("broker-n{n}.conf"));
        fs::write(&file, text).unwrap();
        let log = fs::File::create(dir.path().join(format!("log{n}"))).unwrap();
        children.push(Stopped(folio().args(["node", "-c"]).arg(&file).stderr(log).spawn().unwrap()));
    }
    let deadline = std::time::Instant::now() + super::node::PATIENCE;
    let addresses = || -> Vec<String> {
        let Ok(mut socket) = std::net::TcpStream::connect(("127.0.0.1", base + 3)) else { return Vec::new() };
        let request = Frame { code: RequestCode::GetBrokerClusterInfo.code(), ..Frame::default() };
        let Some(answer) = ask(&mut socket, &request) else { return Vec::new() };
        // A node that does not know its group yet names nobody.
        let Ok(info) = serde_json::from_slice::<ClusterInfo>(&answer.body) else { return Vec::new() };
        let known = info.broker_addr_table.get("RaftNode00");
        known.map(|known| known.broker_addrs.values().cloned().collect()).unwrap_or_default()
    };
    let expected: Vec<String> = (1..4).map(|n| format!("127.0.0.1:{}", base + n)).collect();
    loop {
        let mut found = addresses();
        found.sort();
        if found == expected {
            break;
        }
        assert!(std::time::Instant::now() < deadline, "{found:?}");
        std::thread::sleep(std::time::Duration::from_millis(50));
    }
    let log = fs::read_to_string(dir.path().join("log0")).unwrap();
    assert!(log.contains("mean nothing here: sendMessageThreadPoolNums"), "{log}");
}

/// A process that ends with the test.
struct Stopped(std::process::Child);

impl Drop for Stopped {
    fn drop(&mut self) {
        drop(self.0.kill());
        drop(self.0.wait());
    }
}
