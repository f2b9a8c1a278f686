//! A group that has stopped leaves its files alone.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::Duration;

use crate::cluster::{Cluster, Echo, no_retention, steady};
use folio_engine::disk::RealDisk;
use folio_raft::group::Group;
use folio_raft::host::{Host, System};

/// A machine whose work on the disk begins late while that is wanted. What has not begun yet is counted.
struct Slow {
    system: Arc<dyn System>,
    is_late: Arc<AtomicBool>,
    waiting: Arc<AtomicU64>,
}

impl System for Slow {
    fn wall_clock(&self) -> Duration {
        self.system.wall_clock()
    }

    fn boot_id(&self) -> String {
        self.system.boot_id()
    }

    fn block(&self, work: Box<dyn FnOnce() + Send>) {
        let (is_late, waiting) = (self.is_late.load(Ordering::SeqCst), self.waiting.clone());
        waiting.fetch_add(1, Ordering::SeqCst);
        self.system.block(Box::new(move || {
            if is_late {
                std::thread::sleep(Duration::from_secs(1));
            }
            waiting.fetch_sub(1, Ordering::SeqCst);
            work();
        }));
    }
}

/// Before: an index was merged, and old files removed, in a directory that a start or a copy of it had read by then.
#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn a_group_that_had_stopped_went_on_changing_its_files() {
    let mut cluster = Cluster::start([], no_retention(), steady()).await;
    cluster.dirs.insert(1, tempfile::TempDir::new().unwrap());
    cluster.nodes.insert(1, crate::cluster::address());
    let (is_late, waiting) = (Arc::new(AtomicBool::new(false)), Arc::new(AtomicU64::new(0)));
    for _ in 0..3 {
        let host = Host::new(Arc::new(RealDisk));
        let slow = Slow { system: host.system.clone(), is_late: is_late.clone(), waiting: waiting.clone() };
        let host = Host { system: Arc::new(slow), ..host };
        let group = Group::start_on(host, cluster.config(1, false), Arc::new(Echo)).await.unwrap();
        cluster.groups.insert(1, group);
        cluster.send_all(0..20).await;
        // The scrub looks every half second.
        is_late.store(true, Ordering::SeqCst);
        while waiting.load(Ordering::SeqCst) == 0 {
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
        is_late.store(false, Ordering::SeqCst);
        cluster.stop(1).await;
        assert_eq!(waiting.load(Ordering::SeqCst), 0);
    }
}
