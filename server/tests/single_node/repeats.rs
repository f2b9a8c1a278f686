//! A send that is repeated under its UNIQ_KEY: stored once, answered twice.

use bytes::BytesMut;
use folio_protocol::batch;
use folio_protocol::code::{RequestCode, ResponseCode};
use folio_protocol::frame::Frame;
use folio_protocol::header::{SendMessageHeader, SendMessageResponseHeader};

use crate::node::{Client, Node, expect, header, message, send_header};

/// A SEND under a unique key of the test's choice.
fn keyed(key: &str, tag: &str) -> SendMessageHeader {
    let properties = Some(format!("UNIQ_KEY\u{1}{key}\u{2}TAGS\u{1}{tag}\u{2}"));
    SendMessageHeader { properties, ..send_header("orders", "") }
}

/// Message id, queue and offset of a message that was stored.
async fn stored(client: &mut Client, request: Frame) -> (String, i32, i64) {
    let answer = client.call(request).await;
    expect(&answer, ResponseCode::Success);
    let sent: SendMessageResponseHeader = header(&answer);
    (sent.msg_id, sent.queue_id, sent.queue_offset)
}

fn count(node: &Node, topic: &str) -> u64 {
    let queues = node.broker.group.queues();
    (0..8).filter_map(|queue| queues.bounds(topic, queue)).map(|(min, max)| max - min).sum()
}

#[tokio::test]
async fn a_repeat_gets_the_first_ones_answer_even_for_another_queue_and_connection() {
    let node = Node::start().await;
    let mut client = node.client().await;
    let first = stored(&mut client, message(&keyed("A", "t"), "hello")).await;
    client.send("orders", "", "another").await;
    let elsewhere = SendMessageHeader { queue_id: 3, born_timestamp: 1, ..keyed("A", "t") };
    assert_eq!(stored(&mut node.client().await, message(&elsewhere, "hello")).await, first);
    let mut plain = message(&keyed("A", "t"), "hello");
    plain.code = RequestCode::SendMessageV2.code();
    assert_eq!(stored(&mut client, plain).await, first);
    assert_eq!((count(&node, "orders"), node.broker.group.status().repeats), (2, 2));
}

#[tokio::test]
async fn the_same_key_with_another_body_or_tag_is_another_message() {
    let node = Node::start().await;
    let mut client = node.client().await;
    for (at, (tag, body)) in [("t", "one"), ("t", "two"), ("u", "one")].into_iter().enumerate() {
        let (_, _, offset) = stored(&mut client, message(&keyed("A", tag), body)).await;
        assert_eq!(offset, at as i64, "{tag} {body}");
    }
    let (_, _, offset) = stored(&mut client, message(&keyed("A", "t"), "two")).await;
    assert_eq!((offset, count(&node, "orders")), (1, 3), "each is remembered under its own content");
}

#[tokio::test]
async fn repeats_that_come_before_the_first_one_is_stored_share_its_answer() {
    let node = Node::start().await;
    let mut clients = Vec::new();
    for _ in 0..6 {
        clients.push(node.client().await);
    }
    clients[0].send("orders", "", "creates the topic").await;
    for round in 0..30 {
        let request = message(&keyed(&format!("K{round}"), "t"), "hello");
        for client in &mut clients {
            client.put(request.clone()).await;
        }
        for client in &mut clients {
            let sent: SendMessageResponseHeader = header(&client.take().await);
            assert_eq!(sent.queue_offset, 1 + round);
        }
    }
    assert_eq!((count(&node, "orders"), node.broker.group.status().repeats), (31, 150));
}

#[tokio::test]
async fn a_repeated_batch_gets_all_its_places_and_a_changed_one_is_stored() {
    let node = Node::start().await;
    let mut client = node.client().await;
    client.send("orders", "", "before").await;
    let request = |keys: &[&str]| {
        let mut body = BytesMut::new();
        for key in keys {
            let properties = format!("UNIQ_KEY\u{1}{key}\u{2}");
            batch::append(&mut body, 1, b"text", properties.as_bytes()).expect("short enough");
        }
        let head = SendMessageHeader { batch: true, ..send_header("orders", "") };
        Frame::request(RequestCode::SendBatchMessage, &head, body.freeze())
    };
    let first = stored(&mut client, request(&["A", "B", "C"])).await;
    assert_eq!((first.2, first.0.split(',').count()), (1, 3));
    assert_eq!(stored(&mut client, request(&["A", "B", "C"])).await, first);
    let (_, _, offset) = stored(&mut client, request(&["A", "B", "D"])).await;
    assert_eq!((offset, count(&node, "orders")), (4, 7));
}

#[tokio::test]
async fn a_redelivered_message_keeps_its_key_and_is_stored_each_time() {
    let node = Node::start().await;
    let mut client = node.client_of_group().await;
    let retry = SendMessageHeader { topic: "%RETRY%g".into(), ..keyed("A", "t") };
    for offset in 0..2 {
        assert_eq!(stored(&mut client, message(&retry, "hello")).await.2, offset);
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_repeat_through_another_node_finds_the_first_one() {
    let nodes = Node::cluster(3).await;
    let mut clients = Vec::new();
    for node in &nodes {
        clients.push(node.client().await);
    }
    clients[0].send("orders", "", "creates the topic").await;
    for round in 0..20 {
        let request = message(&keyed(&format!("K{round}"), "t"), "hello");
        for client in &mut clients {
            client.put(request.clone()).await;
        }
        let mut answers = Vec::new();
        for client in &mut clients {
            answers.push(header::<SendMessageResponseHeader>(&client.take().await));
        }
        assert_eq!((answers[0].queue_offset, &answers[0]), (1 + round, &answers[1]));
        assert_eq!(answers[0], answers[2]);
    }
    assert_eq!(count(&nodes[0], "orders"), 21);
}
