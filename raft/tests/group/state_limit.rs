//! A replicated state that would grow beyond its limit.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::{Duration, Instant};

use folio_engine::disk::RealDisk;
use folio_protocol::limits::{CLIENT_ID_BYTES_MAX, RETRY_TOPIC_BYTES_MAX};
use folio_raft::config::{GroupConfig, Retention};
use folio_raft::group::Group;
use folio_raft::proposal::ProposeError;
use folio_state::{Command, CommitOffsets, DeleteGroup, LockQueues, OffsetCommit, QueueRef, STATE_BYTES_MAX};
use tempfile::TempDir;

use crate::cluster::{Cluster, Echo, PATIENCE, address, no_retention, steady};

const SEGMENT_BYTES: u64 = 32 << 20;
/// Locks of one group, with the longest names there may be: 3 MiB. A command is at most a record.
const LOCKS: u32 = 6_000;
/// They do not expire while the test runs.
const TTL_MS: u64 = 24 * 3_600_000;
const LOCK_BYTES: u64 = 540;
const GROUP_BYTES: u64 = LOCKS as u64 * LOCK_BYTES;

fn name(number: u64) -> String {
    format!("group-{number:04}")
}

/// Takes or renews them.
fn large(number: u64) -> Command {
    let topic = "t".repeat(RETRY_TOPIC_BYTES_MAX);
    let queues = (0..LOCKS).map(|queue| QueueRef { topic: topic.clone(), queue }).collect();
    let client = "c".repeat(CLIENT_ID_BYTES_MAX);
    Command::from(LockQueues { group: name(number), client, queues, now_ms: 1, ttl_ms: TTL_MS })
}

fn commit(group: &str) -> Command {
    let commit = OffsetCommit { group: group.into(), topic: "topic-0000".into(), queue: 0, offset: 7 };
    Command::from(CommitOffsets(vec![commit]))
}

/// Found by reading: past the largest checkpoint no snapshot could be saved, and retention stopped for ever.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn t90_metadata_grew_until_no_snapshot_could_be_saved() {
    let retention =
        Retention { bytes: Some(2 * SEGMENT_BYTES), interval: Duration::from_millis(200), ..no_retention() };
    let nodes: BTreeMap<_, _> = [(1, address())].into();
    let dirs = [(1, TempDir::new().unwrap())].into();
    let (groups, secrets) = Default::default();
    let mut cluster = Cluster { dirs, nodes, groups, secrets, retention, timing: steady() };
    let config = GroupConfig { segment_bytes: SEGMENT_BYTES, ..cluster.config(1, false) };
    let group = Group::start(config, Arc::new(RealDisk), Arc::new(Echo)).await.unwrap();
    cluster.groups.insert(1, group);
    let group = cluster.leader().await;
    group.execute(commit("known")).await.unwrap();
    let mut number = 0;
    let refused = loop {
        match group.execute(large(number)).await {
            Ok(_) => number += 1,
            Err(refused) => break refused,
        }
    };
    assert_eq!(refused, ProposeError::StateFull, "state.I1");
    let bytes = group.state().encoded_bytes();
    assert!(bytes <= STATE_BYTES_MAX && bytes + 2 * GROUP_BYTES > STATE_BYTES_MAX, "{bytes}");
    // What does not grow goes on, and so does what was there.
    group.execute(large(0)).await.unwrap();
    assert_eq!(group.check(&commit("known")), Ok(()));
    group.execute(DeleteGroup { name: name(0), clean_offsets: true }).await.unwrap();
    group.execute(large(0)).await.unwrap();
    // So does retention, with snapshots that are as large as they get.
    let (end, keeps) = (group.log().state().next_position, 2 * SEGMENT_BYTES);
    // An eighth is kept longer than leaders pop from it (`pop.I4`).
    while group.log().state().next_position < end + keeps + keeps / 8 + SEGMENT_BYTES {
        group.execute(large(1)).await.unwrap();
    }
    let deadline = Instant::now() + PATIENCE;
    while group.log().state().start_position < end {
        assert!(Instant::now() < deadline, "{:?}", group.status());
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
    // A restart counts anew.
    drop(group);
    cluster.stop(1).await;
    let config = GroupConfig { segment_bytes: SEGMENT_BYTES, ..cluster.config(1, false) };
    cluster.groups.insert(1, Group::start(config, Arc::new(RealDisk), Arc::new(Echo)).await.unwrap());
    let group = cluster.leader().await;
    let refused = group.execute(large(number)).await;
    assert_eq!(refused, Err(ProposeError::StateFull));
}
