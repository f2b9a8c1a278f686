//! Half messages: those of transactions, as the log keeps them until their producers have ended the transactions.
//!
//! A half message is a stored message ([`crate::message`]) of the topic [`TOPIC`], queue 0. A transaction's *id* is the position of the half
//! message that its producer sent. The message may be stored again further on, and what becomes of it is a message of another topic:
//!
//! | field | half, as sent | half, stored again | committed | given up |
//! |---|---|---|---|---|
//! | TOPIC, QUEUEID | [`TOPIC`], 0 | the same | the real ones, `REAL_TOPIC` and `REAL_QID` of the half | [`GIVEN_UP_TOPIC`], 0 |
//! | PREPAREDTRANSACTIONOFFSET | 0 | the id | the id | the id |
//! | transaction bits of SYSFLAG | none | none | commit | none |
//! | `TRAN_PREPARED_QUEUE_OFFSET` | | queue offset of the half as sent | | the same |
//! | `TRANSACTION_CHECK_TIMES` | | | | how often its producer was asked |
//! | `REAL_TOPIC`, `REAL_QID`, `TRAN_MSG` | yes | yes | | yes |

use bytes::{Bytes, BytesMut};

use crate::flags::sys_flag;
use crate::message::{MessageError, MessageView, NewMessage, stamp};
use crate::names;
use crate::properties::{self, append};

/// Where half messages are stored. Clients cannot send to it.
pub const TOPIC: &str = names::HALF_TOPIC;
/// Where half messages go whose producers were asked too often.
pub const GIVEN_UP_TOPIC: &str = names::TRANSACTION_CHECK_MAX_TOPIC;

/// What the properties of a half message may grow by while its transaction is open.
pub const ADDED_BYTES: usize =
    properties::TRAN_PREPARED_QUEUE_OFFSET.len() + properties::TRANSACTION_CHECK_TIMES.len() + 2 * (2 + 20);

/// What only a half message has.
const OF_HALF: [&str; 5] = [
    properties::REAL_TOPIC,
    properties::REAL_QUEUE_ID,
    properties::TRANSACTION_PREPARED,
    properties::TRAN_PREPARED_QUEUE_OFFSET,
    properties::TRANSACTION_CHECK_TIMES,
];

/// The id of the transaction that a half message, or one that was given up, belongs to.
pub fn transaction(message: &MessageView<'_>) -> u64 {
    first_copy(message).unwrap_or(message.physical_offset())
}

/// The id, if the message is not the half that the producer sent.
pub fn first_copy(message: &MessageView<'_>) -> Option<u64> {
    u64::try_from(message.prepared_transaction_offset()).ok().filter(|id| *id > 0)
}

/// The group of its producer.
pub fn producer_group<'a>(message: &MessageView<'a>) -> Option<&'a str> {
    message.property(properties::PRODUCER_GROUP)
}

/// The topic that its producer sent it to.
pub fn real_topic<'a>(message: &MessageView<'a>) -> Option<&'a str> {
    message.property(properties::REAL_TOPIC)
}

/// The queue that its producer sent it to.
pub fn real_queue(message: &MessageView<'_>) -> Option<u32> {
    message.property(properties::REAL_QUEUE_ID)?.parse().ok()
}

/// The queue offset of the half message that the producer sent.
pub fn first_queue_offset(message: &MessageView<'_>) -> u64 {
    let said = message.property(properties::TRAN_PREPARED_QUEUE_OFFSET);
    said.and_then(|text| text.parse().ok()).unwrap_or(message.queue_offset())
}

/// For how long its producer does not want to be asked, seconds; `None` if it does not say.
pub fn immunity_s(message: &MessageView<'_>) -> Option<u32> {
    let ms = duration_ms(message.property(properties::CHECK_IMMUNITY_TIME)?, 1000)?;
    Some(u32::try_from(ms.div_ceil(1000)).unwrap_or(u32::MAX - 1))
}

/// A time with a unit (`ms`, `s`, `m`, `h`, `d`), or without one: then in `unit_ms`.
pub fn duration_ms(text: &str, unit_ms: u64) -> Option<u64> {
    let text = text.trim();
    let digits = text.find(|c: char| !c.is_ascii_digit()).unwrap_or(text.len());
    let (number, unit) = text.split_at(digits);
    let unit_ms = match unit.trim().to_ascii_lowercase().as_str() {
        "" => unit_ms,
        "ms" => 1,
        "s" => 1000,
        "m" => 60_000,
        "h" => 3_600_000,
        "d" => 86_400_000,
        _ => return None,
    };
    number.parse::<u64>().ok()?.checked_mul(unit_ms)
}

