//! SEND: codes 10 (long names), 310 and 320 (one-letter names), 324 and 325 for replies.

use super::{Header, HeaderError, header};
use crate::Name;
use crate::ext::{ExtFields, FieldValue, parse_field};
use crate::fields::{FieldWriter, Fields};

/// The region answers and messages carry when none is configured.
pub const DEFAULT_REGION: &str = "DefaultRegion";

/// The header of every SEND, whichever names it came with.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct SendMessageHeader {
    /// `a`, `producerGroup`.
    pub producer_group: Name,
    /// `b`, `topic`.
    pub topic: Name,
    /// `c`, `defaultTopic`: the template if the topic is to be created.
    pub default_topic: Name,
    /// `d`, `defaultTopicQueueNums`: queues wanted then.
    pub default_topic_queue_nums: i32,
    /// `e`, `queueId`; below 0 the server picks one.
    pub queue_id: i32,
    /// `f`, `sysFlag`.
    pub sys_flag: i32,
    /// `g`, `bornTimestamp`, ms.
    pub born_timestamp: i64,
    /// `h`, `flag`: the user's.
    pub flag: i32,
    /// `i`, `properties`, encoded.
    pub properties: Option<String>,
    /// `j`, `reconsumeTimes`.
    pub reconsume_times: Option<i32>,
    /// `k`, `unitMode`.
    pub unit_mode: bool,
    /// `l`, `maxReconsumeTimes`.
    pub max_reconsume_times: Option<i32>,
    /// `m`, `batch`: the body is in the batch encoding.
    pub batch: bool,
    /// `n`, `bname`: the broker meant.
    pub broker_name: Option<Name>,
}

/// The header of a SEND as it lies in the request's fields: what [`SendMessageHeader`] says, nothing copied.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct SendRequest<'a> {
    /// See [`SendMessageHeader::producer_group`].
    pub producer_group: &'a str,
    /// See [`SendMessageHeader::topic`].
    pub topic: &'a str,
    /// See [`SendMessageHeader::default_topic`].
    pub default_topic: &'a str,
    /// See [`SendMessageHeader::default_topic_queue_nums`].
    pub default_topic_queue_nums: i32,
    /// See [`SendMessageHeader::queue_id`].
    pub queue_id: i32,
    /// See [`SendMessageHeader::sys_flag`].
    pub sys_flag: i32,
    /// See [`SendMessageHeader::born_timestamp`].
    pub born_timestamp: i64,
    /// See [`SendMessageHeader::flag`].
    pub flag: i32,
    /// See [`SendMessageHeader::properties`].
    pub properties: Option<&'a str>,
    /// See [`SendMessageHeader::reconsume_times`].
    pub reconsume_times: Option<i32>,
    /// See [`SendMessageHeader::unit_mode`].
    pub unit_mode: bool,
    /// See [`SendMessageHeader::max_reconsume_times`].
    pub max_reconsume_times: Option<i32>,
    /// See [`SendMessageHeader::batch`].
    pub batch: bool,
    /// See [`SendMessageHeader::broker_name`].
    pub broker_name: Option<&'a str>,
}

/// Fields as they come, in any order and under either name.
#[derive(Default)]
struct Found<'a> {
    producer_group: Option<&'a str>,
    topic: Option<&'a str>,
    default_topic: Option<&'a str>,
    default_topic_queue_nums: Option<i32>,
    queue_id: Option<i32>,
    sys_flag: Option<i32>,
    born_timestamp: Option<i64>,
    flag: Option<i32>,
    properties: Option<&'a str>,
    reconsume_times: Option<i32>,
    unit_mode: Option<bool>,
    max_reconsume_times: Option<i32>,
    batch: Option<bool>,
    broker_name: Option<&'a str>,
}

