//! Parked messages: delayed ones, as the log keeps them until they are due.
//!
//! A parked message is a stored message ([`crate::message`]) of the topic [`TOPIC`]. It differs from the one that is delivered in
//! these fields:
//!
//! | field | parked | delivered |
//! |---|---|---|
//! | TOPIC | [`TOPIC`] | its real topic, which the property `REAL_TOPIC` names while it is parked |
//! | QUEUEID | that of the real topic | the same |
//! | PREPAREDTRANSACTIONOFFSET | when it is due, ms since the epoch | 0 |
//!
//! RocketMQ keeps the due time in a property. Here it has a place of fixed width, so that the log can raise it when the message is
//! appended; and the properties of a retry of the same send are the same ones.

use bytes::BytesMut;
use serde::{Deserialize, Serialize};

use crate::limits::PROPERTIES_BYTES_MAX;
use crate::message::{MessageError, MessageView, NewMessage};
use crate::properties::{self, DELAY, REAL_TOPIC, TIMER_OUT_MS, TIMER_WISHES};

/// Where messages are parked. No client can name it: its name has a character that no topic's may have.
pub const TOPIC: &str = "rmq_sys_wheel_timer.parked";

/// What the delivery of a parked message adds to its properties at most: `TIMER_OUT_MS` and a time.
pub const DELIVERY_BYTES: usize = TIMER_OUT_MS.len() + 22;

/// The turn of a parked message: by due time, then by place in the log.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub struct TimerKey {
    /// When it is due, ms since the epoch.
    pub due_ms: u64,
    /// Where it lies in the log.
    pub position: u64,
}

impl std::fmt::Display for TimerKey {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{} ms at position {}", self.due_ms, self.position)
    }
}

/// The key of a parked message.
pub fn key(message: &MessageView<'_>) -> TimerKey {
    TimerKey {
        due_ms: u64::try_from(message.prepared_transaction_offset()).unwrap_or(0),
        position: message.physical_offset(),
    }
}

/// The parked form of a message that a delay level delays until `due_ms`. As in RocketMQ, such a message loses what a producer said of a
/// time. Fails where the properties would be too long, parked or delivered.
pub fn park(message: NewMessage, due_ms: u64) -> Result<NewMessage, MessageError> {
    let room = message.properties.len() + REAL_TOPIC.len() + message.topic.len() + 2;
    let mut out = BytesMut::with_capacity(room);
    for (name, value) in properties::iter(&message.properties) {
        if ![REAL_TOPIC, DELAY, TIMER_OUT_MS].contains(&name) && !TIMER_WISHES.contains(&name) {
            properties::append(&mut out, name, value);
        }
    }
    properties::append(&mut out, REAL_TOPIC, &message.topic);
    if out.len() + DELIVERY_BYTES > PROPERTIES_BYTES_MAX {
        let (bytes, max) = (out.len() + DELIVERY_BYTES, PROPERTIES_BYTES_MAX);
        return Err(MessageError::TooLong { what: "properties", bytes, max });
    }
    Ok(NewMessage {
        topic: TOPIC.into(),
        prepared_transaction_offset: i64::try_from(due_ms).unwrap_or(i64::MAX),
        properties: out.freeze(),
        ..message
    })
}

/// The topic that it is delivered to.
pub fn real_topic<'a>(message: &MessageView<'a>) -> Option<&'a str> {
    message.property(REAL_TOPIC)
}

/// Raises the due time of the parked message that `message` begins with to `least_ms`, if it is below.
pub fn raise_due(message: &mut [u8], least_ms: u64) -> Result<(), MessageError> {
    let at = crate::message::prepared_transaction_offset_at(message)?;
    let field = message.get_mut(at..).and_then(|rest| rest.first_chunk_mut::<8>());
    let field = field.ok_or(MessageError::Field("due time"))?;
    let due_ms = u64::try_from(i64::from_be_bytes(*field)).unwrap_or(0);
    *field = i64::try_from(due_ms.max(least_ms)).unwrap_or(i64::MAX).to_be_bytes();
    Ok(())
}

#[cfg(test)]
mod tests {
    use bytes::{Bytes, BytesMut};

