//! Requests that are larger than any client needs: refused, and the node serves on as before.

use std::time::{Duration, Instant};

use folio_broker::settings::Settings;
use folio_protocol::body::{
    self, ConsumerData, HeartbeatData, LockBatchRequest, LockBatchResponse, MessageQueue, SubscriptionData,
};
use folio_protocol::code::{RequestCode, ResponseCode};
use folio_protocol::frame::Frame;
use folio_protocol::header::{PullMessageHeader, UnregisterClientHeader, UpdateConsumerOffsetHeader};

use crate::node::{Client, Node, expect, messages, pull_header, with_body};
use crate::pull::{held as held_pull, request};

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

/// 115 kB were 197 MB of state on every node; with 512 KiB and 6,000 queues every node ended, and again at each start.
#[tokio::test]
async fn a_lock_with_a_giant_client_id_filled_every_nodes_memory() {
    let node = Node::start().await;
    let mut client = node.client_of_group().await;
    client.send("orders", "", "one").await;
    let before = node.broker.group.state().encoded_bytes();
    refused(&mut client, lock("c".repeat(64 << 10), 3_000)).await;
    // What is not there is not locked, however much is asked for.
    let answer = client.call(lock("c".to_owned(), 3_000)).await;
    assert!((1..=16).contains(&held(&answer)), "{}", held(&answer));
    let after = node.broker.group.state().encoded_bytes();
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
    assert!(node.broker.group.state().group("group-1").is_none());
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
    assert!(node.broker.group.state().encoded_bytes() < 10_000);
}

/// Pulls that are held for a tag that never comes; returns once the node has taken all of them.
async fn hold(client: &mut Client, pulls: usize) {
    let never =
        PullMessageHeader { subscription: Some("never".to_owned()), ..held_pull("orders", 1, 20_000) };
    for _ in 0..pulls {
        client.put(request(&never)).await;
    }
    let last = client.put(request(&pull_header("orders", 0))).await;
    while client.take().await.opaque != last {}
}

