//! POP by many at once, of much, and in order: nobody is given what another one has, and no answer is too long.

use std::collections::BTreeSet;
use std::time::Duration;

use folio_protocol::code::{RequestCode, ResponseCode};
use folio_protocol::header::{ChangeInvisibleTimeResponseHeader, PopMessageHeader, SendMessageHeader};
use folio_protocol::popped::Handle;
use folio_state::{ConsumerGroup, PutGroup};
use tokio::time::{Instant, sleep};

use crate::node::{execute, expect, header, message, send_header};
use crate::pop::{Got, INVISIBLE_MS, got, node, pop_header};

const PATIENCE: Duration = Duration::from_secs(60);

/// Two that popped within one millisecond were given the same messages; the 65th was told that the system is busy.
#[tokio::test]
async fn pop_i1_requests_that_pop_from_one_queue_at_once_are_given_the_same_messages() {
    let node = node().await;
    let mut client = node.client_of_group().await;
    for number in 0..200 {
        client.send("orders", "", &number.to_string()).await;
    }
    let mut popping = Vec::new();
    for _ in 0..100 {
        let mut client = node.client().await;
        let head = PopMessageHeader { queue_id: 0, ..pop_header(3, 60_000) };
        popping.push(tokio::spawn(async move {
            let deadline = Instant::now() + PATIENCE;
            loop {
                let answer = client.ask(RequestCode::PopMessage, &head).await;
                // Whoever waits for its turn for too long has been given nothing, and asks again.
                if answer.code != ResponseCode::SystemBusy.code() || Instant::now() > deadline {
                    break got(&answer);
                }
            }
        }));
    }
    let mut all = BTreeSet::new();
    for popped in popping {
        for Got { body, .. } in popped.await.expect("an answer") {
            assert!(all.insert(body.clone()), "{body} was given twice");
        }
    }
    assert_eq!(all.len(), 200);
}

/// Eight queues had four MiB each for one answer, which no frame holds: all of it was in flight, and nobody had it.
#[tokio::test]
async fn a_pop_of_many_queues_is_one_answer_that_fits_its_frame() {
    let node = node().await;
    let mut client = node.client_of_group().await;
    for number in 0..8 {
        let body = format!("{number}{}", "x".repeat(3 << 20));
        let to = SendMessageHeader { queue_id: number % 4, ..send_header("orders", "") };
        expect(&client.call(message(&to, &body)).await, ResponseCode::Success);
    }
    let mut all = BTreeSet::new();
    while all.len() < 8 {
        let popped = client.pop(&pop_header(32, 600_000)).await;
        let bytes: usize = popped.iter().map(|got| got.body.len()).sum();
        assert!((1..=4 << 20).contains(&bytes), "{bytes} bytes");
        for Got { body, handle, .. } in popped {
            assert!(all.insert(body[..1].to_owned()), "{handle} was given twice");
        }
    }
}

/// Once it has changed its time, the Java client names a message of an ordered batch as the first one of that.
#[tokio::test]
async fn an_ordered_message_is_acknowledged_by_the_handle_that_clients_make_after_a_change() {
    let node = node().await;
    let mut client = node.client_of_group().await;
    for body in ["a", "b", "c"] {
        client.send("orders", "", body).await;
    }
    let ordered = PopMessageHeader {
        queue_id: 0,
        order: Some(true),
        attempt_id: Some("1".into()),
        ..pop_header(3, 60_000)
    };
    let popped = client.pop_some(&ordered).await;
    expect(&client.ack(&popped[0]).await, ResponseCode::Success);
    let answer = client.change(&popped[1], 30_000).await;
    expect(&answer, ResponseCode::Success);
    let changed: ChangeInvisibleTimeResponseHeader = header(&answer);
    let handle = Handle {
        start: popped[1].handle.offset,
        popped_ms: changed.pop_time as u64,
        invisible_ms: changed.invisible_time as u64,
        ..popped[1].handle.clone()
    };
    expect(&client.ack(&Got { handle, ..popped[1].clone() }).await, ResponseCode::Success);
    expect(&client.ack(&popped[2]).await, ResponseCode::Success);
    assert_eq!(node.broker.group.state().popped().count(), 0);
}

/// Popped in order by one client and without order by another one, a message was given to both.
#[tokio::test]
async fn nothing_is_popped_without_order_that_is_in_flight_in_order() {
    let node = node().await;
    let mut client = node.client_of_group().await;
    for body in ["a", "b"] {
        client.send("orders", "", body).await;
    }
    let ordered = PopMessageHeader {
        queue_id: 0,
        order: Some(true),
        attempt_id: Some("1".into()),
        ..pop_header(2, INVISIBLE_MS)
    };
    assert_eq!(client.pop_some(&ordered).await.len(), 2);
    assert!(client.pop(&pop_header(2, 60_000)).await.is_empty());
    // Once its time is over, whoever comes has it.
    let again = client.pop_some(&pop_header(2, 60_000)).await;
    assert_eq!(again.iter().map(|got| &*got.body).collect::<Vec<_>>(), ["a", "b"]);
}

/// The answer of a last attempt was lost: nobody had its messages, and they became dead letters.
#[tokio::test]
async fn a_last_attempt_in_order_is_repeated_while_it_has_time() {
    let node = node().await;
    let mut client = node.client_of_group().await;
    client.send("orders", "", "a").await;
    let once = ConsumerGroup { retry_max: 0, ..ConsumerGroup::new("g") };
    execute(std::slice::from_ref(&node), PutGroup(once)).await;
    let ordered = |invisible_ms| PopMessageHeader {
        queue_id: 0,
        order: Some(true),
        attempt_id: Some("1".into()),
        ..pop_header(2, invisible_ms)
    };
    assert_eq!(client.pop_some(&ordered(60_000)).await.len(), 1);
    let repeated = client.pop(&ordered(500)).await;
    assert_eq!(repeated.iter().map(|got| &*got.body).collect::<Vec<_>>(), ["a"]);
    assert!(client.pop(&ordered(500)).await.is_empty(), "it is about to become a dead letter");
    let is_dead = || node.broker.group.queues().bounds("%DLQ%g", 0).is_some_and(|(_, next)| next == 1);
    let deadline = Instant::now() + PATIENCE;
    while !is_dead() {
        assert!(Instant::now() < deadline, "no dead letter");
        sleep(Duration::from_millis(20)).await;
    }
}
