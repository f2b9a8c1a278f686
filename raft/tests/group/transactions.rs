//! Transactions end once: while leaders come and go, however often an end is repeated, and after retention has dropped the segment
//! that the half message was sent in.

use std::collections::BTreeMap;
use std::time::{Duration, Instant};

use bytes::BytesMut;
use folio_protocol::half;
use folio_protocol::message::{MessageView, Messages, NewMessage};
use folio_protocol::properties::{self, PRODUCER_GROUP, REAL_QUEUE_ID, REAL_TOPIC, UNIQUE_KEY};
use folio_raft::config::Retention;
use folio_raft::driver::End;
use folio_raft::group::Group;
use folio_raft::proposal::{Proposal, ProposeError, Receipt, Repeat};
use folio_raft::status::Role;
use folio_state::{Ending, ResumeTransaction};
use tempfile::TempDir;

use crate::cluster::{Cluster, PATIENCE, SEGMENT_BYTES, address, message, no_retention, steady};

const TOPIC: &str = "paid";
const PRODUCERS: &str = "p";

pub(crate) fn half_message(number: u64) -> NewMessage {
    half_for_queue(number, 0)
}

fn half_for_queue(number: u64, queue: u32) -> NewMessage {
    let mut said = BytesMut::new();
    for (name, value) in [
        (UNIQUE_KEY, format!("K{number}").as_str()),
        (PRODUCER_GROUP, PRODUCERS),
        (REAL_TOPIC, TOPIC),
        (REAL_QUEUE_ID, queue.to_string().as_str()),
    ] {
        properties::append(&mut said, name, value);
    }
    NewMessage { topic: half::TOPIC.into(), properties: said.freeze(), ..message(0, number.to_string()) }
}

/// The message that an end stores, made of the half as this node has it; `None`: the transaction is not open here.
fn ending_message(leader: &Group, id: u64, ending: Ending) -> Option<NewMessage> {
    let open = *leader.state().transactions().get(PRODUCERS, id)?;
    let bytes = leader.log().bytes(open.position, open.bytes as usize).ok()?;
    let message = MessageView::parse(&bytes).unwrap();
    match ending {
        Ending::Committed => half::committed(&message, &bytes),
        Ending::RolledBack => None,
        Ending::GivenUp => Some(half::given_up(&message, &bytes, 15)),
    }
}

impl Cluster {
    /// Sends a half message until it is acknowledged; the transaction's id.
    async fn begin(&self, number: u64) -> u64 {
        self.send_half(half_message(number)).await.positions[0]
    }

