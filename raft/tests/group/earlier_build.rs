//! Data directories that earlier builds wrote open, with everything that was in them.
//!
//! `fixtures/<format>` is a directory of one node as a `kill -9` leaves it: retention has dropped the log's beginning, a
//! checkpoint and snapshots are there, and the log behind the checkpoint has one record of each kind, a transition among them
//! from format 3 on. A new format means a new fixture; the old ones stay:
//!
//!     FOLIO_FIXTURE=$PWD/raft/tests/fixtures/<format> cargo test -p folio-raft --test group writes_a_fixture -- --ignored

use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use folio_raft::config::Retention;
use folio_raft::group::Group;
use folio_raft::proposal::Receipt;
use folio_state::{
    Command, CommitOffsets, ConsumerGroup, CreateGroup, CreateTopic, DeleteGroup, DeleteTopic, ExpireLocks,
    OffsetCommit, PutGroup, PutTopic, QueueRef, Topic, UnlockQueues,
};

use crate::cluster::{Cluster, PATIENCE, SEGMENT_BYTES, no_retention, steady};
use crate::files::copy;
use crate::moves::{RETRIES, send_back, wish};

/// Messages before the topic was deleted, up to the last restart, and in all.
const DELETED: u64 = 40;
const BEFORE_RESTART: u64 = 340;
const SENT: u64 = 360;
/// What a consumer has sent back, (queue, offset): before the last restart and after it. Nothing in these formats, of feature level 1.
const SENT_BACK: [(u32, u64); 2] = [(0, 83), (1, 84)];
const WITHOUT_MOVES: [&str; 2] = ["format-1", "format-2"];

fn commit(group: &str, queue: u32, offset: u64) -> OffsetCommit {
    OffsetCommit { group: group.into(), topic: "orders".into(), queue, offset }
}

fn queue(number: u32) -> QueueRef {
    QueueRef { topic: "orders".into(), queue: number }
}

fn topic(queues: u32) -> Topic {
    let attributes = [("message.type".to_owned(), "NORMAL".to_owned())].into();
    Topic { attributes, order: true, ..Topic::new("orders", queues) }
}

