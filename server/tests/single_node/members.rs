//! Who is in a consumer group: clients that come and go, as every node tells it.

use std::time::Duration;

use folio_protocol::body::{self, ConsumerData, ConsumerList, HeartbeatData, SubscriptionData};
use folio_protocol::code::{RequestCode, ResponseCode};
use folio_protocol::frame::Frame;
use folio_protocol::header::{GetConsumerListHeader, NotifyConsumerIdsChangedHeader, UnregisterClientHeader};

use crate::node::{Client, Node, expect, header, with_body};

fn heartbeat(client_id: &str) -> Frame {
    let subscription = SubscriptionData {
        topic: "orders".to_owned(),
        sub_string: "*".to_owned(),
        ..SubscriptionData::default()
    };
    let consumer = ConsumerData {
        group_name: "g".to_owned(),
        subscription_data_set: vec![subscription],
        ..ConsumerData::default()
    };
    let data = HeartbeatData {
        client_id: client_id.to_owned(),
        consumer_data_set: vec![consumer],
        ..HeartbeatData::default()
    };
    with_body(RequestCode::HeartBeat, &data)
}

fn unregister(client_id: &str) -> UnregisterClientHeader {
    UnregisterClientHeader {
        client_id: client_id.into(),
        producer_group: None,
        consumer_group: Some("g".into()),
    }
}

async fn members(client: &mut Client) -> Vec<String> {
    let list = GetConsumerListHeader { consumer_group: "g".into() };
    let answer = client.ask(RequestCode::GetConsumerListByGroup, &list).await;
    match answer.code {
        code if code == ResponseCode::Success.code() => {
            body::decode::<ConsumerList>(&answer.body).expect("a list").consumer_id_list
        }
        _ => Vec::new(),
    }
}

/// Was listed for up to 50 ms more on the other nodes, so the members that rebalanced then left its queues alone.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn gossip_i1_a_client_that_has_left_is_listed_by_no_node() {
    let nodes = Node::cluster(3).await;
    let mut watching = Vec::new();
    for node in &nodes {
        watching.push(node.client_of_group().await);
    }
    for round in 0..10 {
        // It is connected to every node, as RocketMQ's consumers are, and leaves one after the other.
        let mut client = Vec::new();
        for node in &nodes {
            let mut connection = node.client().await;
            connection.put(heartbeat("c1")).await;
            while !connection.take().await.is_response() {}
            client.push(connection);
        }
        for watching in &mut watching {
            while members(watching).await != ["c1"] {
                tokio::time::sleep(Duration::from_millis(5)).await;
            }
        }
        for connection in &mut client {
            let opaque = connection.put(Frame::request(
                RequestCode::UnregisterClient,
                &unregister("c1"),
                bytes::Bytes::new(),
            ));
            let opaque = opaque.await;
            // The notice of its own joining may come first.
            let mut answer = connection.take().await;
            while answer.opaque != opaque || !answer.is_response() {
                answer = connection.take().await;
            }
            expect(&answer, ResponseCode::Success);
        }
        for (watching, node) in watching.iter_mut().zip(&nodes) {
            assert!(members(watching).await.is_empty(), "round {round}, node {}", node.broker.node_id());
        }
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_client_that_leaves_is_answered_though_a_node_is_dead() {
    let nodes = Node::cluster(3).await;
    let mut client = nodes[0].client_of_group().await;
    expect(&client.call(heartbeat("c1")).await, ResponseCode::Success);
    nodes[2].broker.group.shutdown().await;
    let opaque =
        client.put(Frame::request(RequestCode::UnregisterClient, &unregister("c1"), bytes::Bytes::new()));
    let opaque = opaque.await;
    let mut answer = client.take().await;
    while answer.opaque != opaque || !answer.is_response() {
        answer = client.take().await;
    }
    expect(&answer, ResponseCode::Success);
    assert!(members(&mut nodes[1].client().await).await.is_empty());
}

/// The notice came before the answer to the heartbeat: the client rebalanced before its other heartbeats were sent, found
/// itself on no list, and looked again half a minute later.
#[tokio::test]
async fn a_client_that_joins_hears_its_answer_first_and_the_others_are_told_at_once() {
    let node = Node::start().await;
    let (mut first, mut second) = (node.client_of_group().await, node.client().await);
    let told = |frame: &Frame| {
        assert_eq!(frame.code, RequestCode::NotifyConsumerIdsChanged.code());
        assert_eq!(&*header::<NotifyConsumerIdsChangedHeader>(frame).consumer_group, "g");
    };
    expect(&first.call(heartbeat("c1")).await, ResponseCode::Success);
    told(&first.take().await);
    expect(&second.call(heartbeat("c2")).await, ResponseCode::Success);
    told(&first.take().await);
    told(&second.take().await);
    expect(&first.call(heartbeat("c1")).await, ResponseCode::Success);
}
