//! Messages by key: the key index says where they may lie, the log what is there.
//!
//! Any node answers for what it has applied. The index knows hashes, and neither retention nor deletion: a message counts once
//! it was read, has the key and the topic, was stored within the time that is asked for, and its consume queue points at it.

use std::ops::RangeInclusive;
use std::sync::Arc;
use std::time::{Duration, Instant};

use bytes::Bytes;
use folio_engine::keys::{KeysError, has_key};
use folio_protocol::limits::{BODY_BYTES_MAX, MESSAGE_BYTES_MAX, QUERY_MESSAGES_MAX};
use folio_protocol::message::MessageView;

use crate::broker::Broker;
use crate::error::BrokerError;
use crate::messages::message_within;
use crate::reads::ReadMemory;

/// Bytes of an answer, one message apart that is larger; older messages are left out.
const ANSWER_BYTES_MAX: usize = BODY_BYTES_MAX;
/// Messages that are read for one answer: of a key that many have, those within the time may be far back.
const READ_MAX: usize = 4_096;
/// Bytes of them.
const READ_BYTES_MAX: usize = 64 << 20;
/// Positions taken from the index together.
const POSITIONS: usize = 64;
/// How long to wait for the repair of what is found corrupt.
const REPAIR_TIMEOUT: Duration = Duration::from_secs(2);
/// Pause before it is looked at again.
const REPAIR_PAUSE: Duration = Duration::from_millis(50);

/// What is asked for.
#[derive(Debug, Clone)]
pub struct KeyQuestion {
    /// The topic.
    pub topic: String,
    /// A key, or a unique key.
    pub key: String,
    /// Messages at most.
    pub max: usize,
    /// When they were stored, ms.
    pub stored: RangeInclusive<i64>,
}

/// The messages found, and the memory that they are read into (`disk_reads.I1`).
pub struct KeyAnswer {
    /// As they are stored, the newest first.
    pub messages: Vec<Bytes>,
    /// When the last message was stored that the index knows, ms.
    pub indexed_ms: i64,
    /// Up to which position of the log the index reaches.
    pub indexed_position: u64,
    _memory: ReadMemory,
}

impl Broker {
    /// The newest messages with a key, at most [`QUERY_MESSAGES_MAX`]. A follower that has none, cannot read them, or whose index
    /// is not built up fails with [`BrokerError::AskLeader`], a leader whose index is not built up with
    /// [`BrokerError::Unreadable`].
    pub async fn messages_with_key(
        self: &Arc<Self>,
        question: KeyQuestion,
    ) -> Result<KeyAnswer, BrokerError> {
        let memory = self.node.reads.take(ANSWER_BYTES_MAX).await;
        let deadline = Instant::now() + REPAIR_TIMEOUT;
        let question = Arc::new(question);
        loop {
            let is_up = self.group.is_key_index_up();
            let found = self.clone().find_by_key(question.clone()).await;
            let judged = judge(found, self.leads(), is_up);
            if matches!(judged, Err(BrokerError::Unreadable(_))) && Instant::now() < deadline {
                tokio::time::sleep(REPAIR_PAUSE).await;
                continue;
            }
            let messages = judged?;
            let (indexed_ms, indexed_position) = self.group.keys().reach();
            return Ok(KeyAnswer { messages, indexed_ms, indexed_position, _memory: memory });
        }
    }

    /// Reads from the disk, apart from the runtime's threads.
    async fn find_by_key(self: Arc<Self>, question: Arc<KeyQuestion>) -> Result<Vec<Bytes>, BrokerError> {
        let found = tokio::task::spawn_blocking(move || find(&self, &question)).await;
        // The task does not panic and is not aborted: an error here means the runtime is going down. Nothing was looked up.
        found.unwrap_or_else(|error| Err(BrokerError::Internal(error.to_string())))
    }
}

/// What a node may say of what it found. A follower may lack what the leader has; and an index that is being built lacks the
/// newest messages, which are asked for first.
fn judge(
    found: Result<Vec<Bytes>, BrokerError>,
    leads: bool,
    is_up: bool,
) -> Result<Vec<Bytes>, BrokerError> {
    match found {
        Ok(messages) if is_up && (leads || !messages.is_empty()) => Ok(messages),
        _ if !leads => Err(BrokerError::AskLeader),
        Ok(_) => Err(BrokerError::Unreadable("the key index is being built".to_owned())),
        Err(error) => Err(error),
    }
}

