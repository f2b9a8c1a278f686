//! Orderly locks through changes of leader, on nodes whose wall clocks differ by a minute (`locks.I1`).

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use folio_engine::disk::RealDisk;
use folio_raft::group::Group;
use folio_raft::host::{Host, System};
use folio_state::{Outcome, QueueRef};
use tempfile::TempDir;

use crate::cluster::{Cluster, Echo, address, no_retention, steady};

/// A machine whose wall clock is some seconds off.
struct Skewed(i64);

impl System for Skewed {
    fn wall_clock(&self) -> Duration {
        let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap();
        Duration::from_secs(now.as_secs().strict_add_signed(self.0))
    }
    fn boot_id(&self) -> String {
        "boot".into()
    }
    fn block(&self, work: Box<dyn FnOnce() + Send>) {
        drop(tokio::task::spawn_blocking(work));
    }
}

/// Three nodes: the first is right, the second a minute ahead, the third a minute behind.
async fn skewed() -> Cluster {
    let nodes: BTreeMap<_, _> = (1..=3).map(|id| (id, address())).collect();
    let dirs = nodes.keys().map(|id| (*id, TempDir::new().unwrap())).collect();
    let mut cluster = Cluster {
        dirs,
        nodes,
        groups: BTreeMap::new(),
        secrets: BTreeMap::new(),
        retention: no_retention(),
        timing: steady(),
    };
    for (id, seconds) in [(1, 0), (2, 60), (3, -60)] {
        let host = Host { system: Arc::new(Skewed(seconds)), ..Host::new(Arc::new(RealDisk)) };
        let group = Group::start_on(host, cluster.config(id, false), Arc::new(Echo)).await.unwrap();
        cluster.groups.insert(id, group);
    }
    cluster
}

/// Whether a client holds the queue after it asked for it.
async fn takes(cluster: &Cluster, client: &str, ttl: Duration) -> bool {
    let queue = QueueRef { topic: "orders".into(), queue: 0 };
    let (leader, ttl_ms) = (cluster.leader().await, ttl.as_millis() as u64);
    let outcome = leader.lock_queues("g".into(), client.into(), vec![queue], ttl_ms).await;
    matches!(outcome.unwrap(), Outcome::Locked(held) if !held.is_empty())
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn locks_i1_a_leader_that_is_a_minute_ahead_frees_no_live_lock() {
    let cluster = skewed().await;
    let minute = Duration::from_secs(60);
    for (before, after) in [(1, 2), (3, 1), (3, 2)] {
        cluster.lead(before).await;
        let asked = Instant::now();
        assert!(takes(&cluster, "a", minute).await, "the holder renews");
        cluster.lead(after).await;
        let stolen = takes(&cluster, "b", minute).await;
        assert!(!stolen || asked.elapsed() >= minute, "locks.I1: from node {before} to {after}");
    }
}

/// A holder that died gives its queue to nobody for a minute more than it promised.
#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn locks_i1_a_leader_that_is_a_minute_behind_lets_a_dead_holders_lock_end() {
    let cluster = skewed().await;
    let ttl = Duration::from_secs(2);
    for (before, after, dead, next) in [(2, 3, "a", "b"), (1, 3, "b", "c")] {
        cluster.lead(before).await;
        let asked = Instant::now();
        assert!(takes(&cluster, dead, ttl).await);
        cluster.lead(after).await;
        while !takes(&cluster, next, ttl).await {
            // Far below the minute, also on a busy machine.
            assert!(asked.elapsed() < Duration::from_secs(40), "from node {before} to {after}");
            tokio::time::sleep(Duration::from_millis(100)).await;
        }
        assert!(asked.elapsed() >= ttl, "locks.I1: from node {before} to {after}");
    }
}
