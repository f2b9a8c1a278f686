//! Delayed messages: parked, delivered at their time to the topic and queue they were sent to, or recalled.

use std::collections::BTreeMap;
use std::time::Duration;

use folio_protocol::body::{self, TimerMetrics};
use folio_protocol::code::{RequestCode, ResponseCode};
use folio_protocol::frame::Frame;
use folio_protocol::header::{
    DeleteTopicHeader, NoHeader, RecallMessageHeader, RecallMessageResponseHeader, SendMessageHeader,
    SendMessageResponseHeader,
};
use folio_protocol::recall::RecallHandle;
use folio_server::handlers::timers::{self, PendingTimer, TIMER_LIST};
use tokio::time::{Instant, sleep};

use crate::node::{Node, expect, header, message, messages, pull_header, send_header};

const PATIENCE: Duration = Duration::from_secs(60);

fn delayed(properties: &str) -> SendMessageHeader {
    SendMessageHeader { properties: Some(properties.to_owned()), ..send_header("orders", "") }
}

/// A node whose group has the level of delayed messages.
pub(crate) async fn node() -> Node {
    let node = Node::start().await;
    node.reach_level().await;
    node
}

#[tokio::test]
async fn timers_i4_a_delayed_message_comes_at_its_time_to_the_queue_it_was_sent_to() {
    let node = node().await;
    let mut client = node.client_of_group().await;
    client.send("orders", "", "at once").await;
    let begun = folio_broker::clock::now_ms();
    let deliver = format!("TAGS\u{1}T\u{2}UNIQ_KEY\u{1}A\u{2}TIMER_DELIVER_MS\u{1}{}\u{2}", begun + 1500);
    for (properties, body) in [
        ("UNIQ_KEY\u{1}L\u{2}DELAY\u{1}1\u{2}", "level"),
        ("UNIQ_KEY\u{1}S\u{2}TIMER_DELAY_SEC\u{1}2\u{2}", "seconds"),
        (deliver.as_str(), "time"),
    ] {
        let answer = client.call(message(&delayed(properties), body)).await;
        expect(&answer, ResponseCode::Success);
        let sent: SendMessageResponseHeader = header(&answer);
        assert_eq!(sent.queue_id, 0);
        assert!(sent.recall_handle.is_some(), "{body}");
    }
    // A time that has passed is now.
    let past =
        client.call(message(&delayed("TIMER_DELIVER_MS\u{1}1000\u{2}UNIQ_KEY\u{1}P\u{2}"), "past")).await;
    expect(&past, ResponseCode::Success);
    let deadline = Instant::now() + PATIENCE;
    let mut missing = BTreeMap::from([("past", 0), ("level", 1000), ("time", 1500), ("seconds", 2000)]);
    for offset in 1..5 {
        let pulled = loop {
            let pulled = client.ask(RequestCode::PullMessage, &pull_header("orders", offset)).await;
            if !messages(&pulled.body).is_empty() {
                break pulled.body;
            }
            assert!(Instant::now() < deadline, "{missing:?} do not come");
            sleep(Duration::from_millis(10)).await;
        };
        let stored = messages(&pulled)[0];
        let body = std::str::from_utf8(stored.body()).expect("text");
        let delay_ms = missing.remove(body).expect("each once");
        assert_eq!((stored.topic(), stored.queue_id()), ("orders", 0));
        assert_eq!((stored.property("REAL_TOPIC"), stored.property("DELAY")), (None, None));
        assert_eq!(stored.prepared_transaction_offset(), 0);
        let waited = stored.store_timestamp() as u64 - begun;
        assert!(waited >= delay_ms, "{body} came after {waited} ms");
    }
}

