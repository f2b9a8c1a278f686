//! The property string inside a message: `name 0x01 value 0x02`, repeated, UTF-8.
//!
//! The last 0x02 may be missing. A pair without 0x01, with an empty name or an empty value is
//! passed over, as Java's reader does. Where a name repeats, the last one counts, as in a Java map.

use bytes::{BufMut, Bytes, BytesMut};
use memchr::{memchr, memrchr};

/// Between name and value.
pub const NAME_END: u8 = 1;
/// After a value.
pub const VALUE_END: u8 = 2;

macro_rules! names {
    ($($constant:ident = $name:literal, $doc:literal;)+) => {
        $(#[doc = $doc] pub const $constant: &str = $name;)+

        /// Names the system gives a meaning: users may not set them through gRPC.
        pub const SYSTEM_NAMES: &[&str] = &[$($name),+];
    };
}

names! {
    KEYS = "KEYS", "Keys for the index, separated by blanks.";
    TAGS = "TAGS", "The tag.";
    WAIT = "WAIT", "Whether the producer waits until the message is stored.";
    DELAY = "DELAY", "The delay level.";
    RETRY_TOPIC = "RETRY_TOPIC", "The topic a retried message came from.";
    REAL_TOPIC = "REAL_TOPIC", "The topic a parked message goes to.";
    REAL_QUEUE_ID = "REAL_QID", "The queue a parked message goes to.";
    TRANSACTION_PREPARED = "TRAN_MSG", "`true` on a half message.";
    PRODUCER_GROUP = "PGROUP", "The producer's group.";
    MIN_OFFSET = "MIN_OFFSET", "Set by clients on pulled messages.";
    MAX_OFFSET = "MAX_OFFSET", "Set by clients on pulled messages.";
    ORIGIN_MESSAGE_ID = "ORIGIN_MESSAGE_ID", "The id a retried message had first.";
    ORIGIN_QUEUE_ID = "ORIGIN_QUEUE_ID", "The queue a retried message lay in first.";
    ORIGIN_QUEUE_OFFSET = "ORIGIN_QUEUE_OFFSET", "Its offset there.";
    RECONSUME_TIME = "RECONSUME_TIME", "How often a message was consumed.";
    MAX_RECONSUME_TIMES = "MAX_RECONSUME_TIMES", "How often it may be consumed.";
    CONSUME_START_TIME = "CONSUME_START_TIME", "Set by clients.";
    UNIQUE_KEY = "UNIQ_KEY", "The client's unique message id.";
    EXTEND_UNIQUE_INFO = "EXTEND_UNIQ_INFO", "Set by clients.";
    DUP_INFO = "DUP_INFO", "Set by clients.";
    TRANSFER_FLAG = "TRANSFER_FLAG", "Set by clients.";
    CORRECTION_FLAG = "CORRECTION_FLAG", "Set by clients.";
    MQ2_FLAG = "MQ2_FLAG", "Set by clients.";
    BUYER_ID = "BUYER_ID", "Set by clients.";
    INSTANCE_ID = "INSTANCE_ID", "Set by clients.";
    MSG_REGION = "MSG_REGION", "The region the message was stored in.";
    TRACE_ON = "TRACE_ON", "Whether the message is traced.";
    TRACE_CONTEXT = "TRACE_CONTEXT", "The trace's context.";
    CHECK_IMMUNITY_TIME = "CHECK_IMMUNITY_TIME_IN_SECONDS", "How long a half message is not checked.";
    TRAN_PREPARED_QUEUE_OFFSET = "TRAN_PREPARED_QUEUE_OFFSET", "A half message's first queue offset.";
    TRANSACTION_ID = "__transactionId__", "The transaction's id.";
    TRANSACTION_CHECK_TIMES = "TRANSACTION_CHECK_TIMES", "How often the producer was asked.";
    SHARDING_KEY = "__SHARDINGKEY", "What orders a message.";
    POP_CK = "POP_CK", "The handle of a popped message.";
    POP_CK_OFFSET = "POP_CK_OFFSET", "Its checkpoint's offset.";
    FIRST_POP_TIME = "1ST_POP_TIME", "When it was popped first.";
    TIMER_DELAY_SEC = "TIMER_DELAY_SEC", "Deliver after that many seconds.";
    TIMER_DELAY_MS = "TIMER_DELAY_MS", "Deliver after that many milliseconds.";
    TIMER_DELIVER_MS = "TIMER_DELIVER_MS", "Deliver at that time.";
    TIMER_OUT_MS = "TIMER_OUT_MS", "When a parked timer message is due.";
    TIMER_ENQUEUE_MS = "TIMER_ENQUEUE_MS", "Timer internals.";
    TIMER_DEQUEUE_MS = "TIMER_DEQUEUE_MS", "Timer internals.";
    TIMER_ROLL_TIMES = "TIMER_ROLL_TIMES", "Timer internals.";
    TIMER_DELAY_LEVEL = "TIMER_DELAY_LEVEL", "Timer internals.";
    TIMER_DELETE_UNIQUE_KEY = "TIMER_DEL_UNIQKEY", "Which timer message to recall.";
    CORRELATION_ID = "CORRELATION_ID", "Pairs a reply with its request.";
    REPLY_TO_CLIENT = "REPLY_TO_CLIENT", "The client that waits for the reply.";
    TTL = "TTL", "How long it waits.";
    ARRIVE_TIME = "ARRIVE_TIME", "When the request reached the server.";
    PUSH_REPLY_TIME = "PUSH_REPLY_TIME", "When the reply was pushed.";
    MESSAGE_TYPE = "MSG_TYPE", "`reply` on a reply.";
    CLUSTER = "CLUSTER", "The cluster the message was stored in.";
    INNER_MULTI_DISPATCH = "INNER_MULTI_DISPATCH", "Light queues to dispatch to.";
    INNER_MULTI_QUEUE_OFFSET = "INNER_MULTI_QUEUE_OFFSET", "Offsets in them.";
    INNER_NUM = "INNER_NUM", "How many messages an inner batch holds.";
    INNER_BASE = "INNER_BASE", "The first one's queue offset.";
    BORN_TIMESTAMP = "BORN_TIMESTAMP", "When the message was made.";
    BORN_HOST = "__BORNHOST", "Where it was made.";
    DLQ_ORIGIN_TOPIC = "DLQ_ORIGIN_TOPIC", "The topic a dead letter came from.";
    DLQ_ORIGIN_MESSAGE_ID = "DLQ_ORIGIN_MESSAGE_ID", "The id it had there.";
    CRC32 = "__CRC32#", "A checksum over the whole message.";
    FORWARD_QUEUE_ID = "PROPERTY_FORWARD_QUEUE_ID", "Set by clients.";
    REDIRECT = "REDIRECT", "Set by clients.";
}

/// How a producer says when a message is to be delivered, by a time: the first that is there counts.
pub const TIMER_WISHES: [&str; 3] = [TIMER_DELAY_SEC, TIMER_DELAY_MS, TIMER_DELIVER_MS];

/// The value of the last property called `name`: found without looking at what is before it.
pub fn get<'a>(encoded: &'a [u8], name: &str) -> Option<&'a str> {
    let mut rest = encoded;
    loop {
        let start = memrchr(VALUE_END, rest).map_or(0, |end| end + 1);
        match value_of(&rest[start..], name) {
            Some(value) if !value.is_empty() => return std::str::from_utf8(value).ok(),
            _ => rest = &rest[..start.checked_sub(1)?],
        }
    }
}