fn find(broker: &Broker, question: &KeyQuestion) -> Result<Vec<Bytes>, BrokerError> {
    let KeyQuestion { topic, key, max, stored } = question;
    let max = (*max).min(QUERY_MESSAGES_MAX);
    let (mut messages, mut bytes) = (Vec::new(), 0);
    let (mut before, mut read, mut bytes_read) = (u64::MAX, 0, 0);
    while read < READ_MAX && bytes_read < READ_BYTES_MAX {
        let positions = broker.group.keys().positions(topic, key, before, POSITIONS, stored);
        let positions = positions.map_err(unreadable)?;
        for position in &positions {
            before = *position;
            if messages.len() == max {
                return Ok(messages);
            }
            read += 1;
            let Some(message) = message_within(broker, *position, MESSAGE_BYTES_MAX)? else { continue };
            bytes_read += message.len();
            if !is_answer(&message, question) {
                continue;
            }
            if !messages.is_empty() && bytes + message.len() > ANSWER_BYTES_MAX {
                return Ok(messages);
            }
            bytes += message.len();
            messages.push(message);
        }
        if positions.len() < POSITIONS {
            break;
        }
    }
    Ok(messages)
}

fn unreadable(error: KeysError) -> BrokerError {
    BrokerError::Unreadable(error.to_string())
}

/// Whether a message that the index led to is one that is asked for.
fn is_answer(message: &[u8], question: &KeyQuestion) -> bool {
    MessageView::parse(message).is_ok_and(|message| {
        has_key(&message, &question.topic, &question.key)
            && question.stored.contains(&message.store_timestamp())
    })
}

#[cfg(test)]
mod tests {
    use folio_protocol::message::NewMessage;

    use super::*;

    fn message(topic: &str, stored: i64) -> bytes::BytesMut {
        let host = ([127, 0, 0, 1], 10911).into();
        let message = NewMessage {
            topic: topic.into(),
            queue_id: 0,
            flag: 0,
            sys_flag: 0,
            born_timestamp: 1,
            born_host: host,
            store_timestamp: stored,
            store_host: host,
            reconsume_times: 0,
            prepared_transaction_offset: 0,
            body: Bytes::from_static(b"body"),
            properties: Bytes::from_static(b"KEYS\x01red blue\x02UNIQ_KEY\x01U1\x02"),
        };
        let mut encoded = bytes::BytesMut::new();
        message.encode(&mut encoded).unwrap();
        encoded
    }

    /// Before: what an index under construction had was answered, without the newest messages.
    #[test]
    fn an_index_that_was_being_built_answered_without_the_newest_messages() {
        let (some, none) = (vec![Bytes::from_static(b"m")], Vec::new());
        assert_eq!(judge(Ok(some.clone()), true, true).unwrap(), some);
        assert_eq!(judge(Ok(some.clone()), false, true).unwrap(), some);
        assert!(judge(Ok(none.clone()), true, true).unwrap().is_empty());
        for is_up in [false, true] {
            let unreadable = || BrokerError::Unreadable("a bad sector".to_owned());
            assert!(matches!(judge(Ok(none.clone()), false, is_up), Err(BrokerError::AskLeader)));
            assert!(matches!(judge(Err(unreadable()), false, is_up), Err(BrokerError::AskLeader)));
            assert!(matches!(judge(Err(unreadable()), true, is_up), Err(BrokerError::Unreadable(_))));
        }
        assert!(matches!(judge(Ok(some.clone()), false, false), Err(BrokerError::AskLeader)));
        for found in [none, some] {
            assert!(matches!(judge(Ok(found), true, false), Err(BrokerError::Unreadable(_))));
        }
    }

    #[test]
    fn a_message_that_the_hash_led_to_is_compared_with_the_question() {
        let question = |topic: &str, key: &str, stored| KeyQuestion {
            topic: topic.to_owned(),
            key: key.to_owned(),
            max: 1,
            stored,
        };
        let message = message("orders", 100);
        let is = |topic, key, stored| is_answer(&message, &question(topic, key, stored));
        assert!(
            is("orders", "red", 0..=100) && is("orders", "blue", 100..=100) && is("orders", "U1", 0..=200)
        );
        assert!(!is("orders", "red blue", 0..=100) && !is("orders", "re", 0..=100));
        assert!(!is("bills", "red", 0..=100), "another topic with the same hash");
        assert!(!is("orders", "red", 0..=99) && !is("orders", "red", 101..=200));
        assert!(!is_answer(&message[..20], &question("orders", "red", 0..=200)));
    }
}
