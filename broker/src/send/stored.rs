//! The properties of a message as they are stored: what the client sent, less what it may not set, plus
//! what the server adds.
//!
//! | property | what happens |
//! |---|---|
//! | `POP_CK` | dropped: a handle belongs to one delivery |
//! | `MSG_REGION`, `TRACE_ON`, `CLUSTER` | replaced by the server's |
//! | `UNIQ_KEY` | generated where it is missing |
//! | `DELAY` and the timer's | dropped from retries, which are delivered at once (see [`Kind`]) |
//!
//! Everything else stays as it is and where it is. One pass over the text, one allocation, no map.

use bytes::{BufMut, Bytes, BytesMut};
use folio_protocol::limits::PROPERTIES_BYTES_MAX;
use folio_protocol::properties::{self as names, append, iter};

use crate::error::BrokerError;
use crate::stamp::Stamp;

/// Names of the timer's wishes: deliver after, or at, a time.
const TIMER: [&str; 3] = [names::TIMER_DELAY_SEC, names::TIMER_DELAY_MS, names::TIMER_DELIVER_MS];

/// When a message is to be delivered, by its properties.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Kind {
    /// At once.
    Normal,
    /// Later.
    Delayed,
    /// When its transaction commits.
    Prepared,
}

/// What a send must know of a message's properties before it stores it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Seen<'a> {
    pub(crate) unique_key: Option<&'a str>,
    pub(crate) kind: Kind,
}

/// Reads what matters of the properties a client sent.
pub(crate) fn look(encoded: &[u8]) -> Result<Seen<'_>, BrokerError> {
    let mut seen = Seen { unique_key: None, kind: Kind::Normal };
    let mut prepared = false;
    for (name, value) in iter(encoded) {
        match name {
            names::UNIQUE_KEY => seen.unique_key = Some(value),
            names::TRANSACTION_PREPARED => prepared = value.eq_ignore_ascii_case("true"),
            names::DELAY if delay_level(value)? > 0 => seen.kind = Kind::Delayed,
            _ if TIMER.contains(&name) => seen.kind = Kind::Delayed,
            _ => {}
        }
    }
    if prepared {
        seen.kind = Kind::Prepared;
    }
    Ok(seen)
}

fn delay_level(value: &str) -> Result<i32, BrokerError> {
    value.parse().map_err(|_| {
        BrokerError::IllegalMessage(format!("the property DELAY has the value {value:?}, expected a level"))
    })
}

/// The properties to store. `unique_key` is added unless the client sent one.
pub(crate) fn store(
    sent: &[u8],
    seen: &Seen<'_>,
    stamp: &Stamp,
    unique_key: &str,
) -> Result<Bytes, BrokerError> {
    let mut out = BytesMut::with_capacity(stored_len(sent, seen, stamp, unique_key));
    for (name, value) in iter(sent) {
        if !is_dropped(name, value) {
            append(&mut out, name, value);
        }
    }
    if seen.unique_key.is_none() {
        append(&mut out, names::UNIQUE_KEY, unique_key);
    }
    out.put_slice(&stamp.encoded);
    if out.len() > PROPERTIES_BYTES_MAX {
        return Err(BrokerError::IllegalMessage(format!(
            "the message properties have {} bytes as stored, the limit is {PROPERTIES_BYTES_MAX}",
            out.len()
        )));
    }
    Ok(out.freeze())
}

/// Bytes of the properties as stored, if nothing of them is dropped. Exact, because a buffer that is full when it is
/// frozen needs no second allocation to be shared.
fn stored_len(sent: &[u8], seen: &Seen<'_>, stamp: &Stamp, unique_key: &str) -> usize {
    // Some clients leave the last separator out.
    let separator = usize::from(sent.last().is_some_and(|last| *last != names::VALUE_END));
    let added = if seen.unique_key.is_none() { names::UNIQUE_KEY.len() + unique_key.len() + 2 } else { 0 };
    sent.len() + separator + added + stamp.encoded.len()
}

