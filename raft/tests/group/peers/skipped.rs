//! A command that is no command and is in every log all the same: it stops all nodes, and an operator has them skip it.

use std::sync::Arc;
use std::time::{Duration, Instant};

use folio_engine::disk::RealDisk;
use folio_engine::record::{Draft, EntryId, RecordKind};
use folio_engine::{CommitLog, LogConfig, StampBase};
use folio_raft::config::Timing;
use folio_raft::status::Role;
use folio_state::{CreateTopic, Topic};

use super::three;
use crate::cluster::{Cluster, PATIENCE, SEGMENT_BYTES};

/// Puts a record behind the log of a node that does not run.
fn write(cluster: &Cluster, id: u64, payload: &[u8]) -> EntryId {
    let config = LogConfig { segment_bytes: SEGMENT_BYTES, ..LogConfig::default() };
    let dir = cluster.dirs[&id].path();
    let log = CommitLog::open(Arc::new(RealDisk), dir, config, StampBase::default()).unwrap();
    let last = log.state().last.unwrap();
    let entry = EntryId { index: last.index + 1, ..last };
    log.append(entry, Draft::with_payload(RecordKind::Command, payload)).unwrap();
    log.close();
    entry
}

/// Why a node has stopped; `None` while it has not.
fn stopped(cluster: &Cluster, id: u64) -> Option<String> {
    match cluster.groups[&id].status().role {
        Role::Stopped(why) => Some(why),
        _ => None,
    }
}

/// `skip_entry.I1`, `skip_entry.I2`
#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn a_command_that_no_node_can_apply_is_skipped_by_all_once_an_operator_says_so() {
    let mut cluster = three(None).await;
    // The leader writes nothing by itself from then on.
    cluster.reach_level().await;
    cluster.execute(CreateTopic(Topic::new("orders", 4))).await;
    cluster.assert_identical().await;
    // The leader last: nobody else is elected then, and all logs end alike.
    let leader = cluster.leader().await.node_id();
    for id in (1..=3).filter(|id| *id != leader).chain([leader]) {
        cluster.stop(id).await;
    }
    let entries: Vec<EntryId> = (1..=3).map(|id| write(&cluster, id, b"garbage")).collect();
    let entry = entries[0];
    assert_eq!(entries, [entry; 3]);
    cluster.timing = Timing::default();
    for id in 1..=3 {
        cluster.boot(id, false).await;
    }
    let deadline = Instant::now() + PATIENCE;
    let named = format!("write {entry} into the file");
    let why = loop {
        if let Some(why) = (1..=3).find_map(|id| stopped(&cluster, id)) {
            break why;
        }
        assert!(Instant::now() < deadline, "a node has applied garbage");
        tokio::time::sleep(Duration::from_millis(20)).await;
    };
    assert!(why.contains(&named) && why.contains("skip-entry"), "{why}");
    for id in 1..=3 {
        cluster.stop(id).await;
        let file = cluster.dirs[&id].path().join("skip-entry");
        std::fs::write(file, format!("# it was an accident\n{entry}\n")).unwrap();
    }
    for id in 1..=3 {
        cluster.boot(id, false).await;
    }
    cluster.send_all(20..40).await;
    cluster.execute(CreateTopic(Topic::new("more", 4))).await;
    cluster.assert_identical().await;
    for group in cluster.groups.values() {
        let state = group.state();
        assert!(state.topic("orders").is_some() && state.topic("more").is_some());
    }
    // A replica without a log gets the entry, and skips it as the others did.
    cluster.stop(3).await;
    let fresh = tempfile::TempDir::new().unwrap();
    std::fs::copy(cluster.dirs[&3].path().join("skip-entry"), fresh.path().join("skip-entry")).unwrap();
    cluster.dirs.insert(3, fresh);
    cluster.boot(3, false).await;
    cluster.send_all(40..60).await;
    cluster.assert_identical().await;
    assert!(cluster.groups[&3].state().topic("more").is_some());
}
