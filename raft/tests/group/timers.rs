//! Delayed messages are delivered once and not early: while leaders come and go, after a start without the index, after retention
//! has dropped the segment that they were sent in, and unless they are recalled.

use std::collections::BTreeMap;
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use bytes::BytesMut;
use folio_protocol::message::{Messages, NewMessage};
use folio_protocol::parked;
use folio_protocol::properties::{self, REAL_TOPIC, TIMER_OUT_MS, UNIQUE_KEY};
use folio_raft::config::Retention;
use folio_raft::driver::Recall;
use folio_raft::group::Group;
use folio_raft::proposal::{Proposal, ProposeError, Receipt, Repeat};
use folio_raft::status::Role;
use tempfile::TempDir;

use crate::cluster::{Cluster, PATIENCE, SEGMENT_BYTES, address, message, no_retention, steady};

const TOPIC: &str = "timed";

pub(crate) fn now_ms() -> u64 {
    SystemTime::now().duration_since(UNIX_EPOCH).unwrap().as_millis() as u64
}

/// A message that is parked until then.
pub(crate) fn delayed(number: u64, due_ms: u64) -> NewMessage {
    let mut said = BytesMut::new();
    properties::append(&mut said, UNIQUE_KEY, &format!("K{number}"));
    properties::append(&mut said, REAL_TOPIC, TOPIC);
    NewMessage {
        topic: parked::TOPIC.into(),
        prepared_transaction_offset: due_ms as i64,
        properties: said.freeze(),
        ..message(0, number.to_string())
    }
}

