//! What consumers send back is moved once: by two at the same time, after a change of the leader, across the rise of the feature
//! level, and for a replica that starts from a snapshot; at once or after a while.

use std::collections::BTreeMap;
use std::time::{Duration, Instant};

use bytes::BytesMut;
use folio_protocol::limits::PROPERTIES_BYTES_MAX;
use folio_protocol::message::{MessageView, NewMessage};
use folio_protocol::properties::{self, ORIGIN_MESSAGE_ID, REAL_TOPIC};
use folio_raft::config::Retention;
use folio_raft::driver::SendBack;
use folio_raft::group::Group;
use folio_raft::proposal::{ProposeError, Receipt};
use folio_state::sections::features::TRANSITIONS;
use folio_state::{CommitOffsets, ConsumerGroup, CreateGroup, DeleteGroup, OffsetCommit, QueueRef};
use tempfile::TempDir;

use crate::cluster::{Cluster, PATIENCE, SEGMENT_BYTES, address, message, no_retention, steady};
use crate::timers::now_ms;

pub(crate) const RETRIES: &str = "%RETRY%g";

/// A consumer of the group `g` sends back a message of the queue 0.
pub(crate) fn wish(receipt: &Receipt) -> SendBack {
    let (queue_id, position) = (receipt.queue_id, receipt.positions[0]);
    let mut origin = BytesMut::new();
    properties::append(&mut origin, ORIGIN_MESSAGE_ID, &position.to_string());
    // Some of them do not fit into one record with the next.
    let padding = "x".repeat((receipt.queue_offsets[0] % 5) as usize * 9_000);
    let retry = message(0, format!("retry of {position} {padding}"));
    let retry =
        NewMessage { topic: RETRIES.into(), reconsume_times: 1, properties: origin.freeze(), ..retry };
    SendBack {
        group: "g".into(),
        queue: QueueRef { topic: "orders".into(), queue: queue_id },
        offset: receipt.queue_offsets[0],
        position,
        message: retry,
        delay_ms: 0,
    }
}

pub(crate) async fn send_back(group: &Group, wish: SendBack) -> Result<(), ProposeError> {
    let (answer, answered) = tokio::sync::oneshot::channel();
    group.send_back(wish, Box::new(move |result| drop(answer.send(result))));
    answered.await.expect("every request is answered")
}

impl Cluster {
    /// Sends back until it is answered with success, as consumers do.
    async fn send_back(&self, receipt: &Receipt) {
        self.send_back_later(receipt, 0).await;
    }