/// The value of the first property called `name`, as bytes: found without looking at what is behind it.
pub fn first<'a>(encoded: &'a [u8], name: &str) -> Option<&'a [u8]> {
    let mut rest = encoded;
    loop {
        let end = memchr(VALUE_END, rest);
        match value_of(&rest[..end.unwrap_or(rest.len())], name) {
            Some(value) => return Some(value).filter(|value| !value.is_empty()),
            None => rest = &rest[end? + 1..],
        }
    }
}

/// The value of a pair that is called `name`.
fn value_of<'a>(pair: &'a [u8], name: &str) -> Option<&'a [u8]> {
    pair.strip_prefix(name.as_bytes())?.strip_prefix(&[NAME_END])
}

/// All properties in order; pairs that are not UTF-8 are passed over.
pub fn iter(encoded: &[u8]) -> impl Iterator<Item = (&str, &str)> {
    pairs(encoded)
        .filter_map(|(name, value)| Some((std::str::from_utf8(name).ok()?, std::str::from_utf8(value).ok()?)))
}

fn pairs(encoded: &[u8]) -> impl Iterator<Item = (&[u8], &[u8])> {
    encoded.split(|byte| *byte == VALUE_END).filter_map(|pair| {
        let name_end = pair.iter().position(|byte| *byte == NAME_END)?;
        let (name, value) = (&pair[..name_end], &pair[name_end + 1..]);
        (!name.is_empty() && !value.is_empty()).then_some((name, value))
    })
}

/// Properties that can be changed. Order is kept, and so are repeated names that nobody touches:
/// a rewrite disturbs as little as possible, and reading takes time in proportion to the bytes.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Properties {
    pairs: Vec<(String, String)>,
}

impl Properties {
    /// None yet.
    pub const fn new() -> Self {
        Self { pairs: Vec::new() }
    }

    /// Reads the encoded form.
    pub fn parse(encoded: &[u8]) -> Self {
        Self { pairs: iter(encoded).map(|(name, value)| (name.to_owned(), value.to_owned())).collect() }
    }

    /// How many there are, repeated names counted.
    pub fn len(&self) -> usize {
        self.pairs.len()
    }

    /// Whether there is none.
    pub fn is_empty(&self) -> bool {
        self.pairs.is_empty()
    }

    /// The value of `name`: the last one, if it repeats.
    pub fn get(&self, name: &str) -> Option<&str> {
        self.pairs.iter().rev().find(|(key, _)| key == name).map(|(_, value)| value.as_str())
    }

