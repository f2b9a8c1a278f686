//! Starts that must fail say what is wrong and where; stops are clean.

use std::fs;
use std::process::Output;

use super::node::{Node, config, folio, free_ports};

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
