//! POP over the wire: messages that come until they are acknowledged, handles that are good at any node, and requests that wait.

mod batch_acks;
mod deleted;
mod waits;

use std::time::Duration;

use bytes::Bytes;
use folio_broker::settings::Settings;
use folio_protocol::body::{
    BatchAck, BatchAckMessages, ConsumerData, HeartbeatData, MessageRequestMode, OffsetSet, QueryAssignment,
    QueryAssignmentResult, SetMessageRequestMode,
};
use folio_protocol::code::{RequestCode, ResponseCode};
use folio_protocol::frame::Frame;
use folio_protocol::header::{
    AckMessageHeader, ChangeInvisibleTimeHeader, ChangeInvisibleTimeResponseHeader, NotificationHeader,
    NotificationResponseHeader, OffsetResponseHeader, PeekMessageHeader, PollingInfoHeader,
    PollingInfoResponseHeader, PopMessageHeader, PopMessageResponseHeader, QueryConsumerOffsetHeader,
    UpdateConsumerOffsetHeader,
};
use folio_protocol::popped::{Handle, Retry};
use tokio::time::{Instant, sleep};

use crate::failover::lead;
use crate::node::{Client, Node, expect, header, messages, with_body};

const PATIENCE: Duration = Duration::from_secs(60);
/// Longer than a test takes to acknowledge what it has popped, on however busy a machine; and short enough to wait for.
pub(crate) const INVISIBLE_MS: i64 = 8_000;
const BROKER: &str = "broker-a";

/// A message as a client has it.
#[derive(Debug, Clone)]
pub(crate) struct Got {
    pub(crate) topic: String,
    pub(crate) body: String,
    pub(crate) handle: Handle,
    pub(crate) times: i32,
}

pub(crate) fn pop_header(max: i32, invisible_ms: i64) -> PopMessageHeader {
    PopMessageHeader {
        consumer_group: "g".into(),
        topic: "orders".into(),
        queue_id: -1,
        max_msg_nums: max,
        invisible_time: invisible_ms,
        poll_time: 0,
        born_time: 0,
        init_mode: 0,
        expression_type: None,
        expression: None,
        order: None,
        attempt_id: None,
    }
}

/// The messages of an answer, with their handles, as a client makes them.
pub(crate) fn got(answer: &Frame) -> Vec<Got> {
    if answer.code == ResponseCode::PollingTimeout.code() {
        return Vec::new();
    }
    expect(answer, ResponseCode::Success);
    let head: PopMessageResponseHeader = header(answer);
    let starts = head.start_offset_info.expect("where batches start");
    let counts = head.order_count_info.unwrap_or_default();
    let one = |view: &folio_protocol::message::MessageView<'_>| {
        let made = || {
            let key = format!("0 {} ", view.queue_id());
            let start = starts.split(';').find_map(|part| part.strip_prefix(&key)).expect("the batch");
            Handle {
                start: start.parse().expect("an offset"),
                popped_ms: head.pop_time as u64,
                invisible_ms: head.invisible_time as u64,
                revive_queue: head.revive_queue_id,
                retry: Retry::Normal,
                broker: BROKER.into(),
                queue: view.queue_id(),
                offset: view.queue_offset(),
            }
        };
        let said = view.property("POP_CK").map(|text| Handle::parse(text).expect("a handle"));
        let count = counts.split(';').find_map(|part| part.strip_prefix(&format!("0 {} ", view.queue_id())));
        Got {
            topic: view.topic().to_owned(),
            body: String::from_utf8_lossy(view.body()).into_owned(),
            handle: said.unwrap_or_else(made),
            times: count.map_or(view.reconsume_times(), |count| count.parse().expect("a number")),
        }
    };
    messages(&answer.body).iter().map(one).collect()
}

impl Client {
    pub(crate) async fn pop(&mut self, head: &PopMessageHeader) -> Vec<Got> {
        got(&self.ask(RequestCode::PopMessage, head).await)
    }

    /// Pops until there is something.
    pub(crate) async fn pop_some(&mut self, head: &PopMessageHeader) -> Vec<Got> {
        let deadline = Instant::now() + PATIENCE;
        loop {
            let some = self.pop(head).await;
            if !some.is_empty() {
                return some;
            }
            assert!(Instant::now() < deadline, "nothing to pop");
            sleep(Duration::from_millis(20)).await;
        }
    }

    pub(crate) async fn ack(&mut self, got: &Got) -> Frame {
        let Got { handle, .. } = got;
        let head = AckMessageHeader {
            consumer_group: "g".into(),
            topic: handle.retry.topic("g", "orders").into(),
            queue_id: handle.queue as i32,
            extra_info: handle.to_string(),
            offset: handle.offset as i64,
        };
        self.ask(RequestCode::AckMessage, &head).await
    }