impl<'a> Found<'a> {
    /// One pass over the fields: a lookup per field would walk them fourteen times.
    fn gather(ext: &'a ExtFields) -> Result<Self, HeaderError> {
        let mut found = Self::default();
        for (key, value) in ext.keyed() {
            match key {
                b"a" | b"producerGroup" => found.producer_group = Some(value),
                b"b" | b"topic" => found.topic = Some(value),
                b"c" | b"defaultTopic" => found.default_topic = Some(value),
                b"d" | b"defaultTopicQueueNums" => {
                    read(&mut found.default_topic_queue_nums, "defaultTopicQueueNums", value)?;
                }
                b"e" | b"queueId" => read(&mut found.queue_id, "queueId", value)?,
                b"f" | b"sysFlag" => read(&mut found.sys_flag, "sysFlag", value)?,
                b"g" | b"bornTimestamp" => read(&mut found.born_timestamp, "bornTimestamp", value)?,
                b"h" | b"flag" => read(&mut found.flag, "flag", value)?,
                b"i" | b"properties" => found.properties = Some(value),
                b"j" | b"reconsumeTimes" => read(&mut found.reconsume_times, "reconsumeTimes", value)?,
                b"k" | b"unitMode" => read(&mut found.unit_mode, "unitMode", value)?,
                b"l" | b"maxReconsumeTimes" => {
                    read(&mut found.max_reconsume_times, "maxReconsumeTimes", value)?;
                }
                b"m" | b"batch" => read(&mut found.batch, "batch", value)?,
                b"n" | b"bname" => found.broker_name = Some(value),
                _ => {}
            }
        }
        Ok(found)
    }
}

fn read<T: FieldValue>(slot: &mut Option<T>, key: &'static str, value: &str) -> Result<(), HeaderError> {
    *slot = parse_field(key, value)?;
    Ok(())
}

impl<'a> SendRequest<'a> {
    /// Reads it from ext fields; other fields are ignored.
    pub fn from_ext(ext: &'a ExtFields) -> Result<Self, HeaderError> {
        let found = Found::gather(ext)?;
        let missing = HeaderError::Missing;
        Ok(Self {
            producer_group: found.producer_group.ok_or(missing("producerGroup"))?,
            topic: found.topic.ok_or(missing("topic"))?,
            default_topic: found.default_topic.ok_or(missing("defaultTopic"))?,
            default_topic_queue_nums: found
                .default_topic_queue_nums
                .ok_or(missing("defaultTopicQueueNums"))?,
            queue_id: found.queue_id.ok_or(missing("queueId"))?,
            sys_flag: found.sys_flag.ok_or(missing("sysFlag"))?,
            born_timestamp: found.born_timestamp.ok_or(missing("bornTimestamp"))?,
            flag: found.flag.ok_or(missing("flag"))?,
            properties: found.properties,
            reconsume_times: found.reconsume_times,
            unit_mode: found.unit_mode.unwrap_or(false),
            max_reconsume_times: found.max_reconsume_times,
            batch: found.batch.unwrap_or(false),
            broker_name: found.broker_name,
        })
    }
}

impl Header for SendMessageHeader {
    fn from_ext(ext: &ExtFields) -> Result<Self, HeaderError> {
        let read = SendRequest::from_ext(ext)?;
        Ok(Self {
            producer_group: read.producer_group.into(),
            topic: read.topic.into(),
            default_topic: read.default_topic.into(),
            default_topic_queue_nums: read.default_topic_queue_nums,
            queue_id: read.queue_id,
            sys_flag: read.sys_flag,
            born_timestamp: read.born_timestamp,
            flag: read.flag,
            properties: read.properties.map(str::to_owned),
            reconsume_times: read.reconsume_times,
            unit_mode: read.unit_mode,
            max_reconsume_times: read.max_reconsume_times,
            batch: read.batch,
            broker_name: read.broker_name.map(Name::from),
        })
    }
}

impl Fields for SendMessageHeader {
    /// Writes the one-letter names of 310 and 320.
    fn write(&self, out: &mut impl FieldWriter) {
        self.put(&["a", "b", "c", "d", "e", "f", "g", "h", "i", "j", "k", "l", "m", "n"], out);
    }
}