impl Cluster {
    /// Sends until it is acknowledged, as a producer whose retries are recognised does.
    async fn delay(&self, number: u64, due_ms: u64) -> Receipt {
        let deadline = Instant::now() + PATIENCE;
        loop {
            let (answer, answered) = tokio::sync::oneshot::channel();
            let reply = Box::new(move |result: Result<Receipt, ProposeError>| drop(answer.send(result)));
            let proposal = Proposal { messages: vec![delayed(number, due_ms)], repeat: Repeat::Same, reply };
            let error = match self.leader().await.propose(proposal) {
                Ok(()) => match answered.await.unwrap() {
                    Ok(receipt) => return receipt,
                    Err(error) => error,
                },
                Err((_, error)) => error,
            };
            assert!(Instant::now() < deadline, "message {number}: {error}");
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    }

    /// Waits until so many are delivered, and a while for more; how often each is, on every node alike. None came early.
    async fn delivered(&self, count: usize) -> BTreeMap<u64, u32> {
        let deadline = Instant::now() + PATIENCE;
        loop {
            let leader = self.leader().await;
            let next = leader.queues().next_offsets(TOPIC).first().map_or(0, |(_, next)| *next);
            if next as usize >= count {
                break;
            }
            assert!(Instant::now() < deadline, "{next} of {count} are delivered: {:?}", leader.status());
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
        tokio::time::sleep(Duration::from_millis(300)).await;
        self.assert_identical().await;
        let first = self.leader().await;
        for group in self.groups.values() {
            assert_eq!(group.status().unmet_preconditions, 0, "transitions.I2");
            assert_eq!(*group.state(), *first.state(), "node {}", group.node_id());
        }
        delivered(&first)
    }
}

fn delivered(group: &Group) -> BTreeMap<u64, u32> {
    let mut times = BTreeMap::new();
    let (mut offset, end) = group.queues().bounds(TOPIC, 0).unwrap_or((0, 0));
    while offset < end {
        let units = group.queues().units(TOPIC, 0, offset, 100).unwrap();
        for unit in &units {
            let bytes = group.log().bytes(unit.position, unit.size as usize).unwrap();
            let (_, message) = Messages::new(&bytes).next().unwrap().unwrap();
            let due_ms: i64 = message.property(TIMER_OUT_MS).unwrap().parse().unwrap();
            assert!(message.store_timestamp() >= due_ms, "timers.I4: {message:?}");
            assert_eq!(message.property(REAL_TOPIC), None);
            let number = std::str::from_utf8(message.body()).unwrap().parse().unwrap();
            *times.entry(number).or_default() += 1;
        }
        offset += units.len() as u64;
    }
    times
}

fn once(numbers: impl IntoIterator<Item = u64>) -> BTreeMap<u64, u32> {
    numbers.into_iter().map(|number| (number, 1)).collect()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn timers_i1_each_is_delivered_once_while_leaders_come_and_go() {
    let mut cluster = Cluster::start(1..=3, no_retention(), steady()).await;
    cluster.reach_level().await;
    let begun = now_ms();
    for number in 0..200 {
        // Some are due at once, many at the same time, some later than all changes of the leader.
        cluster.delay(number, begun + number % 7 * 700).await;
        if number % 50 == 49 {
            let leader = cluster.leader().await.node_id();
            cluster.stop(leader).await;
            if number == 99 {
                // Derived: it is built again.
                std::fs::remove_dir_all(cluster.dirs[&leader].path().join("timers")).unwrap();
            }
            cluster.boot(leader, false).await;
        }
    }
    assert_eq!(cluster.delivered(200).await, once(0..200));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn timers_i5_one_that_is_due_after_its_segment_has_gone_is_delivered_once() {
    let retention =
        Retention { age: None, bytes: Some(4 * SEGMENT_BYTES), interval: Duration::from_millis(100) };
    let mut cluster = Cluster::start(1..=3, retention, steady()).await;
    cluster.reach_level().await;
    let due_ms = now_ms() + 40_000;
    let mut last = 0;
    for number in 0..30 {
        last = cluster.delay(number, due_ms + number % 3).await.positions[0];
    }
    let deadline = Instant::now() + PATIENCE;
    let mut number = 0;
    let gone =
        |cluster: &Cluster| cluster.groups.values().all(|group| group.log().state().start_position > last);
    // Carried forward more than once.
    while !gone(&cluster) || cluster.leader().await.state().timers().carried() < last + 4 * SEGMENT_BYTES {
        assert!(Instant::now() < deadline, "{last}: {:?}", cluster.leader().await.log().state());
        cluster.send_all(number..number + 50).await;
        number += 50;
    }
    let is_early = now_ms() < due_ms;
    // A replica that starts from a snapshot never had the segment.
    cluster.nodes.insert(4, address());
    cluster.dirs.insert(4, TempDir::new().unwrap());
    cluster.boot(4, true).await;
    let leads = |group: &Group| group.status().role == Role::Leader;
    let follower = cluster.groups.keys().copied().find(|id| *id != 4 && !leads(&cluster.groups[id])).unwrap();
    cluster.stop(follower).await;
    cluster.replace(follower, 4).await;
    while !leads(&cluster.groups[&4]) {
        assert!(Instant::now() < deadline, "node 4 does not take over");
        let _ = cluster.leader().await.transfer_leadership(Some(4)).await;
    }
    assert_eq!(cluster.delivered(30).await, once(0..30));
    assert!(
        is_early,
        "the machine is too slow for this test: the messages were due before their segments had gone"
    );
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn timers_i1_what_is_recalled_is_not_delivered_and_what_is_delivered_is_not_recalled() {
    let cluster = Cluster::start(1..=3, no_retention(), steady()).await;
    cluster.reach_level().await;
    let (begun, leader) = (now_ms(), cluster.leader().await);
    for number in 0..20 {
        cluster.delay(number, begun + 10_000 + number).await;
    }
    let recall = |number: u64, key: u64| {
        let recall =
            Recall { due_ms: begun + 10_000 + number, topic: TOPIC.into(), unique_key: format!("K{key}") };
        let (answer, answered) = tokio::sync::oneshot::channel();
        leader.recall(recall, Box::new(move |result| drop(answer.send(result))));
        async { answered.await.expect("every request is answered") }
    };
    for number in [3, 4, 19] {
        recall(number, number).await.unwrap();
    }
    for (number, key) in [(3, 3), (5, 6)] {
        assert!(matches!(recall(number, key).await, Err(ProposeError::Refused(_))), "{number}, {key}");
    }
    let left = (0..20).filter(|number| ![3, 4, 19].contains(number));
    assert_eq!(cluster.delivered(17).await, once(left));
    assert!(matches!(recall(7, 7).await, Err(ProposeError::Refused(_))), "it was delivered");
    assert_eq!(cluster.leader().await.state().timers().recalled(), 0);
}
