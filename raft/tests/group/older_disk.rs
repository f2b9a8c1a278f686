//! A node that comes back with an older copy of its disk (`founding.I5`).

use std::time::{Duration, Instant};

use crate::cluster::{Cluster, PATIENCE, no_retention, send, steady};
use crate::files::copy;
use tempfile::TempDir;

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn a_member_that_comes_back_with_an_older_disk_is_told_so_and_does_not_vote() {
    let mut cluster = Cluster::start(1..=3, no_retention(), steady()).await;
    cluster.send_all(0..20).await;
    cluster.assert_identical().await;
    let leader = cluster.leader().await.node_id();
    let others: Vec<u64> = cluster.groups.keys().copied().filter(|id| *id != leader).collect();
    let (restored, away) = (others[0], others[1]);
    cluster.stop(restored).await;
    let backup = TempDir::new().unwrap();
    copy(cluster.dirs[&restored].path(), backup.path());
    cluster.boot(restored, false).await;
    cluster.send_all(20..40).await;
    cluster.assert_identical().await;
    assert_eq!(cluster.leader().await.node_id(), leader, "the story needs one leader throughout");
    cluster.stop(away).await;
    cluster.send_all(40..60).await;
    cluster.stop(restored).await;
    let marker = backup.path().join("catching-up");
    cluster.dirs.insert(restored, backup);
    cluster.boot(restored, false).await;
    let deadline = Instant::now() + PATIENCE;
    while !marker.exists() {
        assert!(Instant::now() < deadline, "it forgot 40 messages and nobody told it");
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
    // Too few others with a whole log: it takes what the leader sends, and does not vote.
    tokio::time::sleep(Duration::from_millis(300)).await;
    assert!(marker.exists(), "catch_up.I1");
    cluster.boot(away, false).await;
    cluster.send_all(60..70).await;
    cluster.assert_identical().await;
    while marker.exists() {
        assert!(Instant::now() < deadline + PATIENCE, "it never votes again");
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
}

/// The copy may be from a time when the node was catching up and knew its vote. Found by a review: it was taken to know its
/// latest one, and helped a leader to commit what a candidate that it had voted for since would not have had.
#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn founding_i5_a_disk_copied_while_its_node_was_catching_up_has_an_old_vote_too() {
    let mut cluster = Cluster::start(1..=3, no_retention(), steady()).await;
    cluster.send_all(0..20).await;
    cluster.assert_identical().await;
    let leader = cluster.leader().await.node_id();
    let others: Vec<u64> = cluster.groups.keys().copied().filter(|id| *id != leader).collect();
    let (restored, next) = (others[0], others[1]);
    cluster.stop(restored).await;
    let backup = TempDir::new().unwrap();
    copy(cluster.dirs[&restored].path(), backup.path());
    let marker = backup.path().join("catching-up");
    std::fs::write(&marker, "this node lost part of its log and does not vote until it has caught up\n")
        .unwrap();
    cluster.boot(restored, false).await;
    cluster.assert_identical().await;
    cluster.lead(next).await;
    cluster.send_all(20..40).await;
    cluster.assert_identical().await;
    assert_eq!(cluster.leader().await.node_id(), next);
    cluster.stop(leader).await;
    cluster.stop(restored).await;
    cluster.dirs.insert(restored, backup);
    cluster.boot(restored, false).await;
    let deadline = Instant::now() + PATIENCE;
    while !std::fs::read_to_string(&marker).unwrap().contains("votes it gave") {
        assert!(Instant::now() < deadline, "it has a vote of an earlier term than it has acknowledged in");
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
    let sent = tokio::time::timeout(Duration::from_secs(1), send(&cluster.groups[&next], 40)).await;
    // It may have heard from no majority for so long that it leads no more.
    assert!(!matches!(sent, Ok(Ok(_))), "founding.I4: it acknowledges nothing yet: {sent:?}");
    cluster.boot(leader, false).await;
    cluster.send_all(41..60).await;
    cluster.assert_identical().await;
    while marker.exists() {
        assert!(Instant::now() < deadline + PATIENCE, "it never votes again");
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
}