impl SendMessageHeader {
    /// This header with the long names of 10 and 324.
    pub fn into_v1(self) -> SendMessageV1 {
        SendMessageV1(self)
    }

    fn put(&self, keys: &[&'static str; 14], out: &mut impl FieldWriter) {
        use super::HeaderField;
        let [a, b, c, d, e, f, g, h, i, j, k, l, m, n] = keys;
        self.producer_group.write(a, out);
        self.topic.write(b, out);
        self.default_topic.write(c, out);
        self.default_topic_queue_nums.write(d, out);
        self.queue_id.write(e, out);
        self.sys_flag.write(f, out);
        self.born_timestamp.write(g, out);
        self.flag.write(h, out);
        self.properties.write(i, out);
        self.reconsume_times.write(j, out);
        self.unit_mode.write(k, out);
        self.max_reconsume_times.write(l, out);
        self.batch.write(m, out);
        self.broker_name.write(n, out);
    }
}

/// A SEND header written with long names; read, it is the same as [`SendMessageHeader`].
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct SendMessageV1(pub SendMessageHeader);

impl Header for SendMessageV1 {
    fn from_ext(ext: &ExtFields) -> Result<Self, HeaderError> {
        SendMessageHeader::from_ext(ext).map(Self)
    }
}

impl Fields for SendMessageV1 {
    fn write(&self, out: &mut impl FieldWriter) {
        const KEYS: [&str; 14] = [
            "producerGroup",
            "topic",
            "defaultTopic",
            "defaultTopicQueueNums",
            "queueId",
            "sysFlag",
            "bornTimestamp",
            "flag",
            "properties",
            "reconsumeTimes",
            "unitMode",
            "maxReconsumeTimes",
            "batch",
            "bname",
        ];
        self.0.put(&KEYS, out);
    }
}

header! {
    /// The answer to a SEND. Clients require its fields even where the code is not 0.
    SendMessageResponseHeader {
        /// The offset message id, or several joined by commas for a batch.
        "msgId" => msg_id: String;
        /// The queue it went to.
        "queueId" => queue_id: i32;
        /// Its (first) offset there.
        "queueOffset" => queue_offset: i64;
        /// The message's UNIQ_KEY.
        "transactionId" => transaction_id: Option<String>;
        /// For an inner batch.
        "batchUniqId" => batch_uniq_id: Option<String>;
        /// For a timer message: what recalls it.
        "recallHandle" => recall_handle: Option<String>;
        /// The region.
        "MSG_REGION" => region_id: String = DEFAULT_REGION.to_owned();
        /// Whether the message is traced.
        "TRACE_ON" => trace_on: bool = true;
    }
}

header! {
    /// 326, server to client: the reply to a request message.
    PushReplyHeader {
        /// The replier's group.
        "producerGroup" => producer_group: Name;
        /// The reply topic.
        "topic" => topic: Name;
        /// As sent.
        "defaultTopic" => default_topic: Name;
        /// As sent.
        "defaultTopicQueueNums" => default_topic_queue_nums: i32;
        /// As sent.
        "queueId" => queue_id: i32;
        /// As sent.
        "sysFlag" => sys_flag: i32;
        /// As sent.
        "bornTimestamp" => born_timestamp: i64;
        /// As sent.
        "flag" => flag: i32;
        /// As sent, with PUSH_REPLY_TIME.
        "properties" => properties: Option<String>;
        /// As sent.
        "reconsumeTimes" => reconsume_times: Option<i32>;
        /// As sent.
        "unitMode" => unit_mode: bool = false;
        /// `ip:port` of the replier.
        "bornHost" => born_host: String;
        /// `ip:port` of the server.
        "storeHost" => store_host: String;
        /// When the server had it, ms.
        "storeTimestamp" => store_timestamp: i64;
    }
}
