//! Requests that are larger than any client needs: refused, and the node serves on as before.

use folio_protocol::body::{
    self, ConsumerData, HeartbeatData, LockBatchRequest, LockBatchResponse, MessageQueue,
};
use folio_protocol::code::{RequestCode, ResponseCode};
use folio_protocol::frame::Frame;
use folio_protocol::header::UpdateConsumerOffsetHeader;

use crate::node::{Client, Node, expect, with_body};

fn lock(client_id: String, queues: i32) -> Frame {
    let queue =
        |queue_id| MessageQueue { broker_name: "b1".to_owned(), queue_id, topic: "orders".to_owned() };
    let wish = LockBatchRequest {
        consumer_group: "g".to_owned(),
        client_id,
        only_this_broker: false,
        mq_set: (0..queues).map(queue).collect(),
    };
    with_body(RequestCode::LockBatchMq, &wish)
}

fn heartbeat(groups: usize) -> Frame {
    let consumer = |number| ConsumerData { group_name: format!("group-{number}"), ..ConsumerData::default() };
    let data = HeartbeatData {
        client_id: "c1".to_owned(),
        consumer_data_set: (0..groups).map(consumer).collect(),
        ..HeartbeatData::default()
    };
    with_body(RequestCode::HeartBeat, &data)
}

fn held(answer: &Frame) -> usize {
    body::decode::<LockBatchResponse>(&answer.body).expect("queues").lock_ok_mq_set.len()
}

async fn refused(client: &mut Client, request: Frame) {
    let answer = client.call(request).await;
    expect(&answer, ResponseCode::InvalidParameter);
    assert!(answer.remark.as_ref().is_some_and(|remark| remark.contains("limit")), "{:?}", answer.remark);
}

/// 115 kB were 197 MB of metadata on every node; with 512 KiB and 6,000 queues every node ended, and again at each start.
#[tokio::test]
async fn a_lock_with_a_giant_client_id_filled_every_nodes_memory() {
    let node = Node::start().await;
    let mut client = node.client_of_group().await;
    client.send("orders", "", "one").await;
    let before = node.broker.group.metadata().encoded_bytes();
    refused(&mut client, lock("c".repeat(64 << 10), 3_000)).await;
    // What is not there is not locked, however much is asked for.
    let answer = client.call(lock("c".to_owned(), 3_000)).await;
    assert!((1..=16).contains(&held(&answer)), "{}", held(&answer));
    let after = node.broker.group.metadata().encoded_bytes();
    assert!(after < before + 4096, "{before} bytes before, {after} after");
    client.send("orders", "", "two").await;
}

/// It was registered name by name, and looked through for each of them: 6.7 s in which the leader was lost.
#[tokio::test]
async fn a_heartbeat_with_thirty_thousand_groups_lost_the_leader() {
    let node = Node::start().await;
    let mut client = node.client().await;
    refused(&mut client, heartbeat(30_000)).await;
    assert!(node.broker.clients.members("group-1").is_empty());
    assert!(node.broker.group.metadata().group("group-1").is_none());
    client.send("orders", "", "one").await;
}

#[tokio::test]
async fn an_offset_of_a_group_with_a_giant_name_is_refused() {
    let node = Node::start().await;
    let mut client = node.client().await;
    client.send("orders", "", "one").await;
    let head = UpdateConsumerOffsetHeader {
        consumer_group: "g".repeat(100_000).into(),
        topic: "orders".into(),
        queue_id: 0,
        commit_offset: 1,
    };
    let answer = client.ask(RequestCode::UpdateConsumerOffset, &head).await;
    assert_ne!(answer.code, ResponseCode::Success.code());
    assert!(node.broker.group.metadata().encoded_bytes() < 10_000);
}
