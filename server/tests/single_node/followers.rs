//! Clients that know a follower only: they are served as by the leader.

use std::time::{Duration, Instant};

use bytes::Bytes;
use folio_protocol::code::{RequestCode, ResponseCode};
use folio_protocol::flags::pull_sys_flag;
use folio_protocol::frame::Frame;
use folio_protocol::header::{
    GetGroupConfigHeader, GetRouteHeader, GetTopicConfigHeader, OffsetResponseHeader, PullMessageHeader,
    PullMessageResponseHeader, QueryConsumerOffsetHeader, SendMessageResponseHeader,
    UpdateConsumerOffsetHeader, ViewMessageHeader,
};
use folio_protocol::ids::OffsetMessageId;
use folio_raft::config::Timing;
use folio_state::{ConsumerGroup, CreateTopic, PutGroup, Topic};

use crate::node::{Node, execute, expect, header, leader_of, message, messages, pull_header, send_header};

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_follower_takes_sends_and_gives_what_it_has_applied() {
    let nodes = Node::cluster(3).await;
    let follower = &nodes[1];
    let mut client = follower.client_of_group().await;
    let answer = client.send("orders", "", "hello").await;
    let sent: SendMessageResponseHeader = header(&answer);
    let id: OffsetMessageId = sent.msg_id.parse().expect("an id");
    assert_eq!(id.host, nodes[0].address, "the id names the node that stored it first");

    // The follower may know of the topic already and of the message not yet.
    let mut pulled = client.ask(RequestCode::PullMessage, &pull_header("orders", 0)).await;
    while pulled.code == ResponseCode::PullNotFound.code() {
        pulled = client.ask(RequestCode::PullMessage, &pull_header("orders", 0)).await;
    }
    expect(&pulled, ResponseCode::Success);
    assert_eq!(messages(&pulled.body).first().map(|message| message.body()), Some(&b"hello"[..]));
    let view = ViewMessageHeader { offset: id.position as i64, topic: None };
    expect(&client.ask(RequestCode::ViewMessageById, &view).await, ResponseCode::Success);
}