/// Found by the harness. The first attempt was parked, the second one was not: it was another message, of the real topic.
#[tokio::test]
async fn a_retry_that_came_after_its_messages_time_was_stored_twice() {
    let node = node().await;
    let mut client = node.client_of_group().await;
    let deliver_ms = folio_broker::clock::now_ms() + 300;
    let retried =
        message(&delayed(&format!("UNIQ_KEY\u{1}A\u{2}TIMER_DELIVER_MS\u{1}{deliver_ms}\u{2}")), "x");
    let first = node.client().await.call(retried.clone()).await;
    expect(&first, ResponseCode::Success);
    let deadline = Instant::now() + PATIENCE;
    while node.broker.group.queues().bounds("orders", 0).is_none_or(|(_, end)| end == 0) {
        assert!(Instant::now() < deadline, "it does not come");
        sleep(Duration::from_millis(10)).await;
    }
    let again = node.client().await.call(retried).await;
    let id = |answer: &Frame| header::<SendMessageResponseHeader>(answer).msg_id;
    assert_eq!(id(&again), id(&first));
    client.send("orders", "", "last").await;
    let pulled = client.ask(RequestCode::PullMessage, &pull_header("orders", 0)).await;
    let bodies: Vec<&[u8]> = messages(&pulled.body).iter().map(|stored| stored.body()).collect();
    assert_eq!(bodies, [&b"x"[..], b"last"]);
}

#[tokio::test]
async fn a_delayed_message_is_recalled_by_its_handle() {
    let node = node().await;
    let mut client = node.client_of_group().await;
    client.send("orders", "", "first").await;
    let properties = "UNIQ_KEY\u{1}KEY\u{2}TIMER_DELAY_MS\u{1}8000\u{2}";
    let sent = client.call(message(&delayed(properties), "unwanted")).await;
    let handle = header::<SendMessageResponseHeader>(&sent).recall_handle.expect("a handle");
    let said = RecallHandle::decode(&handle).expect("a handle");
    assert_eq!((said.topic.as_str(), said.unique_key.as_str()), ("orders", "KEY"));
    let recall = |topic: &str, handle: &str| RecallMessageHeader {
        producer_group: Some("p".into()),
        topic: topic.into(),
        recall_handle: handle.to_owned(),
    };
    let other = RecallHandle { unique_key: "OTHER".into(), ..said.clone() }.encode();
    let elsewhere = RecallHandle { broker_name: "elsewhere".into(), ..said.clone() }.encode();
    let past = RecallHandle { timestamp: "1000".into(), ..said }.encode();
    for (topic, handle, code) in [
        ("orders", "no handle", ResponseCode::IllegalOperation),
        ("orders", other.as_str(), ResponseCode::IllegalOperation),
        ("orders", elsewhere.as_str(), ResponseCode::IllegalOperation),
        ("orders", past.as_str(), ResponseCode::IllegalOperation),
        ("nowhere", handle.as_str(), ResponseCode::TopicNotExist),
    ] {
        expect(&client.ask(RequestCode::RecallMessage, &recall(topic, handle)).await, code);
    }
    let recalled = client.ask(RequestCode::RecallMessage, &recall("orders", &handle)).await;
    expect(&recalled, ResponseCode::Success);
    assert_eq!(header::<RecallMessageResponseHeader>(&recalled).msg_id, "KEY");
    let again = client.ask(RequestCode::RecallMessage, &recall("orders", &handle)).await;
    expect(&again, ResponseCode::IllegalOperation);
    sleep(Duration::from_secs(9)).await;
    let pulled = client.ask(RequestCode::PullMessage, &pull_header("orders", 1)).await;
    assert!(messages(&pulled.body).is_empty(), "it was recalled");
}

#[tokio::test]
async fn a_delay_that_is_none_or_too_long_is_refused() {
    let node = node().await;
    let mut client = node.client_of_group().await;
    client.send("orders", "", "first").await;
    for properties in [
        "DELAY\u{1}soon\u{2}",
        "TIMER_DELAY_SEC\u{1}soon\u{2}",
        "TIMER_DELAY_SEC\u{1}259201\u{2}",
        "TIMER_DELAY_MS\u{1}9223372036854775807\u{2}",
        "TIMER_DELIVER_MS\u{1}9223372036854775807\u{2}",
    ] {
        let answer = client.call(message(&delayed(properties), "x")).await;
        expect(&answer, ResponseCode::MessageIllegal);
    }
    let longest = client.call(message(&delayed("TIMER_DELAY_SEC\u{1}259200\u{2}"), "x")).await;
    expect(&longest, ResponseCode::Success);
    assert_eq!(node.broker.pending_timers("orders").await.expect("readable"), 1);
}

