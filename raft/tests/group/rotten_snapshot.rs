//! Snapshots that rotted or were deleted, and one that is larger than a part of it that is sent at once.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::{Duration, Instant};

use folio_engine::checkpoint::Checkpoints;
use folio_engine::disk::{Disk, RealDisk};
use folio_protocol::limits::GROUP_BYTES_MAX;
use folio_raft::config::{GroupConfig, Retention};
use folio_raft::group::Group;
use folio_raft::status::Role;
use folio_state::{Command, CommitOffsets, CreateTopic, OffsetCommit, Topic};
use tempfile::TempDir;

use crate::cluster::{
    Cluster, Echo, PATIENCE, SEGMENT_BYTES, address, ends_early_in_a_segment, has_dropped_all, no_retention,
    steady,
};

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

/// Waits until every node has dropped all that retention lets it drop, its snapshots too.
async fn until_dropped(cluster: &Cluster) {
    let kept_bytes = cluster.retention.bytes.unwrap();
    cluster.reach_level().await;
    until(cluster, "dropped", |cluster| {
        cluster.groups.iter().all(|(id, group)| {
            let first = || snapshots(cluster.dirs[id].path()).first().map(|path| position_of(path));
            // A log starts where the last record before it ends; behind that is filler up to the segment.
            let is_kept = |first| first >= group.log().state().start_position;
            has_dropped_all(group, kept_bytes) && first().is_some_and(is_kept)
        })
    })
    .await;
}

const QUEUES: u32 = 4;

/// Three nodes whose logs have lost their beginning to retention, and nothing is sent any more.
async fn dropped() -> Cluster {
    let retention =
        Retention { age: None, bytes: Some(3 * SEGMENT_BYTES), interval: Duration::from_millis(100) };
    let cluster = Cluster::start(1..=3, retention, steady()).await;
    cluster.send_all(0..900).await;
    fill_up(&cluster).await;
    cluster.assert_identical().await;
    until_dropped(&cluster).await;
    cluster
}

/// Sends until the log has begun a segment a while ago: what comes next ends none, so nothing more is dropped for it.
async fn fill_up(cluster: &Cluster) {
    let mut number = 1_000_000;
    while !ends_early_in_a_segment(&cluster.leader().await) {
        cluster.send_one(number).await;
        number += 1;
    }
}

/// The snapshots of a node, in the order of their positions, without one that is being written just now.
fn snapshots(dir: &Path) -> Vec<PathBuf> {
    let entries = std::fs::read_dir(dir.join("snapshots")).unwrap();
    let mut paths: Vec<PathBuf> = entries.map(|entry| entry.unwrap().path()).collect();
    paths.retain(|path| path.extension().is_none());
    paths.sort();
    paths
}

/// Deletes the snapshots of a node, which may be making one again just now.
fn delete_snapshots(dir: &Path) {
    for path in snapshots(dir) {
        std::fs::remove_file(path).unwrap();
    }
}

/// The position in the log that a snapshot is of.
fn position_of(snapshot: &Path) -> u64 {
    snapshot.file_name().unwrap().to_str().unwrap().parse().unwrap()
}

fn rot(path: &Path) {
    let mut bytes = std::fs::read(path).unwrap();
    let middle = bytes.len() / 2;
    bytes[middle] ^= 8;
    std::fs::write(path, bytes).unwrap();
}

/// Where each queue begins on a node.
fn firsts(group: &Group) -> Vec<u64> {
    (0..QUEUES).map(|queue| group.queues().bounds("orders", queue).unwrap().0).collect()
}

