//! Messages a consumer could not handle: sent back, retried after a while, dead.

use std::time::Duration;

use bytes::Bytes;
use folio_broker::clock::now_ms;
use folio_protocol::code::{RequestCode, ResponseCode};
use folio_protocol::frame::Frame;
use folio_protocol::header::{
    ConsumerSendBackHeader, RecallMessageHeader, SendMessageHeader, SendMessageResponseHeader,
};
use folio_protocol::ids::OffsetMessageId;
use folio_protocol::parked::TimerKey;
use folio_protocol::recall::RecallHandle;
use tokio::time::{Instant, sleep};

use crate::delayed::node;
use crate::node::{Client, Node, expect, header, message, messages, pull_header, send_header};

const PATIENCE: Duration = Duration::from_secs(60);

fn back(position: u64, delay_level: i32, max_reconsume_times: Option<i32>) -> ConsumerSendBackHeader {
    ConsumerSendBackHeader {
        offset: position as i64,
        group: "g".into(),
        delay_level,
        origin_msg_id: None,
        origin_topic: Some("orders".into()),
        unit_mode: false,
        max_reconsume_times,
        broker_name: None,
    }
}

fn position(answer: &Frame) -> (String, u64) {
    let id = header::<SendMessageResponseHeader>(answer).msg_id;
    let position = id.parse::<OffsetMessageId>().expect("an id").position;
    (id, position)
}

/// Waits for the message at this offset of queue 0.
async fn arrived(client: &mut Client, topic: &str, offset: i64) -> Bytes {
    let deadline = Instant::now() + PATIENCE;
    loop {
        let pulled = client.ask(RequestCode::PullMessage, &pull_header(topic, offset)).await;
        if !messages(&pulled.body).is_empty() {
            return pulled.body;
        }
        assert!(Instant::now() < deadline, "nothing comes to {topic}");
        sleep(Duration::from_millis(10)).await;
    }
}

/// When the messages are due that wait, ms since the epoch.
fn due_times(node: &Node) -> Vec<u64> {
    let mut times = Vec::new();
    let read = node.broker.group.timers().for_each(TimerKey::default(), |entry| {
        times.push(entry.key.due_ms);
        true
    });
    read.expect("a readable index");
    times
}

#[tokio::test]
async fn a_message_sent_back_comes_again_after_its_delay_and_then_is_dead() {
    let node = node().await;
    let mut client = node.client_of_group().await;
    let (id, first) = position(&client.send("orders", "TagA", "hard").await);
    let begun = now_ms();
    // The consumer does not hear the first answer.
    for _ in 0..2 {
        let answer = client.ask(RequestCode::ConsumerSendMessageBack, &back(first, 1, Some(1))).await;
        expect(&answer, ResponseCode::Success);
    }
    let waits = (
        node.broker.group.queues().bounds("%RETRY%g", 0),
        node.broker.pending_timers("%RETRY%g").await.expect("readable"),
    );
    // On a busy machine its time may have come by now.
    if now_ms() < begun + 1000 {
        assert_eq!(waits, (None, 1), "it waits");
    }
    let pulled = arrived(&mut client, "%RETRY%g", 0).await;
    let retry = messages(&pulled)[0];
    assert_eq!((retry.topic(), retry.body(), retry.reconsume_times()), ("%RETRY%g", &b"hard"[..], 1));
    assert_eq!((retry.property("RETRY_TOPIC"), retry.property("TAGS")), (Some("orders"), Some("TagA")));
    assert_eq!((retry.property("REAL_TOPIC"), retry.property("DELAY")), (None, None));
    assert_eq!(retry.property("ORIGIN_MESSAGE_ID"), Some(id.as_str()));
    assert!(retry.store_timestamp() as u64 >= begun + 1000, "timers.I4");

    let second = retry.physical_offset();
    expect(
        &client.ask(RequestCode::ConsumerSendMessageBack, &back(second, 1, Some(1))).await,
        ResponseCode::Success,
    );
    // A dead letter does not wait.
    let pulled = client.ask(RequestCode::PullMessage, &pull_header("%DLQ%g", 0)).await;
    expect(&pulled, ResponseCode::Success);
    let dead = messages(&pulled.body);
    let letter = dead.first().expect("the dead letter");
    assert_eq!((letter.topic(), letter.reconsume_times()), ("%DLQ%g", 2));
    assert_eq!(
        (letter.property("RETRY_TOPIC"), letter.property("ORIGIN_MESSAGE_ID")),
        (Some("orders"), Some(id.as_str()))
    );
    let queue = [letter.property("ORIGIN_QUEUE_ID"), letter.property("ORIGIN_QUEUE_OFFSET")];
    assert_eq!(queue, [Some("0"), Some("0")]);
    assert_eq!((letter.property("TAGS"), letter.property("REAL_TOPIC")), (Some("TagA"), None));
    let of_retries = |topic: &str| node.broker.group.queues().bounds(topic, 0);
    assert_eq!((of_retries("%RETRY%g"), of_retries("%DLQ%g")), (Some((0, 1)), Some((0, 1))));
}

