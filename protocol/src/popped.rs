//! Popped messages: the handle by which a consumer acknowledges one, the topics that unacknowledged ones come again in, and what is
//! stored of a message that comes again.
//!
//! A handle is text with blanks between its parts, as RocketMQ's clients read it:
//!
//! | part | meaning |
//! |---|---|
//! | start | offset of the first message of its batch |
//! | pop time | when the batch was popped, ms since the epoch |
//! | invisible time | for how long nobody else is given the message, ms |
//! | revive queue | [`ORDERED`] where the group consumes in order, else anything |
//! | retry flag | `0`: the message is of the topic itself; `1`, `2`: of a retry topic ([`Retry`]) |
//! | broker | the broker's name |
//! | queue | the queue |
//! | offset | the message's queue offset |
//!
//! A message that is in flight when retention drops its segment is stored once more in [`CARRIED_TOPIC`]: its body is the whole message as it lay
//! in its queue, and the property [`IN_FLIGHT`] says whose it is. So one whose properties have no room for one more is carried as well.

use std::fmt;

use bytes::{Bytes, BytesMut};

use crate::limits::PROPERTIES_BYTES_MAX;
use crate::message::{MessageError, MessageView, NewMessage, stamp};
use crate::names::{DLQ_PREFIX, RETRY_PREFIX};
use crate::origin;
use crate::properties::{self, Properties, append};

/// The revive queue in handles of groups that consume in order.
pub const ORDERED: i32 = 999;
/// Where messages in flight are stored that retention would drop. Clients cannot send to it: its name has a dot.
pub const CARRIED_TOPIC: &str = "rmq_sys_pop.carried";
/// What a carried message says: group, topic, queue, start and pop time of its batch, offset; blanks between them.
pub const IN_FLIGHT: &str = "POP_IN_FLIGHT";
/// A handle with the longest names, and more.
const HANDLE_BYTES_MAX: usize = 1024;
/// Bytes of a carried message besides the one that it carries: names of the longest group and retry topic, numbers, and what each message has.
pub const ADDED_BYTES: usize = IN_FLIGHT.len() + 120 + 255 + 4 * 21 + 8 + 256;

/// Which topic a popped message is of.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Default)]
pub enum Retry {
    /// The topic that the consumer names.
    #[default]
    Normal,
    /// `%RETRY%group_topic`.
    V1,
    /// `%RETRY%group+topic`.
    V2,
}

impl Retry {
    /// As it is in a handle.
    pub fn flag(self) -> &'static str {
        match self {
            Retry::Normal => "0",
            Retry::V1 => "1",
            Retry::V2 => "2",
        }
    }

    /// What a handle says; `None` if it is none of them.
    pub fn of_flag(flag: &str) -> Option<Retry> {
        [Retry::Normal, Retry::V1, Retry::V2].into_iter().find(|retry| retry.flag() == flag)
    }

    /// The topic with the group's messages of `topic`.
    pub fn topic(self, group: &str, topic: &str) -> String {
        match self {
            Retry::Normal => topic.to_owned(),
            Retry::V1 => format!("{RETRY_PREFIX}{group}_{topic}"),
            Retry::V2 => format!("{RETRY_PREFIX}{group}+{topic}"),
        }
    }

    /// Which kind of topic that is.
    pub fn of_topic(topic: &str) -> Retry {
        match topic.strip_prefix(RETRY_PREFIX) {
            None => Retry::Normal,
            Some(rest) if rest.contains('+') => Retry::V2,
            Some(_) => Retry::V1,
        }
    }
}

/// The topic that a message was sent to, by the group that has popped it and the topic that it was popped from.
pub fn first_topic<'a>(group: &str, popped_from: &'a str) -> &'a str {
    let rest = popped_from.strip_prefix(RETRY_PREFIX).and_then(|rest| rest.strip_prefix(group));
    rest.and_then(|rest| rest.strip_prefix(['_', '+'])).unwrap_or(popped_from)
}

/// A handle. See the module.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Handle {
    /// Offset of the first message of its batch.
    pub start: u64,
    /// When it was popped.
    pub popped_ms: u64,
    /// For how long it is in flight, ms.
    pub invisible_ms: u64,
    /// [`ORDERED`], or anything.
    pub revive_queue: i32,
    /// Which topic it is of.
    pub retry: Retry,
    /// The broker's name.
    pub broker: String,
    /// The queue.
    pub queue: u32,
    /// The message's offset.
    pub offset: u64,
}

