//! Sending back: a consumer could not handle a message; it comes again later or, after its
//! last retry, becomes a dead letter.
//!
//! The message is found by its position, rewritten for `%RETRY%group` (or `%DLQ%group`) and stored through
//! the log; it is done only after the commit, so a message is never lost between the two. A consumer that does
//! not hear the answer sends it back again, and it is stored once: the group's state notes what was moved
//! (`folio_raft::driver`).
//!
//! A retry waits, as in RocketMQ: for the delay level that the consumer names, or else for level 3 at the first retry, 4 at the
//! second and so on, which is 10 s, 30 s, 1 min up to 2 h. Meanwhile it is parked like every delayed message. A dead letter does not wait.
//! The retry policy of a group's configuration is for gRPC clients; RocketMQ does not look at it here either.

use std::sync::Arc;

use bytes::Bytes;
use folio_protocol::Name;
use folio_protocol::flags::sys_flag;
use folio_protocol::half;
use folio_protocol::message::{MessageView, NewMessage};
use folio_protocol::names;
use folio_protocol::origin;
use folio_protocol::parked;
use folio_protocol::properties::{self, Properties};
use folio_raft::driver::SendBack;
use folio_raft::proposal::ProposeError;
use folio_state::{ConsumerGroup, QueueRef, Topic};

use crate::broker::Broker;
use crate::error::BrokerError;
use crate::messages::Found;
use crate::{messages, topics};

/// `DLQ_NUMS_PER_GROUP`: a dead-letter topic has one queue.
const DLQ_QUEUES: u32 = 1;
/// The delay level of a first retry, where the consumer names none.
const FIRST_RETRY_LEVEL: i32 = 3;

/// A message that a consumer could not handle.
#[derive(Debug, Clone)]
pub struct ToSendBack {
    /// Its position in the commit log.
    pub offset: i64,
    /// The consumer's group.
    pub group: Name,
    /// The level of its delay; 0: by the number of retries; negative: it becomes a dead letter.
    pub delay_level: i32,
    /// How often it may be retried, where the client says so.
    pub max_reconsume_times: Option<i32>,
}

impl Broker {
    /// Stores a message again. `done` is called exactly once, maybe from a task of the group: it must not block.
    pub async fn send_back(
        self: &Arc<Self>,
        wish: &ToSendBack,
        done: impl FnOnce(Result<(), BrokerError>) + Send + 'static,
    ) {
        match prepare(self, wish).await {
            Ok(Some(wish)) => propose(self, wish, done),
            Ok(None) => done(Ok(())),
            Err(error) => done(Err(error)),
        }
    }
}

/// What is to be moved; `None` if the group wants no retries.
async fn prepare(broker: &Arc<Broker>, wish: &ToSendBack) -> Result<Option<SendBack>, BrokerError> {
    let group = broker.group.state().group(&wish.group).cloned();
    let group = group.ok_or_else(|| BrokerError::GroupNotExist(wish.group.to_string()))?;
    if !broker.settings.permission.is_writable() {
        return Err(BrokerError::NoPermission("the broker sending message is forbidden".to_owned()));
    }
    if group.retry_queues == 0 {
        return Ok(None);
    }
    let found = messages::find(broker, wish.offset).await?;
    let Found { message: bytes, _memory } = found.ok_or_else(|| messages::not_found(wish.offset))?;
    let message = MessageView::parse(&bytes).map_err(|error| BrokerError::Internal(error.to_string()))?;
    if [parked::TOPIC, half::TOPIC].contains(&message.topic()) {
        // No consumer was given it: its time has not come, its transaction is open, or it lies elsewhere by now.
        return Err(messages::not_found(wish.offset));
    }
    let (topic, delay_ms) = if is_dead(&message, wish, &group) {
        (Topic::new(names::dlq_topic(&group.name), DLQ_QUEUES), 0)
    } else {
        let level = delay_level(wish.delay_level, message.reconsume_times());
        let topic = Topic::new(names::retry_topic(&group.name), group.retry_queues);
        (topic, broker.settings.delay_levels.delay_ms(level))
    };
    let topic = ensure(broker, topic).await?;
    if !topic.writable() {
        let text = format!("the topic[{}] sending message is forbidden", topic.name);
        return Err(BrokerError::NoPermission(text));
    }
    let queue = broker.node.ids.draw().checked_rem(topic.write_queues).unwrap_or(0);
    Ok(Some(SendBack {
        group: group.name,
        queue: QueueRef { topic: message.topic().to_owned(), queue: message.queue_id() },
        offset: message.queue_offset(),
        position: message.physical_offset(),
        message: rewrite(broker, &message, &bytes, (topic.name.as_str().into(), queue)),
        delay_ms,
    }))
}

fn is_dead(message: &MessageView<'_>, wish: &ToSendBack, group: &ConsumerGroup) -> bool {
    let max = wish.max_reconsume_times.map_or(i64::from(group.retry_max), i64::from);
    wish.delay_level < 0 || i64::from(message.reconsume_times()) >= max
}

/// The delay level of a retry, 1 at least.
fn delay_level(asked: i32, reconsume_times: i32) -> u32 {
    let level = if asked == 0 { reconsume_times.saturating_add(FIRST_RETRY_LEVEL) } else { asked };
    u32::try_from(level).unwrap_or(1).max(1)
}

