//! Topics, queues and groups that were deleted and come back: nothing of before is given out, by whatever request
//! (`min_offsets.I1`), and nobody is stuck.

use std::time::Duration;

use bytes::Bytes;
use folio_protocol::code::{RequestCode, ResponseCode};
use folio_protocol::flags::PermissionBits;
use folio_protocol::frame::Frame;
use folio_protocol::header::{
    CreateTopicHeader, DeleteGroupHeader, DeleteTopicHeader, GetEarliestStoreTimeHeader, GetMinOffsetHeader,
    OffsetResponseHeader, PullMessageHeader, PullMessageResponseHeader, QueryConsumerOffsetHeader,
    SearchOffsetHeader, SendMessageHeader, SendMessageResponseHeader, TimestampResponseHeader,
    UpdateConsumerOffsetHeader, ViewMessageHeader,
};
use folio_protocol::ids::OffsetMessageId;
use tokio::time::{Instant, sleep};

use crate::node::{Client, Node, expect, header, message, messages, pull_header, send_header};

const PATIENCE: Duration = Duration::from_secs(60);
/// How long the product waits for other nodes to apply a deletion.
const SILENCE: Duration = Duration::from_secs(1);

async fn delete(client: &mut Client) {
    let topic = DeleteTopicHeader { topic: "orders".into(), cluster_name: None };
    expect(&client.ask(RequestCode::DeleteTopicInBroker, &topic).await, ResponseCode::Success);
}

async fn pull(client: &mut Client, offset: i64) -> (Frame, PullMessageResponseHeader) {
    let answer = client.ask(RequestCode::PullMessage, &pull_header("orders", offset)).await;
    let head = header(&answer);
    (answer, head)
}

async fn commit(client: &mut Client, commit_offset: i64) {
    let head = UpdateConsumerOffsetHeader {
        consumer_group: "g".into(),
        topic: "orders".into(),
        queue_id: 0,
        commit_offset,
    };
    expect(&client.ask(RequestCode::UpdateConsumerOffset, &head).await, ResponseCode::Success);
}

/// Where a group goes on, as a consumer asks for it that starts.
async fn committed(client: &mut Client, group: &str) -> i64 {
    let head = QueryConsumerOffsetHeader {
        consumer_group: group.into(),
        topic: "orders".into(),
        queue_id: 0,
        set_zero_if_not_found: None,
    };
    let answer = client.ask(RequestCode::QueryConsumerOffset, &head).await;
    expect(&answer, ResponseCode::Success);
    header::<OffsetResponseHeader>(&answer).offset
}

async fn offset_at(client: &mut Client, timestamp: i64) -> i64 {
    let head = SearchOffsetHeader {
        topic: "orders".into(),
        queue_id: 0,
        timestamp,
        boundary_type: Some("lower".to_owned()),
    };
    header::<OffsetResponseHeader>(&client.ask(RequestCode::SearchOffsetByTimestamp, &head).await).offset
}

async fn earliest(client: &mut Client) -> i64 {
    let head = GetEarliestStoreTimeHeader { topic: "orders".into(), queue_id: 0 };
    let answer = client.ask(RequestCode::GetEarliestMessageStoreTime, &head).await;
    header::<TimestampResponseHeader>(&answer).timestamp
}