fn is_dropped(name: &str, value: &str) -> bool {
    match name {
        names::POP_CK | names::MSG_REGION | names::TRACE_ON | names::CLUSTER => true,
        // A message that waits for its time is refused before it gets here, unless it is a retry.
        names::DELAY => value != "0",
        _ => TIMER.contains(&name),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn encoded(pairs: &[(&str, &str)]) -> Bytes {
        let mut out = BytesMut::new();
        pairs.iter().for_each(|(name, value)| append(&mut out, name, value));
        out.freeze()
    }

    fn stored(sent: &[u8]) -> Vec<(String, String)> {
        let stamp = Stamp::new("c", "r", true);
        let bytes = store(sent, &look(sent).expect("readable"), &stamp, "NEW").expect("short enough");
        iter(&bytes).map(|(name, value)| (name.to_owned(), value.to_owned())).collect()
    }

    fn names_of(pairs: &[(String, String)]) -> Vec<&str> {
        pairs.iter().map(|(name, _)| name.as_str()).collect()
    }

    #[test]
    fn the_servers_properties_are_added_and_the_clients_kept_in_order() {
        let sent = encoded(&[("KEYS", "k"), ("UNIQ_KEY", "U"), ("own", "1")]);
        let stored = stored(&sent);
        assert_eq!(names_of(&stored), ["KEYS", "UNIQ_KEY", "own", "MSG_REGION", "TRACE_ON", "CLUSTER"]);
        assert_eq!(stored[1].1, "U");
    }

    #[test]
    fn a_missing_unique_key_is_generated() {
        let stored = stored(b"");
        assert_eq!(stored[0], ("UNIQ_KEY".to_owned(), "NEW".to_owned()));
    }

    #[test]
    fn what_a_client_may_not_set_is_replaced_or_dropped() {
        let sent =
            encoded(&[("POP_CK", "x"), ("CLUSTER", "other"), ("TRACE_ON", "false"), ("UNIQ_KEY", "U")]);
        let stored = stored(&sent);
        assert_eq!(names_of(&stored), ["UNIQ_KEY", "MSG_REGION", "TRACE_ON", "CLUSTER"]);
        assert_eq!(stored[3].1, "c");
    }

    #[test]
    fn kinds_are_told_by_their_properties() {
        let kind = |pairs: &[(&str, &str)]| look(&encoded(pairs)).map(|seen| seen.kind);
        assert_eq!(kind(&[("KEYS", "k")]), Ok(Kind::Normal));
        assert_eq!(kind(&[("DELAY", "0")]), Ok(Kind::Normal));
        assert_eq!(kind(&[("DELAY", "3")]), Ok(Kind::Delayed));
        assert_eq!(kind(&[("TIMER_DELAY_SEC", "9")]), Ok(Kind::Delayed));
        assert_eq!(kind(&[("TIMER_DELIVER_MS", "9")]), Ok(Kind::Delayed));
        assert_eq!(kind(&[("TRAN_MSG", "TRUE")]), Ok(Kind::Prepared));
        assert_eq!(kind(&[("TRAN_MSG", "false")]), Ok(Kind::Normal));
        assert!(kind(&[("DELAY", "soon")]).is_err());
    }

    #[test]
    fn a_retrys_delay_is_not_stored() {
        let sent = encoded(&[("DELAY", "3"), ("UNIQ_KEY", "U")]);
        assert!(!names_of(&stored(&sent)).contains(&"DELAY"));
    }

    #[test]
    fn the_length_as_stored_is_known_before() {
        let stamp = Stamp::new("c", "r", true);
        let keyed = encoded(&[("KEYS", "k"), ("UNIQ_KEY", "U")]);
        for sent in [&b""[..], b"KEYS\x01k", b"KEYS\x01k\x02", &keyed, &keyed[..keyed.len() - 1]] {
            let seen = look(sent).expect("readable");
            let stored = store(sent, &seen, &stamp, "NEW").expect("short enough");
            assert_eq!(stored_len(sent, &seen, &stamp, "NEW"), stored.len());
        }
    }

    #[test]
    fn properties_that_grow_past_the_limit_are_refused() {
        let sent = encoded(&[("own", &"x".repeat(PROPERTIES_BYTES_MAX - 6))]);
        let seen = look(&sent).expect("readable");
        let refused = store(&sent, &seen, &Stamp::new("c", "r", true), "U").expect_err("too long");
        assert!(matches!(refused, BrokerError::IllegalMessage(_)), "{refused:?}");
    }
}
