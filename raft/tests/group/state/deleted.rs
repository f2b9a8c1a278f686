//! What is deleted with its topic stays deleted: on every replica, after restarts, rebuilds and on new members
//! (`min_offsets.I1`); what is sent afterwards is served (`min_offsets.I2`).

use std::time::{Duration, Instant};

use folio_engine::queues::QueuesError;
use folio_raft::config::Retention;
use folio_raft::group::Group;
use folio_raft::status::Role;
use folio_state::{Command, CreateTopic, DeleteTopic, PutTopic, Topic};
use tempfile::TempDir;

use crate::cluster::{Cluster, PATIENCE, SEGMENT_BYTES, address, no_retention, steady};
use crate::files::copy;

fn delete() -> Command {
    Command::from(DeleteTopic { name: "orders".into() })
}

fn create() -> Command {
    Command::from(CreateTopic(Topic::new("orders", 4)))
}

/// Waits until a node has applied what the leader has in its log, which may have been elected a moment ago and have applied
/// little of it; every queue must begin at `min` or later then, end at `next`, and hold all that lies between.
async fn expect_bounds(cluster: &Cluster, group: &Group, min: u64, next: u64) {
    let target = cluster.leader().await.status().last.map_or(0, |last| last.index);
    let deadline = Instant::now() + PATIENCE;
    while group.status().applied < target {
        assert!(Instant::now() < deadline, "behind {target}: {:?}", group.status());
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
    let node = group.node_id();
    for queue in 0..4 {
        let (first, end) = group.queues().bounds("orders", queue).unwrap();
        assert!(first >= min && end == next, "min_offsets.I1: node {node} queue {queue}: {first}..{end}");
        let below = group.queues().units("orders", queue, min - 1, 1);
        assert!(matches!(below, Err(QueuesError::Trimmed { .. })), "node {node} queue {queue}: {below:?}");
        let units = group.queues().units("orders", queue, first, 10_000).unwrap();
        assert_eq!(units.len() as u64, end - first, "min_offsets.I2: node {node} queue {queue}");
        assert_eq!(group.state().min_offsets().get("orders", queue), min, "node {node}");
    }
}

/// Starts node 1 on another directory.
async fn boot_on(cluster: &mut Cluster, dir: TempDir) {
    cluster.dirs.insert(1, dir);
    cluster.boot(1, false).await;
}

/// Was: the queue began at 0 again, with every message of the deleted topic.
#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn min_offsets_i1_a_deleted_topic_stays_so_through_a_kill_a_restart_and_a_rebuild() {
    let mut cluster = Cluster::start([1], no_retention(), steady()).await;
    cluster.execute(create()).await;
    cluster.send_all(0..40).await;
    cluster.execute(delete()).await;
    expect_bounds(&cluster, &cluster.groups[&1], 10, 10).await;
    cluster.execute(create()).await;
    cluster.send_all(40..48).await;
    expect_bounds(&cluster, &cluster.groups[&1], 10, 12).await;
    // The deletion is applied and in no checkpoint.
    let killed = TempDir::new().unwrap();
    copy(cluster.dirs[&1].path(), killed.path());
    assert!(!killed.path().join("checkpoint").exists(), "the story needs none");
    cluster.stop(1).await;
    let stopped = cluster.dirs.remove(&1).unwrap();
    boot_on(&mut cluster, killed).await;
    expect_bounds(&cluster, &cluster.groups[&1], 10, 12).await;
    cluster.stop(1).await;
    // A clean stop: the checkpoint is behind the deletion, the queues' files hold what is deleted.
    boot_on(&mut cluster, stopped).await;
    expect_bounds(&cluster, &cluster.groups[&1], 10, 12).await;
    cluster.stop(1).await;
    // The files are gone, so the queues are built again from a log that holds what is deleted.
    std::fs::remove_dir_all(cluster.dirs[&1].path().join("consumequeue")).unwrap();
    cluster.boot(1, false).await;
    expect_bounds(&cluster, &cluster.groups[&1], 10, 12).await;
    cluster.send_all(48..52).await;
    expect_bounds(&cluster, &cluster.groups[&1], 10, 13).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn min_offsets_i1_queues_shrunk_away_begin_at_their_end_when_they_come_back() {
    let mut cluster = Cluster::start([1], no_retention(), steady()).await;
    let put = |read_queues, write_queues| {
        Command::from(PutTopic(Topic { read_queues, write_queues, ..Topic::new("orders", 4) }))
    };
    cluster.execute(put(4, 4)).await;
    cluster.send_all(0..40).await;
    let begins = |cluster: &Cluster| -> Vec<u64> {
        let queues = cluster.groups[&1].queues();
        (0..4).map(|queue| queues.bounds("orders", queue).unwrap().0).collect()
    };
    cluster.execute(put(4, 2)).await;
    assert_eq!(begins(&cluster), [0, 0, 0, 0], "consumers finish what is there");
    cluster.execute(put(2, 2)).await;
    cluster.execute(put(4, 4)).await;
    assert_eq!(begins(&cluster), [0, 0, 10, 10]);
    cluster.send_all(40..44).await;
    cluster.stop(1).await;
    cluster.boot(1, false).await;
    cluster.leader().await;
    assert_eq!(begins(&cluster), [0, 0, 10, 10]);
    assert_eq!(cluster.groups[&1].queues().units("orders", 3, 10, 9).unwrap().len(), 1);
}

/// A snapshot behind the deletion, then a second deletion behind the snapshot that a new member starts from.
#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn min_offsets_i1_replicas_and_a_new_member_agree_on_what_is_deleted() {
    let retention =
        Retention { age: None, bytes: Some(3 * SEGMENT_BYTES), interval: Duration::from_millis(200) };
    let mut cluster = Cluster::start(1..=3, retention, steady()).await;
    cluster.execute(create()).await;
    cluster.send_all(0..400).await;
    cluster.execute(delete()).await;
    for group in cluster.groups.values() {
        expect_bounds(&cluster, group, 100, 100).await;
    }
    cluster.execute(create()).await;
    cluster.send_all(400..900).await;
    let deadline = Instant::now() + PATIENCE;
    while cluster.groups.values().any(|group| group.log().state().start_position == 0) {
        assert!(Instant::now() < deadline, "nothing was dropped");
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
    let follower = |cluster: &Cluster| {
        let leads = |id: &u64| cluster.groups[id].status().role == Role::Leader;
        cluster.groups.keys().copied().find(|id| *id != 4 && !leads(id)).unwrap()
    };
    // The snapshot of the log's start is all that a rebuild has.
    let rebuilt = follower(&cluster);
    cluster.stop(rebuilt).await;
    std::fs::remove_dir_all(cluster.dirs[&rebuilt].path().join("consumequeue")).unwrap();
    cluster.boot(rebuilt, false).await;
    expect_bounds(&cluster, &cluster.groups[&rebuilt], 100, 225).await;
    cluster.execute(delete()).await;
    cluster.execute(create()).await;
    cluster.send_all(900..908).await;
    cluster.nodes.insert(4, address());
    cluster.dirs.insert(4, TempDir::new().unwrap());
    cluster.boot(4, true).await;
    let gone = follower(&cluster);
    cluster.replace(gone, 4).await;
    cluster.stop(gone).await;
    cluster.send_all(908..912).await;
    for group in cluster.groups.values() {
        expect_bounds(&cluster, group, 225, 228).await;
    }
    cluster.assert_identical().await;
    let first = cluster.groups[&4].state().clone();
    assert!(cluster.groups.values().all(|group| *group.state() == first));
}