/// Was: minimum offset 0, the old bodies served to whoever pulled from there, a new group fed with deleted messages.
#[tokio::test]
async fn a_topic_created_again_gives_out_nothing_of_before_by_any_request() {
    let node = Node::start().await;
    let mut client = node.client_of_group().await;
    let mut ids = Vec::new();
    for body in ["old 0", "old 1", "old 2"] {
        let sent: SendMessageResponseHeader = header(&client.send("orders", "", body).await);
        ids.push(sent.msg_id.parse::<OffsetMessageId>().expect("an id"));
    }
    commit(&mut client, 2).await;
    delete(&mut client).await;
    for id in &ids {
        let view = ViewMessageHeader { offset: id.position as i64, topic: None };
        expect(&client.ask(RequestCode::ViewMessageById, &view).await, ResponseCode::SystemError);
    }
    let create = CreateTopicHeader::new("orders", 4, PermissionBits::READ_WRITE);
    expect(&client.ask(RequestCode::UpdateAndCreateTopic, &create).await, ResponseCode::Success);
    // Empty still: everybody begins at the end.
    assert_eq!((earliest(&mut client).await, offset_at(&mut client, 0).await), (-1, 3));
    assert_eq!((committed(&mut client, "g").await, committed(&mut client, "new").await), (3, 3));
    client.send("orders", "", "new").await;
    for old in [0, 2] {
        let (answer, head) = pull(&mut client, old).await;
        expect(&answer, ResponseCode::PullOffsetMoved);
        assert_eq!((head.next_begin_offset, head.min_offset, head.max_offset), (3, 3, 4));
        assert!(answer.body.is_empty());
    }
    let (answer, _) = pull(&mut client, 3).await;
    expect(&answer, ResponseCode::Success);
    let bodies: Vec<_> = messages(&answer.body).iter().map(|message| message.body().to_vec()).collect();
    assert_eq!(bodies, [b"new"]);
    let min = GetMinOffsetHeader { topic: "orders".into(), queue_id: 0 };
    let min: OffsetResponseHeader = header(&client.ask(RequestCode::GetMinOffset, &min).await);
    assert_eq!((min.offset, offset_at(&mut client, 0).await), (3, 3));
    assert!(earliest(&mut client).await > 0);
    // A group that had read two of the three, one that comes anew, and a consumer that commits what it had.
    assert_eq!((committed(&mut client, "g").await, committed(&mut client, "new").await), (3, 3));
    commit(&mut client, 1).await;
    assert_eq!(committed(&mut client, "g").await, 3);
    commit(&mut client, 4).await;
    assert_eq!(committed(&mut client, "g").await, 4);
}

/// Was answered with the place of the deleted one: its sender was told that it is there.
#[tokio::test]
async fn a_retry_of_a_message_that_was_deleted_meanwhile_is_stored() {
    let node = Node::start().await;
    let mut client = node.client_of_group().await;
    let head = send_header("orders", "");
    expect(&client.call(message(&head, "once")).await, ResponseCode::Success);
    delete(&mut client).await;
    // Its connection has died: what it sends again is a retry.
    drop(client);
    let mut client = node.client_of_group().await;
    let again: SendMessageResponseHeader = header(&client.call(message(&head, "once")).await);
    assert_eq!(again.queue_offset, 1);
    let (answer, _) = pull(&mut client, 1).await;
    expect(&answer, ResponseCode::Success);
    drop(client);
    let mut client = node.client_of_group().await;
    let again: SendMessageResponseHeader = header(&client.call(message(&head, "once")).await);
    assert_eq!(again.queue_offset, 1, "this one is a repeat");
}

#[tokio::test]
async fn a_queue_that_was_shrunk_away_begins_at_its_end_when_it_comes_back() {
    let node = Node::start().await;
    let mut client = node.client_of_group().await;
    let resize = |read_queue_nums, write_queue_nums| CreateTopicHeader {
        write_queue_nums,
        ..CreateTopicHeader::new("orders", read_queue_nums, PermissionBits::READ_WRITE)
    };
    let last = |offset| PullMessageHeader { queue_id: 3, ..pull_header("orders", offset) };
    let send = |body: &str| message(&SendMessageHeader { queue_id: 3, ..send_header("orders", "") }, body);
    for (read, write) in [(4, 4), (4, 2)] {
        let answer = client.ask(RequestCode::UpdateAndCreateTopic, &resize(read, write)).await;
        expect(&answer, ResponseCode::Success);
        if write == 4 {
            expect(&client.call(send("old")).await, ResponseCode::Success);
        }
    }
    expect(&client.ask(RequestCode::PullMessage, &last(0)).await, ResponseCode::Success);
    for (read, write) in [(2, 2), (4, 4)] {
        let answer = client.ask(RequestCode::UpdateAndCreateTopic, &resize(read, write)).await;
        expect(&answer, ResponseCode::Success);
    }
    expect(&client.ask(RequestCode::PullMessage, &last(0)).await, ResponseCode::PullOffsetMoved);
    expect(&client.call(send("new")).await, ResponseCode::Success);
    let answer = client.ask(RequestCode::PullMessage, &last(1)).await;
    expect(&answer, ResponseCode::Success);
    assert_eq!(messages(&answer.body).first().map(|message| message.body()), Some(&b"new"[..]));
}

