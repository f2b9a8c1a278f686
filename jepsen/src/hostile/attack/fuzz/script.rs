//! What one session says, request by request: a function of its dice alone.

use bytes::{BufMut, Bytes};
use serde_json::json;

use super::mutate;
use super::raw::Raw;
use crate::hostile::ask::{self, BROKER};
use crate::nemesis::Dice;

/// Topics that sessions make and use.
const TOPICS: u64 = 10;
/// Groups.
const GROUPS: u64 = 24;
/// Client ids of one connection.
const CLIENTS: u64 = 16;
/// Requests of a session at most.
const REQUESTS_MAX: u64 = 80;
/// Bytes of a large body: more than a message may have, now and then.
const LARGE_BYTES: [usize; 4] = [4096, 65_536, 1 << 20, (4 << 20) + 1];

/// A session.
pub(super) struct Script {
    dice: Dice,
    left: u64,
    node: usize,
    at_name_server: bool,
    binary: bool,
    opaque: i32,
    client: String,
    group: String,
    topic: String,
    busy_topic: String,
    offset: u64,
}

impl Script {
    /// The session of these dice, on connection `number`; it reads from this topic, too.
    pub(super) fn new(mut dice: Dice, number: u32, busy_topic: &str) -> Self {
        let client = format!("fuzz-{number}-{}", dice.below(CLIENTS));
        let (group, topic) =
            (format!("fuzz-group-{}", dice.below(GROUPS)), format!("fuzz-topic-{}", dice.below(TOPICS)));
        Self {
            left: 5 + dice.below(REQUESTS_MAX - 5),
            node: dice.below(3) as usize,
            at_name_server: dice.one_in(10),
            binary: dice.one_in(2),
            opaque: 1,
            client,
            group,
            topic,
            busy_topic: busy_topic.to_owned(),
            offset: 0,
            dice,
        }
    }

    /// Which node it speaks to.
    pub(super) fn node(&self) -> usize {
        self.node
    }

    /// Whether it speaks to the node's NameServer.
    pub(super) fn at_name_server(&self) -> bool {
        self.at_name_server
    }

    /// A request as an ordinary client would make it now.
    fn request(&mut self) -> Raw {
        match self.dice.below(20) {
            0..=1 => self.heartbeat(),
            2..=5 => self.send(),
            6 => self.send_batch(),
            7..=8 => self.pull(0),
            9 => {
                let wait_ms = 1 + self.dice.below(5000);
                self.pull(wait_ms)
            }
            10 => self.lock(ask::LOCK_BATCH_MQ),
            11 => self.lock(ask::UNLOCK_BATCH_MQ),
            12 => self.offset(ask::UPDATE_CONSUMER_OFFSET),
            13 => self.offset(ask::QUERY_CONSUMER_OFFSET),
            14 => Raw::new(ask::GET_CONSUMER_LIST, &[("consumerGroup", &self.group)]),
            15 => self.unregister(),
            16 => self.send_back(),
            17 => self.create_topic(),
            18 => self.route(),
            _ => self.bounds(),
        }
    }

    fn queue(&mut self) -> String {
        self.dice.below(4).to_string()
    }

    fn heartbeat(&mut self) -> Raw {
        let expression = ["*", "a", "a||b", ""][self.dice.below(4) as usize];
        let subscriptions = [ask::subscription(&self.topic, expression)];
        let consumers = match self.dice.below(3) {
            0 => Vec::new(),
            _ => vec![ask::consumer(&self.group, &subscriptions)],
        };
        let body = json!({
            "clientID": self.client, "producerDataSet": [{ "groupName": self.group }],
            "consumerDataSet": consumers, "heartbeatFingerprint": self.dice.below(3), "isWithoutSub": false,
        });
        Raw::new(ask::HEART_BEAT, &[]).with_body(body.to_string())
    }

    fn body(&mut self) -> Vec<u8> {
        let bytes = match self.dice.below(3000) {
            0 => self.dice.one_of(&LARGE_BYTES).copied().unwrap_or(0),
            _ => self.dice.below(400) as usize,
        };
        vec![b'f'; bytes]
    }

    fn send(&mut self) -> Raw {
        let (queue, key) = (self.queue(), self.dice.below(1 << 20));
        let tag = ["a", "b", ""][self.dice.below(3) as usize];
        let properties = format!("UNIQ_KEY\u{1}{key:032X}\u{2}TAGS\u{1}{tag}\u{2}WAIT\u{1}true");
        let fields = [
            ("a", &*self.group),
            ("b", &*self.topic),
            ("c", "TBW102"),
            ("d", "4"),
            ("e", &*queue),
            ("f", "0"),
            ("g", "1700000000000"),
            ("h", "0"),
            ("i", &*properties),
            ("j", "0"),
            ("k", "false"),
            ("m", "false"),
        ];
        let raw = Raw::new(ask::SEND_MESSAGE_V2, &fields);
        raw.with_body(self.body())
    }

    fn send_batch(&mut self) -> Raw {
        let mut raw = self.send();
        raw.code = ask::SEND_BATCH_MESSAGE;
        if let Some((_, value)) = raw.fields.iter_mut().find(|(key, _)| key == b"m") {
            *value = super::raw::Value::Text(b"true".to_vec());
        }
        let mut batch = Vec::new();
        for _ in 0..=self.dice.below(8) {
            let (body, properties) = (vec![b'm'; self.dice.below(100) as usize], b"TAGS\x01a");
            batch.put_u32((22 + body.len() + properties.len()) as u32);
            batch.put_bytes(0, 12);
            batch.put_u32(body.len() as u32);
            batch.put_slice(&body);
            batch.put_u16(properties.len() as u16);
            batch.put_slice(properties);
        }
        raw.with_body(batch)
    }

