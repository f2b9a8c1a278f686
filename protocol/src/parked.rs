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

use serde::{Deserialize, Serialize};

use crate::message::{MessageError, MessageView};
use crate::properties::REAL_TOPIC;

/// Where messages are parked. No client can name it: its name has a character that no topic's may have.
pub const TOPIC: &str = "rmq_sys_wheel_timer.parked";

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
    use crate::message::NewMessage;

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

    #[test]
    fn no_client_can_name_the_topic() {
        assert!(crate::names::check_topic(TOPIC).is_err() && crate::names::is_system_topic(TOPIC));
    }
}
