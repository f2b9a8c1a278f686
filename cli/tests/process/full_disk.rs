//! Full disks under real processes: refused in words, nothing lost, and it goes on by itself once there is room.
//!
//! The disks are tmpfs mounts, whose size can be changed while they are in use. That takes root: where it is missing
//! the tests say that they were skipped.

use std::fs::{self, File};
use std::net::TcpStream;
use std::path::{Path, PathBuf};
use std::process::{Child, Command};
use std::time::{Duration, Instant};

use folio_protocol::code::ResponseCode;
use folio_protocol::frame::Frame;
use folio_server::handlers::node_status::{NODE_STATUS, NodeStatus};
use tempfile::TempDir;

use super::node::{PATIENCE, ask, folio, free_ports, send_request};

const BODY_BYTES: usize = 256 << 10;
/// How long an attempt waits for its answer, as a client does. What a disk has no room for when it is taken is held until
/// there is some; under its key it may be sent again.
const ATTEMPT_PATIENCE: Duration = Duration::from_secs(5);

/// A file system of its own size.
struct Tmpfs(PathBuf);

impl Tmpfs {
    fn mount(path: PathBuf, mib: u64) -> Option<Tmpfs> {
        fs::create_dir_all(&path).unwrap();
        let size = format!("size={mib}m");
        let mounted =
            Command::new("mount").args(["-t", "tmpfs", "-o", &size, "folio-test"]).arg(&path).output();
        if mounted.is_ok_and(|output| output.status.success()) {
            return Some(Tmpfs(path));
        }
        println!("skipped: mounting a tmpfs needs root");
        None
    }

    fn resize(&self, mib: u64) {
        let options = format!("remount,size={mib}m");
        assert!(Command::new("mount").args(["-o", &options]).arg(&self.0).status().unwrap().success());
    }

    fn used_mib(&self) -> u64 {
        let output = Command::new("df").args(["--output=used", "-k"]).arg(&self.0).output().unwrap();
        let text = String::from_utf8(output.stdout).unwrap();
        text.lines().nth(1).unwrap().trim().parse::<u64>().unwrap().div_ceil(1024)
    }
}

impl Drop for Tmpfs {
    fn drop(&mut self) {
        drop(Command::new("umount").arg("-l").arg(&self.0).status());
    }
}

/// Nodes, each with its data on a disk of its own.
struct Nodes {
    // Fields are dropped in this order.
    children: Vec<Child>,
    disks: Vec<Tmpfs>,
    port: u16,
    dir: TempDir,
}

impl Drop for Nodes {
    fn drop(&mut self) {
        for child in &mut self.children {
            drop(child.kill());
            drop(child.wait());
        }
    }
}

impl Nodes {
    /// `None` where file systems cannot be mounted.
    fn start(count: u16, mib: u64) -> Option<Nodes> {
        let dir = tempfile::tempdir().unwrap();
        let mut nodes = Nodes { children: Vec::new(), disks: Vec::new(), port: free_ports(count * 3), dir };
        for node in 0..count {
            nodes.disks.push(Tmpfs::mount(nodes.dir.path().join(format!("disk{node}")), mib)?);
        }
        for node in 0..count {
            let file = nodes.config(node, count);
            let log = File::create(nodes.dir.path().join(format!("log{node}"))).unwrap();
            nodes.children.push(folio().args(["node", "-c"]).arg(file).stderr(log).spawn().unwrap());
        }
        Some(nodes)
    }

    fn address(&self, node: u16, kind: u16) -> String {
        format!("127.0.0.1:{}", self.port + node * 3 + kind)
    }

    fn config(&self, node: u16, count: u16) -> PathBuf {
        let at = |node, kind| self.address(node, kind);
        let section = |node, prefix: &str| {
            let (namesrv, broker, raft) = (at(node, 0), at(node, 1), at(node, 2));
            format!("{prefix}namesrv = \"{namesrv}\"\nbroker = \"{broker}\"\nraft = \"{raft}\"\n")
        };
        let members: String =
            (0..count).map(|other| section(other, &format!("[[nodes]]\nid = {}\n", other + 1))).collect();
        let data = Path::join(&self.disks[usize::from(node)].0, "data");
        let text = format!(
            "node_id = {}\nsingle_node = {}\ndata_dir = {:?}\nhost = \"127.0.0.1\"\n{}{members}[log]\nsegment_size = \"16MiB\"\n\
             # Leadership goes where this story gives it, on however busy a machine.\n\
             [raft]\nelection_min_ms = 11000\nelection_max_ms = 12000\nheartbeat_ms = 100\n",
            node + 1,
            count == 1,
            data.display().to_string(),
            section(node, "[listen]\n"),
        );
        let file = self.dir.path().join(format!("node{node}.toml"));
        fs::write(&file, text).unwrap();
        file
    }

    fn status(&self, node: u16) -> Option<NodeStatus> {
        let mut socket = TcpStream::connect(self.address(node, 1)).ok()?;
        let answer = ask(&mut socket, &Frame { code: NODE_STATUS, ..Frame::default() })?;
        serde_json::from_slice(&answer.body).ok()
    }

    /// The node that leads, once one does.
    fn leader(&self) -> u16 {
        let mut found = None;
        self.wait_for("a leader", || {
            let leads = |node: &u16| self.status(*node).is_some_and(|status| status.role == "leader");
            found = (0..self.children.len() as u16).find(leads);
            found.is_some()
        });
        found.unwrap()
    }

    #[track_caller]
    fn wait_for(&self, what: &str, mut done: impl FnMut() -> bool) {
        let deadline = Instant::now() + PATIENCE;
        while !done() {
            assert!(Instant::now() < deadline, "no {what}; the first log:\n{}", self.log(0));
            std::thread::sleep(Duration::from_millis(50));
        }
    }

