//! The next queue offset of every queue, as a map from (topic, queue) to offset.
//!
//! It is the state the log stamps messages from, what a checkpoint carries, and where the consume queues
//! say how far they are. It is not the queues themselves: no unit and no file is known here.
//!
//! Invariants
//! - `counters.I1` A queue whose next offset is 0 is the same as a queue that was never seen: it is not
//!   stored. So undoing the first message of a queue gives back an equal map.
//! - `counters.I2` The encoding is canonical: equal maps have equal bytes, on every replica.
//!
//! Encoding (integers little-endian)
//!
//! | offset | bytes | field |
//! |---|---|---|
//! | 0 | 4 | number of topics |
//! | 4 | | the topics, by name ascending |
//!
//! A topic:
//!
//! | offset | bytes | field |
//! |---|---|---|
//! | 0 | 2 | length of the name, `n` |
//! | 2 | n | name, UTF-8 |
//! | 2 + n | 4 | number of queues |
//! | 6 + n | 12 each | queue (4) and its next offset (8, never 0), by queue ascending |

use std::borrow::Borrow;
use std::collections::HashMap;
use std::fmt;
use std::hash::{Hash, Hasher};
use std::sync::Arc;

use thiserror::Error;

/// The longest topic name in bytes: 255 is what file systems take as one name, and each topic is a directory.
pub const TOPIC_BYTES_MAX: usize = 255;

/// Bytes of one queue in the encoding.
const QUEUE_BYTES: usize = 12;
/// The least a topic takes in the encoding, with an empty name and no queue.
const TOPIC_ENCODED_MIN: usize = 6;

/// True when a topic of this name can be stored: 1 to [`TOPIC_BYTES_MAX`] bytes of UTF-8 that are safe as the
/// name of a directory (no `/`, no NUL, not `.` nor `..`). `%` and `|`, which RocketMQ uses, are safe.
pub fn topic_is_storable(topic: &[u8]) -> bool {
    (1..=TOPIC_BYTES_MAX).contains(&topic.len())
        && topic != b"."
        && topic != b".."
        && !topic.iter().any(|&byte| byte == b'/' || byte == 0)
        && std::str::from_utf8(topic).is_ok()
}

/// Why bytes are not an encoded [`QueueCounters`].
#[derive(Debug, Error, Clone, PartialEq, Eq)]
#[error("queue counters cannot be decoded at byte {at}: {reason}")]
pub struct CountersError {
    /// Where in the bytes decoding stopped.
    pub at: usize,
    /// What was wrong there.
    pub reason: &'static str,
}

/// A topic as a key that can be looked up by its bytes, without making a string of them.
#[derive(Clone, PartialEq, Eq)]
struct Topic(Arc<str>);

impl Borrow<[u8]> for Topic {
    fn borrow(&self) -> &[u8] {
        self.0.as_bytes()
    }
}

// By hand, since it must be the hash of the bytes: that of `str` differs.
impl Hash for Topic {
    fn hash<H: Hasher>(&self, state: &mut H) {
        self.0.as_bytes().hash(state);
    }
}

/// The queues of one topic with their next offsets, by queue ascending.
type Queues = Vec<(u32, u64)>;

/// Next queue offset per (topic, queue).
#[derive(Clone, Default, PartialEq, Eq)]
pub struct QueueCounters {
    topics: HashMap<Topic, Queues>,
}

impl QueueCounters {
    /// No queue at all: the state before the first message.
    pub fn new() -> QueueCounters {
        QueueCounters::default()
    }

    /// The next offset of a queue, 0 when it has no message. `topic` is a `&str` or a `&[u8]`.
    pub fn get<T: AsRef<[u8]> + ?Sized>(&self, topic: &T, queue: u32) -> u64 {
        let Some(queues) = self.topics.get(topic.as_ref()) else { return 0 };
        find(queues, queue).map_or(0, |at| queues[at].1)
    }

    /// The shared name of a topic that has messages, to be kept without copying it.
    pub fn name(&self, topic: &[u8]) -> Option<&Arc<str>> {
        self.topics.get_key_value(topic).map(|(topic, _)| &topic.0)
    }

    /// Sets the next offset of a queue; 0 forgets the queue.
    pub fn set(&mut self, topic: &str, queue: u32, next: u64) {
        if next == 0 {
            return self.forget(topic, queue);
        }
        let queues = match self.topics.get_mut(topic.as_bytes()) {
            Some(queues) => queues,
            None => self.topics.entry(Topic(Arc::from(topic))).or_default(),
        };
        match find(queues, queue) {
            Ok(at) => queues[at].1 = next,
            Err(at) => queues.insert(at, (queue, next)),
        }
    }

    /// Sets all queues of a topic at once, by queue ascending. Those at 0 are left out (`counters.I1`).
    pub(crate) fn set_topic(&mut self, topic: &Arc<str>, queues: impl Iterator<Item = (u32, u64)>) {
        let queues: Queues = queues.filter(|(_, next)| *next > 0).collect();
        if !queues.is_empty() {
            self.topics.insert(Topic(topic.clone()), queues);
        }
    }