    pub(crate) async fn change(&mut self, got: &Got, invisible_ms: i64) -> Frame {
        let Got { handle, .. } = got;
        let head = ChangeInvisibleTimeHeader {
            consumer_group: "g".into(),
            topic: handle.retry.topic("g", "orders").into(),
            queue_id: handle.queue as i32,
            extra_info: handle.to_string(),
            offset: handle.offset as i64,
            invisible_time: invisible_ms,
        };
        self.ask(RequestCode::ChangeMessageInvisibleTime, &head).await
    }
}

pub(crate) async fn reach_level(nodes: &[Node]) {
    for node in nodes {
        node.reach_level().await;
    }
}

pub(crate) async fn node() -> Node {
    let node = Node::start().await;
    reach_level(std::slice::from_ref(&node)).await;
    node
}

#[tokio::test]
async fn a_message_comes_until_it_is_acknowledged() {
    let node = node().await;
    let mut client = node.client_of_group().await;
    for body in ["a", "b", "c"] {
        client.send("orders", "", body).await;
    }
    // Longer than any stall: what is acknowledged below is still in flight.
    let first = client.pop_some(&pop_header(32, INVISIBLE_MS)).await;
    let bodies = |all: &[Got]| all.iter().map(|got| got.body.clone()).collect::<Vec<_>>();
    assert_eq!(bodies(&first), ["a", "b", "c"]);
    assert!(client.pop(&pop_header(32, INVISIBLE_MS)).await.is_empty());
    // A repeat finds it done.
    expect(&client.ack(&first[1]).await, ResponseCode::Success);
    expect(&client.ack(&first[1]).await, ResponseCode::Success);
    let offset = QueryConsumerOffsetHeader {
        consumer_group: "g".into(),
        topic: "orders".into(),
        queue_id: 0,
        set_zero_if_not_found: None,
    };
    let told: OffsetResponseHeader = header(&client.ask(RequestCode::QueryConsumerOffset, &offset).await);
    assert_eq!(told.offset, 3, "progress is told as an offset");
    let mut again = client.pop_some(&pop_header(32, 60_000)).await;
    while again.len() < 2 {
        again.extend(client.pop_some(&pop_header(32, 60_000)).await);
    }
    let mut seen = bodies(&again);
    seen.sort();
    assert_eq!(seen, ["a", "c"]);
    assert!(again.iter().all(|got| got.topic == "orders" && got.times == 1 && got.handle.retry == Retry::V1));
    let late = client.ack(&first[0]).await;
    expect(&late, ResponseCode::NoMessage);
    assert!(late.remark.is_some_and(|remark| remark.starts_with("[POP]")));
    for got in &again {
        expect(&client.ack(got).await, ResponseCode::Success);
    }
    assert_eq!(node.broker.group.state().popped().count(), 0);
}

#[tokio::test]
async fn another_invisible_time_gives_another_handle() {
    let node = node().await;
    let mut client = node.client_of_group().await;
    client.send("orders", "", "a").await;
    let first = client.pop_some(&pop_header(1, 60_000)).await.remove(0);
    let answer = client.change(&first, 100).await;
    expect(&answer, ResponseCode::Success);
    let changed: ChangeInvisibleTimeResponseHeader = header(&answer);
    assert!(changed.pop_time > first.handle.popped_ms as i64 && changed.invisible_time == 100);
    expect(&client.ack(&first).await, ResponseCode::NoMessage);
    let again = client.pop_some(&pop_header(1, 60_000)).await.remove(0);
    assert_eq!((&*again.body, again.times), ("a", 1));
    // A repeat whose answer was lost.
    let one: ChangeInvisibleTimeResponseHeader = header(&client.change(&again, 30_000).await);
    let two: ChangeInvisibleTimeResponseHeader = header(&client.change(&again, 30_000).await);
    assert_eq!(one, two);
    let handle = Handle {
        start: again.handle.offset,
        popped_ms: one.pop_time as u64,
        invisible_ms: 30_000,
        ..again.handle.clone()
    };
    expect(&client.ack(&Got { handle, ..again }).await, ResponseCode::Success);
}

