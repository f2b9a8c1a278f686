//! What operators are told of queues, groups and clients: the answers to 202, 203, 204, 208, 300, 343 and 345.
//!
//! RocketMQ's tools read maps by queue in one form only: with the queue as an object where the key is, which is no JSON.
//! So these bodies are written by hand ([`TopicStats::encode`], [`ConsumeStats::encode`]).

use std::collections::BTreeMap;

use bytes::Bytes;
use serde::Serialize;

use super::{BodyError, ConsumeFromWhere, ConsumeType, MessageModel, MessageQueue, SubscriptionData};

/// What is in the queues of a topic: the answer to 202.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct TopicStats {
    /// Each queue.
    pub queues: Vec<(MessageQueue, TopicOffset)>,
    /// Messages stored in a second, over the last minute.
    pub put_tps: f64,
}

/// One queue.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct TopicOffset {
    /// When its last message was stored, ms; 0 without one.
    pub last_update_timestamp: i64,
    /// The offset after its last message.
    pub max_offset: u64,
    /// The offset of its first message.
    pub min_offset: u64,
}

/// How far a group has come: the answer to 208.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct ConsumeStats {
    /// Each queue.
    pub queues: Vec<(MessageQueue, OffsetWrapper)>,
    /// Messages consumed in a second, over the last minute.
    pub consume_tps: f64,
}

/// One queue.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct OffsetWrapper {
    /// The offset after its last message.
    pub broker_offset: u64,
    /// The offset that the group goes on with.
    pub consumer_offset: u64,
    /// When the message before that offset was stored, ms; 0 without one.
    pub last_timestamp: i64,
    /// Up to where the group's consumers have pulled.
    pub pull_offset: u64,
}

impl TopicStats {
    /// The body.
    pub fn encode(&self) -> Result<Bytes, BodyError> {
        Ok(format!(r#"{{"offsetTable":{},"topicPutTps":{:?}}}"#, by_queue(&self.queues)?, self.put_tps)
            .into())
    }
}

impl ConsumeStats {
    /// The body.
    pub fn encode(&self) -> Result<Bytes, BodyError> {
        let queues = by_queue(&self.queues)?;
        Ok(format!(r#"{{"consumeTps":{:?},"offsetTable":{queues}}}"#, self.consume_tps).into())
    }
}

fn by_queue(queues: &[(MessageQueue, impl Serialize)]) -> Result<String, BodyError> {
    let text = |value: Result<String, serde_json::Error>| {
        value.map_err(|error| BodyError { reason: error.to_string() })
    };
    let mut map = String::from("{");
    for (place, (queue, value)) in queues.iter().enumerate() {
        if place > 0 {
            map.push(',');
        }
        map.push_str(&text(serde_json::to_string(queue))?);
        map.push(':');
        map.push_str(&text(serde_json::to_string(value))?);
    }
    map.push('}');
    Ok(map)
}

/// One client's connection.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct Connection {
    /// Its address.
    pub client_addr: String,
    /// Its id.
    pub client_id: String,
    /// Its language, RocketMQ's name.
    pub language: String,
    /// Its wire version.
    pub version: i32,
}

/// A group's consumers: the answer to 203.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct ConsumerConnection {
    /// Its members.
    pub connection_set: Vec<Connection>,
    /// Where a new group starts.
    pub consume_from_where: ConsumeFromWhere,
    /// Pull, push or pop.
    pub consume_type: ConsumeType,
    /// Each message to one member or to all.
    pub message_model: MessageModel,
    /// What it subscribes to, by topic.
    pub subscription_table: BTreeMap<String, SubscriptionData>,
}

/// A group's producers: the answer to 204.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct ProducerConnection {
    /// Its members.
    pub connection_set: Vec<Connection>,
}

/// Names of consumer groups: the answer to 300.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct GroupList {
    /// The groups.
    pub group_list: Vec<String>,
}

/// What a group wants of a topic: the answer to 345.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct GroupSubscription {
    /// The group.
    pub group: String,
    /// Its subscription; none while no member says one.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub subscription_data: Option<SubscriptionData>,
    /// The topic.
    pub topic: String,
}

#[cfg(test)]
mod tests {
    use super::*;

    fn queue(id: i32) -> MessageQueue {
        MessageQueue { broker_name: "b\"1".into(), queue_id: id, topic: "orders".into() }
    }

    /// As Apache RocketMQ writes it.
    #[test]
    fn maps_by_queue_have_the_queue_as_an_object_for_a_key() {
        let one = TopicOffset { last_update_timestamp: 7, max_offset: 9, min_offset: 1 };
        let stats =
            TopicStats { queues: vec![(queue(0), one), (queue(1), TopicOffset::default())], put_tps: 1.5 };
        assert_eq!(
            stats.encode().unwrap(),
            concat!(
                r#"{"offsetTable":{{"brokerName":"b\"1","queueId":0,"topic":"orders"}:"#,
                r#"{"lastUpdateTimestamp":7,"maxOffset":9,"minOffset":1},"#,
                r#"{"brokerName":"b\"1","queueId":1,"topic":"orders"}:"#,
                r#"{"lastUpdateTimestamp":0,"maxOffset":0,"minOffset":0}},"topicPutTps":1.5}"#
            )
        );
        let one = OffsetWrapper { broker_offset: 9, consumer_offset: 4, last_timestamp: 7, pull_offset: 4 };
        let stats = ConsumeStats { queues: vec![(queue(0), one)], consume_tps: 0.0 };
        assert_eq!(
            stats.encode().unwrap(),
            concat!(
                r#"{"consumeTps":0.0,"offsetTable":{{"brokerName":"b\"1","queueId":0,"topic":"orders"}:"#,
                r#"{"brokerOffset":9,"consumerOffset":4,"lastTimestamp":7,"pullOffset":4}}}"#
            )
        );
        assert_eq!(ConsumeStats::default().encode().unwrap(), r#"{"consumeTps":0.0,"offsetTable":{}}"#);
    }
}
