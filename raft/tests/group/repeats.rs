//! Attempts that lay in the sockets of nodes that stood still: all of them came, for what these know, when that began.
//!
//! Found by `folio-jepsen run --nemesis pause` with the workload `same-object`: a client's retries were stored beside what
//! they repeated.

use std::net::SocketAddr;
use std::pin::Pin;
use std::time::Duration;

use bytes::{Bytes, BytesMut};
use folio_engine::disk::sim::SimDisk;
use folio_engine::queues::Arrival;
use folio_protocol::message::NewMessage;
use folio_protocol::properties::{self, UNIQUE_KEY};
use folio_raft::config::DedupConfig;
use folio_raft::group::{Group, Hooks};
use folio_raft::proposal::{Attempt, Known, Knows, PROMPT, Proposal, Question, Repeat};
use tokio::time::Instant;

use crate::cluster::message;
use crate::one_node::start_with;

/// Every client heard of all its sends in time, as its node believes that does not know when they came.
struct Settled;

impl Hooks for Settled {
    fn call(&self, _: u64, request: Bytes) -> Pin<Box<dyn Future<Output = Bytes> + Send>> {
        Box::pin(std::future::ready(request))
    }
    fn knows(&self, _: Question) -> Known {
        Known::Now(Knows::Settled)
    }
    fn applied(&self, _: &[Arrival]) {}
    fn state_changed(&self) {}
}

/// A send of one object: made so many milliseconds after the first one, by the connection from this port.
struct Attempted {
    made_ms: i64,
    port: u16,
    arrived: Instant,
}

impl Attempted {
    async fn place(self, group: &Group) -> u64 {
        let client: SocketAddr = ([127, 0, 0, 1], self.port).into();
        let mut properties = BytesMut::new();
        properties::append(&mut properties, UNIQUE_KEY, "K");
        let message = NewMessage {
            born_timestamp: 1_700_000_000_000 + self.made_ms,
            born_host: client,
            store_host: client,
            properties: properties.freeze(),
            ..message(0, "one")
        };
        let connected = self.arrived - Duration::from_secs(60);
        let attempt = Attempt { number: 0, arrived: self.arrived, connected, doubts: false, here: true };
        let (answer, answered) = tokio::sync::oneshot::channel();
        let reply = Box::new(move |result| drop(answer.send(result)));
        let proposal = Proposal { messages: vec![message], repeat: Repeat::Send(attempt), reply };
        group.propose(proposal).map_err(|(_, error)| error).unwrap();
        answered.await.unwrap().unwrap().queue_offsets[0]
    }
}

async fn group() -> (Group, Instant) {
    let group = start_with(SimDisk::new(), Some(DedupConfig::default()), Settled).await;
    // The nodes stood still for five seconds, until now.
    (group, Instant::now() - Duration::from_secs(5))
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn dedup_i5_retries_that_came_while_nodes_stood_still_were_stored_each() {
    let (group, began) = group().await;
    for (port, made_ms) in [(1, 0), (2, 1_600), (3, 3_200), (1, 4_800)] {
        assert_eq!(Attempted { made_ms, port, arrived: began }.place(&group).await, 0, "{made_ms}");
    }
}

/// What an application sends at once is no retry, whatever stood still.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn dedup_i5_one_object_that_is_sent_at_once_to_nodes_that_stood_still_is_stored_each_time() {
    let (group, began) = group().await;
    for (place, port, made_ms) in [(0, 1, 0), (1, 1, 3), (2, 2, 5), (3, 2, 9)] {
        assert_eq!(Attempted { made_ms, port, arrived: began }.place(&group).await, place);
    }
}

/// What was answered in time, right before its node stood still, is no attempt that was given up: the object that was sent
/// again meanwhile was acknowledged, and not stored.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn dedup_i5_an_object_that_was_answered_before_nodes_stood_still_is_stored_again() {
    let (group, _) = group().await;
    let first = Attempted { made_ms: 0, port: 1, arrived: Instant::now() };
    assert_eq!(first.place(&group).await, 0);
    let began = Instant::now();
    tokio::time::sleep(PROMPT + Duration::from_millis(100)).await;
    for (place, port) in [(1, 2), (2, 1)] {
        assert_eq!(Attempted { made_ms: 2_000, port, arrived: began }.place(&group).await, place);
    }
}

/// The first retry that was left shared the place of what was sent since; the next one was compared with that retry.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn dedup_i5_retries_that_were_left_behind_were_stored_after_the_object_was_sent_again() {
    let (group, began) = group().await;
    assert_eq!(Attempted { made_ms: 0, port: 1, arrived: began }.place(&group).await, 0);
    // It was answered; its application sends the object once more.
    let again = Attempted { made_ms: 5_020, port: 1, arrived: Instant::now() };
    assert_eq!(again.place(&group).await, 1);
    for (port, made_ms) in [(2, 1_600), (3, 3_200), (2, 2_000)] {
        assert_eq!(Attempted { made_ms, port, arrived: began }.place(&group).await, 1, "{made_ms}");
    }
}