    async fn send_half(&self, message: NewMessage) -> Receipt {
        let deadline = Instant::now() + PATIENCE;
        loop {
            let (answer, answered) = tokio::sync::oneshot::channel();
            let reply = Box::new(move |result: Result<Receipt, ProposeError>| drop(answer.send(result)));
            let messages = vec![message.clone()];
            let error = match self.leader().await.propose(Proposal { messages, repeat: Repeat::Same, reply })
            {
                Ok(()) => match answered.await.unwrap() {
                    Ok(receipt) => return receipt,
                    Err(error) => error,
                },
                Err((_, error)) => error,
            };
            assert!(Instant::now() < deadline, "{message:?}: {error}");
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    }

    /// Ends a transaction, again and again until that is acknowledged, as a client does that does not hear the answer; how it ended.
    async fn end(&self, id: u64, ending: Ending) -> Ending {
        let deadline = Instant::now() + PATIENCE;
        loop {
            let leader = self.confirmed().await;
            let (answer, answered) = tokio::sync::oneshot::channel();
            let message = ending_message(&leader, id, ending);
            let is_open = leader.state().transactions().get(PRODUCERS, id).is_some();
            if is_open && message.is_none() && ending != Ending::RolledBack {
                // It is being stored elsewhere.
                continue;
            }
            let end = End { group: PRODUCERS.into(), id, ending, message };
            leader.end_transaction(end, Box::new(move |result| drop(answer.send(result))));
            match answered.await.unwrap() {
                Ok(()) => return leader.state().transactions().ending(id).unwrap(),
                Err(error) => assert!(Instant::now() < deadline, "transaction {id}: {error}"),
            }
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    }

    /// How often each message is in the real topic, on every node alike.
    async fn committed(&self) -> BTreeMap<u64, u32> {
        tokio::time::sleep(Duration::from_millis(300)).await;
        self.assert_identical().await;
        let first = self.leader().await;
        for group in self.groups.values() {
            assert_eq!(group.status().unmet_preconditions, 0, "transitions.I2");
            assert_eq!(*group.state(), *first.state(), "node {}", group.node_id());
        }
        let mut times = BTreeMap::new();
        let (mut offset, end) = first.queues().bounds(TOPIC, 0).unwrap_or((0, 0));
        while offset < end {
            let units = first.queues().units(TOPIC, 0, offset, 100).unwrap();
            for unit in &units {
                let bytes = first.log().bytes(unit.position, unit.size as usize).unwrap();
                let (_, message) = Messages::new(&bytes).next().unwrap().unwrap();
                assert_eq!(message.property(REAL_TOPIC), None);
                let number = std::str::from_utf8(message.body()).unwrap().parse().unwrap();
                *times.entry(number).or_default() += 1;
            }
            offset += units.len() as u64;
        }
        times
    }
}

fn once(numbers: impl IntoIterator<Item = u64>) -> BTreeMap<u64, u32> {
    numbers.into_iter().map(|number| (number, 1)).collect()
}

/// Found by the simulation. A leader that was replaced and did not know it said of a transaction that the new leader had begun: ended.
#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn transactions_i1_a_leader_said_ended_of_a_transaction_that_it_had_never_heard_of() {
    let cluster = Cluster::start(1..=1, no_retention(), steady()).await;
    cluster.reach_level().await;
    let id = cluster.begin(1).await;
    let leader = cluster.leader().await;
    let ask = async |id| {
        let (answer, answered) = tokio::sync::oneshot::channel();
        let end = End { group: PRODUCERS.into(), id, ending: Ending::RolledBack, message: None };
        leader.end_transaction(end, Box::new(move |result| drop(answer.send(result))));
        answered.await.unwrap()
    };
    let unheard = ask(leader.applied_position()).await;
    assert!(matches!(unheard, Err(ProposeError::NotLeader { leader: None })), "{unheard:?}");
    for _ in 0..2 {
        ask(id).await.unwrap();
        assert_eq!(leader.state().transactions().ending(id), Some(Ending::RolledBack));
    }
}

/// Before: the retry was acknowledged with the transaction that had ended without a message, and its commit was refused: lost.
#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn dedup_i6_a_retry_of_a_half_whose_transaction_was_rolled_back_was_acknowledged_and_lost() {
    let cluster = Cluster::start(1..=1, no_retention(), steady()).await;
    cluster.reach_level().await;
    for (number, ending) in [(1, Ending::RolledBack), (2, Ending::GivenUp)] {
        let id = cluster.begin(number).await;
        assert_eq!(cluster.begin(number).await, id, "a retry while it is open");
        assert_eq!(cluster.end(id, ending).await, ending);
        let again = cluster.begin(number).await;
        assert_eq!(cluster.end(again, Ending::Committed).await, Ending::Committed);
        assert_eq!(cluster.begin(number).await, again, "a retry after the commit");
    }
    assert_eq!(cluster.committed().await, once([1, 2]));
}

