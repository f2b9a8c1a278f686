//! One `folio node` process on ports and a directory of its own.

use std::fs::{self, File};
use std::io::{Read, Write};
use std::net::{Ipv4Addr, TcpStream};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, ExitStatus, Stdio};
use std::sync::atomic::{AtomicU16, Ordering};
use std::time::{Duration, Instant};

use bytes::{Bytes, BytesMut};
use folio_protocol::code::RequestCode;
use folio_protocol::frame::Frame;
use folio_protocol::header::SendMessageHeader;
use folio_server::handlers::node_status::{NODE_STATUS, NodeStatus};
use tempfile::TempDir;
use tokio::net::TcpSocket;

/// Nothing a test waits for takes longer, on however busy a machine.
pub(crate) const PATIENCE: Duration = Duration::from_secs(60);

/// The first of `count` ports nothing listens on, below those the system gives away.
pub(crate) fn free_ports(count: u16) -> u16 {
    static NEXT: AtomicU16 = AtomicU16::new(0);
    let start = 24_000 + (std::process::id() % 700) as u16 * 10;
    loop {
        let first = start + NEXT.fetch_add(count, Ordering::Relaxed) % 1_000;
        if (first..first + count).all(is_free) {
            return first;
        }
    }
}

/// Bound, but not listening: a node that another test starts just then has a copy of the socket until its program
/// begins, and a copy that listened would keep the port taken.
fn is_free(port: u16) -> bool {
    let socket = TcpSocket::new_v4().unwrap();
    socket.set_reuseaddr(true).unwrap();
    socket.bind((Ipv4Addr::LOCALHOST, port).into()).is_ok()
}

/// A `folio` command whose output is captured.
pub(crate) fn folio() -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_folio"));
    command.stdin(Stdio::null()).env_remove("FOLIO_LOG");
    command
}

pub(crate) struct Node {
    pub(crate) dir: TempDir,
    pub(crate) port: u16,
    pub(crate) child: Child,
}

/// A configuration of a group of one, with limits short enough to wait for.
pub(crate) fn config(dir: &Path, port: u16) -> PathBuf {
    let (namesrv, broker, raft) = (port, port + 1, port + 2);
    let text = format!(
        "node_id = 1\nsingle_node = true\ndata_dir = {:?}\n\
         [listen]\nnamesrv = \"127.0.0.1:{namesrv}\"\nbroker = \"127.0.0.1:{broker}\"\n\
         raft = \"127.0.0.1:{raft}\"\n\
         [[nodes]]\nid = 1\nraft = \"127.0.0.1:{raft}\"\nbroker = \"127.0.0.1:{broker}\"\n\
         namesrv = \"127.0.0.1:{namesrv}\"\n\
         [log]\nsegment_size = \"16MiB\"\n\
         [limits]\nframe_seconds = 1\nwrite_seconds = 2\nclient_queue = \"256KiB\"\n\
         connections = 20\nconnections_per_address = 20\n",
        dir.join("data").display().to_string(),
    );
    let file = dir.join("node.toml");
    fs::write(&file, text).unwrap();
    file
}

impl Node {
    pub(crate) fn start() -> Node {
        Node::start_with("")
    }

    /// Starts a node whose configuration ends with these lines.
    pub(crate) fn start_with(lines: &str) -> Node {
        Node::start_changed(folio(), |config| config + lines)
    }

    /// Starts a node by a command that runs `folio`, with a changed configuration.
    pub(crate) fn start_changed(mut command: Command, change: impl FnOnce(String) -> String) -> Node {
        let dir = tempfile::tempdir().unwrap();
        let port = free_ports(3);
        let log = File::create(dir.path().join("log")).unwrap();
        let config = config(dir.path(), port);
        fs::write(&config, change(fs::read_to_string(&config).unwrap())).unwrap();
        let child = command.args(["node", "--config"]).arg(config).stderr(log).spawn().unwrap();
        let node = Node { dir, port, child };
        let deadline = Instant::now() + PATIENCE;
        while node.status().is_none_or(|status| status.role != "leader") {
            assert!(Instant::now() < deadline, "the node does not lead; its log:\n{}", node.log());
            std::thread::sleep(Duration::from_millis(20));
        }
        node
    }

