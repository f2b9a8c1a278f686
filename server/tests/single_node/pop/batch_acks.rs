//! Many acknowledgements in one request: what it says of those that came too late, and how many it may have.

use folio_protocol::body::{BatchAck, BatchAckMessages, OffsetSet};
use folio_protocol::code::{RequestCode, ResponseCode};
use folio_protocol::frame::Frame;
use folio_state::State;

use super::{BROKER, Got, node, pop_header};
use crate::node::{expect, with_body};

/// What acknowledges some messages of a batch.
fn batch_ack(got: &Got, diffs: impl IntoIterator<Item = u64>) -> Frame {
    let ack = BatchAck {
        group: "g".into(),
        topic: "orders".into(),
        retry: got.handle.retry.flag().into(),
        start: got.handle.start as i64,
        queue: got.handle.queue.into(),
        revive_queue: 0,
        pop_time: got.handle.popped_ms as i64,
        invisible_time: got.handle.invisible_ms as i64,
        messages: OffsetSet(diffs.into_iter().collect()),
    };
    with_body(
        RequestCode::BatchAckMessage,
        &BatchAckMessages { broker_name: BROKER.into(), acks: vec![ack; 2] },
    )
}

/// Was: SUCCESS, and the message came again.
#[tokio::test]
async fn a_batch_of_acks_says_how_many_of_its_messages_come_again() {
    let node = node().await;
    let mut client = node.client_of_group().await;
    for body in ["a", "b", "c"] {
        client.send("orders", "", body).await;
    }
    let popped = client.pop_some(&pop_header(32, 60_000)).await;
    expect(&client.change(&popped[1], 60_000).await, ResponseCode::Success);
    let answer = client.call(batch_ack(&popped[0], [0, 1, 2])).await;
    expect(&answer, ResponseCode::NoMessage);
    let remark = answer.remark.expect("a remark");
    assert!(remark.starts_with("[POP]2 of 6 messages"), "{remark}");
    // All others are acknowledged.
    let in_flight = |state: &State| state.popped().batches().map(|(.., batch)| batch.count()).sum::<u64>();
    assert_eq!(in_flight(&node.broker.group.state()), 1);
    expect(&client.call(batch_ack(&popped[0], [0, 2])).await, ResponseCode::Success);
}

/// Was: each bit of 1,024 bit sets became a handle before they were counted.
#[tokio::test]
async fn a_batch_of_acks_with_more_messages_than_a_pop_gives_is_refused() {
    let node = node().await;
    let mut client = node.client_of_group().await;
    client.send("orders", "", "a").await;
    let popped = client.pop_some(&pop_header(1, 60_000)).await.remove(0);
    let refused = client.call(batch_ack(&popped, 0..33)).await;
    expect(&refused, ResponseCode::InvalidParameter);
    assert!(refused.remark.is_some_and(|remark| remark.contains("the limit is 32")));
    assert_eq!(node.broker.group.state().popped().count(), 1, "nothing was acknowledged");
}