/// Before: the queue was compared too, and clients choose another one for a second attempt.
#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn dedup_i6_a_retry_of_a_half_for_another_queue_opened_a_second_transaction() {
    let cluster = Cluster::start(1..=1, no_retention(), steady()).await;
    cluster.reach_level().await;
    let first = cluster.send_half(half_for_queue(1, 0)).await;
    let second = cluster.send_half(half_for_queue(1, 3)).await;
    assert_eq!((second.positions[0], second.queue_id), (first.positions[0], 0));
    assert_eq!(cluster.leader().await.state().transactions().count(), 1);
    let other = cluster.send_half(half_for_queue(2, 3)).await;
    let retry = cluster.send_half(half_for_queue(2, 1)).await;
    assert_eq!((retry.positions[0], retry.queue_id), (other.positions[0], 3));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn transactions_i1_each_ends_once_while_leaders_come_and_go() {
    let mut cluster = Cluster::start(1..=3, no_retention(), steady()).await;
    cluster.reach_level().await;
    let mut ids = Vec::new();
    for number in 0..120 {
        let id = cluster.begin(number).await;
        ids.push(id);
        let ending = if number % 3 == 0 { Ending::RolledBack } else { Ending::Committed };
        if number % 4 != 3 {
            assert_eq!(cluster.end(id, ending).await, ending);
        }
        if number % 40 == 39 {
            let leader = cluster.leader().await.node_id();
            cluster.stop(leader).await;
            // Repeated at another leader, and contradicted.
            for number in [number - 1, number - 3] {
                let ended = if number % 3 == 0 { Ending::RolledBack } else { Ending::Committed };
                let other = if number % 3 == 0 { Ending::Committed } else { Ending::RolledBack };
                let id = ids[number as usize];
                assert_eq!(cluster.end(id, ended).await, ended);
                assert_eq!(cluster.end(id, other).await, ended, "the first counts");
            }
            cluster.boot(leader, false).await;
        }
    }
    let left: Vec<u64> = (0..120).filter(|number| number % 4 == 3).collect();
    assert_eq!(cluster.leader().await.state().transactions().count(), left.len() as u64);
    for number in left {
        cluster.end(ids[number as usize], Ending::Committed).await;
    }
    let expected = (0..120).filter(|number| number % 4 == 3 || number % 3 != 0);
    assert_eq!(cluster.committed().await, once(expected));
    assert_eq!(cluster.leader().await.state().transactions().count(), 0);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn transactions_i1_of_ends_that_come_together_one_counts() {
    let cluster = Cluster::start(1..=3, no_retention(), steady()).await;
    cluster.reach_level().await;
    let mut committed = Vec::new();
    for number in 0..30 {
        let id = cluster.begin(number).await;
        let leader = cluster.confirmed().await;
        let mut answers = Vec::new();
        for turn in 0..6 {
            let ending = if (number + turn) % 2 == 0 { Ending::Committed } else { Ending::RolledBack };
            let (answer, answered) = tokio::sync::oneshot::channel();
            let message = ending_message(&leader, id, ending);
            if message.is_none() && ending == Ending::Committed {
                break;
            }
            let end = End { group: PRODUCERS.into(), id, ending, message };
            leader.end_transaction(end, Box::new(move |result| drop(answer.send(result))));
            answers.push(answered);
        }
        for answered in answers {
            answered.await.unwrap().unwrap();
        }
        let first = if number % 2 == 0 { Ending::Committed } else { Ending::RolledBack };
        assert_eq!(leader.state().transactions().ending(id), Some(first));
        committed.extend((first == Ending::Committed).then_some(number));
    }
    assert_eq!(cluster.committed().await, once(committed));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn transactions_i3_one_that_ends_after_its_segment_has_gone_ends_once() {
    let retention =
        Retention { age: None, bytes: Some(4 * SEGMENT_BYTES), interval: Duration::from_millis(100) };
    let mut cluster = Cluster::start(1..=3, retention, steady()).await;
    cluster.reach_level().await;
    let (mut ids, deadline) = (Vec::new(), Instant::now() + PATIENCE);
    for number in 0..30 {
        ids.push(cluster.begin(number).await);
    }
    for id in &ids[..5] {
        cluster.end(*id, Ending::RolledBack).await;
    }
    let last = *ids.last().unwrap();
    let gone =
        |cluster: &Cluster| cluster.groups.values().all(|group| group.log().state().start_position > last);
    let lies_far = |leader: &Group| {
        let state = leader.state();
        let far = last + 4 * SEGMENT_BYTES;
        state.transactions().of(PRODUCERS).all(|(_, open)| open.position > far)
    };
    let mut number = 0;
    // Stored again more than once.
    while !gone(&cluster) || !lies_far(&cluster.leader().await) {
        assert!(Instant::now() < deadline, "{last}: {:?}", cluster.leader().await.log().state());
        cluster.send_all(number..number + 50).await;
        number += 50;
    }
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
    assert_eq!(cluster.confirmed().await.state().transactions().count(), 25);
    for id in &ids[5..] {
        assert_eq!(cluster.end(*id, Ending::Committed).await, Ending::Committed);
    }
    assert_eq!(cluster.committed().await, once(5..30));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn transactions_i1_what_was_given_up_is_resumed_once() {
    let cluster = Cluster::start(1..=3, no_retention(), steady()).await;
    cluster.reach_level().await;
    let id = cluster.begin(7).await;
    assert_eq!(cluster.end(id, Ending::GivenUp).await, Ending::GivenUp);
    assert_eq!(cluster.end(id, Ending::Committed).await, Ending::GivenUp);
    let leader = cluster.confirmed().await;
    let unit = leader.queues().units(half::GIVEN_UP_TOPIC, 0, 0, 1).unwrap()[0];
    let bytes = leader.log().bytes(unit.position, unit.size as usize).unwrap();
    let message = MessageView::parse(&bytes).unwrap();
    let resume = || {
        let (answer, answered) = tokio::sync::oneshot::channel();
        let resume = ResumeTransaction {
            group: PRODUCERS.into(),
            id: half::transaction(&message),
            queue_offset: half::first_queue_offset(&message),
            at_ms: 9,
        };
        let reply = Box::new(move |result| drop(answer.send(result)));
        leader.resume_transaction(resume, half::again(&message, &bytes), reply);
        async { answered.await.expect("every request is answered") }
    };
    resume().await.unwrap();
    assert!(matches!(resume().await, Err(ProposeError::Refused(_))));
    assert_eq!(cluster.end(id, Ending::Committed).await, Ending::Committed);
    assert!(matches!(resume().await, Err(ProposeError::Refused(_))));
    assert_eq!(cluster.committed().await, once([7]));
}