#[tokio::test]
async fn filters_batches_and_what_is_refused() {
    let node = node().await;
    let mut client = node.client_of_group().await;
    for at in 0..6 {
        client.send("orders", if at % 2 == 0 { "even" } else { "odd" }, &at.to_string()).await;
    }
    let odd = PopMessageHeader { expression: Some("odd".into()), ..pop_header(32, 60_000) };
    let popped = client.pop_some(&odd).await;
    assert_eq!(popped.iter().map(|got| &*got.body).collect::<Vec<_>>(), ["1", "3", "5"]);
    let ack = BatchAck {
        group: "g".into(),
        topic: "orders".into(),
        retry: "0".into(),
        start: 1,
        queue: 0,
        revive_queue: 0,
        pop_time: popped[0].handle.popped_ms as i64,
        invisible_time: 60_000,
        messages: OffsetSet([0, 4].into()),
    };
    let batch = |acks| BatchAckMessages { broker_name: BROKER.into(), acks };
    let answer = client.call(with_body(RequestCode::BatchAckMessage, &batch(vec![ack]))).await;
    expect(&answer, ResponseCode::Success);
    assert_eq!(node.broker.group.state().popped().batches().map(|(.., batch)| batch.count()).sum::<u64>(), 1);
    let empty = client.call(with_body(RequestCode::BatchAckMessage, &batch(Vec::new()))).await;
    expect(&empty, ResponseCode::NoMessage);
    for (head, code) in [
        (pop_header(33, 60_000), ResponseCode::InvalidParameter),
        (pop_header(1, 0), ResponseCode::InvalidParameter),
        (PopMessageHeader { queue_id: 99, ..pop_header(1, 1) }, ResponseCode::InvalidParameter),
        (PopMessageHeader { topic: "none".into(), ..pop_header(1, 1) }, ResponseCode::TopicNotExist),
        (
            PopMessageHeader {
                expression: Some("a > 1".into()),
                expression_type: Some("SQL92".into()),
                ..pop_header(1, 1)
            },
            ResponseCode::SystemError,
        ),
    ] {
        expect(&client.ask(RequestCode::PopMessage, &head).await, code);
    }
    let head = AckMessageHeader {
        consumer_group: "g".into(),
        topic: "orders".into(),
        queue_id: 0,
        extra_info: "nonsense".into(),
        offset: 0,
    };
    expect(&client.ask(RequestCode::AckMessage, &head).await, ResponseCode::InvalidParameter);
}

#[tokio::test]
async fn peeked_messages_stay_and_a_reset_is_where_the_next_pop_begins() {
    let node = node().await;
    let mut client = node.client_of_group().await;
    for body in ["a", "b", "c"] {
        client.send("orders", "", body).await;
    }
    let peek = PeekMessageHeader {
        consumer_group: "g".into(),
        topic: "orders".into(),
        queue_id: -1,
        max_msg_nums: 2,
    };
    for _ in 0..2 {
        let peeked = client.ask(RequestCode::PeekMessage, &peek).await;
        expect(&peeked, ResponseCode::Success);
        assert_eq!(messages(&peeked.body).len(), 2);
    }
    assert_eq!(client.pop_some(&pop_header(32, 60_000)).await.len(), 3);
    expect(&client.ask(RequestCode::PeekMessage, &peek).await, ResponseCode::PullNotFound);
    let back = UpdateConsumerOffsetHeader {
        consumer_group: "g".into(),
        topic: "orders".into(),
        queue_id: 0,
        commit_offset: 1,
    };
    expect(&client.ask(RequestCode::UpdateConsumerOffset, &back).await, ResponseCode::Success);
    let again = client.pop_some(&pop_header(32, 60_000)).await;
    assert_eq!(again.iter().map(|got| &*got.body).collect::<Vec<_>>(), ["b", "c"]);
}

#[tokio::test]
async fn an_ordered_group_gets_the_next_messages_once_it_has_acknowledged() {
    let node = node().await;
    let mut client = node.client_of_group().await;
    for body in ["a", "b", "c"] {
        client.send("orders", "", body).await;
    }
    let ordered = |attempt: &str, invisible_ms| PopMessageHeader {
        queue_id: 0,
        order: Some(true),
        attempt_id: Some(attempt.into()),
        ..pop_header(2, invisible_ms)
    };
    let lost = client.pop_some(&ordered("1", 60_000)).await;
    assert!(client.pop(&ordered("2", 60_000)).await.is_empty());
    let first = client.pop(&ordered("1", 300)).await;
    assert_eq!((first.len(), first[0].times), (lost.len(), 0));
    let again = client.pop_some(&ordered("3", 60_000)).await;
    assert_eq!(again.iter().map(|got| (&*got.body, got.times)).collect::<Vec<_>>(), [("a", 1), ("b", 1)]);
    // The next one waits for what is in flight.
    let next = PopMessageHeader { poll_time: 20_000, ..ordered("4", 60_000) };
    let mut other = node.client().await;
    other.put(Frame::request(RequestCode::PopMessage, &next, Bytes::new())).await;
    for got in &again {
        expect(&client.ack(got).await, ResponseCode::Success);
    }
    assert_eq!(got(&other.take().await)[0].body, "c");
}

