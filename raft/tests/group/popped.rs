//! Popped messages: each comes until it is acknowledged, and never again after that, while leaders come and go; after its last attempt
//! it is a dead letter; and it comes though retention has dropped the segment that it was sent in.

use std::collections::{BTreeMap, BTreeSet};
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use folio_protocol::message::MessageView;
use folio_raft::config::Retention;
use folio_raft::driver::{Counted, outcome};
use folio_raft::group::Group;
use folio_state::sections::popped::Popping;
use folio_state::{
    AckPopped, BatchId, ChangePopped, CommitOffsets, ConsumerGroup, CreateGroup, OffsetCommit, PopAgain,
    PopMessages, PopQueue, State,
};

use crate::cluster::{Cluster, PATIENCE, SEGMENT_BYTES, no_retention, steady};

const TOPIC: &str = "orders";
const RETRY: &str = "%RETRY%g_orders";
const DEAD: &str = "%DLQ%g";

fn now_ms() -> u64 {
    SystemTime::now().duration_since(UNIX_EPOCH).unwrap().as_millis() as u64
}

fn queue(topic: &str, queue: u32) -> PopQueue {
    PopQueue { group: "g".into(), topic: topic.into(), queue }
}

/// A message as a consumer was given it.
#[derive(Debug, Clone)]
struct Given {
    queue: PopQueue,
    id: BatchId,
    invisible_ms: u64,
    offset: u64,
    number: u64,
    times: i32,
}

impl Given {
    fn popping(&self, state: &State) -> Popping {
        let committed = state.offset_as_stored(&self.queue);
        state.popped().popping(&self.queue, (self.id, self.invisible_ms), (self.offset, committed), now_ms())
    }

    fn ack(&self) -> AckPopped {
        AckPopped { queue: self.queue.clone(), id: self.id, offset: self.offset }
    }
}

/// The number and the attempts of a message.
fn read(leader: &Group, queue: &PopQueue, offset: u64) -> Option<(u64, i32)> {
    let bytes = leader.popped_message(queue, offset).ok()??;
    let message = MessageView::parse(&bytes).unwrap();
    let body = std::str::from_utf8(message.body()).unwrap();
    Some((body.split(' ').nth(1).unwrap().parse().unwrap(), message.reconsume_times()))
}

fn given(leader: &Group, queue: &PopQueue, id: BatchId) -> Vec<Given> {
    let batch = leader.state().popped().batch(queue, id).cloned();
    let Some(batch) = batch else { return Vec::new() };
    let invisible_ms = batch.visible_ms - id.popped_ms;
    let one = |offset| {
        let (number, times) = read(leader, queue, offset)?;
        Some(Given { queue: queue.clone(), id, invisible_ms, offset, number, times })
    };
    batch.in_flight(id).filter_map(one).collect()
}

impl Cluster {
    /// Pops from one queue once; nothing where that did not work out.
    async fn pop(&self, queue: &PopQueue, max: u64, invisible_ms: u64, attempt: Option<&str>) -> Vec<Given> {
        let leader = self.confirmed().await;
        let (from, ordered) = {
            let state = leader.state();
            let ordered = state.popped().ordered(queue).map(|(id, batch)| (id, batch.clone()));
            (state.offset_as_stored(queue), ordered)
        };
        let popped_ms = now_ms();
        let visible_ms = popped_ms + invisible_ms;
        if let Some((id, batch)) = ordered {
            let order = batch.order.as_ref().unwrap();
            let is_same = Some(&*order.attempt) == attempt;
            if !is_same && batch.visible_ms > popped_ms {
                return Vec::new();
            }
            let start = batch.in_flight(id).next().unwrap();
            let (queue_of, attempt) = (queue.clone(), attempt.unwrap().to_owned());
            let seen_ms = batch.visible_ms;
            let again =
                PopAgain { queue: queue_of, id, seen_ms, popped_ms, visible_ms, attempt, counts: !is_same };
            drop(outcome(|reply| leader.pop_again(again, reply)).await);
            return given(&leader, queue, BatchId { start, popped_ms });
        }
        let (min, max_offset) = leader.queues().bounds(&queue.topic, queue.queue).unwrap_or((0, 0));
        let start = from.unwrap_or(0).max(min);
        let count = max.min(max_offset.saturating_sub(start));
        let Some(first) =
            leader.queues().units(&queue.topic, queue.queue, start, 1).unwrap().first().copied()
        else {
            return Vec::new();
        };
        let id = BatchId { start, popped_ms };
        let pop = PopMessages {
            queue: queue.clone(),
            from,
            next: start + count,
            id,
            diffs: (0..count as u32).collect(),
            position: first.position,
            visible_ms,
            retry_v2: false,
            attempt: attempt.map(str::to_owned),
        };
        match outcome(|reply| leader.pop(pop, reply)).await {
            Ok(()) => given(&leader, queue, id),
            Err(_) => Vec::new(),
        }
    }