    /// The same; the retry waits.
    async fn send_back_later(&self, receipt: &Receipt, delay_ms: u64) {
        let deadline = Instant::now() + PATIENCE;
        let wish = || SendBack { delay_ms, ..wish(receipt) };
        while let Err(error) = send_back(&self.leader().await, wish()).await {
            assert!(Instant::now() < deadline, "not moved: {error}");
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    }

    /// Retries that each node has.
    async fn retries(&self) -> u64 {
        self.assert_identical().await;
        let first = &self.leader().await;
        for group in self.groups.values() {
            assert_eq!(group.status().unmet_preconditions, 0, "transitions.I2");
            assert_eq!(*group.state(), *first.state(), "node {}", group.node_id());
            assert_eq!(group.queues().counters(), first.queues().counters());
        }
        let queues = first.queues().next_offsets(RETRIES);
        queues.first().map_or(0, |(_, next)| *next)
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn sent_back_i1_two_at_the_same_time_and_one_after_a_failover_store_one() {
    let mut cluster = Cluster::start(1..=3, no_retention(), steady()).await;
    cluster.reach_level().await;
    let receipts = cluster.send_all(0..40).await;
    let leader = cluster.leader().await;
    let wishes = receipts.iter().flat_map(|receipt| [wish(receipt), wish(receipt), wish(receipt)]);
    let answers = futures_util::future::join_all(wishes.map(|wish| send_back(&leader, wish))).await;
    assert!(answers.iter().all(Result::is_ok), "{answers:?}");
    assert_eq!(cluster.retries().await, 40);
    // A retry is pulled as every message is.
    let units = leader.queues().units(RETRIES, 0, 0, 100).unwrap();
    let spans: Vec<_> = units.iter().map(|unit| (unit.position, unit.size as usize)).collect();
    let bytes = leader.log().gather(&spans).unwrap().concat();
    assert_eq!(folio_protocol::message::Messages::new(&bytes).filter(Result::is_ok).count(), 40);

    let old = leader.node_id();
    drop(leader);
    cluster.stop(old).await;
    for receipt in &receipts {
        cluster.send_back(receipt).await;
    }
    cluster.boot(old, false).await;
    assert_eq!(cluster.retries().await, 40, "the new leader knows what was moved");
}

/// Store times of the retries that this node has, by the positions of what was sent back.
fn store_times(group: &Group) -> BTreeMap<u64, Vec<u64>> {
    let mut times: BTreeMap<u64, Vec<u64>> = BTreeMap::new();
    let (mut offset, end) = group.queues().bounds(RETRIES, 0).unwrap_or((0, 0));
    while offset < end {
        let units = group.queues().units(RETRIES, 0, offset, 100).unwrap();
        for unit in &units {
            let bytes = group.log().bytes(unit.position, unit.size as usize).unwrap();
            let message = MessageView::parse(&bytes).unwrap();
            let of = message.property(ORIGIN_MESSAGE_ID).unwrap().parse().unwrap();
            assert_eq!((message.reconsume_times(), message.property(REAL_TOPIC)), (1, None));
            times.entry(of).or_default().push(message.store_timestamp() as u64);
        }
        offset += units.len() as u64;
    }
    times
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn sent_back_i1_a_retry_that_waits_comes_once_and_not_early_while_leaders_come_and_go() {
    let mut cluster = Cluster::start(1..=3, no_retention(), steady()).await;
    cluster.reach_level().await;
    let receipts = cluster.send_all(0..120).await;
    let mut earliest = BTreeMap::new();
    for (at, receipt) in receipts.iter().enumerate() {
        let delay_ms = 1 + at as u64 % 7 * 400;
        earliest.insert(receipt.positions[0], now_ms() + delay_ms);
        cluster.send_back_later(receipt, delay_ms).await;
        if at % 40 == 39 {
            let leader = cluster.leader().await.node_id();
            cluster.stop(leader).await;
            // For all that its consumer knows the answer was lost with the leader.
            for again in &receipts[at - 39..=at] {
                cluster.send_back_later(again, 1).await;
            }
            cluster.boot(leader, false).await;
        }
    }
    let deadline = Instant::now() + PATIENCE;
    let came = |group: &Group| group.queues().next_offsets(RETRIES).first().map_or(0, |(_, next)| *next);
    while cluster.groups.values().any(|group| came(group) < 120) {
        assert!(Instant::now() < deadline, "{} of 120 came", came(&cluster.leader().await));
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
    // What came twice would have come by now.
    tokio::time::sleep(Duration::from_millis(3000)).await;
    assert_eq!(cluster.retries().await, 120);
    let times = store_times(&cluster.leader().await);
    for (position, earliest_ms) in earliest {
        let [stored_ms] = times[&position][..] else { panic!("{position} came at {:?}", times[&position]) };
        assert!(stored_ms >= earliest_ms, "timers.I4: {position} came {} ms early", earliest_ms - stored_ms);
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn a_retry_that_could_not_be_delivered_with_its_properties_is_refused() {
    let cluster = Cluster::start(1..=1, no_retention(), steady()).await;
    cluster.reach_level().await;
    let receipts = cluster.send_all(0..1).await;
    let mut large = SendBack { delay_ms: 1, ..wish(&receipts[0]) };
    let padding = "x".repeat(PROPERTIES_BYTES_MAX - large.message.properties.len() - 20);
    large.message.properties =
        [&large.message.properties[..], format!("KEYS\u{1}{padding}\u{2}").as_bytes()].concat().into();
    let refused = send_back(&cluster.leader().await, large.clone()).await;
    assert!(matches!(refused, Err(ProposeError::Refused(_))), "{refused:?}");
    send_back(&cluster.leader().await, SendBack { delay_ms: 0, ..large }).await.unwrap();
    assert_eq!(cluster.retries().await, 1);
}

/// During an upgrade a retry is stored by itself, and its repeat comes when the level has risen. Before the level of timers none waits.
#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn sent_back_i1_what_was_moved_below_the_level_is_not_moved_again_above_it() {
    let cluster = Cluster::start(1..=3, no_retention(), steady()).await;
    let receipts = cluster.send_all(0..4).await;
    // The level rises meanwhile.
    let deadline = Instant::now() + PATIENCE;
    while cluster.leader().await.status().feature_level < TRANSITIONS {
        assert!(Instant::now() < deadline, "the level stays");
        for receipt in &receipts {
            cluster.send_back(receipt).await;
        }
    }
    for receipt in &receipts {
        cluster.send_back(receipt).await;
    }
    assert_eq!(cluster.retries().await, 4);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn a_group_that_is_reset_or_deleted_may_send_back_again() {
    let cluster = Cluster::start(1..=1, no_retention(), steady()).await;
    cluster.reach_level().await;
    let receipts = cluster.send_all(0..4).await;
    let commit = |offset| {
        let (group, topic) = ("g".into(), "orders".into());
        CommitOffsets(vec![OffsetCommit { group, topic, queue: 0, offset }])
    };
    cluster.execute(CreateGroup(ConsumerGroup::new("g"))).await;
    for moved in [1, 2] {
        cluster.send_back(&receipts[0]).await;
        cluster.execute(commit(1)).await;
        cluster.send_back(&receipts[0]).await;
        assert_eq!(cluster.retries().await, moved);
        cluster.execute(commit(0)).await;
    }
    cluster.send_back(&receipts[1]).await;
    cluster.execute(DeleteGroup { name: "g".into(), clean_offsets: true }).await;
    cluster.send_back(&receipts[1]).await;
    assert_eq!(cluster.retries().await, 4);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn a_replica_that_starts_from_a_snapshot_knows_what_was_moved() {
    let retention =
        Retention { age: None, bytes: Some(4 * SEGMENT_BYTES), interval: Duration::from_millis(200) };
    let mut cluster = Cluster::start(1..=3, retention, steady()).await;
    cluster.reach_level().await;
    let mut number = 0;
    let mut last = Vec::new();
    let deadline = Instant::now() + PATIENCE;
    // Until the floor has risen, which is where the log begins. What is sent and sent back in one round is less than is
    // retained: a message has to be there when it is sent back.
    while cluster.leader().await.state().sent_back().floor() == 0 {
        assert!(Instant::now() < deadline, "the floor stays");
        last = cluster.send_all(number..number + 4).await;
        number += 4;
        for receipt in &last {
            cluster.send_back(receipt).await;
        }
    }
    cluster.nodes.insert(4, address());
    cluster.dirs.insert(4, TempDir::new().unwrap());
    cluster.boot(4, true).await;
    let follower = cluster.groups.keys().copied().find(|id| *id != 4 && !leads(&cluster.groups[id])).unwrap();
    cluster.stop(follower).await;
    cluster.replace(follower, 4).await;
    let before = cluster.retries().await;
    assert_eq!(before, number);
    cluster.lead(4).await;
    for receipt in &last {
        cluster.send_back(receipt).await;
    }
    assert_eq!(cluster.retries().await, before);
    let mut below = wish(&last[0]);
    (below.position, below.offset) = (0, 0);
    let refused = send_back(&cluster.leader().await, below).await;
    assert!(matches!(refused, Err(ProposeError::Refused(_))), "{refused:?}");
}

fn leads(group: &Group) -> bool {
    group.status().role == folio_raft::status::Role::Leader
}