    fn pull(&mut self, wait_ms: u64) -> Raw {
        let (queue, wait) = (self.queue(), wait_ms.to_string());
        let topic = if self.dice.one_in(3) { self.busy_topic.clone() } else { self.topic.clone() };
        self.offset += self.dice.below(40);
        let offset = self.offset.to_string();
        let fields = [
            ("consumerGroup", &*self.group),
            ("topic", &*topic),
            ("queueId", &*queue),
            ("queueOffset", &*offset),
            ("maxMsgNums", "32"),
            ("sysFlag", ["2", "4", "6", "7"][self.dice.below(4) as usize]),
            ("commitOffset", &*offset),
            ("suspendTimeoutMillis", &*wait),
            ("subscription", ["*", "a", "a||b"][self.dice.below(3) as usize]),
            ("subVersion", "1"),
            ("expressionType", ["TAG", "TAG", "SQL92"][self.dice.below(3) as usize]),
        ];
        Raw::new(ask::PULL_MESSAGE, &fields)
    }

    fn lock(&mut self, code: i32) -> Raw {
        let queue = |queue| json!({ "topic": self.topic, "brokerName": BROKER, "queueId": queue });
        let queues: Vec<_> = (0..4).map(queue).collect();
        let body = json!({
            "consumerGroup": self.group, "clientId": self.client, "mqSet": queues, "onlyThisBroker": true,
        });
        Raw::new(code, &[]).with_body(body.to_string())
    }

    fn offset(&mut self, code: i32) -> Raw {
        let (queue, offset) = (self.queue(), self.offset.to_string());
        let fields = [
            ("consumerGroup", &*self.group),
            ("topic", &*self.topic),
            ("queueId", &*queue),
            ("commitOffset", &*offset),
        ];
        Raw::new(code, &fields)
    }

    fn unregister(&mut self) -> Raw {
        let fields =
            [("clientID", &*self.client), ("producerGroup", &*self.group), ("consumerGroup", &*self.group)];
        Raw::new(ask::UNREGISTER_CLIENT, &fields)
    }

    fn send_back(&mut self) -> Raw {
        let (position, level) = (self.dice.below(1 << 30).to_string(), self.dice.below(20).to_string());
        let fields = [
            ("offset", &*position),
            ("group", &*self.group),
            ("delayLevel", &*level),
            ("originMsgId", "7F00000100002A9F0000000000000000"),
            ("originTopic", &*self.topic),
            ("unitMode", "false"),
            ("maxReconsumeTimes", "16"),
        ];
        Raw::new(ask::CONSUMER_SEND_MSG_BACK, &fields)
    }

    fn create_topic(&mut self) -> Raw {
        let queues = (1 + self.dice.below(8)).to_string();
        let fields = [
            ("topic", &*self.topic),
            ("defaultTopic", "TBW102"),
            ("readQueueNums", &*queues),
            ("writeQueueNums", &*queues),
            ("perm", "6"),
            ("topicFilterType", "SINGLE_TAG"),
            ("topicSysFlag", "0"),
            ("order", "false"),
        ];
        Raw::new(ask::UPDATE_AND_CREATE_TOPIC, &fields)
    }

    fn route(&mut self) -> Raw {
        Raw::new(ask::GET_ROUTE, &[("topic", &self.topic), ("acceptStandardJsonOnly", "true")])
    }

    /// A queue's first or last offset, or where it was at a time.
    fn bounds(&mut self) -> Raw {
        let code = [29, 30, 31, 32][self.dice.below(4) as usize];
        let queue = self.queue();
        Raw::new(code, &[("topic", &self.topic), ("queueId", &queue), ("timestamp", "1700000000000")])
    }
}

/// What is written, frame by frame, whole or not.
impl Iterator for Script {
    type Item = Bytes;

    fn next(&mut self) -> Option<Bytes> {
        self.left = self.left.checked_sub(1)?;
        let mut raw = self.request();
        raw.opaque = self.opaque;
        self.opaque += 1;
        raw.binary = self.binary;
        while self.dice.one_in(3) {
            mutate::request(&mut raw, &mut self.dice);
        }
        let frame = raw.encode();
        Some(if self.dice.one_in(60) { mutate::bytes(&frame, &mut self.dice) } else { frame })
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use bytes::BytesMut;
    use folio_protocol::frame::Frame;

    use super::*;

    fn said(seed: u64) -> Vec<Bytes> {
        Script::new(Dice::new(seed), 3, "busy").collect()
    }

    #[test]
    fn the_same_seed_says_the_same() {
        assert_eq!(said(7), said(7));
        assert_ne!(said(7), said(8));
        assert!((5..REQUESTS_MAX as usize).contains(&said(7).len()));
    }

    #[test]
    fn sessions_say_all_kinds_of_requests_and_most_of_them_whole() {
        let (mut codes, mut whole, mut all) = (BTreeSet::new(), 0, 0);
        for seed in 0..200 {
            for bytes in said(seed) {
                all += 1;
                if let Ok(Some(frame)) = Frame::decode(&mut BytesMut::from(&bytes[..])) {
                    whole += 1;
                    codes.insert(frame.code);
                }
            }
        }
        for code in [310, 320, 11, 14, 15, 17, 34, 35, 36, 38, 41, 42, 105, 29, 30, 31, 32] {
            assert!(codes.contains(&code), "{code} of {codes:?}");
        }
        assert!(whole * 10 > all * 7, "{whole} of {all}");
    }
}
