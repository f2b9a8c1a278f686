//! Half messages as they are stored: see `folio_protocol::half`.

use bytes::{BufMut, Bytes, BytesMut};
use folio_protocol::half::{self, ADDED_BYTES};
use folio_protocol::limits::{GROUP_BYTES_MAX, PROPERTIES_BYTES_MAX};
use folio_protocol::properties::{self as names, append, iter};
use folio_state::sections::features::TRANSACTIONS;
use folio_state::sections::transactions::OPEN_MAX;

use super::message::{Draft, Single};
use super::stored::{self, Seen, illegal};
use super::to_send::UniqueKey;
use crate::broker::Broker;
use crate::error::BrokerError;
use crate::stamp::Stamp;

/// Properties of a half message that are the server's.
const SERVERS: [&str; 5] = [
    names::REAL_TOPIC,
    names::REAL_QUEUE_ID,
    names::TRANSACTION_ID,
    names::TRAN_PREPARED_QUEUE_OFFSET,
    names::TRANSACTION_CHECK_TIMES,
];

impl Draft<'_> {
    /// The half message of a transactional send.
    pub(super) fn half(&self, seen: &Seen<'_>) -> Result<Single, BrokerError> {
        let (broker, sent) = (self.broker, self.wish.properties.as_bytes());
        check_room(broker)?;
        match names::get(sent, names::PRODUCER_GROUP) {
            Some(group) if (1..=GROUP_BYTES_MAX).contains(&group.len()) => {}
            _ => return Err(illegal("it names no producer group of a legal length (PGROUP)")),
        }
        let made = seen.unique_key.is_none().then(|| broker.node.ids.unique_id());
        let unique_key = seen.unique_key.or(made.as_deref()).unwrap_or_default();
        let place = (&*self.topic, self.place.queue);
        let properties = store(sent, seen, &broker.stamp, unique_key, place)?;
        let mut message = self.message(self.wish.flag, self.wish.body.clone(), properties);
        (message.topic, message.queue_id) = (half::TOPIC.into(), 0);
        let unique_key = UniqueKey::from_slice(unique_key.as_bytes());
        Ok(Single { message, unique_key, due_ms: None, half_of: Some(self.place.queue) })
    }
}

/// `transactions.I2`
fn check_room(broker: &Broker) -> Result<(), BrokerError> {
    let (open, level) = {
        let state = broker.group.state();
        (state.transactions().count(), state.level())
    };
    if level < TRANSACTIONS {
        return Err(illegal("transactions are supported once all nodes have a build that supports them"));
    }
    let open = open + broker.halves_under_way();
    if open >= OPEN_MAX || !broker.group.has_state_room() {
        return Err(BrokerError::TransactionsFull { open, limit: OPEN_MAX });
    }
    Ok(())
}

/// The properties to store. `unique_key` is added unless the client sent one.
fn store(
    sent: &[u8],
    seen: &Seen<'_>,
    stamp: &Stamp,
    unique_key: &str,
    (topic, queue): (&str, u32),
) -> Result<Bytes, BrokerError> {
    let mut out = BytesMut::with_capacity(sent.len() + topic.len() + stamp.encoded.len() + 160);
    for (name, value) in iter(sent) {
        if !SERVERS.contains(&name) && !stored::is_dropped(name, value, true) {
            append(&mut out, name, value);
        }
    }
    append(&mut out, names::REAL_TOPIC, topic);
    append(&mut out, names::REAL_QUEUE_ID, &queue.to_string());
    append(&mut out, names::TRANSACTION_ID, unique_key);
    if seen.unique_key.is_none() {
        append(&mut out, names::UNIQUE_KEY, unique_key);
    }
    out.put_slice(&stamp.encoded);
    if out.len() + ADDED_BYTES > PROPERTIES_BYTES_MAX {
        return Err(illegal(&format!(
            "its properties have {} bytes as stored, the limit is {PROPERTIES_BYTES_MAX}",
            out.len()
        )));
    }
    Ok(out.freeze())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_half_message_says_where_it_goes_and_nothing_that_is_forged() {
        let sent = b"TRAN_MSG\x01true\x02PGROUP\x01p\x02REAL_TOPIC\x01x\x02REAL_QID\x019\x02TRANSACTION_CHECK_TIMES\x017\x02KEYS\x01k\x02";
        let seen = stored::look(sent).expect("readable");
        let bytes =
            store(sent, &seen, &Stamp::new("c", "r", true), "U", ("orders", 3)).expect("short enough");
        let said: Vec<(&str, &str)> = iter(&bytes).collect();
        let expected = [
            ("TRAN_MSG", "true"),
            ("PGROUP", "p"),
            ("KEYS", "k"),
            ("REAL_TOPIC", "orders"),
            ("REAL_QID", "3"),
            ("__transactionId__", "U"),
            ("UNIQ_KEY", "U"),
        ];
        assert_eq!(said[..7], expected);
    }
}
