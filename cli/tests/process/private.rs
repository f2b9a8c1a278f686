//! What a node and `folio cluster` leave on the disk is their user's alone.

use std::fs::{self, File, Permissions};
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::time::Instant;

use super::cluster::Running;
use super::node::{Node, PATIENCE, folio};

/// Everything below a folder, itself included.
fn tree(path: &Path) -> Vec<PathBuf> {
    let mut all = vec![path.to_owned()];
    if path.is_dir() {
        let below = fs::read_dir(path).unwrap().map(|entry| entry.unwrap().path());
        all.extend(below.flat_map(|path| tree(&path)));
    }
    all
}

fn mode(path: &Path) -> u32 {
    fs::symlink_metadata(path).unwrap().permissions().mode() & 0o7777
}

#[track_caller]
fn assert_private(root: &Path) {
    for path in tree(root) {
        let expected = if path.is_dir() { 0o700 } else { 0o600 };
        assert_eq!(mode(&path), expected, "{} has {:o}", path.display(), mode(&path));
    }
}

fn run(words: &[&str]) {
    let output = folio().args(words).output().unwrap();
    assert!(output.status.success(), "{words:?}: {}", String::from_utf8_lossy(&output.stderr));
}

/// Data, configurations and logs were readable by every local user.
#[test]
fn private_i1_what_a_cluster_writes_is_its_users_alone() {
    let running = Running::start();
    run(&["topic", "create", "orders", "-n", running.namesrv()]);
    run(&["bench", "send", "--topic", "orders", "--seconds", "1", "--size", "1024", "-n", running.namesrv()]);
    let data = running.stop();
    let found = tree(&data.path().join("data"));
    for part in [
        "cluster",
        "node-2/node.toml",
        "node-2/folio.log",
        "data/identity",
        "commitlog",
        "consumequeue/orders/0",
        "vote",
    ] {
        assert!(found.iter().any(|path| path.to_string_lossy().contains(part)), "the run made no {part}");
    }
    assert_private(&data.path().join("data"));
}

#[test]
fn private_i1_what_an_earlier_version_left_open_is_tightened_at_the_start() {
    let mut node = Node::start();
    node.signal("TERM");
    assert!(node.wait().success(), "{}", node.log());
    let data = node.dir.path().join("data");
    for path in tree(&data) {
        let open = if path.is_dir() { 0o755 } else { 0o644 };
        fs::set_permissions(&path, Permissions::from_mode(open)).unwrap();
    }
    let log = File::create(node.dir.path().join("log")).unwrap();
    node.child =
        folio().args(["node", "-c"]).arg(node.dir.path().join("node.toml")).stderr(log).spawn().unwrap();
    let deadline = Instant::now() + PATIENCE;
    while node.status().is_none_or(|status| status.role != "leader") {
        assert!(Instant::now() < deadline, "{}", node.log());
        std::thread::sleep(std::time::Duration::from_millis(20));
    }
    assert_private(&data);
    assert!(!node.log().contains("other users"), "{}", node.log());
}