/// More than a follower has under way at a time were refused, or answered as if nobody knew whether they were stored.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn six_thousand_sends_at_once_through_a_follower_are_all_stored() {
    const SENDS: usize = 6_000;
    /// What a send waits for its turn. A machine that takes longer for all of them refuses the rest then, and not before.
    const PATIENCE: Duration = Duration::from_secs(3);
    let nodes = Node::cluster(3).await;
    let mut client = nodes[1].client().await;
    client.send("orders", "", "creates the topic").await;
    let mut other = nodes[1].client().await;
    let begun = Instant::now();
    let check = |answer: &Frame| {
        let (code, took) = (answer.code, begun.elapsed());
        let stored = code == ResponseCode::Success as i32;
        assert!(stored || took >= PATIENCE, "code {code} after {took:?}: {:?}", answer.remark);
    };
    for number in 0..SENDS {
        client.put(message(&send_header("orders", ""), &number.to_string())).await;
    }
    // One that comes beside them is served too.
    check(&other.call(message(&send_header("orders", ""), "beside")).await);
    for _ in 0..SENDS {
        check(&client.take().await);
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_follower_that_is_behind_denies_neither_topic_nor_group() {
    let nodes = Node::cluster(3).await;
    let mut clients = [nodes[1].client_of_group().await, nodes[2].client_of_group().await];
    for number in 0..20 {
        let (topic, group) = (format!("orders-{number}"), format!("g-{number}"));
        execute(&nodes, PutGroup(ConsumerGroup::new(&group))).await;
        execute(&nodes, CreateTopic(Topic::new(&topic, 4))).await;
        for client in &mut clients {
            let route = GetRouteHeader { topic: topic.as_str().into(), accept_standard_json_only: None };
            expect(&client.ask(RequestCode::GetRouteInfoByTopic, &route).await, ResponseCode::Success);
            let config = GetTopicConfigHeader { topic: topic.as_str().into(), logical: None };
            expect(&client.ask(RequestCode::GetTopicConfig, &config).await, ResponseCode::Success);
            let config = GetGroupConfigHeader { group: group.as_str().into() };
            expect(
                &client.ask(RequestCode::GetSubscriptionGroupConfig, &config).await,
                ResponseCode::Success,
            );
        }
    }
    for node in &nodes {
        let mut client = node.client().await;
        let route = GetRouteHeader { topic: "never-created".into(), accept_standard_json_only: None };
        expect(&client.ask(RequestCode::GetRouteInfoByTopic, &route).await, ResponseCode::TopicNotExist);
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_follower_holds_pulls_and_brings_offsets_to_the_leader() {
    let nodes = Node::cluster(3).await;
    let mut producer = nodes[0].client_of_group().await;
    producer.send("orders", "", "first").await;
    while nodes[2].broker.group.queues().bounds("orders", 0) != Some((0, 1)) {
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
    let mut client = nodes[2].client().await;
    let held = |offset| {
        let head = pull_header("orders", offset);
        let sys_flag = head.sys_flag | pull_sys_flag::SUSPEND | pull_sys_flag::COMMIT_OFFSET;
        PullMessageHeader { sys_flag, commit_offset: offset, suspend_timeout_millis: 20_000, ..head }
    };
    client.put(Frame::request(RequestCode::PullMessage, &held(1), bytes::Bytes::new())).await;
    tokio::time::sleep(Duration::from_millis(100)).await;
    producer.send("orders", "", "second").await;
    let pulled = client.take().await;
    expect(&pulled, ResponseCode::Success);
    assert_eq!(header::<PullMessageResponseHeader>(&pulled).next_begin_offset, 2);

    let query = QueryConsumerOffsetHeader {
        consumer_group: "g".into(),
        topic: "orders".into(),
        queue_id: 0,
        set_zero_if_not_found: Some(false),
    };
    let answer = client.ask(RequestCode::QueryConsumerOffset, &query).await;
    assert_eq!(header::<OffsetResponseHeader>(&answer).offset, 1, "the pull brought it");
    let commit = UpdateConsumerOffsetHeader {
        consumer_group: "g".into(),
        topic: "orders".into(),
        queue_id: 0,
        commit_offset: 2,
    };
    expect(&client.ask(RequestCode::UpdateConsumerOffset, &commit).await, ResponseCode::Success);
    let answer = client.ask(RequestCode::QueryConsumerOffset, &query).await;
    assert_eq!(header::<OffsetResponseHeader>(&answer).offset, 2);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn only_the_leader_tells_a_consumer_that_it_is_beyond_the_end() {
    let nodes = Node::cluster(3).await;
    let mut client = nodes[1].client_of_group().await;
    client.send("orders", "", "x").await;
    let answer = client.ask(RequestCode::PullMessage, &pull_header("orders", 9)).await;
    expect(&answer, ResponseCode::PullOffsetMoved);
    assert_eq!(header::<PullMessageResponseHeader>(&answer).next_begin_offset, 1);
    let answer = client.ask(RequestCode::PullMessage, &pull_header("orders", -1)).await;
    expect(&answer, ResponseCode::PullOffsetMoved);
    assert_eq!(header::<PullMessageResponseHeader>(&answer).next_begin_offset, 0);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_commit_that_waited_for_a_leader_never_replaces_a_later_one() {
    const QUEUES: u32 = 64;
    let nodes = Node::cluster_with(3, Timing::default()).await;
    let mut client = nodes[1].client_of_group().await;
    execute(&nodes, CreateTopic(Topic::new("orders", QUEUES))).await;
    let commit = |queue: u32, commit_offset| {
        let header = UpdateConsumerOffsetHeader {
            consumer_group: "g".into(),
            topic: "orders".into(),
            queue_id: queue as i32,
            commit_offset,
        };
        Frame::request(RequestCode::UpdateConsumerOffset, &header, Bytes::new())
    };
    for queue in 0..QUEUES {
        expect(&client.call(commit(queue, 1)).await, ResponseCode::Success);
    }
    let old = nodes[0].broker.node_id();
    // Its disk fails and it stops: no leader until the others have missed it.
    nodes[0].disk.cut_power_at(nodes[0].disk.ops());
    let status = nodes[1].broker.group.watch();
    for queue in (0..QUEUES).cycle() {
        if status.borrow().leader.is_some_and(|leader| leader != old) {
            break;
        }
        client.put(commit(queue, 50).oneway()).await;
        tokio::time::sleep(Duration::from_millis(1)).await;
    }
    for queue in 0..QUEUES {
        client.put(commit(queue, 100)).await;
    }
    for _ in 0..QUEUES {
        expect(&client.take().await, ResponseCode::Success);
    }
    // Longer than a commit pauses before it is handed out again.
    tokio::time::sleep(Duration::from_millis(500)).await;
    // On a busy machine the leader changes: a new one knows them once it has applied all.
    let leader = leader_of(&nodes[1..]).await;
    let offsets: Vec<Option<u64>> = {
        let state = leader.broker.group.state();
        (0..QUEUES).map(|queue| state.offset("g", "orders", queue)).collect()
    };
    assert_eq!(offsets, vec![Some(100); QUEUES as usize], "turns.I1");
    // Back is where a client may go that says so later.
    expect(&client.call(commit(0, 7)).await, ResponseCode::Success);
    let query = QueryConsumerOffsetHeader {
        consumer_group: "g".into(),
        topic: "orders".into(),
        queue_id: 0,
        set_zero_if_not_found: Some(false),
    };
    let answer = client.ask(RequestCode::QueryConsumerOffset, &query).await;
    assert_eq!(header::<OffsetResponseHeader>(&answer).offset, 7);
}