#[tokio::test]
async fn a_handle_is_good_at_any_node_and_requests_wait_at_followers() {
    let nodes = Node::cluster(3).await;
    reach_level(&nodes).await;
    let mut leader = nodes[0].client_of_group().await;
    leader.send("orders", "", "a").await;
    let mut follower = nodes[1].client().await;
    let first = follower.pop_some(&pop_header(32, 60_000)).await;
    assert_eq!(first[0].body, "a");
    let mut third = nodes[2].client().await;
    // A pop that waits at a follower, and one that asks whether there is something.
    let waits = PopMessageHeader { poll_time: 20_000, ..pop_header(32, 60_000) };
    follower.put(Frame::request(RequestCode::PopMessage, &waits, Bytes::new())).await;
    let info = PollingInfoHeader { consumer_group: "g".into(), topic: "orders".into(), queue_id: -1 };
    let deadline = Instant::now() + PATIENCE;
    let mut asks = nodes[1].client().await;
    loop {
        let told: PollingInfoResponseHeader = header(&asks.ask(RequestCode::PollingInfo, &info).await);
        if told.polling_num == 1 {
            break;
        }
        assert!(Instant::now() < deadline, "nobody waits");
        sleep(Duration::from_millis(10)).await;
    }
    leader.send("orders", "", "b").await;
    assert_eq!(got(&follower.take().await)[0].body, "b");
    let asked = NotificationHeader {
        consumer_group: "g".into(),
        topic: "orders".into(),
        queue_id: -1,
        poll_time: 20_000,
        born_time: 0,
        order: None,
        attempt_id: None,
        expression_type: None,
        expression: None,
    };
    third.put(Frame::request(RequestCode::Notification, &asked, Bytes::new())).await;
    sleep(Duration::from_millis(100)).await;
    leader.send("orders", "", "c").await;
    let told: NotificationResponseHeader = header(&third.take().await);
    assert!(told.has_message);
    // Another leader, and the handle goes to a third node.
    while !lead(&nodes, 1).await {}
    expect(&third.ack(&first[0]).await, ResponseCode::Success);
    expect(&leader.ack(&first[0]).await, ResponseCode::Success);
    let in_flight = nodes[1].broker.group.state().popped().batches().count();
    assert_eq!(in_flight, 1);
}

#[tokio::test]
async fn a_pop_group_is_told_to_pop_from_all_queues() {
    let node = node().await;
    let mut client = node.client_of_group().await;
    client.send("orders", "", "a").await;
    let data = HeartbeatData {
        client_id: "c1".to_owned(),
        consumer_data_set: vec![ConsumerData { group_name: "g".to_owned(), ..ConsumerData::default() }],
        ..HeartbeatData::default()
    };
    expect(&client.call(with_body(RequestCode::HeartBeat, &data)).await, ResponseCode::Success);
    let ask = QueryAssignment {
        topic: "orders".into(),
        consumer_group: "g".into(),
        client_id: "c1".into(),
        strategy_name: "AVG".into(),
        ..QueryAssignment::default()
    };
    let told = async |client: &mut Client| {
        let answer = client.call(with_body(RequestCode::QueryAssignment, &ask)).await;
        expect(&answer, ResponseCode::Success);
        let told: QueryAssignmentResult = folio_protocol::body::decode(&answer.body).expect("a body");
        let all = told.message_queue_assignments.expect("an assignment");
        all.into_iter().map(|one| (one.message_queue.queue_id, one.mode)).collect::<Vec<_>>()
    };
    let pulls = |queue| (queue, MessageRequestMode::Pull);
    assert_eq!(told(&mut client).await, [0, 1, 2, 3].map(pulls));
    let mode = SetMessageRequestMode {
        topic: "orders".into(),
        consumer_group: "g".into(),
        mode: MessageRequestMode::Pop,
        pop_share_queue_num: 0,
    };
    let mut operator = node.operator().await;
    let set = with_body(RequestCode::SetMessageRequestMode, &mode);
    expect(&operator.call(set).await, ResponseCode::Success);
    assert_eq!(told(&mut client).await, [(-1, MessageRequestMode::Pop)]);
    let retry = SetMessageRequestMode { topic: "%RETRY%g".into(), ..mode };
    let refused = operator.call(with_body(RequestCode::SetMessageRequestMode, &retry)).await;
    expect(&refused, ResponseCode::NoPermission);
}

#[tokio::test]
async fn retries_come_in_the_second_kind_of_topic_where_that_is_set() {
    let node = Node::start_with(Settings { pop_retry_v2: true, ..Settings::default() }).await;
    reach_level(std::slice::from_ref(&node)).await;
    let mut client = node.client_of_group().await;
    client.send("orders", "", "a").await;
    client.pop_some(&pop_header(1, 50)).await;
    let again = client.pop_some(&pop_header(1, 60_000)).await.remove(0);
    assert_eq!((again.handle.retry, &*again.topic), (Retry::V2, "orders"));
    expect(&client.ack(&again).await, ResponseCode::Success);
    assert!(node.broker.group.state().topic("%RETRY%g+orders").is_some());
}