    /// Counts `messages` more in a queue and returns the offset of the first of them.
    pub fn advance(&mut self, topic: &str, queue: u32, messages: u64) -> u64 {
        if let Some(queues) = self.topics.get_mut(topic.as_bytes())
            && let Ok(at) = find(queues, queue)
        {
            let first = queues[at].1;
            queues[at].1 += messages;
            return first;
        }
        self.set(topic, queue, messages);
        0
    }

    /// Forgets every queue of a topic.
    pub fn remove_topic(&mut self, topic: &str) {
        self.topics.remove(topic.as_bytes());
    }

    /// All queues with their next offset, by topic and queue ascending.
    pub fn iter(&self) -> impl Iterator<Item = (&Arc<str>, u32, u64)> {
        let topics = self.sorted();
        topics
            .into_iter()
            .flat_map(|(topic, queues)| queues.iter().map(move |&(queue, next)| (topic, queue, next)))
    }

    /// How many queues have messages.
    pub fn len(&self) -> usize {
        self.topics.values().map(Vec::len).sum()
    }

    /// True when no queue has messages.
    pub fn is_empty(&self) -> bool {
        self.topics.is_empty()
    }

    /// The canonical bytes; the layout is at the top of this file.
    pub fn encode(&self) -> Vec<u8> {
        let topics = self.sorted();
        let mut bytes = Vec::with_capacity(4 + topics.len() * 32 + self.len() * QUEUE_BYTES);
        bytes.extend((topics.len() as u32).to_le_bytes());
        for (topic, queues) in topics {
            bytes.extend((topic.len() as u16).to_le_bytes());
            bytes.extend(topic.as_bytes());
            bytes.extend((queues.len() as u32).to_le_bytes());
            for (queue, next) in queues {
                bytes.extend(queue.to_le_bytes());
                bytes.extend(next.to_le_bytes());
            }
        }
        bytes
    }

    /// Reads what [`QueueCounters::encode`] wrote; refuses anything that is not canonical or has bytes left over.
    pub fn decode(bytes: &[u8]) -> Result<QueueCounters, CountersError> {
        let mut reader = Reader { bytes, at: 0 };
        let count = u32::from_le_bytes(reader.array()?) as usize;
        if count > bytes.len() / TOPIC_ENCODED_MIN {
            return Err(reader.error("more topics than the bytes can hold"));
        }
        let mut topics = HashMap::with_capacity(count);
        let mut last: Option<Arc<str>> = None;
        for _ in 0..count {
            let (topic, queues) = reader.topic()?;
            if last.as_ref().is_some_and(|last| *last >= topic) {
                return Err(reader.error("topics are not ascending"));
            }
            last = Some(topic.clone());
            topics.insert(Topic(topic), queues);
        }
        if reader.at != bytes.len() {
            return Err(reader.error("bytes left over"));
        }
        Ok(QueueCounters { topics })
    }

    fn forget(&mut self, topic: &str, queue: u32) {
        let Some(queues) = self.topics.get_mut(topic.as_bytes()) else { return };
        if let Ok(at) = find(queues, queue) {
            queues.remove(at);
        }
        if queues.is_empty() {
            self.topics.remove(topic.as_bytes());
        }
    }

    fn sorted(&self) -> Vec<(&Arc<str>, &Queues)> {
        let mut topics: Vec<_> = self.topics.iter().map(|(topic, queues)| (&topic.0, queues)).collect();
        topics.sort_unstable_by_key(|(topic, _)| *topic);
        topics
    }
}

impl fmt::Debug for QueueCounters {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_map().entries(self.iter().map(|(topic, queue, next)| ((topic, queue), next))).finish()
    }
}

/// Where a queue is, or belongs. Queues are mostly numbered from 0 without gaps, hence the first guess.
fn find(queues: &Queues, queue: u32) -> Result<usize, usize> {
    match queues.get(queue as usize) {
        Some(&(at, _)) if at == queue => Ok(queue as usize),
        _ => queues.binary_search_by_key(&queue, |&(at, _)| at),
    }
}

/// Reads the encoding front to back; nothing is allocated before the bytes for it were seen.
struct Reader<'a> {
    bytes: &'a [u8],
    at: usize,
}

impl<'a> Reader<'a> {
    fn topic(&mut self) -> Result<(Arc<str>, Queues), CountersError> {
        let length = usize::from(u16::from_le_bytes(self.array()?));
        let name = self.take(length)?;
        if !topic_is_storable(name) {
            return Err(self.error("a topic has a name that cannot be stored"));
        }
        let name = std::str::from_utf8(name).map_err(|_| self.error("a topic's name is not UTF-8"))?;
        let topic = Arc::from(name);
        let count = u32::from_le_bytes(self.array()?) as usize;
        if count == 0 || count > (self.bytes.len() - self.at) / QUEUE_BYTES {
            return Err(self.error("a topic has no queue, or more than the bytes can hold"));
        }
        let mut queues = Queues::with_capacity(count);
        for _ in 0..count {
            let queue = u32::from_le_bytes(self.array()?);
            let next = u64::from_le_bytes(self.array()?);
            if next == 0 || queues.last().is_some_and(|&(last, _)| last >= queue) {
                return Err(self.error("queues are not ascending, or one is empty"));
            }
            queues.push((queue, next));
        }
        Ok((topic, queues))
    }

