//! A dead letter as it is sent to its consumer group once more: to the group's retry topic, so that no other group gets it again.

use bytes::BytesMut;
use folio_protocol::code::RequestCode;
use folio_protocol::frame::Frame;
use folio_protocol::header::SendMessageHeader;
use folio_protocol::names;
use folio_protocol::properties::{self, DLQ_ORIGIN_TOPIC, RETRY_TOPIC};

use super::stored::StoredMessage;

/// The producer group of what the command line sends.
const PRODUCER_GROUP: &str = "folio";
/// What the message was sent with before, and would be held back or counted by once more.
const OF_BEFORE: [&str; 7] = [
    properties::DELAY,
    properties::TIMER_DELAY_LEVEL,
    properties::TIMER_DELAY_SEC,
    properties::TIMER_DELAY_MS,
    properties::TIMER_DELIVER_MS,
    properties::RECONSUME_TIME,
    properties::MAX_RECONSUME_TIMES,
];

/// The send of a dead letter of that consumer group.
pub(super) fn to_retry(message: &StoredMessage, consumer_group: &str) -> Frame {
    let mut said = BytesMut::new();
    for (name, value) in &message.properties {
        if !OF_BEFORE.contains(&name.as_str()) && name != RETRY_TOPIC {
            properties::append(&mut said, name, value);
        }
    }
    // By which a consumer knows what its application has subscribed to.
    let origin = [RETRY_TOPIC, DLQ_ORIGIN_TOPIC].map(|name| message.property(name));
    let origin = origin.into_iter().find(|topic| !topic.is_empty()).unwrap_or(&message.topic);
    properties::append(&mut said, RETRY_TOPIC, origin);
    let header = SendMessageHeader {
        producer_group: PRODUCER_GROUP.into(),
        topic: names::retry_topic(consumer_group).as_str().into(),
        default_topic: "".into(),
        default_topic_queue_nums: 0,
        queue_id: 0,
        sys_flag: message.sys_flag,
        born_timestamp: message.born_ms,
        flag: message.flag,
        properties: Some(String::from_utf8_lossy(&said).into_owned()),
        reconsume_times: Some(0),
        unit_mode: false,
        max_reconsume_times: None,
        batch: false,
        broker_name: None,
    };
    Frame::request(RequestCode::SendMessageV2, &header, message.body.clone())
}
