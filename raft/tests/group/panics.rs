//! A panic in one of a group's tasks ends this node's part in it, and nobody else's (tasks.I1).

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use crate::cluster::{Cluster, Echo, PATIENCE, endless_lease, no_retention, send};
use bytes::Bytes;
use folio_engine::queues::Arrival;
use folio_raft::group::Hooks;
use folio_raft::status::Role;
use openraft::base::BoxFuture;

/// Panics on the applying task once it is told to.
#[derive(Default)]
struct Bomb(AtomicBool);

impl Hooks for Bomb {
    fn call(&self, from: u64, request: Bytes) -> BoxFuture<'static, Bytes> {
        Echo.call(from, request)
    }

    fn applied(&self, _: &[Arrival]) {
        assert!(!self.0.load(Ordering::Acquire), "a bug in the applier");
    }

    fn state_changed(&self) {}
}

/// Before: the node went on leading and sent heartbeats, so nobody replaced it, and no send was answered any more.
#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn tasks_i1_a_leader_whose_applier_panics_stops_and_another_node_serves() {
    let mut cluster = Cluster::start(1..=3, no_retention(), endless_lease()).await;
    cluster.send_one(1).await;
    let bombs: Vec<Arc<Bomb>> = (1..=3).map(|_| Arc::default()).collect();
    for (id, bomb) in (1..=3).zip(&bombs) {
        cluster.stop(id).await;
        cluster.boot_with(id, false, bomb.clone()).await;
    }
    cluster.send_one(2).await;
    let leader = cluster.leader().await;
    bombs[leader.node_id() as usize - 1].0.store(true, Ordering::Release);
    let deadline = Instant::now() + PATIENCE;
    while !is_stopped(&leader.status().role) {
        // Whoever leads: this node applies it.
        let _ = tokio::time::timeout(Duration::from_millis(200), send(&cluster.leader().await, 3)).await;
        assert!(Instant::now() < deadline, "a node without its applier is {:?}", leader.status().role);
    }
    let Role::Stopped(why) = leader.status().role else { panic!("it stopped a moment ago") };
    assert!(why.contains("a bug in the applier"), "{why}");
    cluster.groups.remove(&leader.node_id());
    // Its peers are turned away, so they need not wait for its lease.
    cluster.send_one(4).await;
}

fn is_stopped(role: &Role) -> bool {
    role.name() == "stopped"
}