/// The message that a commit stores; `None` if the half does not say where. `bytes` are the half's.
pub fn committed(message: &MessageView<'_>, bytes: &Bytes) -> Option<NewMessage> {
    let queue = real_queue(message)?;
    let mut said = BytesMut::with_capacity(message.properties().len());
    for (name, value) in properties::iter(message.properties()) {
        if !OF_HALF.contains(&name) {
            append(&mut said, name, value);
        }
    }
    Some(NewMessage {
        topic: real_topic(message)?.into(),
        queue_id: queue,
        sys_flag: sys_flag::with_transaction(message.sys_flag(), sys_flag::TRANSACTION_COMMIT),
        properties: said.freeze(),
        ..copied(message, bytes)
    })
}

/// The half message, to be stored once more. `message` may be one that was given up.
pub fn again(message: &MessageView<'_>, bytes: &Bytes) -> NewMessage {
    let properties = with_state(message, None);
    NewMessage { topic: TOPIC.into(), queue_id: 0, properties, ..copied(message, bytes) }
}

/// What is stored of a half message whose producer was asked too often.
pub fn given_up(message: &MessageView<'_>, bytes: &Bytes, checks: u32) -> NewMessage {
    let properties = with_state(message, Some(checks));
    NewMessage { topic: GIVEN_UP_TOPIC.into(), queue_id: 0, properties, ..copied(message, bytes) }
}

/// The message as its producer is shown it with the question what became of its transaction: as stored, with its real topic and
/// queue. `checks` counts this question.
pub fn shown(message: &MessageView<'_>, bytes: &Bytes, checks: u32) -> Option<Result<Bytes, MessageError>> {
    let mut said = BytesMut::with_capacity(message.properties().len() + ADDED_BYTES);
    for (name, value) in properties::iter(message.properties()) {
        if name != properties::TRANSACTION_CHECK_TIMES {
            append(&mut said, name, value);
        }
    }
    append(&mut said, properties::TRANSACTION_CHECK_TIMES, &checks.to_string());
    let shown = NewMessage {
        topic: real_topic(message)?.into(),
        queue_id: real_queue(message)?,
        store_timestamp: message.store_timestamp(),
        properties: said.freeze(),
        ..copied(message, bytes)
    };
    let mut out = BytesMut::with_capacity(shown.encoded_len());
    Some(shown.encode(&mut out).map(|()| {
        stamp(&mut out, first_queue_offset(message), transaction(message));
        out.freeze()
    }))
}

fn with_state(message: &MessageView<'_>, checks: Option<u32>) -> Bytes {
    let mut said = BytesMut::with_capacity(message.properties().len() + ADDED_BYTES);
    let state = [properties::TRAN_PREPARED_QUEUE_OFFSET, properties::TRANSACTION_CHECK_TIMES];
    for (name, value) in properties::iter(message.properties()) {
        if !state.contains(&name) {
            append(&mut said, name, value);
        }
    }
    append(&mut said, properties::TRAN_PREPARED_QUEUE_OFFSET, &first_queue_offset(message).to_string());
    if let Some(checks) = checks {
        append(&mut said, properties::TRANSACTION_CHECK_TIMES, &checks.to_string());
    }
    said.freeze()
}

