//! Snapshots at the leader: one that rotted, and one that is larger than a part of it that is sent at once.

#![expect(clippy::unwrap_used, reason = "a test that cannot go on panics")]

mod cluster;

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::{Duration, Instant};

use folio_engine::disk::RealDisk;
use folio_raft::command::{Command, OffsetCommit};
use folio_raft::config::{GroupConfig, Retention};
use folio_raft::group::Group;
use folio_raft::status::Role;
use tempfile::TempDir;

use cluster::{Cluster, Echo, PATIENCE, SEGMENT_BYTES, address, no_retention, steady};

/// Adds node 4 with an empty disk in the place of a follower.
async fn replace_one(cluster: &mut Cluster, segment_bytes: u64) {
    cluster.nodes.insert(4, address());
    cluster.dirs.insert(4, TempDir::new().unwrap());
    boot(cluster, 4, segment_bytes).await;
    let leads = |id: &u64| cluster.groups[id].status().role == Role::Leader;
    let gone = cluster.groups.keys().copied().find(|id| *id != 4 && !leads(id)).unwrap();
    cluster.replace(gone, 4).await;
    cluster.stop(gone).await;
}

async fn boot(cluster: &mut Cluster, id: u64, segment_bytes: u64) {
    let config = GroupConfig { segment_bytes, ..cluster.config(id, id == 4) };
    let group = Group::start(config, Arc::new(RealDisk), Arc::new(Echo)).await.unwrap();
    cluster.groups.insert(id, group);
}

async fn until_dropped(cluster: &Cluster) {
    let deadline = Instant::now() + PATIENCE;
    while cluster.groups.values().any(|group| group.log().state().start_position == 0) {
        assert!(Instant::now() < deadline, "nothing was dropped");
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
    // What a last look at retention may still drop.
    tokio::time::sleep(Duration::from_secs(1)).await;
}

/// Found by a review: openraft took the missing snapshot for a failed disk and the leader stopped, as did each one after it.
#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn a_leader_whose_snapshot_of_the_logs_start_rotted_sends_a_later_one() {
    let retention =
        Retention { age: None, bytes: Some(3 * SEGMENT_BYTES), interval: Duration::from_millis(100) };
    let mut cluster = Cluster::start(1..=3, retention, steady()).await;
    cluster.send_all(0..900).await;
    cluster.assert_identical().await;
    until_dropped(&cluster).await;
    for (id, group) in &cluster.groups {
        // The log begins where its last dropped record ended; the snapshot stands at the next segment's start.
        let begin = format!("{:020}", group.log().state().start_position);
        let snapshots = std::fs::read_dir(cluster.dirs[id].path().join("snapshots")).unwrap();
        let paths = snapshots.map(|entry| entry.unwrap().path());
        let later = paths.filter(|path| path.file_name().unwrap() >= begin.as_str());
        let path = later.min().unwrap();
        let mut bytes = std::fs::read(&path).unwrap();
        let middle = bytes.len() / 2;
        bytes[middle] ^= 8;
        std::fs::write(&path, bytes).unwrap();
    }
    replace_one(&mut cluster, SEGMENT_BYTES).await;
    cluster.send_all(900..910).await;
    cluster.assert_identical().await;
    assert!(cluster.groups.values().all(|group| !matches!(group.status().role, Role::Stopped(_))));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn a_snapshot_of_many_parts_brings_an_empty_node_all_offsets() {
    const COMMITS: u32 = 1_000;
    const COMMANDS: u32 = 48;
    let segment_bytes = 2 << 20;
    let retention =
        Retention { bytes: Some(2 * segment_bytes), interval: Duration::from_millis(200), ..no_retention() };
    let nodes: BTreeMap<_, _> = (1..=3).map(|id| (id, address())).collect();
    let dirs = nodes.keys().map(|id| (*id, TempDir::new().unwrap())).collect();
    let mut cluster = Cluster { dirs, nodes, groups: BTreeMap::new(), retention, timing: steady() };
    for id in 1..=3 {
        boot(&mut cluster, id, segment_bytes).await;
    }
    let group = "g".repeat(200);
    let commits = |command: u32| {
        let commit = |number| OffsetCommit {
            group: group.clone(),
            topic: format!("{number:0>200}"),
            queue: 0,
            offset: u64::from(number),
        };
        Command::CommitOffsets((0..COMMITS).map(|number| commit(command * COMMITS + number)).collect())
    };
    for command in 0..COMMANDS {
        cluster.execute(commits(command)).await;
    }
    until_dropped(&cluster).await;
    replace_one(&mut cluster, segment_bytes).await;
    let target = cluster.leader().await.status().applied_position;
    let deadline = Instant::now() + PATIENCE;
    while cluster.groups[&4].status().applied_position < target {
        assert!(Instant::now() < deadline, "not caught up: {:?}", cluster.groups[&4].status());
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
    let metadata = cluster.groups[&4].metadata();
    for number in 0..COMMANDS * COMMITS {
        assert_eq!(metadata.offset(&group, &format!("{number:0>200}"), 0), Some(u64::from(number)));
    }
}