/// Waits until `what` is true of the cluster.
async fn until(cluster: &Cluster, what: &str, is: impl Fn(&Cluster) -> bool) {
    let deadline = Instant::now() + PATIENCE;
    while !is(cluster) {
        let status: Vec<_> = cluster.groups.values().map(Group::status).collect();
        assert!(Instant::now() < deadline, "not {what}: {status:?}");
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
}

/// A node with an empty disk takes the place of another one, and votes.
async fn replace(cluster: &mut Cluster, old: u64, new: u64) {
    cluster.nodes.insert(new, address());
    cluster.dirs.insert(new, TempDir::new().unwrap());
    cluster.boot(new, true).await;
    cluster.replace(old, new).await;
    cluster.stop(old).await;
    let marker = cluster.dirs[&new].path().join("catching-up");
    until(cluster, "caught up", |_| !marker.exists()).await;
    cluster.assert_identical().await;
}

/// Every node begins where the first one did, and whoever leads serves its queues from there.
fn assert_nothing_is_missing(cluster: &Cluster, expected: &[u64], upto: u64) {
    for (id, group) in &cluster.groups {
        assert_eq!(firsts(group), expected, "snapshots.I1: node {id} lacks retained messages");
        for (queue, first) in (0..QUEUES).zip(expected) {
            let (_, end) = group.queues().bounds("orders", queue).unwrap();
            let units = group.queues().units("orders", queue, *first, 10_000).unwrap();
            assert_eq!(units.len() as u64, end - first, "node {id}, queue {queue}");
            assert!(end >= upto / u64::from(QUEUES));
        }
    }
}

/// Found by a review: the new node got a later snapshot, voted, led, and consumers were moved past messages that were
/// acknowledged and retained.
#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn t90_a_new_member_of_a_leader_with_a_rotten_snapshot_lacked_retained_messages() {
    let mut cluster = dropped().await;
    let leader = cluster.leader().await.node_id();
    let expected = firsts(&cluster.groups[&leader]);
    assert!(expected.iter().all(|first| *first > 0));
    rot(&snapshots(cluster.dirs[&leader].path())[0]);
    let gone = cluster.groups.keys().copied().find(|id| *id != leader).unwrap();
    replace(&mut cluster, gone, 4).await;
    assert_nothing_is_missing(&cluster, &expected, 900);
    cluster.lead(4).await;
    cluster.send_all(900..910).await;
    cluster.assert_identical().await;
}

/// With no snapshot left on any node, the new nodes start from one that was made again: the last copy of a retained message
/// is never replaced away. Every snapshot rots, or all are deleted.
#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn all_members_are_replaced_while_no_snapshot_is_whole_and_every_retained_message_is_kept() {
    let mut cluster = dropped().await;
    let expected = firsts(&cluster.leader().await);
    for (old, new) in [(1, 4), (2, 5), (3, 6)] {
        if cluster.leader().await.node_id() == old {
            cluster.lead(old + 1).await;
        }
        for dir in cluster.groups.keys().map(|id| cluster.dirs[id].path()) {
            match old {
                1 => snapshots(dir).iter().for_each(|path| rot(path)),
                _ => delete_snapshots(dir),
            }
        }
        replace(&mut cluster, old, new).await;
        assert_nothing_is_missing(&cluster, &expected, 900);
    }
    cluster.send_all(900..910).await;
    cluster.assert_identical().await;
    let stopped = |group: &Group| matches!(group.status().role, Role::Stopped(_));
    assert!(!cluster.groups.values().any(stopped));
    let leader = cluster.leader().await;
    let same = |cluster: &Cluster| cluster.groups.values().all(|group| *group.state() == *leader.state());
    until(&cluster, "of the same state", same).await;
}

/// Without anybody asking for it.
#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn a_rotten_snapshot_is_found_by_the_scrub_and_comes_back_from_a_peer() {
    let cluster = dropped().await;
    let before = snapshots(cluster.dirs[&2].path());
    assert!(before.len() > 2);
    rot(&before[0]);
    std::fs::remove_file(&before[1]).unwrap();
    until(&cluster, "repaired", |cluster| {
        let status = cluster.groups[&2].status();
        status.repaired_snapshots >= 2 && status.damaged_snapshots == 0
    })
    .await;
    assert_eq!(snapshots(cluster.dirs[&2].path()), before);
    let disk: Arc<dyn Disk> = Arc::new(RealDisk);
    let open = |id: u64| Checkpoints::open(disk.clone(), cluster.dirs[&id].path()).unwrap();
    for path in &before[..2] {
        let position = position_of(path);
        let load = |id| open(id).load_snapshot(position).unwrap().unwrap().base;
        assert_eq!(load(2), load(1), "the state at {position}");
    }
}