#[tokio::test]
async fn what_waits_is_listed_and_counted_by_topic() {
    let node = node().await;
    let mut client = node.client_of_group().await;
    client.send("orders", "", "first").await;
    let mut handles = Vec::new();
    for (key, seconds) in [("A", 700), ("B", 500), ("C", 600)] {
        let properties = format!("UNIQ_KEY\u{1}{key}\u{2}TAGS\u{1}T\u{2}TIMER_DELAY_SEC\u{1}{seconds}\u{2}");
        let answer = client.call(message(&delayed(&properties), "later")).await;
        handles.push(header::<SendMessageResponseHeader>(&answer).recall_handle.expect("a handle"));
    }
    let retry = SendMessageHeader {
        properties: Some("UNIQ_KEY\u{1}R\u{2}DELAY\u{1}18\u{2}".to_owned()),
        reconsume_times: Some(2),
        ..send_header("%RETRY%g", "")
    };
    expect(&client.call(message(&retry, "again")).await, ResponseCode::Success);
    let mut list = async |topic: &str, max: i64| -> Vec<PendingTimer> {
        let mut request = Frame { code: TIMER_LIST, ..Frame::default() };
        request.ext.insert_display(timers::MAX, max);
        if !topic.is_empty() {
            request.ext.insert(timers::TOPIC, topic);
        }
        let answer = client.call(request).await;
        expect(&answer, ResponseCode::Success);
        body::decode(&answer.body).expect("a list")
    };
    let keys = |list: &[PendingTimer]| -> String { list.iter().map(|of| of.unique_key.as_str()).collect() };
    assert_eq!(keys(&list("", 100).await), "BCAR");
    assert_eq!(keys(&list("", 2).await), "BC");
    assert_eq!(
        (list("", 0).await.len(), list("", -1).await.len(), list("nothing", 9).await.len()),
        (0, 0, 0)
    );
    let of_group = list("%RETRY%g", 100).await;
    assert_eq!((keys(&of_group).as_str(), of_group[0].reconsume_times), ("R", 2));
    assert_eq!(of_group[0].recall_handle, "", "retries are not recalled");
    let of_topic = list("orders", 100).await;
    assert_eq!(keys(&of_topic), "BCA");
    assert_eq!((of_topic[2].recall_handle.as_str(), of_topic[2].tag.as_str()), (handles[0].as_str(), "T"));
    let recall = RecallMessageHeader {
        producer_group: None,
        topic: "orders".into(),
        recall_handle: of_topic[1].recall_handle.clone(),
    };
    expect(&client.ask(RequestCode::RecallMessage, &recall).await, ResponseCode::Success);
    let answer = client.ask(RequestCode::GetTimerMetrics, &NoHeader).await;
    expect(&answer, ResponseCode::Success);
    let metrics: TimerMetrics = body::decode(&answer.body).expect("metrics");
    let counts: Vec<_> = metrics.timing_count.iter().map(|(topic, of)| (topic.as_str(), of.count)).collect();
    assert_eq!(counts, [("%RETRY%g", 1), ("orders", 2)]);
    // Of a topic that is deleted, too: its name is in the messages.
    let gone = DeleteTopicHeader { topic: "orders".into(), cluster_name: None };
    expect(&client.ask(RequestCode::DeleteTopicInBroker, &gone).await, ResponseCode::Success);
    let metrics = client.ask(RequestCode::GetTimerMetrics, &NoHeader).await;
    let metrics: TimerMetrics = body::decode(&metrics.body).expect("metrics");
    assert_eq!(metrics.timing_count["orders"].count, 2);
}
