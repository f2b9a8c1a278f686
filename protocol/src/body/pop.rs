//! POP: 200151, 400 and 401.

use std::collections::BTreeSet;

use serde::{Deserialize, Deserializer, Serialize, Serializer};

use super::heartbeat::MessageModel;
use super::lenient::{integer, list, or_default, wire_enums};
use super::queue::MessageQueue;
use crate::limits::{ACK_MESSAGES_MAX, ACKS_MAX, BIT_SET_CHARS_MAX};

wire_enums! {
    /// How a group is given the messages of a topic.
    MessageRequestMode, default Pull {
        /// Each client pulls from the queues that it was assigned.
        Pull = "PULL";
        /// Clients pop.
        Pop = "POP";
    }
}

/// 401: how a group is given the messages of a topic.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct SetMessageRequestMode {
    /// The topic.
    #[serde(deserialize_with = "or_default")]
    pub topic: String,
    /// The consumer group.
    #[serde(deserialize_with = "or_default")]
    pub consumer_group: String,
    /// How.
    pub mode: MessageRequestMode,
    /// With how many clients behind it each one shares its queues; 0: all clients pop from all queues.
    #[serde(deserialize_with = "integer")]
    pub pop_share_queue_num: i64,
}

/// 400: which queues a client is to consume.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct QueryAssignment {
    /// The topic.
    #[serde(deserialize_with = "or_default")]
    pub topic: String,
    /// The consumer group.
    #[serde(deserialize_with = "or_default")]
    pub consumer_group: String,
    /// The client.
    #[serde(deserialize_with = "or_default")]
    pub client_id: String,
    /// `AVG` or `AVG_BY_CIRCLE`.
    #[serde(deserialize_with = "or_default")]
    pub strategy_name: String,
    /// Whether each client gets all messages.
    pub message_model: MessageModel,
}

/// One queue of a client.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct MessageQueueAssignment {
    /// The queue; -1 for all of the broker.
    pub message_queue: MessageQueue,
    /// How the client is given its messages.
    pub mode: MessageRequestMode,
}

/// The answer to 400. Nothing: the client keeps what it has.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct QueryAssignmentResult {
    /// Its queues.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub message_queue_assignments: Option<Vec<MessageQueueAssignment>>,
}

/// 200151: messages of many batches that were handled.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct BatchAckMessages {
    /// The broker's name.
    #[serde(deserialize_with = "or_default")]
    pub broker_name: String,
    /// The batches.
    #[serde(deserialize_with = "list::<_, _, ACKS_MAX>")]
    pub acks: Vec<BatchAck>,
}

/// Messages of one batch.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct BatchAck {
    /// The consumer group.
    #[serde(rename = "c", alias = "consumerGroup", deserialize_with = "or_default")]
    pub group: String,
    /// The topic, without the prefix of a retry topic.
    #[serde(rename = "t", alias = "topic", deserialize_with = "or_default")]
    pub topic: String,
    /// The retry flag of the handle.
    #[serde(rename = "r", alias = "retry", deserialize_with = "or_default")]
    pub retry: String,
    /// Where the batch starts.
    #[serde(rename = "so", alias = "startOffset", deserialize_with = "integer")]
    pub start: i64,
    /// The queue.
    #[serde(rename = "q", alias = "queueId", deserialize_with = "integer")]
    pub queue: i64,
    /// The revive queue of the handle.
    #[serde(rename = "rq", alias = "reviveQueueId", deserialize_with = "integer")]
    pub revive_queue: i64,
    /// When it was popped, ms.
    #[serde(rename = "pt", alias = "popTime", deserialize_with = "integer")]
    pub pop_time: i64,
    /// For how long, ms.
    #[serde(rename = "it", alias = "invisibleTime", deserialize_with = "integer")]
    pub invisible_time: i64,
    /// Which messages: their offsets, less that of the first.
    #[serde(rename = "b", alias = "bitSet")]
    pub messages: OffsetSet,
}

/// Distances from the first offset: Java's `BitSet` in base64, its lowest byte first. At most [`ACK_MESSAGES_MAX`] are read, however far they reach.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct OffsetSet(pub BTreeSet<u64>);

const DIGITS: &[u8; 64] = b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/";

impl Serialize for OffsetSet {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        let length = self.0.last().map_or(0, |last| *last as usize / 8 + 1);
        let mut bytes = vec![0_u8; length];
        self.0.iter().for_each(|bit| bytes[*bit as usize / 8] |= 1 << (bit % 8));
        let mut text = String::new();
        for three in bytes.chunks(3) {
            let word = three.iter().fold(0_u32, |word, byte| word << 8 | u32::from(*byte));
            let word = word << (8 * (3 - three.len()));
            for digit in 0..4 {
                let at = (word >> (18 - 6 * digit) & 63) as usize;
                text.push(if digit <= three.len() { char::from(DIGITS[at]) } else { '=' });
            }
        }
        serializer.serialize_str(&text)
    }
}

