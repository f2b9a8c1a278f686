//! Numbers at the ends of their types in every request that is served: each is answered, by a node that lives on.
//!
//! A panic in a task drops its reply, which is answered with a remark of its own; one in a connection's task ends the
//! connection. What wraps in a release build panics here.

use bytes::Bytes;
use folio_protocol::body::{
    CheckClientConfig, ConsumerData, HeartbeatData, LockBatchRequest, MessageQueue, SubscriptionData,
    SubscriptionGroupConfig, TopicConfig, TopicConfigList,
};
use folio_protocol::code::{RequestCode, ResponseCode};
use folio_protocol::flags::{PermissionBits, pull_sys_flag};
use folio_protocol::frame::Frame;
use folio_protocol::header::{
    ConsumerSendBackHeader, CreateTopicHeader, GetEarliestStoreTimeHeader, GetMaxOffsetHeader,
    GetMinOffsetHeader, Header, PullMessageHeader, QueryConsumerOffsetHeader, SearchOffsetHeader,
    UpdateConsumerOffsetHeader, ViewMessageHeader,
};
use serde_json::Value;

use crate::node::{Client, Node, expect, message, pull_header, send_header, with_body};

/// The ends of Java's `int` and `long`, and what lies around zero.
const EXTREMES: [i64; 10] = [
    i64::MIN,
    i64::MIN + 1,
    i32::MIN as i64,
    -1,
    0,
    1,
    i32::MAX as i64,
    u32::MAX as i64,
    i64::MAX - 1,
    i64::MAX,
];

/// The request once for each number in it and each extreme in its place.
fn variants(request: &Frame) -> Vec<Frame> {
    let numbers = request.ext.iter().filter(|(_, value)| value.parse::<i64>().is_ok());
    let keys: Vec<String> = numbers.map(|(key, _)| key.to_owned()).collect();
    let mut all = Vec::new();
    for extreme in EXTREMES {
        for key in &keys {
            let mut variant = request.clone();
            variant.ext.insert_display(key, extreme);
            all.push(variant);
        }
        if let Ok(body) = serde_json::from_slice::<Value>(&request.body) {
            for place in 0..numbers_in(&body) {
                let (mut changed, mut before) = (body.clone(), place);
                replace(&mut changed, &mut before, extreme);
                let body = Bytes::from(serde_json::to_vec(&changed).expect("JSON"));
                all.push(Frame { body, ..request.clone() });
            }
        }
    }
    all
}

fn numbers_in(value: &Value) -> usize {
    match value {
        Value::Number(_) => 1,
        Value::Array(all) => all.iter().map(numbers_in).sum(),
        Value::Object(all) => all.values().map(numbers_in).sum(),
        _ => 0,
    }
}

/// Replaces the number that has so many before it.
fn replace(value: &mut Value, before: &mut usize, extreme: i64) {
    match value {
        Value::Number(number) => {
            if *before == 0 {
                *number = extreme.into();
            }
            *before = before.wrapping_sub(1);
        }
        Value::Array(all) => all.iter_mut().for_each(|value| replace(value, before, extreme)),
        Value::Object(all) => all.values_mut().for_each(|value| replace(value, before, extreme)),
        _ => {}
    }
}

async fn answered(client: &mut Client, request: Frame) {
    let (code, fields) = (request.code, format!("{:?}", request.ext));
    let answer = client.call(request).await;
    let remark = answer.remark.unwrap_or_default();
    assert!(!remark.contains("dropped the request"), "code {code} with {fields}: {remark}");
}

fn typed(code: RequestCode, header: &impl Header) -> Frame {
    Frame::request(code, header, Bytes::new())
}

fn queue() -> MessageQueue {
    MessageQueue { broker_name: "b1".to_owned(), queue_id: 0, topic: "orders".to_owned() }
}