/// Text that is no handle. Refused: the client can mend it.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error(
    "{0:?} is no handle of a popped message: expected \"start popTime invisibleTime reviveQueue retryFlag broker queue offset\""
)]
pub struct NoHandle(pub String);

impl Handle {
    /// What a client's handle says. RocketMQ's may have the message's position behind the offset.
    pub fn parse(text: &str) -> Result<Handle, NoHandle> {
        let refused = || NoHandle(text.chars().take(100).collect());
        if text.len() > HANDLE_BYTES_MAX {
            return Err(refused());
        }
        Handle::read(&mut text.split(' ')).ok_or_else(refused)
    }

    fn read<'a>(parts: &mut impl Iterator<Item = &'a str>) -> Option<Handle> {
        Some(Handle {
            start: parts.next()?.parse().ok()?,
            popped_ms: parts.next()?.parse().ok()?,
            invisible_ms: parts.next()?.parse().ok()?,
            revive_queue: parts.next()?.parse().ok()?,
            retry: Retry::of_flag(parts.next()?)?,
            broker: parts.next().filter(|broker| !broker.is_empty())?.to_owned(),
            queue: parts.next()?.parse().ok()?,
            offset: parts.next()?.parse().ok()?,
        })
    }

    /// Whether its group consumes in order.
    pub fn is_ordered(&self) -> bool {
        self.revive_queue == ORDERED
    }
}

impl fmt::Display for Handle {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Handle { start, popped_ms, invisible_ms, revive_queue, retry, broker, queue, offset } = self;
        let flag = retry.flag();
        write!(f, "{start} {popped_ms} {invisible_ms} {revive_queue} {flag} {broker} {queue} {offset}")
    }
}

/// Whose a carried message is.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct InFlight {
    /// The consumer group.
    pub group: String,
    /// The topic that it was popped from; perhaps a retry topic.
    pub topic: String,
    /// The queue.
    pub queue: u32,
    /// Offset of the first message of its batch.
    pub start: u64,
    /// When it was popped, ms since the epoch.
    pub popped_ms: u64,
    /// Its offset.
    pub offset: u64,
}

impl InFlight {
    /// What a carried message says; `None` if it is none.
    pub fn of(message: &MessageView<'_>) -> Option<InFlight> {
        let mut parts = message.property(IN_FLIGHT)?.split(' ');
        Some(InFlight {
            group: parts.next()?.to_owned(),
            topic: parts.next()?.to_owned(),
            queue: parts.next()?.parse().ok()?,
            start: parts.next()?.parse().ok()?,
            popped_ms: parts.next()?.parse().ok()?,
            offset: parts.next()?.parse().ok()?,
        })
    }

    fn text(&self) -> String {
        let InFlight { group, topic, queue, start, popped_ms, offset } = self;
        format!("{group} {topic} {queue} {start} {popped_ms} {offset}")
    }
}

/// The message in flight, to be stored once more. `bytes` is all of it.
pub fn carried(message: &MessageView<'_>, bytes: &Bytes, whose: &InFlight) -> NewMessage {
    let mut said = BytesMut::new();
    append(&mut said, IN_FLIGHT, &whose.text());
    NewMessage {
        topic: CARRIED_TOPIC.into(),
        queue_id: 0,
        flag: 0,
        sys_flag: 0,
        reconsume_times: 0,
        prepared_transaction_offset: 0,
        body: bytes.clone(),
        properties: said.freeze(),
        ..NewMessage::copy_of(message, bytes)
    }
}

/// The message that a carried one carries. `bytes` is all of that.
pub fn uncarried(carried: &MessageView<'_>, bytes: &Bytes) -> Bytes {
    bytes.slice_ref(carried.body())
}