/// Everything but what depends on the purpose.
fn copied(message: &MessageView<'_>, bytes: &Bytes) -> NewMessage {
    NewMessage {
        sys_flag: sys_flag::with_transaction(message.sys_flag(), sys_flag::TRANSACTION_NONE),
        prepared_transaction_offset: i64::try_from(transaction(message)).unwrap_or(0),
        ..NewMessage::copy_of(message, bytes)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const SENT: &[u8] =
        b"UNIQ_KEY\x01U\x02TRAN_MSG\x01true\x02PGROUP\x01p\x02REAL_TOPIC\x01orders\x02REAL_QID\x013\x02";

    fn stored(message: &NewMessage, queue_offset: u64, position: u64) -> Bytes {
        let mut out = BytesMut::new();
        message.encode(&mut out).unwrap();
        stamp(&mut out, queue_offset, position);
        out.freeze()
    }

    fn half() -> Bytes {
        let message = NewMessage {
            topic: TOPIC.into(),
            queue_id: 0,
            flag: 7,
            sys_flag: sys_flag::COMPRESSED,
            born_timestamp: 1,
            born_host: ([127, 0, 0, 1], 1).into(),
            store_timestamp: 2,
            store_host: ([127, 0, 0, 1], 10911).into(),
            reconsume_times: 0,
            prepared_transaction_offset: 0,
            body: Bytes::from_static(b"body"),
            properties: Bytes::from_static(SENT),
        };
        stored(&message, 5, 700)
    }

    #[test]
    fn a_committed_message_is_the_one_that_was_sent() {
        let bytes = half();
        let message = MessageView::parse(&bytes).unwrap();
        let made = committed(&message, &bytes).unwrap();
        assert_eq!((&*made.topic, made.queue_id, made.prepared_transaction_offset), ("orders", 3, 700));
        assert_eq!(made.sys_flag, sys_flag::COMPRESSED | sys_flag::TRANSACTION_COMMIT);
        assert_eq!(&made.properties[..], b"UNIQ_KEY\x01U\x02PGROUP\x01p\x02");
        assert_eq!((&made.body[..], made.flag), (&b"body"[..], 7));
    }

    #[test]
    fn what_is_stored_again_belongs_to_the_transaction_of_the_first() {
        let bytes = half();
        let first = MessageView::parse(&bytes).unwrap();
        assert_eq!((transaction(&first), first_copy(&first), first_queue_offset(&first)), (700, None, 5));
        let lost = given_up(&first, &bytes, 15);
        assert_eq!(&*lost.topic, GIVEN_UP_TOPIC);
        let mut bytes = bytes.clone();
        for (queue_offset, position) in [(9, 900), (11, 1100)] {
            let message = MessageView::parse(&bytes).unwrap();
            bytes = stored(&again(&message, &bytes), queue_offset, position);
            let message = MessageView::parse(&bytes).unwrap();
            assert_eq!((transaction(&message), first_copy(&message)), (700, Some(700)));
            assert_eq!((message.topic(), first_queue_offset(&message)), (TOPIC, 5));
            assert_eq!(producer_group(&message), Some("p"));
            let made = committed(&message, &bytes).unwrap();
            assert_eq!(&made.properties[..], b"UNIQ_KEY\x01U\x02PGROUP\x01p\x02");
            assert_eq!(made.prepared_transaction_offset, 700);
        }
        let lost = stored(&lost, 0, 1300);
        let message = MessageView::parse(&lost).unwrap();
        assert_eq!(message.property(properties::TRANSACTION_CHECK_TIMES), Some("15"));
        let resumed = again(&message, &lost);
        assert_eq!((&*resumed.topic, resumed.prepared_transaction_offset), (TOPIC, 700));
        assert_eq!(properties::get(&resumed.properties, properties::TRANSACTION_CHECK_TIMES), None);
    }

    #[test]
    fn a_producer_is_shown_its_own_message() {
        let bytes = half();
        let message = MessageView::parse(&bytes).unwrap();
        let shown = shown(&message, &bytes, 2).unwrap().unwrap();
        let shown = MessageView::parse(&shown).unwrap();
        assert_eq!((shown.topic(), shown.queue_id()), ("orders", 3));
        assert_eq!((shown.queue_offset(), shown.physical_offset()), (5, 700));
        assert_eq!(shown.property(properties::TRANSACTION_CHECK_TIMES), Some("2"));
        assert_eq!(shown.property(properties::TRANSACTION_PREPARED), Some("true"));
        assert!(shown.verify_body_crc().is_ok());
    }

    #[test]
    fn times_are_read_with_and_without_a_unit() {
        let times =
            [("600", 600_000), ("600s", 600_000), ("10m", 600_000), (" 1 H ", 3_600_000), ("1500ms", 1500)];
        for (text, ms) in times {
            assert_eq!(duration_ms(text, 1000), Some(ms), "{text}");
        }
        assert_eq!(duration_ms("6000", 1), Some(6000));
        for text in ["", "s", "-1", "1x", "1.5s", "99999999999999999999", "18446744073709551615d"] {
            assert_eq!(duration_ms(text, 1000), None, "{text}");
        }
    }
}
