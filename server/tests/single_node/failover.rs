//! Answers around a change of leader, or while a disk hangs: what was acknowledged is denied by nobody, and no consumer
//! is sent back.

use std::collections::BTreeMap;
use std::time::Duration;

use bytes::Bytes;
use folio_protocol::code::{RequestCode, ResponseCode};
use folio_protocol::frame::Frame;
use folio_protocol::header::{
    GetEarliestStoreTimeHeader, OffsetResponseHeader, PullMessageHeader, QueryConsumerOffsetHeader,
    SearchOffsetHeader, SendMessageHeader, SendMessageResponseHeader, TimestampResponseHeader,
    UpdateConsumerOffsetHeader, ViewMessageHeader,
};
use folio_protocol::ids::OffsetMessageId;
use folio_raft::config::Timing;
use folio_state::{CreateTopic, PutTopic, Topic};

use crate::node::{Client, Node, execute, expect, header, message, pull_header, send_header};

/// How long RocketMQ's clients wait for an offset. What they hear then, they do not.
const CLIENT_PATIENCE: Duration = Duration::from_secs(5);
const LAST_QUEUE: i32 = 7;

fn commit(queue_id: i32, commit_offset: i64) -> Frame {
    let header = UpdateConsumerOffsetHeader {
        consumer_group: "g".into(),
        topic: "orders".into(),
        queue_id,
        commit_offset,
    };
    Frame::request(RequestCode::UpdateConsumerOffset, &header, Bytes::new())
}

fn query(queue_id: i32) -> Frame {
    let header = QueryConsumerOffsetHeader {
        consumer_group: "g".into(),
        topic: "orders".into(),
        queue_id,
        set_zero_if_not_found: Some(false),
    };
    Frame::request(RequestCode::QueryConsumerOffset, &header, Bytes::new())
}

/// Hands leadership to a node; returns in the moment in which it leads. `false`: it does not get it.
pub(crate) async fn lead(nodes: &[Node], to: usize) -> bool {
    let leader = nodes.iter().find(|node| node.broker.leads()).map(|node| node.broker.group.clone());
    let Some(leader) = leader else {
        // For those who call this until it is done.
        tokio::task::yield_now().await;
        return false;
    };
    let id = nodes[to].broker.node_id();
    let moved = tokio::spawn(async move { leader.transfer_leadership(Some(id)).await });
    while !nodes[to].broker.leads() {
        if moved.is_finished() {
            return nodes[to].broker.leads();
        }
        tokio::task::yield_now().await;
    }
    true
}