/// 100,000 such pulls: each arrival looked at all of them on the group's thread, and the leader was deaf for 79 s. While they
/// filled the table, honest pulls were answered at once, and asked again at once.
#[tokio::test]
async fn held_pulls_of_one_connection_filled_the_table_for_all_others() {
    let node = Node::start_with(Settings { polls_max: 64, ..Settings::default() }).await;
    let (mut hostile, mut other) = (node.client_of_group().await, node.client().await);
    let (mut honest, mut producer) = (node.client().await, node.client().await);
    producer.send("orders", "a", "old").await;
    hold(&mut hostile, 300).await;
    hold(&mut other, 300).await;
    let pull = honest.put(request(&held_pull("orders", 1, 25_000))).await;
    while node.broker.polls.of_connections() < 3 {
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
    hold(&mut hostile, 300).await;
    let touched = node.broker.polls.touched();
    producer.send("orders", "a", "new").await;
    let answer = honest.take().await;
    assert_eq!(answer.opaque, pull);
    expect(&answer, ResponseCode::Success);
    assert_eq!(messages(&answer.body)[0].body(), b"new");
    assert_eq!(node.broker.polls.touched() - touched, 1);
}

/// 40 of them had 1.7 GB.
#[tokio::test]
async fn a_pull_with_an_expression_of_one_mebibyte_is_refused() {
    let node = Node::start().await;
    let mut client = node.client_of_group().await;
    client.send("orders", "", "one").await;
    let long =
        PullMessageHeader { subscription: Some("a||".repeat(340_000)), ..held_pull("orders", 1, 20_000) };
    let answer = client.call(request(&long)).await;
    expect(&answer, ResponseCode::SubscriptionParseFailed);
    assert!(answer.remark.as_ref().is_some_and(|remark| remark.contains("limit")), "{:?}", answer.remark);
    assert!(node.broker.polls.is_empty());
}

/// A large heartbeat of a client of its own, a little below the limit.
fn large_heartbeat(client: usize) -> Frame {
    let subscription = |number| SubscriptionData {
        topic: format!("topic-{number}"),
        sub_string: "x".repeat(15_000),
        ..SubscriptionData::default()
    };
    let consumer = ConsumerData {
        group_name: "crowd".to_owned(),
        subscription_data_set: (0..60).map(subscription).collect(),
        ..ConsumerData::default()
    };
    let data = HeartbeatData {
        client_id: format!("c{client}"),
        consumer_data_set: vec![consumer],
        ..HeartbeatData::default()
    };
    with_body(RequestCode::HeartBeat, &data)
}

/// Six heartbeats of 14 MiB made a node's table too large to be told: its honest consumers vanished on the others.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn honest_consumers_vanished_on_other_nodes_beside_large_heartbeats() {
    let nodes = Node::cluster(3).await;
    let mut honest = nodes[0].client_of_group().await;
    expect(&honest.call(heartbeat(1)).await, ResponseCode::Success);
    let mut crowd = Vec::new();
    for number in 0..20 {
        let mut client = nodes[0].client().await;
        let answer = client.call(large_heartbeat(number)).await;
        if answer.code != ResponseCode::Success.code() {
            expect(&answer, ResponseCode::SystemBusy);
            break;
        }
        crowd.push(client);
    }
    assert!((10..20).contains(&crowd.len()), "{}", crowd.len());
    let deadline = Instant::now() + Duration::from_secs(60);
    for node in &nodes[1..] {
        while node.broker.clients.members("crowd").len() != crowd.len() {
            assert!(Instant::now() < deadline, "{:?}", node.broker.clients.members("crowd"));
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
        assert_eq!(node.broker.clients.members("group-0"), ["c1"]);
    }
    // One that leaves beside them is known to have left everywhere before it is answered (gossip.I1).
    let leaves = UnregisterClientHeader {
        client_id: "c1".into(),
        producer_group: None,
        consumer_group: Some("group-0".into()),
    };
    let opaque =
        honest.put(Frame::request(RequestCode::UnregisterClient, &leaves, bytes::Bytes::new())).await;
    // It may be told of its own coming first.
    while honest.take().await.opaque != opaque {}
    assert!(nodes.iter().all(|node| node.broker.clients.members("group-0").is_empty()));
}

/// Three bytes of JSON became a hundred and fifty of memory each, before anything was counted.
#[tokio::test]
async fn a_list_of_empty_objects_is_refused_before_it_is_decoded() {
    let node = Node::start().await;
    let mut client = node.client().await;
    let bombs = [
        (RequestCode::LockBatchMq, "mqSet", 5_000_000),
        (RequestCode::UpdateAndCreateTopicList, "topicConfigList", 5_000_000),
        (RequestCode::UpdateAndCreateSubscriptionGroupList, "groupConfigList", 5_000_000),
        (RequestCode::HeartBeat, "consumerDataSet", 300_000),
        (RequestCode::CheckClientConfig, "subscriptionData", 1_000),
    ];
    for (code, list, count) in bombs {
        let body = format!("{{\"{list}\":[{}]}}", vec!["{}"; count].join(","));
        refused(&mut client, Frame { code: code.code(), body: body.into(), ..Frame::default() }).await;
    }
    client.send("orders", "", "one").await;
}

/// What a client sends comes back in remarks: a name of megabytes was an answer of megabytes.
#[tokio::test]
async fn a_giant_name_is_not_repeated_to_the_client() {
    let node = Node::start().await;
    let mut client = node.client_of_group().await;
    let pull = pull_header(&"t".repeat(1_000_000), 0);
    let answer = client.ask(RequestCode::PullMessage, &pull).await;
    let remark = answer.remark.unwrap_or_default();
    assert!(remark.len() < 5_000, "{} bytes", remark.len());
}