    fn log(&self, node: u16) -> String {
        fs::read_to_string(self.dir.path().join(format!("log{node}"))).unwrap()
    }
}

/// Sends one message; the answer's code and remark.
fn attempt(address: &str, number: u64) -> (i32, String) {
    let request = send_request(0, Some(&format!("K{number}")), vec![b'x'; BODY_BYTES]);
    let answer = TcpStream::connect(address).ok().and_then(|mut socket| {
        socket.set_read_timeout(Some(ATTEMPT_PATIENCE)).unwrap();
        ask(&mut socket, &request)
    });
    answer.map_or((-1, "no answer".to_owned()), |answer| (answer.code, answer.remark.unwrap_or_default()))
}

#[test]
fn a_full_disk_refuses_in_words_keeps_what_it_has_and_serves_again_once_there_is_room() {
    let Some(nodes) = Nodes::start(1, 44) else { return };
    nodes.leader();
    let address = nodes.address(0, 1);
    let (mut sent, mut unanswered) = (0, 0);
    let refused = loop {
        match attempt(&address, sent) {
            (0, _) => sent += 1,
            (-1, _) if unanswered < 10 => unanswered += 1,
            refused => break refused,
        }
        assert!(sent < 1_000, "it stores more than its disk holds");
    };
    assert_eq!(refused.0, ResponseCode::ServiceNotAvailable.code(), "{refused:?}");
    assert!(refused.1.contains("disk is full"), "{refused:?}");
    assert!(sent > 8 && nodes.status(0).unwrap().disk_full);
    assert_eq!(super::drain::max_offset(&address, 0), sent, "what was acknowledged is there");
    nodes.disks[0].resize(400);
    nodes.wait_for("room", || attempt(&address, sent).0 == 0);
    assert_eq!(super::drain::max_offset(&address, 0), sent + 1);
    assert!(!nodes.status(0).unwrap().disk_full);
}

#[test]
fn a_leader_whose_disk_is_full_hands_over_and_catches_up_once_there_is_room() {
    let Some(nodes) = Nodes::start(3, 400) else { return };
    let full = nodes.leader();
    let survivor = nodes.address((full + 1) % 3, 1);
    nodes.wait_for("a first message", || attempt(&survivor, 0).0 == 0);
    let disk = &nodes.disks[usize::from(full)];
    disk.resize(disk.used_mib() + 1);
    // Several segments: the full disk could not hold them.
    for number in 1..200 {
        nodes.wait_for("answer", || attempt(&survivor, number).0 == 0);
    }
    assert_ne!(nodes.leader(), full);
    assert!(nodes.status(full).unwrap().disk_full, "{}", nodes.log(full));
    assert!(
        nodes.log(full).contains("this node's disk is full: handing leadership over"),
        "{}",
        nodes.log(full)
    );
    assert_eq!(super::drain::max_offset(&survivor, 0), 200, "each acknowledged message is there, once");
    disk.resize(400);
    let applied = nodes.status(nodes.leader()).unwrap().applied_position;
    nodes.wait_for("catching up", || {
        nodes.status(full).is_some_and(|status| !status.disk_full && status.applied_position >= applied)
    });
}

/// A log on a full disk: nothing that a node says can be written. It used to end in a panic at its first line.
#[test]
fn a_node_whose_output_cannot_be_written_serves() {
    let full = || fs::OpenOptions::new().write(true).open("/dev/full").unwrap();
    let mut node = super::node::Node::start();
    node.signal("TERM");
    assert!(node.wait().success(), "{}", node.log());
    let mut command = folio();
    command.args(["node", "-c"]).arg(node.dir.path().join("node.toml")).stdout(full()).stderr(full());
    node.child = command.spawn().unwrap();
    let deadline = Instant::now() + PATIENCE;
    while node.status().is_none_or(|status| status.role != "leader") {
        assert_eq!(node.child.try_wait().unwrap(), None, "it ended");
        assert!(Instant::now() < deadline, "it does not lead");
        std::thread::sleep(Duration::from_millis(20));
    }
    node.signal("TERM");
    assert!(node.wait().success());
}

/// The same for what looks after the nodes: a line it cannot print must not take a cluster down.
#[test]
fn a_cluster_whose_output_cannot_be_written_goes_on() {
    let full = || fs::OpenOptions::new().write(true).open("/dev/full").unwrap();
    let dir = tempfile::tempdir().unwrap();
    let port = free_ports(40);
    let mut command = folio();
    command.args(["cluster", "--nodes", "1", "--segment-size", "16MiB", "--base-port", &port.to_string()]);
    let mut child = command.arg("--data").arg(dir.path()).stdout(full()).stderr(full()).spawn().unwrap();
    let leads = |at: u16| {
        let mut socket = TcpStream::connect(("127.0.0.1", at)).ok()?;
        let answer = ask(&mut socket, &Frame { code: NODE_STATUS, ..Frame::default() })?;
        serde_json::from_slice::<NodeStatus>(&answer.body).ok().filter(|status| status.role == "leader")
    };
    let deadline = Instant::now() + PATIENCE;
    while leads(port).is_none() {
        assert_eq!(child.try_wait().unwrap(), None, "it ended");
        assert!(Instant::now() < deadline, "no node leads");
        std::thread::sleep(Duration::from_millis(20));
    }
    // It says that it is ready, that it stops, and ends as it should.
    let pid = child.id().to_string();
    assert!(Command::new("kill").args(["-s", "TERM", &pid]).status().unwrap().success());
    assert!(super::node::wait(&mut child).success());
}