    /// Sets `name`. An empty name or value cannot be encoded, so it removes the property; a
    /// separator inside a text would break it in two, so it becomes a blank.
    pub fn set(&mut self, name: &str, value: &str) {
        let name = name.replace([char::from(NAME_END), char::from(VALUE_END)], " ");
        if name.is_empty() || value.is_empty() {
            self.remove(&name);
            return;
        }
        let value = value.replace(char::from(VALUE_END), " ");
        match self.pairs.iter_mut().rev().find(|(key, _)| *key == name) {
            Some((_, old)) => *old = value,
            None => self.pairs.push((name, value)),
        }
    }

    /// Removes `name` and returns its value.
    pub fn remove(&mut self, name: &str) -> Option<String> {
        let mut removed = None;
        self.pairs.retain_mut(|(key, value)| {
            let keep = key != name;
            if !keep {
                removed = Some(std::mem::take(value));
            }
            keep
        });
        removed
    }

    /// All of them in order.
    pub fn iter(&self) -> impl Iterator<Item = (&str, &str)> {
        self.pairs.iter().map(|(name, value)| (name.as_str(), value.as_str()))
    }

    /// Bytes of the encoded form.
    pub fn encoded_len(&self) -> usize {
        self.pairs.iter().map(|(name, value)| name.len() + value.len() + 2).sum()
    }

    /// The encoded form.
    pub fn encode(&self) -> Bytes {
        let mut out = BytesMut::with_capacity(self.encoded_len());
        for (name, value) in self.iter() {
            append(&mut out, name, value);
        }
        out.freeze()
    }
}

/// Appends one property to an encoded form that ends with a separator or is empty. Cheaper than
/// parsing all of them to add one; the caller knows that `name` is not there yet.
pub fn append(encoded: &mut BytesMut, name: &str, value: &str) {
    encoded.put_slice(name.as_bytes());
    encoded.put_u8(NAME_END);
    encoded.put_slice(value.as_bytes());
    encoded.put_u8(VALUE_END);
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn the_encoded_form_is_rocketmqs() {
        let mut properties = Properties::new();
        properties.set(TAGS, "TagA");
        properties.set(KEYS, "k1 k2");
        assert_eq!(properties.encode(), &b"TAGS\x01TagA\x02KEYS\x01k1 k2\x02"[..]);
    }

    #[test]
    fn a_missing_last_separator_and_broken_pairs_are_tolerated() {
        let encoded = b"TAGS\x01A\x02\x02junk\x02\x01x\x02empty\x01\x02KEYS\x01k";
        assert_eq!(iter(encoded).collect::<Vec<_>>(), [("TAGS", "A"), ("KEYS", "k")]);
        assert_eq!(get(encoded, "KEYS"), Some("k"));
        assert_eq!(get(encoded, "empty"), None);
    }

    #[test]
    fn the_last_of_repeated_names_counts() {
        let encoded = b"a\x011\x02a\x012\x02";
        assert_eq!(get(encoded, "a"), Some("2"));
        assert_eq!(Properties::parse(encoded).get("a"), Some("2"));
    }

    #[test]
    fn a_separator_inside_a_text_becomes_a_blank() {
        let mut properties = Properties::new();
        properties.set("a\u{1}b", "c\u{2}d");
        properties.set("a\u{1}b", "e");
        assert_eq!(properties.encode(), &b"a b\x01e\x02"[..]);
    }

    #[test]
    fn removing_a_repeated_name_leaves_none_and_returns_the_last() {
        let mut properties = Properties::parse(b"a\x011\x02b\x012\x02a\x013\x02");
        assert_eq!(properties.remove("a").as_deref(), Some("3"));
        assert_eq!(properties.encode(), &b"b\x012\x02"[..]);
    }

    #[test]
    fn an_empty_value_removes() {
        let mut properties = Properties::parse(b"a\x011\x02b\x012\x02");
        properties.set("a", "");
        assert_eq!(properties.remove("b").as_deref(), Some("2"));
        assert!(properties.is_empty() && properties.encode().is_empty());
    }

    proptest! {
        #[test]
        fn what_is_encoded_is_read_back(pairs in proptest::collection::btree_map("[^\u{1}\u{2}]{1,9}", "[^\u{1}\u{2}]{1,9}", 0..9)) {
            let mut properties = Properties::new();
            for (name, value) in &pairs {
                properties.set(name, value);
            }
            let encoded = properties.encode();
            prop_assert_eq!(encoded.len(), properties.encoded_len());
            prop_assert_eq!(&Properties::parse(&encoded), &properties);
            for (name, value) in &pairs {
                prop_assert_eq!(get(&encoded, name), Some(value.as_str()));
            }
        }

        #[test]
        fn one_is_found_as_among_all(bytes in proptest::collection::vec(prop_oneof![Just(NAME_END), Just(VALUE_END), b'a'..=b'c'], 0..40), name in "[a-c]{1,2}") {
            let all: Vec<_> = iter(&bytes).filter(|(key, _)| *key == name).collect();
            prop_assert_eq!(get(&bytes, &name), all.last().map(|(_, value)| *value));
        }

        #[test]
        fn arbitrary_bytes_are_read_without_panic(bytes: Vec<u8>) {
            let parsed = Properties::parse(&bytes);
            prop_assert!(parsed.encoded_len() <= bytes.len() + 1);
        }
    }
}