    use super::*;

    fn parked(host: &str, due_ms: i64) -> Vec<u8> {
        let host = host.parse().unwrap();
        let message = NewMessage {
            topic: TOPIC.into(),
            queue_id: 3,
            flag: 0,
            sys_flag: 0,
            born_timestamp: 1,
            born_host: host,
            store_timestamp: 2,
            store_host: host,
            reconsume_times: 0,
            prepared_transaction_offset: due_ms,
            body: Bytes::from_static(b"body"),
            properties: Bytes::from_static(b"REAL_TOPIC\x01orders\x02"),
        };
        let mut out = BytesMut::new();
        message.encode(&mut out).unwrap();
        out.to_vec()
    }

    #[test]
    fn a_due_time_is_raised_and_never_lowered_and_nothing_else_changes() {
        for host in ["127.0.0.1:9", "[2001:db8::1]:9"] {
            let mut bytes = parked(host, 700);
            raise_due(&mut bytes, 600).unwrap();
            assert_eq!(bytes, parked(host, 700));
            raise_due(&mut bytes, 800).unwrap();
            assert_eq!(bytes, parked(host, 800));
            let view = MessageView::parse(&bytes).unwrap();
            assert_eq!(key(&view), TimerKey { due_ms: 800, position: 0 });
            assert_eq!(real_topic(&view), Some("orders"));
        }
        let mut negative = parked("127.0.0.1:9", -5);
        raise_due(&mut negative, 0).unwrap();
        assert_eq!(negative, parked("127.0.0.1:9", 0));
        assert!(raise_due(&mut negative[..50], 1).is_err());
    }

    fn retry(properties: &[u8]) -> NewMessage {
        let host = "127.0.0.1:9".parse().unwrap();
        NewMessage {
            topic: "%RETRY%g".into(),
            queue_id: 3,
            flag: 4,
            sys_flag: 0,
            born_timestamp: 1,
            born_host: host,
            store_timestamp: 0,
            store_host: host,
            reconsume_times: 2,
            prepared_transaction_offset: 0,
            body: Bytes::from_static(b"body"),
            properties: Bytes::copy_from_slice(properties),
        }
    }

    #[test]
    fn what_a_level_delays_is_parked_with_its_topic_and_without_other_times() {
        let message = retry(
            b"KEYS\x01k\x02DELAY\x013\x02TIMER_DELAY_SEC\x019\x02TIMER_OUT_MS\x0170\x02REAL_TOPIC\x01forged\x02RETRY_TOPIC\x01o\x02",
        );
        let parked = park(message.clone(), 700).unwrap();
        let said: Vec<_> = properties::iter(&parked.properties).collect();
        assert_eq!(said, [("KEYS", "k"), ("RETRY_TOPIC", "o"), ("REAL_TOPIC", "%RETRY%g")]);
        assert_eq!((&*parked.topic, parked.prepared_transaction_offset), (TOPIC, 700));
        let back = NewMessage { topic: message.topic.clone(), prepared_transaction_offset: 0, ..parked };
        assert_eq!(NewMessage { properties: message.properties.clone(), ..back }, message);
    }

    #[test]
    fn what_would_not_fit_when_it_is_delivered_is_not_parked() {
        let of = |bytes: usize| {
            let value = "x".repeat(bytes - "KEYS\x01\x02".len() - "REAL_TOPIC\x01%RETRY%g\x02".len());
            park(retry(format!("KEYS\x01{value}\x02").as_bytes()), 1)
        };
        let longest = of(PROPERTIES_BYTES_MAX - DELIVERY_BYTES).unwrap();
        assert_eq!(longest.properties.len(), PROPERTIES_BYTES_MAX - DELIVERY_BYTES);
        let refused = of(PROPERTIES_BYTES_MAX - DELIVERY_BYTES + 1).unwrap_err();
        assert!(matches!(refused, MessageError::TooLong { what: "properties", .. }), "{refused}");
    }

    #[test]
    fn no_client_can_name_the_topic() {
        assert!(crate::names::check_topic(TOPIC).is_err() && crate::names::is_system_topic(TOPIC));
    }
}