fn requests() -> Vec<Frame> {
    use RequestCode as Code;
    let sent = message(&send_header("orders", ""), "body");
    let subscription = SubscriptionData {
        topic: "orders".to_owned(),
        sub_string: "*".to_owned(),
        code_set: vec![1],
        ..SubscriptionData::default()
    };
    let consumer = ConsumerData {
        group_name: "g".to_owned(),
        subscription_data_set: vec![subscription.clone()],
        ..ConsumerData::default()
    };
    let heartbeat = HeartbeatData {
        client_id: "c".to_owned(),
        consumer_data_set: vec![consumer],
        ..HeartbeatData::default()
    };
    let lock = LockBatchRequest {
        consumer_group: "g".to_owned(),
        client_id: "c".to_owned(),
        only_this_broker: false,
        mq_set: vec![queue()],
    };
    let back = ConsumerSendBackHeader {
        offset: 0,
        group: "g".into(),
        delay_level: 0,
        origin_msg_id: None,
        origin_topic: None,
        unit_mode: false,
        max_reconsume_times: Some(3),
        broker_name: None,
    };
    let created = CreateTopicHeader::new("other", 1, PermissionBits::READ_WRITE);
    let config = TopicConfig { topic_name: "other".to_owned(), ..TopicConfig::default() };
    let usual =
        SubscriptionGroupConfig { group_name: "other".to_owned(), ..SubscriptionGroupConfig::default() };
    let commit = UpdateConsumerOffsetHeader {
        consumer_group: "g".into(),
        topic: "orders".into(),
        queue_id: 0,
        commit_offset: 1,
    };
    let ask = QueryConsumerOffsetHeader {
        consumer_group: "g".into(),
        topic: "orders".into(),
        queue_id: 0,
        set_zero_if_not_found: None,
    };
    let search =
        SearchOffsetHeader { topic: "orders".into(), queue_id: 0, timestamp: 1, boundary_type: None };
    let mut pull = PullMessageHeader { max_msg_bytes: Some(1), sub_version: 1, ..pull_header("orders", 0) };
    pull.sys_flag |= pull_sys_flag::COMMIT_OFFSET;
    vec![
        Frame { version: i32::MAX, ..sent.clone() },
        Frame { version: i32::MIN, ..sent },
        typed(Code::PullMessage, &pull),
        typed(Code::LitePullMessage, &pull),
        typed(Code::UpdateConsumerOffset, &commit),
        typed(Code::QueryConsumerOffset, &ask),
        typed(Code::SearchOffsetByTimestamp, &search),
        typed(
            Code::SearchOffsetByTimestamp,
            &SearchOffsetHeader { boundary_type: Some("upper".to_owned()), ..search },
        ),
        typed(
            Code::GetMaxOffset,
            &GetMaxOffsetHeader { topic: "orders".into(), queue_id: 0, committed: true },
        ),
        typed(Code::GetMinOffset, &GetMinOffsetHeader { topic: "orders".into(), queue_id: 0 }),
        typed(
            Code::GetEarliestMessageStoreTime,
            &GetEarliestStoreTimeHeader { topic: "orders".into(), queue_id: 0 },
        ),
        typed(Code::ViewMessageById, &ViewMessageHeader { topic: None, offset: 0 }),
        Frame { version: 479, ..typed(Code::ConsumerSendMessageBack, &back) },
        typed(Code::UpdateAndCreateTopic, &created),
        with_body(Code::UpdateAndCreateTopicList, &TopicConfigList { topic_config_list: vec![config] }),
        with_body(Code::UpdateAndCreateSubscriptionGroup, &usual),
        with_body(Code::HeartBeat, &heartbeat),
        with_body(Code::LockBatchMq, &lock),
        with_body(Code::UnlockBatchMq, &lock),
        with_body(
            Code::CheckClientConfig,
            &CheckClientConfig { subscription_data: subscription, ..CheckClientConfig::default() },
        ),
    ]
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn no_number_in_a_request_ends_a_task() {
    let node = Node::start().await;
    let mut client = node.client_of_group().await;
    for body in ["one", "two", "three"] {
        client.send("orders", "", body).await;
    }
    let mut count = 0;
    for request in requests() {
        for variant in variants(&request) {
            // A number that makes a pull wait is for the test below.
            let waits = variant.ext.get("sysFlag").and_then(|flag| flag.parse().ok());
            let waits = waits.is_some_and(|flag: i32| flag & pull_sys_flag::SUSPEND != 0);
            if variant.code == RequestCode::HeartBeat.code() || waits {
                continue;
            }
            answered(&mut client, variant).await;
            count += 1;
        }
    }
    assert!(count > 400, "{count} requests");
    client.send("orders", "", "four").await;
}

/// The answer to a heartbeat comes between notices.
#[tokio::test]
async fn no_number_in_a_heartbeat_ends_a_task() {
    let node = Node::start().await;
    let mut client = node.client_of_group().await;
    let heartbeats = requests().into_iter().filter(|request| request.code == RequestCode::HeartBeat.code());
    let all: Vec<Frame> = heartbeats.flat_map(|request| variants(&request)).collect();
    assert!(!all.is_empty());
    for heartbeat in all {
        let opaque = client.put(heartbeat).await;
        let mut answer = client.take().await;
        while !answer.is_response() {
            answer = client.take().await;
        }
        assert_eq!(answer.opaque, opaque);
        assert!(!answer.remark.unwrap_or_default().contains("dropped the request"));
    }
    node.client().await.send("orders", "", "one").await;
}

/// `Instant + Duration` panics where the sum has no place, and a pull says itself how long it waits.
#[tokio::test]
async fn no_time_that_a_pull_would_wait_ends_a_task() {
    let node = Node::start().await;
    let mut client = node.client_of_group().await;
    client.send("orders", "", "one").await;
    let mut held = 0;
    for extreme in EXTREMES {
        let mut header = pull_header("orders", 1);
        header.sys_flag |= pull_sys_flag::SUSPEND;
        header.suspend_timeout_millis = extreme;
        client.put(typed(RequestCode::PullMessage, &header)).await;
        held += 1;
    }
    let mut other = node.client().await;
    other.send("orders", "", "two").await;
    for _ in 0..held {
        let answer = client.take().await;
        let found = answer.code == ResponseCode::Success.code();
        assert!(found || answer.code == ResponseCode::PullNotFound.code(), "{:?}", answer.remark);
    }
    expect(&client.ask(RequestCode::PullMessage, &pull_header("orders", 0)).await, ResponseCode::Success);
}