    fn take(&mut self, length: usize) -> Result<&'a [u8], CountersError> {
        let at = self.at;
        let Some(end) = at.checked_add(length).filter(|&end| end <= self.bytes.len()) else {
            return Err(self.error("the bytes end too early"));
        };
        self.at = end;
        Ok(&self.bytes[at..end])
    }

    fn array<const N: usize>(&mut self) -> Result<[u8; N], CountersError> {
        let mut array = [0; N];
        array.copy_from_slice(self.take(N)?);
        Ok(array)
    }

    fn error(&self, reason: &'static str) -> CountersError {
        CountersError { at: self.at, reason }
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn sample() -> QueueCounters {
        let mut counters = QueueCounters::new();
        counters.set("orders", 3, 7);
        counters.set("orders", 0, 1);
        counters.set("%RETRY%g", 0, u64::MAX);
        counters
    }

    #[test]
    fn unseen_queue_is_at_zero_and_zero_is_not_stored() {
        let mut counters = sample();
        assert_eq!(counters.get("orders", 1), 0);
        assert_eq!(counters.get(b"orders".as_slice(), 3), 7);
        counters.set("orders", 3, 0);
        counters.set("orders", 0, 0);
        counters.set("never", 0, 0);
        assert_eq!(counters.len(), 1);
        assert_eq!(QueueCounters::decode(&counters.encode()), Ok(counters));
    }

    #[test]
    fn advance_returns_the_first_offset() {
        let mut counters = QueueCounters::new();
        assert_eq!(counters.advance("t", 2, 3), 0);
        assert_eq!(counters.advance("t", 2, 1), 3);
        assert_eq!(counters.advance("t", 1, 0), 0);
        assert_eq!((counters.get("t", 2), counters.len()), (4, 1));
    }

    #[test]
    fn iterates_by_topic_and_queue() {
        let counters = sample();
        let all: Vec<_> = counters.iter().map(|(topic, queue, next)| (topic.as_ref(), queue, next)).collect();
        assert_eq!(all, [("%RETRY%g", 0, u64::MAX), ("orders", 0, 1), ("orders", 3, 7)]);
    }

    #[test]
    fn golden_bytes() {
        let mut counters = QueueCounters::new();
        counters.set("ab", 1, 258);
        let golden = [1, 0, 0, 0, 2, 0, b'a', b'b', 1, 0, 0, 0, 1, 0, 0, 0, 2, 1, 0, 0, 0, 0, 0, 0];
        assert_eq!(counters.encode(), golden);
        assert_eq!(QueueCounters::decode(&golden), Ok(counters));
    }

    #[test]
    fn names_that_would_leave_the_directory_are_not_storable() {
        for name in ["", ".", "..", "a/b", "a\0", &"x".repeat(256)] {
            assert!(!topic_is_storable(name.as_bytes()), "{name:?}");
        }
        assert!(!topic_is_storable(&[0xff]));
        for name in ["%RETRY%group", "a|b", "...", &"x".repeat(255)] {
            assert!(topic_is_storable(name.as_bytes()), "{name:?}");
        }
    }

    #[test]
    fn every_cut_and_every_extra_byte_is_refused() {
        let bytes = sample().encode();
        for end in 0..bytes.len() {
            assert!(QueueCounters::decode(&bytes[..end]).is_err(), "{end} bytes of {}", bytes.len());
        }
        let longer = [bytes, vec![0]].concat();
        assert!(QueueCounters::decode(&longer).is_err());
    }

    proptest! {
        #[test]
        fn decodes_what_it_encoded(entries in prop::collection::vec(("[a-z%|]{1,8}", 0u32..9, 0u64..1000), 0..50)) {
            let mut counters = QueueCounters::new();
            let mut plain = std::collections::BTreeMap::new();
            for (topic, queue, next) in entries {
                counters.set(&topic, queue, next);
                plain.insert((topic, queue), next);
            }
            for ((topic, queue), next) in &plain {
                prop_assert_eq!(counters.get(topic, *queue), *next);
            }
            plain.retain(|_, next| *next > 0);
            prop_assert_eq!(counters.len(), plain.len());
            prop_assert_eq!(QueueCounters::decode(&counters.encode()), Ok(counters));
        }

        #[test]
        fn no_bytes_make_it_panic(bytes in prop::collection::vec(any::<u8>(), 0..200)) {
            if let Ok(counters) = QueueCounters::decode(&bytes) {
                prop_assert_eq!(counters.encode(), bytes);
            }
        }
    }
}