#[tokio::test]
async fn a_retry_without_a_level_waits_longer_each_time() {
    let node = node().await;
    let mut client = node.client_of_group().await;
    for (times, seconds) in [(0, 10), (5, 240), (99, 7200)] {
        let sent = SendMessageHeader {
            reconsume_times: Some(times),
            max_reconsume_times: Some(1000),
            ..send_header("%RETRY%g", "")
        };
        let (_, at) = position(&client.call(message(&sent, "x")).await);
        let before = now_ms();
        let answer = client.ask(RequestCode::ConsumerSendMessageBack, &back(at, 0, Some(1000))).await;
        expect(&answer, ResponseCode::Success);
        let expected = before + seconds * 1000..=now_ms() + seconds * 1000;
        let due = due_times(&node);
        assert!(due.iter().any(|due| expected.contains(due)), "{times}: {due:?}, expected {expected:?}");
    }
}

#[tokio::test]
async fn a_message_whose_time_has_not_come_is_not_sent_back() {
    let node = node().await;
    let mut client = node.client_of_group().await;
    client.send("orders", "", "first").await;
    let delayed = SendMessageHeader {
        properties: Some("UNIQ_KEY\u{1}U\u{2}DELAY\u{1}18\u{2}".to_owned()),
        ..send_header("orders", "")
    };
    let (_, at) = position(&client.call(message(&delayed, "later")).await);
    for level in [-1, 0, 1] {
        let answer = client.ask(RequestCode::ConsumerSendMessageBack, &back(at, level, None)).await;
        expect(&answer, ResponseCode::SystemError);
    }
    assert_eq!(due_times(&node).len(), 1);
}

#[tokio::test]
async fn a_negative_level_is_a_dead_letter_at_once() {
    let node = Node::start().await;
    let mut client = node.client_of_group().await;
    let (_, first) = position(&client.send("orders", "", "hopeless").await);
    expect(
        &client.ask(RequestCode::ConsumerSendMessageBack, &back(first, -1, None)).await,
        ResponseCode::Success,
    );
    assert_eq!(node.broker.group.queues().bounds("%DLQ%g", 0), Some((0, 1)));
    assert_eq!(node.broker.group.queues().bounds("%RETRY%g", 0), None);
}

#[tokio::test]
async fn what_cannot_be_sent_back_is_refused() {
    let node = Node::start().await;
    let mut client = node.client_of_group().await;
    let (_, first) = position(&client.send("orders", "", "x").await);
    let answer = client.ask(RequestCode::ConsumerSendMessageBack, &back(first + 1, 0, None)).await;
    expect(&answer, ResponseCode::SystemError);
    let unknown = ConsumerSendBackHeader { group: "?".into(), ..back(first, 0, None) };
    let answer = client.ask(RequestCode::ConsumerSendMessageBack, &unknown).await;
    expect(&answer, ResponseCode::SubscriptionGroupNotExist);
}

#[tokio::test]
async fn a_retry_the_consumer_sends_itself_waits_or_is_dead_by_its_count() {
    let node = node().await;
    let mut client = node.client_of_group().await;
    let retry = |times: i32| SendMessageHeader {
        properties: Some("UNIQ_KEY\u{1}U\u{2}DELAY\u{1}1\u{2}RETRY_TOPIC\u{1}orders\u{2}".to_owned()),
        reconsume_times: Some(times),
        max_reconsume_times: Some(3),
        ..send_header("%RETRY%g", "")
    };
    let begun = now_ms();
    let answer = client.call(message(&retry(3), "again")).await;
    expect(&answer, ResponseCode::Success);
    assert_eq!(header::<SendMessageResponseHeader>(&answer).recall_handle, None);
    expect(&client.call(message(&retry(4), "dead")).await, ResponseCode::Success);
    let pulled = client.ask(RequestCode::PullMessage, &pull_header("%DLQ%g", 0)).await;
    assert_eq!(messages(&pulled.body).first().map(|message| message.body()), Some(&b"dead"[..]));
    // Nobody takes it back who guesses its key and time.
    let due = due_times(&node).first().copied().unwrap_or(begun + 1000);
    let handle = RecallHandle {
        topic: "%RETRY%g".into(),
        broker_name: node.broker.identity.broker_name.clone(),
        timestamp: due.to_string(),
        unique_key: "U".into(),
    };
    let recall = RecallMessageHeader {
        producer_group: Some("p".into()),
        topic: "%RETRY%g".into(),
        recall_handle: handle.encode(),
    };
    expect(&client.ask(RequestCode::RecallMessage, &recall).await, ResponseCode::IllegalOperation);
    let pulled = arrived(&mut client, "%RETRY%g", 0).await;
    let retried = messages(&pulled)[0];
    assert_eq!((retried.body(), retried.reconsume_times()), (&b"again"[..], 3));
    assert_eq!((retried.property("DELAY"), retried.property("RETRY_TOPIC")), (None, Some("orders")));
    assert!(retried.store_timestamp() as u64 >= begun + 1000, "timers.I4");
}