/// With nobody to ask.
#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn a_node_alone_makes_its_snapshots_again_and_builds_its_queues_from_them() {
    let retention =
        Retention { age: None, bytes: Some(3 * SEGMENT_BYTES), interval: Duration::from_millis(100) };
    let mut cluster = Cluster::start(1..=1, retention, steady()).await;
    cluster.execute(CreateTopic(Topic::new("orders", QUEUES))).await;
    cluster.send_all(0..900).await;
    fill_up(&cluster).await;
    until_dropped(&cluster).await;
    let (dir, expected) = (cluster.dirs[&1].path().to_owned(), firsts(&cluster.groups[&1]));
    snapshots(&dir).iter().for_each(|path| rot(path));
    until(&cluster, "repaired", |cluster| {
        let status = cluster.groups[&1].status();
        status.repaired_snapshots > 0 && status.damaged_snapshots == 0
    })
    .await;
    cluster.stop(1).await;
    // At a start as well, and with the queues gone besides.
    std::fs::remove_dir_all(dir.join("snapshots")).unwrap();
    std::fs::remove_dir_all(dir.join("consumequeue")).unwrap();
    cluster.boot(1, false).await;
    cluster.send_all(900..901).await;
    assert_nothing_is_missing(&cluster, &expected, 900);
    assert_eq!(cluster.groups[&1].state().topic("orders").map(|topic| topic.read_queues), Some(QUEUES));
}

fn delete_all_derived(dir: &Path) {
    std::fs::remove_file(dir.join("checkpoint")).unwrap();
    for name in ["snapshots", "consumequeue"] {
        std::fs::remove_dir_all(dir.join(name)).unwrap();
    }
}

/// Everything on disk but the commit log and the vote can be deleted, as long as a peer has a snapshot.
#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn a_node_whose_derived_files_are_all_deleted_starts_from_a_peers_snapshot() {
    let mut cluster = dropped().await;
    let expected = firsts(&cluster.groups[&2]);
    cluster.stop(2).await;
    delete_all_derived(cluster.dirs[&2].path());
    cluster.boot(2, false).await;
    cluster.send_all(900..910).await;
    cluster.assert_identical().await;
    assert_nothing_is_missing(&cluster, &expected, 900);
}

/// Without a peer the state cannot be known again once the log has lost its beginning: nothing is guessed.
#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn a_node_alone_whose_derived_files_are_all_deleted_is_refused_and_keeps_its_log() {
    let retention =
        Retention { age: None, bytes: Some(3 * SEGMENT_BYTES), interval: Duration::from_millis(100) };
    let mut cluster = Cluster::start(1..=1, retention, steady()).await;
    cluster.send_all(0..900).await;
    fill_up(&cluster).await;
    until_dropped(&cluster).await;
    let expected = firsts(&cluster.groups[&1]);
    cluster.stop(1).await;
    let dir = cluster.dirs[&1].path().to_owned();
    let saved = TempDir::new().unwrap();
    std::fs::copy(dir.join("checkpoint"), saved.path().join("checkpoint")).unwrap();
    delete_all_derived(&dir);
    let config = cluster.config(1, false);
    let refused = Group::start(config, Arc::new(RealDisk), Arc::new(Echo)).await.err().unwrap().to_string();
    assert!(refused.contains("no checkpoint and no snapshot in"), "{refused}");
    // With one of them back it starts, and the rest is made again.
    std::fs::copy(saved.path().join("checkpoint"), dir.join("checkpoint")).unwrap();
    cluster.boot(1, false).await;
    cluster.send_all(900..901).await;
    assert_nothing_is_missing(&cluster, &expected, 900);
    let start = cluster.groups[&1].log().state().start_position;
    assert!(
        position_of(&snapshots(&dir)[0]) < start + SEGMENT_BYTES,
        "the snapshot of the log's first record"
    );
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
    let (groups, secrets) = Default::default();
    let mut cluster = Cluster { dirs, nodes, groups, secrets, retention, timing: steady() };
    for id in 1..=3 {
        boot(&mut cluster, id, segment_bytes).await;
    }
    let group = "g".repeat(GROUP_BYTES_MAX);
    let commits = |command: u32| {
        let commit = |number| OffsetCommit {
            group: group.clone(),
            topic: format!("{number:0>200}"),
            queue: 0,
            offset: u64::from(number),
        };
        Command::from(CommitOffsets((0..COMMITS).map(|number| commit(command * COMMITS + number)).collect()))
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
    let state = cluster.groups[&4].state();
    for number in 0..COMMANDS * COMMITS {
        assert_eq!(state.offset(&group, &format!("{number:0>200}"), 0), Some(u64::from(number)));
    }
}