/// All kinds of commands, before and after the checkpoint of a restart.
async fn tell(cluster: &mut Cluster) {
    cluster.reach_level().await;
    cluster.execute(CreateTopic(Topic::new("orders", 4))).await;
    cluster.send_all(0..DELETED).await;
    cluster.execute(DeleteTopic { name: "orders".into() }).await;
    cluster.execute(CreateTopic(topic(4))).await;
    cluster.execute(CreateGroup(ConsumerGroup::new("before"))).await;
    cluster.execute(CommitOffsets(vec![commit("before", 0, 12), commit("before", 1, 3)])).await;
    lock(cluster, "before", 0).await;
    cluster.send_all(DELETED..BEFORE_RESTART).await;
    let (begun, leader) = (Instant::now(), cluster.leader().await);
    while leader.log().state().start_position == 0 {
        assert!(begun.elapsed() < PATIENCE, "retention drops nothing");
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
    move_again(&leader, SENT_BACK[0]).await;
    drop(leader);
    cluster.stop(1).await;
    cluster.retention = no_retention();
    cluster.boot(1, false).await;
    move_again(&cluster.leader().await, SENT_BACK[1]).await;
    cluster.execute(PutTopic(topic(5))).await;
    cluster.execute(CreateTopic(Topic::new("gone", 1))).await;
    cluster.execute(DeleteTopic { name: "gone".into() }).await;
    let group = ConsumerGroup { retry_max: 7, ..ConsumerGroup::new("after") };
    cluster.execute(PutGroup(group)).await;
    cluster.execute(CreateGroup(ConsumerGroup::new("gone"))).await;
    cluster.execute(CommitOffsets(vec![commit("after", 2, 33), commit("gone", 2, 1)])).await;
    cluster.execute(DeleteGroup { name: "gone".into(), clean_offsets: true }).await;
    lock(cluster, "after", 1).await;
    lock(cluster, "after", 2).await;
    let unlock = Command::from(UnlockQueues {
        group: "after".into(),
        client: "client".into(),
        queues: vec![queue(2)],
    });
    cluster.execute(unlock).await;
    cluster.execute(ExpireLocks { now_ms: 1, locks: [("after".into(), [queue(1)].into())].into() }).await;
    cluster.send_all(BEFORE_RESTART..SENT).await;
}

async fn lock(cluster: &Cluster, group: &str, number: u32) {
    // A year, so that it is alive whenever the fixture is opened.
    const TTL_MS: u64 = 365 * 24 * 3600 * 1000;
    let leader = cluster.leader().await;
    leader.lock_queues(group.into(), "client".into(), vec![queue(number)], TTL_MS).await.unwrap();
}

fn expect_story(group: &Group, sent: u64) {
    {
        let state = group.state();
        assert_eq!(state.topics().map(|topic| &*topic.name).collect::<Vec<_>>(), ["orders"]);
        assert_eq!(state.topic("orders"), Some(&topic(5)));
        assert_eq!(state.group("before"), Some(&ConsumerGroup::new("before")));
        assert_eq!(state.group("after").map(|group| group.retry_max), Some(7));
        assert_eq!(state.groups().count(), 2);
        let offset = |group, queue| state.offset(group, "orders", queue);
        assert_eq!(
            [offset("before", 0), offset("before", 1), offset("after", 2)],
            [Some(12), Some(10), Some(33)]
        );
        assert_eq!(state.offsets_of("gone").count(), 0);
        let mins = state.min_offsets().of("orders").collect::<Vec<_>>();
        assert_eq!(mins, [0, 1, 2, 3].map(|queue| (queue, DELETED / 4)));
        let live = |name| state.has_live_locks(name, group.lease_now_ms());
        assert!(live("before") && live("after") && !live("gone"));
    }
    for number in 0..4 {
        let (first, end) = group.queues().bounds("orders", number).unwrap();
        assert_eq!(end, sent / 4, "queue {number}");
        let units = group.queues().units("orders", number, first, 10_000).unwrap();
        assert_eq!(units.len() as u64, end - first, "queue {number}");
        assert!(first > DELETED / 4 && first < BEFORE_RESTART / 4, "queue {number} begins at {first}");
    }
}

/// Sends a message back, which is moved unless it was before.
async fn move_again(group: &Group, (queue_id, offset): (u32, u64)) {
    let unit = group.queues().units("orders", queue_id, offset, 1).unwrap()[0];
    let (queue_offsets, positions) = ([offset].into_iter().collect(), [unit.position].into_iter().collect());
    let receipt = Receipt { queue_id, queue_offsets, positions, store_host: None };
    send_back(group, wish(&receipt)).await.unwrap();
}

/// What was moved is moved, and not moved again.
async fn expect_moves(group: &Group) {
    for (number, offset) in SENT_BACK {
        assert!(group.state().sent_back().has("g", &queue(number), offset), "{number}: {offset}");
        move_again(group, (number, offset)).await;
    }
    assert_eq!(group.queues().bounds(RETRIES, 0), Some((0, SENT_BACK.len() as u64)));
}

fn fixtures() -> Vec<PathBuf> {
    let all = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/fixtures");
    let mut dirs: Vec<_> = std::fs::read_dir(all).unwrap().map(|entry| entry.unwrap().path()).collect();
    dirs.sort();
    dirs
}

/// What a fixture holds is what its story says: the checks below are true of this build's own directory, too.
async fn told() -> Cluster {
    let keep = Retention { bytes: Some(2 * SEGMENT_BYTES), interval: Duration::from_millis(100), age: None };
    let mut cluster = Cluster::start([1], keep, steady()).await;
    tell(&mut cluster).await;
    expect_story(&cluster.groups[&1], SENT);
    expect_moves(&cluster.groups[&1]).await;
    cluster
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
#[ignore = "writes a directory of this build to FOLIO_FIXTURE"]
async fn writes_a_fixture() {
    let to = std::env::var_os("FOLIO_FIXTURE").expect("FOLIO_FIXTURE names a new directory");
    let cluster = told().await;
    let from = cluster.dirs[&1].path();
    copy(from, Path::new(&to));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn every_directory_of_an_earlier_build_opens_with_all_that_was_in_it() {
    let fixtures = fixtures();
    assert!(!fixtures.is_empty());
    for fixture in fixtures {
        let mut cluster = Cluster::start([1], no_retention(), steady()).await;
        cluster.stop(1).await;
        let dir = tempfile::TempDir::new().unwrap();
        copy(&fixture, dir.path());
        cluster.dirs.insert(1, dir);
        cluster.boot(1, false).await;
        let leader = cluster.leader().await;
        assert!(leader.settle(PATIENCE).await, "{}", fixture.display());
        expect_story(&leader, SENT);
        let has_moves = !WITHOUT_MOVES.iter().any(|format| fixture.ends_with(format));
        if has_moves {
            expect_moves(&leader).await;
        }
        drop(leader);
        // It is written on, in this build's format, and opens again.
        cluster.send_all(SENT..SENT + 4).await;
        cluster.stop(1).await;
        cluster.boot(1, false).await;
        let leader = cluster.leader().await;
        assert!(leader.settle(PATIENCE).await, "{}", fixture.display());
        expect_story(&leader, SENT + 4);
        if has_moves {
            expect_moves(&leader).await;
        }
    }
}
