//! `folio cluster`: three processes, one parent.

use std::fs::{self, File};
use std::path::Path;
use std::process::{Child, Command};
use std::time::{Duration, Instant};

use serde_json::Value;

use super::node::{PATIENCE, folio, free_ports, wait};

pub(crate) struct Running {
    dir: Option<tempfile::TempDir>,
    parent: Child,
    namesrv: String,
}

impl Running {
    pub(crate) fn start() -> Running {
        let dir = tempfile::tempdir().unwrap();
        let base = free_ports(40);
        let out = File::create(dir.path().join("out")).unwrap();
        let mut command = folio();
        command.args(["cluster", "--base-port", &base.to_string(), "--segment-size", "16MiB", "--data"]);
        let parent = command.arg(dir.path().join("data")).stdout(out.try_clone().unwrap()).stderr(out);
        let (parent, namesrv) = (parent.spawn().unwrap(), format!("127.0.0.1:{base}"));
        let running = Running { parent, dir: Some(dir), namesrv };
        running.wait_for("ready: node");
        running
    }

    fn dir(&self) -> &Path {
        self.dir.as_ref().unwrap().path()
    }

    pub(crate) fn namesrv(&self) -> &str {
        &self.namesrv
    }

    /// Stops it in order; its folder.
    pub(crate) fn stop(mut self) -> tempfile::TempDir {
        send("TERM", &self.parent.id().to_string());
        assert!(wait(&mut self.parent).success(), "{}", self.out());
        self.dir.take().unwrap()
    }

    pub(crate) fn out(&self) -> String {
        fs::read_to_string(self.dir().join("out")).unwrap()
    }

    pub(crate) fn log(&self, node: u64) -> String {
        fs::read_to_string(self.dir().join(format!("data/node-{node}/folio.log"))).unwrap()
    }

    pub(crate) fn wait_for(&self, text: &str) {
        let deadline = Instant::now() + PATIENCE;
        while !self.out().contains(text) {
            assert!(Instant::now() < deadline, "no {text:?} in:\n{}", self.out());
            std::thread::sleep(Duration::from_millis(20));
        }
    }

    /// What every node says of itself, by asking one.
    pub(crate) fn status(&self) -> Vec<Value> {
        let output = folio().args(["cluster", "status", "--json", "-n", &self.namesrv]).output().unwrap();
        serde_json::from_slice(&output.stdout).unwrap_or_default()
    }

    /// Who leads, once somebody does: on a busy machine the leader may just be changing.
    pub(crate) fn leader(&self) -> u64 {
        let deadline = Instant::now() + PATIENCE;
        loop {
            let status = self.status();
            if let Some(leader) = status.iter().find(|node| node["role"] == "leader") {
                return leader["node_id"].as_u64().unwrap();
            }
            assert!(Instant::now() < deadline, "nobody leads: {status:?}");
            std::thread::sleep(Duration::from_millis(20));
        }
    }

    /// Where each node serves clients, in the order of the ids.
    pub(crate) fn brokers(&self) -> Vec<String> {
        let deadline = Instant::now() + PATIENCE;
        loop {
            let status = self.status();
            let at = |id: u64| {
                let told = status.iter().find_map(|node| node["nodes"][id.to_string()]["broker"].as_str());
                told.map(str::to_owned)
            };
            let brokers: Option<Vec<String>> = (1..=3).map(at).collect();
            if let Some(brokers) = brokers {
                return brokers;
            }
            assert!(Instant::now() < deadline, "not all nodes are known: {status:?}");
            std::thread::sleep(Duration::from_millis(20));
        }
    }

    pub(crate) fn children(&self) -> Vec<String> {
        let pid = self.parent.id();
        let list = fs::read_to_string(format!("/proc/{pid}/task/{pid}/children")).unwrap();
        list.split_whitespace().map(str::to_owned).collect()
    }
}

impl Drop for Running {
    fn drop(&mut self) {
        drop(self.parent.kill());
        drop(self.parent.wait());
    }
}

pub(crate) fn send(signal: &str, pid: &str) {
    assert!(Command::new("kill").args(["-s", signal, pid]).status().unwrap().success());
}

fn gone(pid: &str) -> bool {
    // A zombie of a killed parent is gone for every purpose but its entry.
    fs::read_to_string(format!("/proc/{pid}/stat")).map_or(true, |stat| stat.contains(") Z "))
}

#[test]
fn three_nodes_serve_report_a_death_and_stop_together() {
    let mut running = Running::start();
    let roles =
        || running.status().iter().map(|node| node["role"].as_str().unwrap_or("?").to_owned()).collect();
    let deadline = Instant::now() + PATIENCE;
    loop {
        let mut seen: Vec<String> = roles();
        seen.sort();
        if seen == ["follower", "follower", "leader"] {
            break;
        }
        // On a busy machine the leader may just be changing.
        assert!(Instant::now() < deadline, "{seen:?}");
        std::thread::sleep(Duration::from_millis(20));
    }
    let children = running.children();
    assert_eq!(children.len(), 3);
    send("KILL", &children[2]);
    running.wait_for("node 3 has ended");
    running.wait_for("signal: 9");
    let deadline = Instant::now() + PATIENCE;
    while !running.status().iter().any(|node| node["role"] == "unreachable") {
        assert!(Instant::now() < deadline, "{:?}", running.status());
        std::thread::sleep(Duration::from_millis(20));
    }
    send("TERM", &running.parent.id().to_string());
    assert!(wait(&mut running.parent).success(), "{}", running.out());
    assert!(children.iter().all(|pid| gone(pid)), "{children:?}");
}

#[test]
fn nodes_do_not_outlive_their_parent() {
    let mut running = Running::start();
    let children = running.children();
    running.parent.kill().unwrap();
    running.parent.wait().unwrap();
    let deadline = Instant::now() + PATIENCE;
    while !children.iter().all(|pid| gone(pid)) {
        assert!(Instant::now() < deadline, "{children:?} live on");
        std::thread::sleep(Duration::from_millis(20));
    }
}
