//! A consumer's offsets and a queue's.

use std::time::Duration;

use folio_protocol::code::{RequestCode, ResponseCode};
use folio_protocol::flags::pull_sys_flag;
use folio_protocol::frame::Frame;
use folio_protocol::header::{
    GetEarliestStoreTimeHeader, GetMaxOffsetHeader, GetMinOffsetHeader, OffsetResponseHeader,
    PullMessageHeader, QueryConsumerOffsetHeader, SearchOffsetHeader, TimestampResponseHeader,
    UpdateConsumerOffsetHeader,
};

use crate::node::{Client, Node, expect, header, messages, pull_header};

fn commit(offset: i64) -> UpdateConsumerOffsetHeader {
    UpdateConsumerOffsetHeader {
        consumer_group: "g".into(),
        topic: "orders".into(),
        queue_id: 0,
        commit_offset: offset,
    }
}

fn query(set_zero_if_not_found: Option<bool>) -> QueryConsumerOffsetHeader {
    QueryConsumerOffsetHeader {
        consumer_group: "g".into(),
        topic: "orders".into(),
        queue_id: 0,
        set_zero_if_not_found,
    }
}

async fn committed(client: &mut Client) -> i64 {
    let answer = client.ask(RequestCode::QueryConsumerOffset, &query(Some(false))).await;
    expect(&answer, ResponseCode::Success);
    header::<OffsetResponseHeader>(&answer).offset
}

#[tokio::test]
async fn a_commit_is_applied_when_it_is_answered_and_may_go_back() {
    let node = Node::start().await;
    let mut client = node.client_of_group().await;
    client.send("orders", "", "x").await;
    let answer = client.ask(RequestCode::QueryConsumerOffset, &query(Some(false))).await;
    expect(&answer, ResponseCode::QueryNotFound);
    let answer = client.ask(RequestCode::QueryConsumerOffset, &query(None)).await;
    expect(&answer, ResponseCode::Success);
    assert_eq!(header::<OffsetResponseHeader>(&answer).offset, 0, "a young queue is read from its start");
    for offset in [1, 7, 3] {
        expect(&client.ask(RequestCode::UpdateConsumerOffset, &commit(offset)).await, ResponseCode::Success);
        assert_eq!(node.broker.group.state().offset("g", "orders", 0), Some(offset as u64));
        assert_eq!(committed(&mut client).await, offset);
    }
}

#[tokio::test]
async fn oneway_commits_are_seen_at_once_and_gathered_in_few_records() {
    let node = Node::start().await;
    let mut client = node.client_of_group().await;
    client.send("orders", "", "x").await;
    let before = node.broker.group.status().applied;
    for offset in 1..=500 {
        let request = Frame::request(RequestCode::UpdateConsumerOffset, &commit(offset), bytes::Bytes::new());
        client.put(request.oneway()).await;
    }
    assert_eq!(committed(&mut client).await, 500);
    let mut tries = 0;
    while node.broker.group.state().offset("g", "orders", 0) != Some(500) {
        tries += 1;
        assert!(tries < 3_000);
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
    let records = node.broker.group.status().applied - before;
    assert!(records < 100, "{records} records for 500 commits");
}

#[tokio::test]
async fn a_pull_may_bring_a_commit_along() {
    let node = Node::start().await;
    let mut client = node.client_of_group().await;
    client.send("orders", "", "x").await;
    let head = pull_header("orders", 0);
    let sys_flag = head.sys_flag | pull_sys_flag::COMMIT_OFFSET;
    let head = PullMessageHeader { sys_flag, commit_offset: 1, ..head };
    expect(&client.ask(RequestCode::PullMessage, &head).await, ResponseCode::Success);
    assert_eq!(committed(&mut client).await, 1);
}

#[tokio::test]
async fn commits_of_nobody_or_nothing_are_refused() {
    let node = Node::start().await;
    let mut client = node.client_of_group().await;
    client.send("orders", "", "x").await;
    let refused = [
        (
            UpdateConsumerOffsetHeader { consumer_group: "?".into(), ..commit(1) },
            ResponseCode::SubscriptionGroupNotExist,
        ),
        (UpdateConsumerOffsetHeader { topic: "none".into(), ..commit(1) }, ResponseCode::TopicNotExist),
        (UpdateConsumerOffsetHeader { queue_id: 99, ..commit(1) }, ResponseCode::InvalidParameter),
        (commit(-1), ResponseCode::InvalidParameter),
    ];
    for (head, code) in refused {
        let answer = client.ask(RequestCode::UpdateConsumerOffset, &head).await;
        assert_eq!(answer.code, code.code(), "{head:?}: {:?}", answer.remark);
    }
}

#[tokio::test]
async fn a_queues_bounds_and_times_are_told() {
    let node = Node::start().await;
    let mut client = node.client_of_group().await;
    for _ in 0..5 {
        client.send("orders", "", "x").await;
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
    let pulled = client.ask(RequestCode::PullMessage, &pull_header("orders", 0)).await;
    let times: Vec<i64> = messages(&pulled.body).iter().map(|message| message.store_timestamp()).collect();
    let offset = |answer: Frame| header::<OffsetResponseHeader>(&answer).offset;

    let max = GetMaxOffsetHeader { topic: "orders".into(), queue_id: 0, committed: true };
    assert_eq!(offset(client.ask(RequestCode::GetMaxOffset, &max).await), 5);
    let min = GetMinOffsetHeader { topic: "orders".into(), queue_id: 0 };
    assert_eq!(offset(client.ask(RequestCode::GetMinOffset, &min).await), 0);
    let unknown = GetMaxOffsetHeader { queue_id: 3, ..max };
    assert_eq!(offset(client.ask(RequestCode::GetMaxOffset, &unknown).await), 0);

    let earliest = |queue_id| GetEarliestStoreTimeHeader { topic: "orders".into(), queue_id };
    let answer = client.ask(RequestCode::GetEarliestMessageStoreTime, &earliest(0)).await;
    assert_eq!(header::<TimestampResponseHeader>(&answer).timestamp, times[0]);
    let answer = client.ask(RequestCode::GetEarliestMessageStoreTime, &earliest(3)).await;
    assert_eq!(header::<TimestampResponseHeader>(&answer).timestamp, -1);

    let at = |timestamp, boundary: &str| SearchOffsetHeader {
        topic: "orders".into(),
        queue_id: 0,
        timestamp,
        boundary_type: Some(boundary.to_owned()),
    };
    let cases = [
        (at(times[2], "lower"), 2),
        (at(times[2] + 1, "lower"), 3),
        (at(times[4] + 1, "lower"), 5),
        (at(0, "lower"), 0),
        (at(times[2], "upper"), 2),
        (at(times[2] + 1, "upper"), 2),
        (at(times[4] + 1, "upper"), 4),
        (at(0, "upper"), 0),
    ];
    for (head, expected) in cases {
        assert_eq!(
            offset(client.ask(RequestCode::SearchOffsetByTimestamp, &head).await),
            expected,
            "{head:?}"
        );
    }
}