    /// Acknowledges until an answer comes; whether it counts.
    async fn ack(&self, given: &Given) -> bool {
        let deadline = Instant::now() + PATIENCE;
        loop {
            let leader = self.confirmed().await;
            let popping = given.popping(&leader.state());
            match popping {
                Popping::InFlight => {
                    let counted = Counted::default();
                    let ack = outcome(|reply| leader.ack_popped(given.ack(), counted.clone(), reply)).await;
                    if ack.is_ok() && counted.is_so() {
                        return true;
                    }
                    assert!(Instant::now() < deadline, "{given:?}: {ack:?}");
                }
                popping => return popping == Popping::Acked,
            }
        }
    }

    /// The numbers in a topic's queue.
    async fn numbers(&self, topic: &str) -> Vec<u64> {
        let leader = self.confirmed().await;
        let (first, end) = leader.queues().bounds(topic, 0).unwrap_or((0, 0));
        (first..end).map(|offset| read(&leader, &queue(topic, 0), offset).unwrap().0).collect()
    }

    async fn assert_same(&self) {
        tokio::time::sleep(Duration::from_millis(300)).await;
        self.assert_identical().await;
        let first = self.leader().await;
        for group in self.groups.values() {
            assert_eq!(group.status().unmet_preconditions, 0, "transitions.I2");
            assert_eq!(*group.state(), *first.state(), "node {}", group.node_id());
        }
    }
}

/// What the consumers know: when each message may come again, how often it came, and which ones are acknowledged.
#[derive(Default)]
struct Known {
    due_ms: BTreeMap<u64, u64>,
    times: BTreeMap<u64, i32>,
    acked: BTreeSet<u64>,
}

