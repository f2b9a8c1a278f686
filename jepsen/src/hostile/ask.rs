//! Requests of RocketMQ's clients as bytes, with whatever sizes an attack wants.

use bytes::{Bytes, BytesMut};
use folio_protocol::frame::Frame;
use serde_json::{Value, json};

use crate::client::request;

pub(super) const SEND_MESSAGE_V2: i32 = 310;
pub(super) const SEND_BATCH_MESSAGE: i32 = 320;
pub(super) const PULL_MESSAGE: i32 = 11;
pub(super) const QUERY_CONSUMER_OFFSET: i32 = 14;
pub(super) const UPDATE_CONSUMER_OFFSET: i32 = 15;
pub(super) const UPDATE_AND_CREATE_TOPIC: i32 = 17;
pub(super) const GET_MAX_OFFSET: i32 = 30;
pub(super) const HEART_BEAT: i32 = 34;
pub(super) const UNREGISTER_CLIENT: i32 = 35;
pub(super) const CONSUMER_SEND_MSG_BACK: i32 = 36;
pub(super) const GET_CONSUMER_LIST: i32 = 38;
pub(super) const LOCK_BATCH_MQ: i32 = 41;
pub(super) const UNLOCK_BATCH_MQ: i32 = 42;
pub(super) const GET_ROUTE: i32 = 105;
/// Of FolioMQ itself.
pub(super) const NODE_STATUS: i32 = 90_001;
pub(super) const REMOVE_NODE: i32 = 90_003;

/// The group that attackers say they belong to.
pub(super) const GROUP: &str = "hostile-attacker";
/// The name of the brokers' group.
pub(super) const BROKER: &str = "broker-a";

/// The frame's bytes; nothing if it fits no frame.
pub(super) fn bytes(mut frame: Frame, opaque: u64) -> Bytes {
    frame.opaque = (opaque & 0x7fff_ffff) as i32;
    let mut out = BytesMut::new();
    match frame.encode(&mut out) {
        Ok(()) => out.freeze(),
        Err(_) => Bytes::new(),
    }
}

/// A request with a JSON body.
pub(super) fn with_json(code: i32, body: &Value) -> Frame {
    let mut frame = request(code, []);
    frame.body = Bytes::from(body.to_string());
    frame
}

pub(super) fn lock(code: i32, group: &str, client: &str, topic: &str, queues: u32) -> Frame {
    let queue = |queue| json!({ "topic": topic, "brokerName": BROKER, "queueId": queue });
    let queues: Vec<Value> = (0..queues).map(queue).collect();
    let body =
        json!({ "consumerGroup": group, "clientId": client, "mqSet": queues, "onlyThisBroker": false });
    with_json(code, &body)
}

pub(super) fn subscription(topic: &str, expression: &str) -> Value {
    json!({
        "classFilterMode": false, "topic": topic, "subString": expression, "tagsSet": [], "codeSet": [],
        "subVersion": 1, "expressionType": "TAG",
    })
}

pub(super) fn consumer(group: &str, subscriptions: &[Value]) -> Value {
    json!({
        "groupName": group, "consumeType": "CONSUME_PASSIVELY", "messageModel": "CLUSTERING",
        "consumeFromWhere": "CONSUME_FROM_LAST_OFFSET", "subscriptionDataSet": subscriptions, "unitMode": false,
    })
}

pub(super) fn heartbeat(client: &str, producers: &[Value], consumers: &[Value]) -> Frame {
    let body = json!({ "clientID": client, "producerDataSet": producers, "consumerDataSet": consumers });
    with_json(HEART_BEAT, &body)
}

/// A pull of a queue's messages from this offset on that waits so long for one that matches.
pub(super) fn pull(
    topic: &str,
    queue: u32,
    offset: u64,
    expression: &str,
    wait: std::time::Duration,
) -> Frame {
    let (queue, offset, wait) = (queue.to_string(), offset.to_string(), wait.as_millis().to_string());
    let fields = [
        ("consumerGroup", GROUP),
        ("topic", topic),
        ("queueId", &queue),
        ("queueOffset", &offset),
        ("maxMsgNums", "32"),
        // Subscription in the header, may be suspended.
        ("sysFlag", "6"),
        ("commitOffset", "0"),
        ("suspendTimeoutMillis", &wait),
        ("subscription", expression),
        ("subVersion", "1"),
        ("expressionType", "TAG"),
    ];
    request(PULL_MESSAGE, fields)
}

pub(super) fn send(topic: &str, queue: u32, body: Bytes) -> Frame {
    let queue = queue.to_string();
    let fields = [
        ("a", GROUP),
        ("b", topic),
        ("c", "TBW102"),
        ("d", "4"),
        ("e", &queue),
        ("f", "0"),
        ("g", "0"),
        ("h", "0"),
        ("i", ""),
        ("j", "0"),
        ("k", "false"),
        ("m", "false"),
    ];
    let mut frame = request(SEND_MESSAGE_V2, fields);
    frame.body = body;
    frame
}

pub(super) fn commit(group: &str, topic: &str, queue: &str, offset: &str) -> Frame {
    let fields = [("consumerGroup", group), ("topic", topic), ("queueId", queue), ("commitOffset", offset)];
    request(UPDATE_CONSUMER_OFFSET, fields)
}

pub(super) fn create_topic(topic: &str, queues: &str) -> Frame {
    let fields = [
        ("topic", topic),
        ("defaultTopic", "TBW102"),
        ("readQueueNums", queues),
        ("writeQueueNums", queues),
        ("perm", "6"),
        ("topicFilterType", "SINGLE_TAG"),
        ("topicSysFlag", "0"),
        ("order", "false"),
    ];
    request(UPDATE_AND_CREATE_TOPIC, fields)
}

pub(super) fn unregister(client: &str, group: &str) -> Frame {
    let fields = [("clientID", client), ("producerGroup", group), ("consumerGroup", group)];
    request(UNREGISTER_CLIENT, fields)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn requests_are_frames_that_decode() {
        let subscription = subscription("t", "a||b");
        let frames = [
            lock(LOCK_BATCH_MQ, "g", "c", "t", 3),
            heartbeat("c", &[], &[consumer("g", &[subscription])]),
            pull("t", 1, 2, "*", std::time::Duration::from_secs(1)),
            send("t", 0, Bytes::from_static(b"x")),
            commit("g", "t", "0", "9"),
            create_topic("t", "4"),
            unregister("c", "g"),
        ];
        for (opaque, frame) in frames.into_iter().enumerate() {
            let code = frame.code;
            let mut encoded = BytesMut::from(&bytes(frame, opaque as u64)[..]);
            let decoded = Frame::decode(&mut encoded).expect("a frame").expect("whole");
            assert_eq!((decoded.code, decoded.opaque as usize), (code, opaque));
            assert!(encoded.is_empty());
        }
    }

    #[test]
    fn what_fits_no_frame_is_nothing() {
        assert!(bytes(send("t", 0, Bytes::from(vec![0; 17 << 20])), 1).is_empty());
    }
}