/// What is stored of a message that nobody acknowledged in time, for the group to be given it again: one attempt older. `None` where it has so
/// many bytes of properties that its next handle would have no place in them: nobody could acknowledge it.
pub fn again(message: &MessageView<'_>, bytes: &Bytes, topic: &str, popped_ms: u64) -> Option<NewMessage> {
    let mut said = Properties::parse(&without_handle(message));
    if said.get(properties::FIRST_POP_TIME).is_none() {
        said.set(properties::FIRST_POP_TIME, &popped_ms.to_string());
    }
    origin::note_popped(&mut said, message);
    let properties = said.encode();
    let is_short = properties.len() + properties::POP_CK.len() + HANDLE_BYTES_MAX < PROPERTIES_BYTES_MAX;
    is_short.then(|| NewMessage {
        topic: topic.into(),
        queue_id: 0,
        reconsume_times: message.reconsume_times().saturating_add(1),
        properties,
        ..NewMessage::copy_of(message, bytes)
    })
}

/// The dead letter of a message whose last attempt was not acknowledged. `from` is the topic that its producer sent it to, which is left out
/// where it has no place.
pub fn dead(message: &MessageView<'_>, bytes: &Bytes, group: &str, from: &str) -> NewMessage {
    let bare = without_handle(message).freeze();
    let mut said = Properties::parse(&bare);
    if said.get(properties::RETRY_TOPIC).is_none() {
        said.set(properties::RETRY_TOPIC, from);
    }
    origin::note_popped(&mut said, message);
    let properties = Some(said.encode()).filter(|said| said.len() <= PROPERTIES_BYTES_MAX).unwrap_or(bare);
    NewMessage {
        topic: format!("{DLQ_PREFIX}{group}").into(),
        queue_id: 0,
        properties,
        ..NewMessage::copy_of(message, bytes)
    }
}

/// The message as a consumer is given it: of the topic and queue that it asked for, with the handle if it cannot make that itself.
pub fn given(
    message: &MessageView<'_>,
    bytes: &Bytes,
    topic: &str,
    handle: &Handle,
) -> Result<Bytes, MessageError> {
    let mut said = without_handle(message);
    append(&mut said, properties::POP_CK, &handle.to_string());
    let given = NewMessage {
        topic: topic.into(),
        queue_id: handle.queue,
        store_timestamp: message.store_timestamp(),
        properties: said.freeze(),
        ..NewMessage::copy_of(message, bytes)
    };
    let mut out = BytesMut::with_capacity(given.encoded_len());
    given.encode(&mut out)?;
    stamp(&mut out, handle.offset, message.physical_offset());
    Ok(out.freeze())
}

fn without_handle(message: &MessageView<'_>) -> BytesMut {
    let mut said = BytesMut::with_capacity(message.properties().len() + HANDLE_BYTES_MAX);
    for (name, value) in properties::iter(message.properties()) {
        if name != properties::POP_CK {
            append(&mut said, name, value);
        }
    }
    said
}

#[cfg(test)]
mod tests {
    use super::*;

    fn stored(message: &NewMessage, queue_offset: u64, position: u64) -> Bytes {
        let mut out = BytesMut::new();
        message.encode(&mut out).unwrap();
        stamp(&mut out, queue_offset, position);
        out.freeze()
    }

    fn new_message() -> NewMessage {
        NewMessage {
            topic: "orders".into(),
            queue_id: 3,
            flag: 7,
            sys_flag: 0,
            born_timestamp: 1,
            born_host: ([127, 0, 0, 1], 1).into(),
            store_timestamp: 2,
            store_host: ([127, 0, 0, 1], 10911).into(),
            reconsume_times: 0,
            prepared_transaction_offset: 0,
            body: Bytes::from_static(b"body"),
            properties: Bytes::from_static(b"UNIQ_KEY\x01U\x02TAGS\x01a\x02"),
        }
    }

    fn whose() -> InFlight {
        InFlight { group: "g".into(), topic: "orders".into(), queue: 3, start: 4, popped_ms: 100, offset: 5 }
    }

    fn handle() -> Handle {
        Handle {
            start: 4,
            popped_ms: 100,
            invisible_ms: 60_000,
            revive_queue: 0,
            retry: Retry::V1,
            broker: "broker-a".into(),
            queue: 3,
            offset: 5,
        }
    }