/// The topic as it is, created now if need be.
async fn ensure(broker: &Arc<Broker>, wish: Topic) -> Result<Topic, BrokerError> {
    let known = broker.group.state().topic(&wish.name).cloned();
    if let Some(topic) = known {
        return Ok(topic);
    }
    topics::create_once(broker, wish.clone()).await?;
    Ok(wish)
}

/// The same message for another topic and queue, one retry older.
fn rewrite(
    broker: &Broker,
    message: &MessageView<'_>,
    bytes: &Bytes,
    (topic, queue_id): (Name, u32),
) -> NewMessage {
    NewMessage {
        topic,
        queue_id,
        sys_flag: message.sys_flag() & !sys_flag::TRANSACTION_MASK,
        store_host: broker.identity.store_host,
        reconsume_times: message.reconsume_times().saturating_add(1),
        prepared_transaction_offset: 0,
        properties: retry_properties(message).encode(),
        ..NewMessage::copy_of(message, bytes)
    }
}

/// The properties of a retry: where the message came from first and what it was called there.
fn retry_properties(message: &MessageView<'_>) -> Properties {
    let mut all = Properties::parse(message.properties());
    if all.get(properties::RETRY_TOPIC).is_none() {
        all.set(properties::RETRY_TOPIC, message.topic());
    }
    origin::note(&mut all, message);
    all.remove(properties::DELAY);
    all
}

fn propose(broker: &Broker, wish: SendBack, done: impl FnOnce(Result<(), BrokerError>) + Send + 'static) {
    let reply = Box::new(move |outcome: Result<(), ProposeError>| done(outcome.map_err(BrokerError::from)));
    broker.group.send_back(wish, reply);
}

#[cfg(test)]
mod tests {
    use bytes::BytesMut;

    use super::*;

    fn stored(reconsume_times: i32, properties: &[u8]) -> Bytes {
        let message = NewMessage {
            topic: "orders".into(),
            queue_id: 0,
            flag: 0,
            sys_flag: 0,
            born_timestamp: 1,
            born_host: ([127, 0, 0, 1], 1).into(),
            store_timestamp: 2,
            store_host: ([127, 0, 0, 1], 10911).into(),
            reconsume_times,
            prepared_transaction_offset: 0,
            body: Bytes::from_static(b"body"),
            properties: Bytes::copy_from_slice(properties),
        };
        let mut out = BytesMut::new();
        message.encode(&mut out).expect("a message");
        folio_protocol::message::stamp(&mut out, 5, 0x1234);
        out.freeze()
    }

    fn wish(delay_level: i32, max_reconsume_times: Option<i32>) -> ToSendBack {
        ToSendBack { offset: 0, group: "g".into(), delay_level, max_reconsume_times }
    }

    #[test]
    fn a_first_retry_says_where_it_comes_from() {
        let bytes = stored(0, b"KEYS\x01k\x02DELAY\x013\x02");
        let all = retry_properties(&MessageView::parse(&bytes).expect("a message"));
        assert_eq!(all.get("RETRY_TOPIC"), Some("orders"));
        assert_eq!(all.get("ORIGIN_MESSAGE_ID"), Some("7F00000100002A9F0000000000001234"));
        assert_eq!(all.get("KEYS"), Some("k"));
        assert_eq!(all.get("DELAY"), None);
    }

    #[test]
    fn a_later_retry_keeps_its_origin() {
        let bytes = stored(1, b"RETRY_TOPIC\x01first\x02ORIGIN_MESSAGE_ID\x01ID\x02");
        let all = retry_properties(&MessageView::parse(&bytes).expect("a message"));
        assert_eq!((all.get("RETRY_TOPIC"), all.get("ORIGIN_MESSAGE_ID")), (Some("first"), Some("ID")));
    }

    #[test]
    fn retries_wait_longer_each_time_unless_the_consumer_names_a_level() {
        let by_count = [0, 1, 15, i32::MAX, -1, i32::MIN].map(|times| delay_level(0, times));
        assert_eq!(by_count, [3, 4, 18, i32::MAX as u32, 2, 1]);
        assert_eq!([1, 5, i32::MAX].map(|level| delay_level(level, 7)), [1, 5, i32::MAX as u32]);
        let levels = crate::delays::DelayLevels::default();
        let waits = (0..16).map(|times| levels.delay_ms(delay_level(0, times)) / 1000);
        assert_eq!(
            waits.collect::<Vec<_>>(),
            [10, 30, 60, 120, 180, 240, 300, 360, 420, 480, 540, 600, 1200, 1800, 3600, 7200]
        );
    }

    #[test]
    fn the_last_retry_or_a_negative_level_makes_a_dead_letter() {
        let group = ConsumerGroup::new("g");
        let dead = |times: i32, level: i32, max: Option<i32>| {
            let bytes = stored(times, b"");
            is_dead(&MessageView::parse(&bytes).expect("a message"), &wish(level, max), &group)
        };
        assert!(!dead(15, 0, None) && dead(16, 0, None), "the group's limit");
        assert!(!dead(1, 0, Some(2)) && dead(2, 0, Some(2)), "the client's limit");
        assert!(dead(0, -1, None));
        assert!(!dead(16, 3, Some(i32::MAX)));
    }
}
