//! A leader whose process dies: the others replace it long before its lease runs out, also when the next process is there
//! before they have seen that it was gone.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::{Duration, Instant};

use crate::cluster::{Cluster, Echo, PATIENCE, address, endless_lease, no_retention};
use folio_engine::disk::RealDisk;
use folio_raft::config::GroupConfig;
use folio_raft::group::Group;
use folio_raft::status::Role;
use tempfile::TempDir;
use tokio::io::copy_bidirectional;
use tokio::net::{TcpListener, TcpStream};
use tokio::runtime::Runtime;

/// Three nodes, each in a runtime of its own, which can be taken away like a process, sockets and all.
struct Machines {
    cluster: Cluster,
    /// How nodes reach each other, where that is not by their addresses.
    ways: BTreeMap<u64, String>,
    running: BTreeMap<u64, (Runtime, Group)>,
}

impl Machines {
    /// Runs once all know a leader.
    fn start(ways: impl FnOnce(&Cluster) -> BTreeMap<u64, String>) -> Machines {
        let nodes = (1..=3).map(|id| (id, address())).collect();
        let dirs = (1..=3).map(|id| (id, TempDir::new().unwrap())).collect();
        let (groups, secrets) = Default::default();
        let (retention, timing) = (no_retention(), endless_lease());
        let cluster = Cluster { dirs, nodes, groups, secrets, retention, timing };
        let mut machines = Machines { ways: ways(&cluster), cluster, running: BTreeMap::new() };
        (1..=3).for_each(|id| machines.boot(id));
        let knows = |(_, group): &(Runtime, Group)| group.status().leader.is_some();
        wait_for("no leader at all", || machines.running.values().all(knows) && machines.leader().is_some());
        machines
    }

    fn boot(&mut self, id: u64) {
        let runtime = Runtime::new().unwrap();
        let config = GroupConfig { dial: self.ways.clone(), ..self.cluster.config(id, false) };
        let group = runtime.block_on(Group::start(config, Arc::new(RealDisk), Arc::new(Echo))).unwrap();
        self.running.insert(id, (runtime, group));
    }

    fn leader(&self) -> Option<u64> {
        let leads = |(_, group): &&(Runtime, Group)| group.status().role == Role::Leader;
        self.running.values().find(leads).map(|(_, group)| group.node_id())
    }

    fn kill(&mut self, id: u64) {
        let (runtime, group) = self.running.remove(&id).unwrap();
        drop(group);
        runtime.shutdown_timeout(PATIENCE);
    }
}

impl Drop for Machines {
    fn drop(&mut self) {
        for (runtime, _) in std::mem::take(&mut self.running).into_values() {
            runtime.shutdown_background();
        }
    }
}

fn wait_for(what: &str, is_so: impl Fn() -> bool) {
    let deadline = Instant::now() + PATIENCE;
    while !is_so() {
        assert!(Instant::now() < deadline, "{what}");
        std::thread::sleep(Duration::from_millis(5));
    }
}

/// A way to a node that takes every connection, whether the node lives or not.
async fn way_to(node: String) -> String {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let way = listener.local_addr().unwrap().to_string();
    tokio::spawn(async move {
        while let Ok((mut near, _)) = listener.accept().await {
            let node = node.clone();
            tokio::spawn(async move {
                if let Ok(mut far) = TcpStream::connect(node).await {
                    let _ = copy_bidirectional(&mut near, &mut far).await;
                }
            });
        }
    });
    way
}

#[test]
fn a_dead_leader_is_replaced_long_before_its_lease_runs_out() {
    let mut machines = Machines::start(|_| BTreeMap::new());
    machines.kill(machines.leader().unwrap());
    wait_for("the others wait for its lease", || machines.leader().is_some());
}

/// Before: a leader counted as gone only where its address refused connections. Where its listener was the last to close, or
/// the next process was up already, its peers waited for the lease of a leader that led no more.
#[test]
fn a_leader_that_started_anew_unseen_was_waited_for_as_if_it_led() {
    let ways = Runtime::new().unwrap();
    let mut machines = Machines::start(|cluster| {
        cluster.nodes.iter().map(|(id, node)| (*id, ways.block_on(way_to(node.raft.clone())))).collect()
    });
    let first = machines.leader().unwrap();
    machines.kill(first);
    machines.boot(first);
    wait_for("the others wait for its lease", || machines.leader().is_some());
}

/// Before: who lost a connection to a node that was elected in the same moment asked it whether it leads, and heard what that
/// node had last published: "no". It was taken for one that had started anew, and replaced at once; two that did so together
/// split the votes, and the group was without a leader until the lease ran out.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_node_that_was_elected_a_moment_ago_was_taken_for_one_that_had_started_anew() {
    const MOVES: u64 = 100;
    let cluster = Cluster::start(1..=3, no_retention(), endless_lease()).await;
    let first = cluster.confirmed().await.status();
    let mut leader = first.leader.unwrap();
    for term in first.term + 1..=first.term + MOVES {
        let next = &cluster.groups[&(leader % 3 + 1)];
        let old = cluster.groups[&leader].clone();
        leader = next.node_id();
        let moved = tokio::spawn(async move { old.transfer_leadership(Some(leader)).await });
        let deadline = Instant::now() + PATIENCE;
        loop {
            let status = next.status();
            if status.role == Role::Leader && status.term >= term {
                assert_eq!(status.term, term, "another election than the one that was asked for");
                break;
            }
            assert!(Instant::now() < deadline, "node {leader} does not come to lead: {status:?}");
            tokio::task::yield_now().await;
        }
        moved.abort();
    }
}