impl Known {
    fn note(&mut self, given: &Given) {
        let Given { number, id, .. } = given;
        assert!(!self.acked.contains(number), "pop.I5: {given:?} comes again");
        let due = self.due_ms.insert(*number, id.popped_ms + given.invisible_ms);
        assert!(due.is_none_or(|due| due <= id.popped_ms), "early: {given:?} was due at {due:?}");
        // One whose pop nobody heard of counts, too.
        let times = self.times.insert(*number, given.times);
        assert!(times.is_none_or(|times| times < given.times), "{given:?} came {times:?} times before");
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn pop_i5_each_comes_until_it_is_acknowledged_while_leaders_come_and_go() {
    let mut cluster = Cluster::start(1..=3, no_retention(), steady()).await;
    cluster.reach_level().await;
    cluster.execute(CreateGroup(ConsumerGroup { retry_max: 1000, ..ConsumerGroup::new("g") })).await;
    cluster.send_all(0..160).await;
    let (mut known, mut round, deadline) = (Known::default(), 0_u64, Instant::now() + PATIENCE);
    let queues: Vec<PopQueue> = (0..4).map(|at| queue(TOPIC, at)).chain([queue(RETRY, 0)]).collect();
    while known.acked.len() < 160 {
        assert!(Instant::now() < deadline, "{} acknowledged", known.acked.len());
        round += 1;
        let mut all = Vec::new();
        for queue in &queues {
            all.extend(cluster.pop(queue, 1 + round % 9, 300, None).await);
        }
        all.iter().for_each(|given| known.note(given));
        // The leader dies between the pop and what comes of it.
        let dies = [6, 12, 18].contains(&round);
        let leader = cluster.leader().await.node_id();
        if dies {
            cluster.stop(leader).await;
        }
        for given in all.iter().filter(|given| (given.number + round) % 3 != 0) {
            if cluster.ack(given).await {
                known.acked.insert(given.number);
            }
        }
        if dies {
            cluster.boot(leader, false).await;
        }
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
    assert!(known.times.values().any(|times| *times > 1), "{:?}", known.times);
    tokio::time::sleep(Duration::from_millis(700)).await;
    for queue in &queues {
        assert!(cluster.pop(queue, 9, 300, None).await.is_empty(), "nothing comes any more");
    }
    assert_eq!(cluster.confirmed().await.state().popped().count(), 0);
    cluster.assert_same().await;
}

/// 32 were popped, 31 acknowledged at once, the last one late, and the 31 came again (apache/rocketmq#8835).
#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn pop_i1_acknowledged_messages_do_not_come_with_one_that_is_late() {
    let cluster = Cluster::start(1..=1, no_retention(), steady()).await;
    cluster.reach_level().await;
    cluster.send_all(0..128).await;
    // Longer than 31 acknowledgements take on any machine.
    let all = cluster.pop(&queue(TOPIC, 0), 32, 10_000, None).await;
    assert_eq!(all.len(), 32);
    for given in &all[..31] {
        assert!(cluster.ack(given).await);
    }
    let deadline = Instant::now() + PATIENCE;
    while cluster.numbers(RETRY).await.is_empty() {
        assert!(Instant::now() < deadline, "the last one does not come again");
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
    tokio::time::sleep(Duration::from_millis(500)).await;
    assert_eq!(cluster.numbers(RETRY).await, [all[31].number]);
    assert!(!cluster.ack(&all[31]).await, "it has come again");
    let again = cluster.pop(&queue(RETRY, 0), 9, 60_000, None).await;
    assert_eq!((again[0].number, again[0].times), (all[31].number, 1));
    assert!(cluster.ack(&again[0]).await && cluster.ack(&again[0]).await, "a repeat");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn after_the_last_attempt_a_message_is_a_dead_letter() {
    let cluster = Cluster::start(1..=1, no_retention(), steady()).await;
    cluster.reach_level().await;
    cluster.execute(CreateGroup(ConsumerGroup { retry_max: 1, ..ConsumerGroup::new("g") })).await;
    cluster.send_all(0..8).await;
    assert_eq!(cluster.pop(&queue(TOPIC, 0), 9, 50, None).await.len(), 2);
    let deadline = Instant::now() + PATIENCE;
    while cluster.numbers(DEAD).await.len() < 2 {
        assert!(Instant::now() < deadline);
        cluster.pop(&queue(RETRY, 0), 9, 50, None).await;
    }
    let mut dead = cluster.numbers(DEAD).await;
    dead.sort_unstable();
    assert_eq!(dead, [0, 4]);
    assert_eq!(cluster.numbers(RETRY).await.len(), 2, "one attempt more");
    // In order, too, where it was never one (apache/rocketmq#6163).
    let first = cluster.pop(&queue(TOPIC, 1), 1, 50, Some("a")).await;
    tokio::time::sleep(Duration::from_millis(100)).await;
    assert_eq!(cluster.pop(&queue(TOPIC, 1), 1, 50, Some("b")).await[0].number, first[0].number);
    while cluster.numbers(DEAD).await.len() < 3 {
        assert!(Instant::now() < deadline);
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
    assert_eq!(cluster.pop(&queue(TOPIC, 1), 1, 50, Some("c")).await[0].number, 5, "the next one");
}

/// The answer of an ordered pop was lost, and its client was blocked until the invisible time ended (apache/rocketmq#10827).
#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn an_ordered_pop_that_is_repeated_gets_the_same_messages() {
    let cluster = Cluster::start(1..=3, no_retention(), steady()).await;
    cluster.reach_level().await;
    cluster.send_all(0..16).await;
    let from = queue(TOPIC, 2);
    let numbers = |all: &[Given]| all.iter().map(|given| given.number).collect::<Vec<_>>();
    let lost = cluster.pop(&from, 3, 60_000, Some("a")).await;
    assert_eq!(numbers(&lost), [2, 6, 10]);
    assert!(cluster.pop(&from, 3, 60_000, Some("b")).await.is_empty(), "the queue is blocked");
    let again = cluster.pop(&from, 3, 60_000, Some("a")).await;
    assert_eq!(numbers(&again), [2, 6, 10]);
    assert!(!cluster.ack(&lost[0]).await, "its handle was replaced");
    assert!(cluster.ack(&again[0]).await && cluster.ack(&again[2]).await);
    let offset = || async { cluster.confirmed().await.state().offset("g", TOPIC, 2) };
    assert_eq!(offset().await, Some(1));
    // Another time for what is left: soon.
    let change = ChangePopped {
        queue: from.clone(),
        id: again[1].id,
        offset: again[1].offset,
        popped_ms: 0,
        visible_ms: now_ms() + 50,
    };
    let leader = cluster.confirmed().await;
    outcome(|reply| leader.change_popped(change, Counted::default(), reply)).await.unwrap();
    tokio::time::sleep(Duration::from_millis(100)).await;
    let left = cluster.pop(&from, 3, 60_000, Some("c")).await;
    assert_eq!(numbers(&left), [6]);
    assert!(cluster.ack(&left[0]).await);
    assert_eq!(
        (offset().await, numbers(&cluster.pop(&from, 3, 60_000, Some("d")).await)),
        (Some(3), vec![14])
    );
    // A reset ends what is in flight (apache/rocketmq#10229).
    let back = OffsetCommit { group: "g".into(), topic: TOPIC.into(), queue: 2, offset: 0 };
    cluster.execute(CommitOffsets(vec![back])).await;
    assert_eq!(numbers(&cluster.pop(&from, 2, 60_000, Some("e")).await), [2, 6]);
    cluster.assert_same().await;
}

/// A pop that was on its way while retention chose a segment brought messages of it into flight: they were lost to the group.
#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn pop_i4_nothing_is_popped_that_retention_lets_go() {
    let retention =
        Retention { age: None, bytes: Some(4 * SEGMENT_BYTES), interval: Duration::from_secs(3600) };
    let cluster = Cluster::start(1..=1, retention, steady()).await;
    cluster.reach_level().await;
    let receipts = cluster.send_all(0..20).await;
    assert_eq!(cluster.pop(&queue(TOPIC, 0), 2, 60_000, None).await.len(), 2);
    let (last, leader) = (receipts[19].positions[0], cluster.leader().await);
    let (mut number, deadline) = (20, Instant::now() + PATIENCE);
    while leader.pop_floor() <= last {
        assert!(Instant::now() < deadline, "{last}: {:?}", leader.log().state());
        cluster.send_all(number..number + 50).await;
        number += 50;
    }
    assert!(cluster.pop(&queue(TOPIC, 0), 2, 60_000, None).await.is_empty());
    assert_eq!(leader.state().popped().in_flight(&queue(TOPIC, 0)), 2, "what was in flight before stays");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn pop_i4_a_message_comes_again_after_its_segment_has_gone() {
    let retention =
        Retention { age: None, bytes: Some(4 * SEGMENT_BYTES), interval: Duration::from_millis(100) };
    let cluster = Cluster::start(1..=3, retention, steady()).await;
    cluster.reach_level().await;
    let receipts = cluster.send_all(0..20).await;
    let long = cluster.pop(&queue(TOPIC, 0), 9, 3_600_000, None).await;
    let short = cluster.pop(&queue(TOPIC, 1), 9, 8_000, None).await;
    assert_eq!((long.len(), short.len()), (5, 5));
    assert!(cluster.ack(&long[0]).await);
    let (last, deadline) = (receipts[19].positions[0], Instant::now() + PATIENCE);
    let gone =
        |cluster: &Cluster| cluster.groups.values().all(|group| group.log().state().start_position > last);
    let mut number = 20;
    while !gone(&cluster) {
        assert!(Instant::now() < deadline, "{last}: {:?}", cluster.leader().await.log().state());
        cluster.send_all(number..number + 50).await;
        number += 50;
    }
    assert!(long[1..].iter().all(|given| given.number < 20), "they are read from where they were carried");
    let leader = cluster.confirmed().await;
    assert_eq!(read(&leader, &long[1].queue, long[1].offset).map(|(number, _)| number), Some(long[1].number));
    for given in &long[1..] {
        assert!(cluster.ack(given).await);
    }
    let mut again = Vec::new();
    while again.len() < 5 {
        assert!(Instant::now() < deadline, "{again:?}");
        again.extend(cluster.pop(&queue(RETRY, 0), 9, 60_000, None).await);
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
    let numbers = |all: &[Given]| all.iter().map(|given| given.number).collect::<BTreeSet<_>>();
    assert_eq!(numbers(&again), numbers(&short));
    for given in &again {
        assert!(cluster.ack(given).await);
    }
    assert_eq!(cluster.confirmed().await.state().popped().count(), 0);
    cluster.assert_same().await;
}