    #[test]
    fn a_handle_that_is_written_is_read() {
        assert_eq!(handle().to_string(), "4 100 60000 0 1 broker-a 3 5");
        assert_eq!(Handle::parse(&handle().to_string()), Ok(handle()));
        assert_eq!(Handle::parse("4 100 60000 0 1 broker-a 3 5 700"), Ok(handle()), "with a position");
        assert!(Handle::parse("0 1 2 999 0 b 0 0").unwrap().is_ordered());
    }

    #[test]
    fn what_is_no_handle_is_refused_by_name() {
        let texts = ["", "4 100 60000 0 1 broker-a 3", "-4 100 60000 0 1 b 3 5", "4 100 60000 0 3 b 3 5"];
        for text in texts.into_iter().map(str::to_owned).chain(["4 ".repeat(600)]) {
            let refused = Handle::parse(&text).unwrap_err().to_string();
            assert!(refused.contains("is no handle of a popped message") && refused.len() < 300, "{refused}");
        }
    }

    #[test]
    fn a_retry_topic_has_a_flag() {
        for (retry, topic) in [(Retry::Normal, "t"), (Retry::V1, "%RETRY%g_t"), (Retry::V2, "%RETRY%g+t")] {
            assert_eq!(retry.topic("g", "t"), topic);
            assert_eq!((Retry::of_topic(topic), Retry::of_flag(retry.flag())), (retry, Some(retry)));
            assert_eq!(first_topic("g", topic), "t");
        }
    }

    #[test]
    fn what_was_carried_comes_again_as_it_was_sent() {
        let bytes = stored(&new_message(), 5, 700);
        let view = MessageView::parse(&bytes).unwrap();
        let kept = stored(&carried(&view, &bytes, &whose()), 0, 900);
        let carrying = MessageView::parse(&kept).unwrap();
        assert_eq!((carrying.topic(), InFlight::of(&carrying)), (CARRIED_TOPIC, Some(whose())));
        assert!(carrying.verify_body_crc().is_ok() && kept.len() <= bytes.len() + ADDED_BYTES);
        assert_eq!(uncarried(&carrying, &kept), bytes, "with its offset and its position");
        let again = again(&view, &bytes, "%RETRY%g_orders", 100).unwrap();
        assert_eq!((again.reconsume_times, again.queue_id), (1, 0));
        assert_eq!(properties::get(&again.properties, properties::FIRST_POP_TIME), Some("100"));
        let dead = dead(&view, &bytes, "g", "orders");
        assert_eq!((&*dead.topic, dead.reconsume_times), ("%DLQ%g", 0));
        assert_eq!(properties::get(&dead.properties, properties::RETRY_TOPIC), Some("orders"));
        for stored in [&again, &dead] {
            let said = [properties::ORIGIN_QUEUE_ID, properties::ORIGIN_QUEUE_OFFSET];
            assert_eq!(said.map(|name| properties::get(&stored.properties, name)), [Some("3"), Some("5")]);
        }
        let given = given(&view, &bytes, "orders", &handle()).unwrap();
        let given = MessageView::parse(&given).unwrap();
        assert_eq!((given.topic(), given.queue_id(), given.queue_offset()), ("orders", 3, 5));
        assert_eq!(given.property(properties::POP_CK), Some(&*handle().to_string()));
        assert!(given.verify_body_crc().is_ok());
    }

    /// It never came again, and retention waited for it.
    #[test]
    fn a_message_whose_properties_are_full_is_carried_and_becomes_a_dead_letter() {
        for (length, comes_again) in [(30_000, true), (32_000, false), (PROPERTIES_BYTES_MAX, false)] {
            let properties = format!("KEYS\x01{}\x02", "k".repeat(length - 6));
            let bytes = stored(&NewMessage { properties: properties.into(), ..new_message() }, 5, 700);
            let view = MessageView::parse(&bytes).unwrap();
            assert_eq!(view.properties().len(), length);
            assert_eq!(carried(&view, &bytes, &whose()).check(), Ok(()));
            let again = again(&view, &bytes, "%RETRY%g_orders", 100);
            assert_eq!(again.is_some(), comes_again);
            if let Some(again) = again {
                let bytes = stored(&again, 0, 800);
                let view = MessageView::parse(&bytes).unwrap();
                assert!(given(&view, &bytes, "orders", &handle()).is_ok());
            }
            assert_eq!(dead(&view, &bytes, "g", "orders").check(), Ok(()));
        }
    }
}