/// Stores a message in the last queue of a topic that no send creates; its position.
async fn store(client: &mut Client, topic: &str) -> u64 {
    let head =
        SendMessageHeader { default_topic: "none".into(), queue_id: LAST_QUEUE, ..send_header(topic, "") };
    let answer = client.call(message(&head, "hello")).await;
    expect(&answer, ResponseCode::Success);
    let sent: SendMessageResponseHeader = header(&answer);
    sent.msg_id.parse::<OffsetMessageId>().expect("an id").position
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_new_leader_denies_nothing_that_was_acknowledged_before_it_led() {
    let nodes = Node::cluster(3).await;
    let mut clients = Vec::new();
    for node in &nodes {
        clients.push(node.client_of_group().await);
    }
    for round in 0..60 {
        let (before, to, topic) = (round % 3, (round + 1) % 3, format!("orders-{round}"));
        execute(&nodes, PutTopic(Topic::new(&topic, 8))).await;
        let position = store(&mut clients[before], &topic).await;
        if !lead(&nodes, to).await {
            continue;
        }
        let client = &mut clients[to];
        let name = || topic.as_str().into();
        match round % 5 {
            0 => drop(store(client, &topic).await),
            1 => {
                let pull = PullMessageHeader { queue_id: LAST_QUEUE, ..pull_header(&topic, 0) };
                expect(&client.ask(RequestCode::PullMessage, &pull).await, ResponseCode::Success);
            }
            2 => {
                let view = ViewMessageHeader { offset: position as i64, topic: None };
                expect(&client.ask(RequestCode::ViewMessageById, &view).await, ResponseCode::Success);
            }
            3 => {
                let earliest = GetEarliestStoreTimeHeader { topic: name(), queue_id: LAST_QUEUE };
                let answer = client.ask(RequestCode::GetEarliestMessageStoreTime, &earliest).await;
                assert!(header::<TimestampResponseHeader>(&answer).timestamp > 0, "a queue without messages");
            }
            _ => {
                let end = SearchOffsetHeader {
                    topic: name(),
                    queue_id: LAST_QUEUE,
                    timestamp: i64::MAX,
                    boundary_type: Some("lower".to_owned()),
                };
                let answer = client.ask(RequestCode::SearchOffsetByTimestamp, &end).await;
                assert_eq!(header::<OffsetResponseHeader>(&answer).offset, 1, "the queue's end");
            }
        }
    }
}

/// RocketMQ 4 and the Go and C++ clients take every error for "this group has no offset": they begin at a queue's start,
/// or skip all that is in it.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_question_for_an_offset_hears_no_error_while_its_client_waits() {
    let nodes = Node::cluster(3).await;
    let mut client = nodes[1].client_of_group().await;
    client.send("orders", "", "x").await;
    expect(&client.call(commit(0, 1)).await, ResponseCode::Success);
    // Two disks fail and their nodes stop: nobody leads any more.
    for node in [&nodes[0], &nodes[2]] {
        node.disk.cut_power_at(node.disk.ops());
    }
    client.put(commit(0, 1).oneway()).await;
    while nodes.iter().any(|node| node.broker.leads()) {
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
    client.put(query(0)).await;
    let early = tokio::time::timeout(CLIENT_PATIENCE, client.take()).await;
    assert!(early.is_err(), "{early:?}");
    expect(&client.take().await, ResponseCode::ServiceNotAvailable);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_question_for_an_offset_waits_for_the_commits_before_it_however_long_the_disk_takes() {
    let node = Node::start().await;
    let mut client = node.client_of_group().await;
    client.send("orders", "", "x").await;
    expect(&client.call(commit(0, 1)).await, ResponseCode::Success);
    node.disk.hang_syncs(true);
    client.put(commit(0, 9).oneway()).await;
    client.put(query(0)).await;
    let early = tokio::time::timeout(Duration::from_millis(2_500), client.take()).await;
    assert!(early.is_err(), "an offset from before the commit: {early:?}");
    node.disk.hang_syncs(false);
    let answer = client.take().await;
    expect(&answer, ResponseCode::Success);
    assert_eq!(header::<OffsetResponseHeader>(&answer).offset, 9);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_offset_asked_for_at_a_node_is_the_one_committed_there_before_though_both_wait_for_a_leader() {
    const QUEUES: i32 = 64;
    let nodes = Node::cluster_with(3, Timing::default()).await;
    let mut client = nodes[1].client_of_group().await;
    execute(&nodes, CreateTopic(Topic::new("orders", QUEUES as u32))).await;
    for queue in 0..QUEUES {
        expect(&client.call(commit(queue, 1)).await, ResponseCode::Success);
    }
    // Its disk fails and it stops.
    nodes[0].disk.cut_power_at(nodes[0].disk.ops());
    while nodes[0].broker.leads() {
        client.put(commit(0, 1).oneway()).await;
        tokio::time::sleep(Duration::from_millis(1)).await;
    }
    for queue in 0..QUEUES {
        client.put(commit(queue, 100).oneway()).await;
    }
    let mut asked = BTreeMap::new();
    for queue in 0..QUEUES {
        asked.insert(client.put(query(queue)).await, queue);
    }
    while !asked.is_empty() {
        let answer = client.take().await;
        let queue = asked.remove(&answer.opaque);
        expect(&answer, ResponseCode::Success);
        assert_eq!(header::<OffsetResponseHeader>(&answer).offset, 100, "turns.I1: {queue:?}");
    }
}