#[tokio::test]
async fn a_group_that_was_deleted_with_its_offsets_comes_back_without_its_old_retries() {
    let node = Node::start().await;
    let mut client = node.client_of_group().await;
    expect(&client.call(message(&send_header("%RETRY%g", ""), "retry")).await, ResponseCode::Success);
    expect(&client.call(message(&send_header("orders", ""), "hello")).await, ResponseCode::Success);
    commit(&mut client, 1).await;
    let gone = |clean_offset| DeleteGroupHeader { group_name: "g".into(), clean_offset };
    let bounds = || node.broker.group.queues().bounds("%RETRY%g", 0);
    expect(&client.ask(RequestCode::DeleteSubscriptionGroup, &gone(false)).await, ResponseCode::Success);
    assert_eq!(
        (bounds(), committed(&mut client, "g").await),
        (Some((0, 1)), 1),
        "they are kept, as by Apache"
    );
    expect(&client.ask(RequestCode::DeleteSubscriptionGroup, &gone(true)).await, ResponseCode::Success);
    assert_eq!(bounds(), Some((1, 1)));
    assert!(node.broker.topic("%RETRY%g").is_none());
    // The group comes back with its first pull, which finds nothing of before.
    let retries = PullMessageHeader { topic: "%RETRY%g".into(), ..pull_header("orders", 0) };
    let request = Frame::request(RequestCode::PullMessage, &retries, Bytes::new());
    expect(&client.call(request).await, ResponseCode::PullOffsetMoved);
    let query = QueryConsumerOffsetHeader {
        consumer_group: "g".into(),
        topic: "orders".into(),
        queue_id: 0,
        set_zero_if_not_found: Some(false),
    };
    expect(&client.ask(RequestCode::QueryConsumerOffset, &query).await, ResponseCode::QueryNotFound);
}

/// A follower served what it had applied, up to a heartbeat's time after the deletion was answered.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn applied_i1_a_deletion_is_answered_when_no_node_gives_out_what_is_deleted() {
    let nodes: [Node; 3] = Node::cluster(3).await.try_into().ok().expect("three nodes");
    let mut client = nodes[0].client_of_group().await;
    let mut in_time = 0;
    for round in 1..=10 {
        client.send("orders", "", "old").await;
        let asked = Instant::now();
        delete(&mut client).await;
        let bounds = nodes.each_ref().map(|node| node.broker.group.queues().bounds("orders", 0));
        // A node that is silent for a second holds nobody up.
        if asked.elapsed() < SILENCE {
            assert_eq!(bounds, [Some((round, round)); 3]);
            in_time += 1;
        }
    }
    assert!(in_time > 0, "each deletion took a second");
    nodes[2].broker.group.shutdown().await;
    client.send("orders", "", "old").await;
    let asked = Instant::now();
    delete(&mut client).await;
    assert!(asked.elapsed() < 20 * SILENCE, "a dead node holds deletions up");
    let deadline = Instant::now() + PATIENCE;
    while nodes[1].broker.group.queues().bounds("orders", 0) != Some((11, 11)) {
        assert!(Instant::now() < deadline, "the other node does not hear of it");
        sleep(Duration::from_millis(5)).await;
    }
}