impl<'de> Deserialize<'de> for OffsetSet {
    fn deserialize<D: Deserializer<'de>>(source: D) -> Result<Self, D::Error> {
        use serde::de::Error;
        let text = Option::<String>::deserialize(source)?.unwrap_or_default();
        if text.len() > BIT_SET_CHARS_MAX {
            return Err(D::Error::custom(format!("a bit set of {} characters", text.len())));
        }
        let mut set = BTreeSet::new();
        let (mut bits, mut held, mut byte_at) = (0_u32, 0, 0_u64);
        for digit in text.trim_end_matches('=').bytes() {
            let value = DIGITS.iter().position(|known| *known == digit);
            let value = value.ok_or_else(|| D::Error::custom("a bit set that is not base64"))?;
            (bits, held) = (bits << 6 | value as u32, held + 6);
            if held >= 8 {
                held -= 8;
                let byte = bits >> held & 0xff;
                if set.len() + byte.count_ones() as usize > ACK_MESSAGES_MAX {
                    return Err(D::Error::custom(format!(
                        "a bit set of more messages than a batch has, the limit is {ACK_MESSAGES_MAX}"
                    )));
                }
                set.extend((0..8).filter(|bit| byte >> bit & 1 == 1).map(|bit| 8 * byte_at + bit));
                byte_at += 1;
            }
        }
        Ok(OffsetSet(set))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::body::{decode, encode};

    #[test]
    fn a_batch_of_acks_is_read_as_javas_client_writes_it() {
        let text = br#"{"acks":[{"b":"CQE=","c":"g","it":60000,"pt":100,"q":3,"r":"1","rq":2,"so":4,"t":"orders"}],"brokerName":"b"}"#;
        let read: BatchAckMessages = decode(text).unwrap();
        let ack = &read.acks[0];
        assert_eq!((&*ack.group, &*ack.topic, &*ack.retry), ("g", "orders", "1"));
        assert_eq!((ack.start, ack.queue, ack.pop_time, ack.invisible_time), (4, 3, 100, 60_000));
        assert_eq!(ack.messages, OffsetSet([0, 3, 8].into()));
        assert_eq!(decode::<BatchAckMessages>(&encode(&read).unwrap()).unwrap(), read);
        let long: BatchAckMessages =
            decode(br#"{"acks":[{"consumerGroup":"g","startOffset":"7","bitSet":null}]}"#).unwrap();
        assert_eq!((&*long.acks[0].group, long.acks[0].start), ("g", 7));
        for text in [r#"{"b":"*"}"#.to_owned(), format!(r#"{{"b":"{}"}}"#, "A".repeat(BIT_SET_CHARS_MAX + 1))]
        {
            assert!(decode::<BatchAck>(text.as_bytes()).is_err());
        }
    }

    #[test]
    fn bit_sets_that_are_written_are_read() {
        for bits in [vec![], vec![0], vec![7], vec![8, 9], vec![0, 23, 24, 31, 800]] {
            let set = OffsetSet(bits.into_iter().collect());
            assert_eq!(decode::<OffsetSet>(&encode(&set).unwrap()).unwrap(), set);
        }
    }

    /// Was: as many as the characters of a bit set may say, 12,288.
    #[test]
    fn a_bit_set_with_more_messages_than_a_batch_has_is_refused() {
        let far = 8 * (BIT_SET_CHARS_MAX as u64 * 3 / 4) - 1;
        let most = ACK_MESSAGES_MAX as u64;
        let most = OffsetSet((1..most).chain([far]).collect());
        assert_eq!(decode::<OffsetSet>(&encode(&most).unwrap()).unwrap(), most);
        let more = OffsetSet(most.0.into_iter().chain([0]).collect());
        let refused = decode::<OffsetSet>(&encode(&more).unwrap()).unwrap_err();
        assert!(refused.reason.contains("the limit is 32"), "{}", refused.reason);
        let all = format!("\"{}\"", "/".repeat(BIT_SET_CHARS_MAX));
        assert!(decode::<OffsetSet>(all.as_bytes()).is_err());
    }

    #[test]
    fn modes_and_assignments() {
        let set: SetMessageRequestMode =
            decode(br#"{"consumerGroup":"g","mode":"POP","popShareQueueNum":2,"topic":"t"}"#).unwrap();
        assert_eq!((set.mode, set.pop_share_queue_num), (MessageRequestMode::Pop, 2));
        let ask: QueryAssignment = decode(
            br#"{"clientId":"c","consumerGroup":"g","messageModel":"CLUSTERING","strategyName":"AVG","topic":"t"}"#,
        )
        .unwrap();
        assert_eq!((&*ask.client_id, ask.message_model), ("c", MessageModel::Clustering));
        let queue = MessageQueue { broker_name: "b".into(), queue_id: -1, topic: "t".into() };
        let assignment = MessageQueueAssignment { message_queue: queue, mode: MessageRequestMode::Pop };
        let some = QueryAssignmentResult { message_queue_assignments: Some(vec![assignment]) };
        let text = String::from_utf8(encode(&some).unwrap().to_vec()).unwrap();
        assert_eq!(
            text,
            r#"{"messageQueueAssignments":[{"messageQueue":{"brokerName":"b","queueId":-1,"topic":"t"},"mode":"POP"}]}"#
        );
        assert_eq!(&encode(&QueryAssignmentResult::default()).unwrap()[..], b"{}");
    }
}
