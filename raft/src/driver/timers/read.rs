//! Reads parked messages from the log, and makes of them what is delivered, or parked again.

use bytes::{Bytes, BytesMut};
use folio_engine::log::CommitLog;
use folio_engine::timers::TimerEntry;
use folio_protocol::message::{MessageView, NewMessage};
use folio_protocol::parked::{self, TimerKey};
use folio_protocol::properties::{self, DELAY, REAL_TOPIC, TIMER_OUT_MS, append};

use crate::driver::transition::unstorable;

/// What is made of parked messages.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Purpose {
    /// The messages of the real topics.
    Deliver,
    /// The same, parked further on.
    Carry,
}

/// Why a parked message was not read.
#[derive(Debug, thiserror::Error)]
pub(super) enum Unread {
    /// Its record is damaged, or cannot be read now.
    #[error(transparent)]
    Log(#[from] folio_engine::log::ReadError),
    /// Another message lies there.
    #[error("no parked message of {0} is in the log")]
    Other(TimerKey),
}

/// Reads the messages of some entries, and makes new ones of them in the entries' order. Blocks on the disk.
pub(super) fn read(
    log: &CommitLog,
    entries: &[TimerEntry],
    purpose: Purpose,
) -> Result<Vec<NewMessage>, Unread> {
    // In the order in which they lie: those of one place are read together.
    let mut order: Vec<usize> = (0..entries.len()).collect();
    order.sort_unstable_by_key(|at| entries[*at].key.position);
    let mut messages: Vec<Option<NewMessage>> = vec![None; entries.len()];
    for at in order {
        let entry = &entries[at];
        messages[at] = make(&parked_message(log, entry)?, purpose);
    }
    Ok(messages.into_iter().flatten().collect())
}

/// The stored bytes of an entry's message. Blocks on the disk.
pub(super) fn parked_message(log: &CommitLog, entry: &TimerEntry) -> Result<Bytes, Unread> {
    let bytes = log.bytes(entry.key.position, entry.bytes as usize)?;
    let is_it = MessageView::parse(&bytes).is_ok_and(|message| {
        message.topic() == parked::TOPIC
            && message.total_size() == bytes.len()
            && parked::key(&message) == entry.key
    });
    if is_it { Ok(bytes) } else { Err(Unread::Other(entry.key)) }
}

/// What a parked message becomes; `None` if it is one that no build parks, which is said.
fn make(bytes: &Bytes, purpose: Purpose) -> Option<NewMessage> {
    let message = MessageView::parse(bytes).ok()?;
    let key = parked::key(&message);
    let real = parked::real_topic(&message);
    let (topic, due_ms, properties) = match (purpose, real) {
        (Purpose::Carry, _) => {
            (parked::TOPIC, message.prepared_transaction_offset(), bytes.slice_ref(message.properties()))
        }
        (Purpose::Deliver, Some(real)) => (real, 0, delivered(message.properties(), key.due_ms)),
        (Purpose::Deliver, None) => {
            tracing::error!(%key, "a parked message has no topic to be delivered to: it is left out");
            return None;
        }
    };
    let made = NewMessage {
        topic: topic.into(),
        prepared_transaction_offset: due_ms,
        properties,
        ..NewMessage::copy_of(&message, bytes)
    };
    if let Some(why) = unstorable(std::slice::from_ref(&made)) {
        tracing::error!(%key, why, "a parked message cannot be stored: it is left out");
        return None;
    }
    Some(made)
}

/// The properties of a delivered message: those it was sent with, without what has come true, and when that was to be.
fn delivered(parked: &[u8], due_ms: u64) -> Bytes {
    let mut out = BytesMut::with_capacity(parked.len() + 32);
    for (name, value) in properties::iter(parked) {
        if ![REAL_TOPIC, DELAY, TIMER_OUT_MS].contains(&name) {
            append(&mut out, name, value);
        }
    }
    append(&mut out, TIMER_OUT_MS, &due_ms.to_string());
    out.freeze()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn stored(properties: &'static [u8]) -> Bytes {
        let message = NewMessage {
            topic: parked::TOPIC.into(),
            prepared_transaction_offset: 700,
            properties: Bytes::from_static(properties),
            ..crate::storage_suite::message("orders", 3)
        };
        let mut out = BytesMut::new();
        message.encode(&mut out).unwrap();
        out.freeze()
    }

    #[test]
    fn a_delivered_message_is_the_one_that_was_sent() {
        let bytes = stored(b"KEYS\x01k\x02DELAY\x013\x02REAL_TOPIC\x01orders\x02TIMER_DELIVER_MS\x01700\x02");
        let made = make(&bytes, Purpose::Deliver).unwrap();
        assert_eq!((&*made.topic, made.queue_id, made.prepared_transaction_offset), ("orders", 3, 0));
        assert_eq!(&made.properties[..], b"KEYS\x01k\x02TIMER_DELIVER_MS\x01700\x02TIMER_OUT_MS\x01700\x02");
        let sent = crate::storage_suite::message("orders", 3);
        assert_eq!((made.body, made.born_host), (sent.body, sent.born_host));
    }

    #[test]
    fn a_carried_message_is_parked_as_it_was() {
        let bytes = stored(b"REAL_TOPIC\x01orders\x02");
        let made = make(&bytes, Purpose::Carry).unwrap();
        let mut out = BytesMut::new();
        made.encode(&mut out).unwrap();
        let (again, before) = (MessageView::parse(&out).unwrap(), MessageView::parse(&bytes).unwrap());
        assert_eq!((again.topic(), again.prepared_transaction_offset()), (parked::TOPIC, 700));
        assert_eq!(again.properties(), before.properties());
    }

    #[test]
    fn what_no_build_parks_is_left_out() {
        assert_eq!(make(&stored(b"KEYS\x01k\x02"), Purpose::Deliver), None);
        assert_eq!(make(&stored(b"REAL_TOPIC\x01../x\x02"), Purpose::Deliver), None);
    }
}