    pub(crate) fn log(&self) -> String {
        fs::read_to_string(self.dir.path().join("log")).unwrap()
    }

    /// Lines of the log that name this peer, once there is one.
    pub(crate) fn lines_about(&self, peer: &TcpStream) -> Vec<String> {
        self.lines_about_within(peer, PATIENCE)
    }

    /// The same, or none after this time.
    pub(crate) fn lines_about_within(&self, peer: &TcpStream, patience: Duration) -> Vec<String> {
        let peer = peer.local_addr().unwrap().to_string();
        let deadline = Instant::now() + patience;
        loop {
            let log = self.log();
            let lines: Vec<String> =
                log.lines().filter(|line| line.contains(&peer)).map(str::to_owned).collect();
            if !lines.is_empty() || Instant::now() > deadline {
                return lines;
            }
            std::thread::sleep(Duration::from_millis(10));
        }
    }

    pub(crate) fn connect(&self) -> TcpStream {
        let socket = TcpStream::connect(("127.0.0.1", self.port + 1)).unwrap();
        socket.set_read_timeout(Some(PATIENCE)).unwrap();
        socket
    }

    pub(crate) fn status(&self) -> Option<NodeStatus> {
        let mut socket = TcpStream::connect(("127.0.0.1", self.port)).ok()?;
        let answer = ask(&mut socket, &Frame { code: NODE_STATUS, ..Frame::default() })?;
        serde_json::from_slice(&answer.body).ok()
    }

    pub(crate) fn signal(&self, name: &str) {
        let pid = self.child.id().to_string();
        assert!(Command::new("kill").args(["-s", name, &pid]).status().unwrap().success());
    }

    pub(crate) fn wait(&mut self) -> ExitStatus {
        wait(&mut self.child)
    }
}

impl Drop for Node {
    fn drop(&mut self) {
        drop(self.child.kill());
        drop(self.child.wait());
    }
}

pub(crate) fn wait(child: &mut Child) -> ExitStatus {
    let deadline = Instant::now() + PATIENCE;
    loop {
        if let Some(status) = child.try_wait().unwrap() {
            return status;
        }
        assert!(Instant::now() < deadline, "the process does not end");
        std::thread::sleep(Duration::from_millis(10));
    }
}

/// A request that stores a message in a queue of the topic `orders`, under a unique key where one is given.
pub(crate) fn send_request(queue_id: i32, key: Option<&str>, body: impl Into<Bytes>) -> Frame {
    let header = SendMessageHeader {
        producer_group: "p".into(),
        topic: "orders".into(),
        default_topic: "TBW102".into(),
        default_topic_queue_nums: 4,
        queue_id,
        sys_flag: 0,
        born_timestamp: 0,
        flag: 0,
        properties: key.map(|key| format!("UNIQ_KEY\u{1}{key}\u{2}")),
        reconsume_times: None,
        unit_mode: false,
        max_reconsume_times: None,
        batch: false,
        broker_name: None,
    };
    Frame::request(RequestCode::SendMessageV2, &header, body.into())
}

/// One request and its response; `None` if the connection ends first.
pub(crate) fn ask(socket: &mut TcpStream, request: &Frame) -> Option<Frame> {
    let mut out = BytesMut::new();
    request.encode(&mut out).unwrap();
    socket.write_all(&out).ok()?;
    let mut buffer = BytesMut::new();
    let mut chunk = [0; 4096];
    loop {
        if let Some(frame) = Frame::decode(&mut buffer).unwrap() {
            return Some(frame);
        }
        match socket.read(&mut chunk) {
            Ok(0) | Err(_) => return None,
            Ok(read) => buffer.extend_from_slice(&chunk[..read]),
        }
    }
}
