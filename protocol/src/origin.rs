//! Where a message lay before it was retried for the first time, and what it was called there.
//!
//! Noted as properties when it leaves its queue for a retry topic or as a dead letter, and kept from then on. The topic and the id have
//! RocketMQ's names; queue and offset are FolioMQ's addition.

use crate::ids::OffsetMessageId;
use crate::limits::PROPERTIES_BYTES_MAX;
use crate::message::MessageView;
use crate::names;
use crate::properties::{self, Properties};

/// Bytes of properties that later steps may add: a handle, a due time, a place. A message that has no place for them and for its
/// origin's queue goes without the latter.
const RESERVE: usize = 2_048;

/// Notes the id, the queue and the offset of a message that leaves its queue, unless an earlier retry did. Of a retry that was stored
/// without them the queue is not known, nor is the first id.
pub fn note(said: &mut Properties, message: &MessageView<'_>) {
    if said.get(properties::ORIGIN_MESSAGE_ID).is_some() {
        return;
    }
    let id = OffsetMessageId { host: message.store_host(), position: message.physical_offset() };
    said.set(properties::ORIGIN_MESSAGE_ID, &id.to_string());
    let is_first = !names::is_retry_topic(message.topic()) && !names::is_dlq_topic(message.topic());
    if is_first && said.encoded_len() + RESERVE <= PROPERTIES_BYTES_MAX {
        said.set(properties::ORIGIN_QUEUE_ID, &message.queue_id().to_string());
        said.set(properties::ORIGIN_QUEUE_OFFSET, &message.queue_offset().to_string());
    }
}

/// The same where the message is popped: what has no place is left out, the id too, and of a retry that was stored without an id nothing is
/// noted.
pub fn note_popped(said: &mut Properties, message: &MessageView<'_>) {
    if !names::is_retry_topic(message.topic()) && said.encoded_len() + RESERVE <= PROPERTIES_BYTES_MAX {
        note(said, message);
    }
}

#[cfg(test)]
mod tests {
    use bytes::{Bytes, BytesMut};

    use super::*;
    use crate::message::{NewMessage, stamp};

    fn noted(topic: &str, properties: &str, by: fn(&mut Properties, &MessageView<'_>)) -> Properties {
        let host = ([127, 0, 0, 1], 10911).into();
        let message = NewMessage {
            topic: topic.into(),
            queue_id: 3,
            flag: 0,
            sys_flag: 0,
            born_timestamp: 1,
            born_host: host,
            store_timestamp: 2,
            store_host: host,
            reconsume_times: 0,
            prepared_transaction_offset: 0,
            body: Bytes::from_static(b"body"),
            properties: Bytes::copy_from_slice(properties.as_bytes()),
        };
        let mut stored = BytesMut::new();
        message.encode(&mut stored).expect("a message");
        stamp(&mut stored, 5, 0x1234);
        let message = MessageView::parse(&stored).expect("a message");
        let mut said = Properties::parse(message.properties());
        by(&mut said, &message);
        said
    }

    fn origin(said: &Properties) -> [Option<&str>; 3] {
        [properties::ORIGIN_MESSAGE_ID, properties::ORIGIN_QUEUE_ID, properties::ORIGIN_QUEUE_OFFSET]
            .map(|name| said.get(name))
    }

    const ID: &str = "7F00000100002A9F0000000000001234";

    #[test]
    fn a_message_says_where_it_lay_first() {
        for by in [note, note_popped] {
            let said = noted("orders", "KEYS\u{1}k\u{2}", by);
            assert_eq!(origin(&said), [Some(ID), Some("3"), Some("5")]);
            assert_eq!(said.get("KEYS"), Some("k"));
        }
    }

    #[test]
    fn what_was_noted_stays() {
        for by in [note, note_popped] {
            assert_eq!(
                origin(&noted("orders", "ORIGIN_MESSAGE_ID\u{1}ID\u{2}", by)),
                [Some("ID"), None, None]
            );
        }
    }

    /// Of a retry that an earlier build stored, nobody knows the first queue.
    #[test]
    fn the_place_of_a_retry_is_not_taken_for_its_origin() {
        assert_eq!(origin(&noted("%RETRY%g", "", note)), [Some(ID), None, None]);
        assert_eq!(origin(&noted("%RETRY%g_orders", "", note_popped)), [None, None, None]);
    }

    #[test]
    fn a_message_without_a_place_for_it_is_still_retried() {
        let full = format!("LONG\u{1}{}\u{2}", "x".repeat(PROPERTIES_BYTES_MAX - RESERVE));
        assert_eq!(origin(&noted("orders", &full, note)), [Some(ID), None, None]);
        assert_eq!(origin(&noted("orders", &full, note_popped)), [None, None, None]);
    }
}
