//! The properties of a message as they are stored: what the client sent, less what it may not set, plus
//! what the server adds.
//!
//! | property | what happens |
//! |---|---|
//! | `POP_CK` | dropped: a handle belongs to one delivery |
//! | `MSG_REGION`, `TRACE_ON`, `CLUSTER` | replaced by the server's |
//! | `UNIQ_KEY` | generated where it is missing |
//! | `DELAY` and the timer's | dropped where a delay level delays the message, as in RocketMQ, and where it is delivered at once |
//! | `REAL_TOPIC` | replaced by the server's: the topic of a message that is parked |
//!
//! Everything else stays as it is and where it is. One pass over the text, one allocation, no map.

use bytes::{BufMut, Bytes, BytesMut};
use folio_protocol::limits::PROPERTIES_BYTES_MAX;
use folio_protocol::parked::DELIVERY_BYTES;
use folio_protocol::properties::{self as names, TIMER_WISHES as TIMER, append, iter};

use crate::error::BrokerError;
use crate::stamp::Stamp;

/// When a message is to be delivered, by its properties.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Kind {
    /// At once.
    Normal,
    /// Later.
    Delayed(Wish),
    /// When its transaction commits.
    Prepared,
    /// Both, which is nothing that can be done.
    PreparedDelayed,
}

/// How a producer delays a message. A level counts more than a time, as in RocketMQ.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Wish {
    /// By a delay level, from 1 on.
    Level(u32),
    /// By so many milliseconds.
    After(u64),
    /// To this time, ms since the epoch.
    At(u64),
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
    let (mut prepared, mut level, mut was_timed) = (false, 0, false);
    let mut times: [Option<&str>; TIMER.len()] = [None; TIMER.len()];
    for (name, value) in iter(encoded) {
        match name {
            names::UNIQUE_KEY => seen.unique_key = Some(value),
            names::TRANSACTION_PREPARED => prepared = value.eq_ignore_ascii_case("true"),
            names::DELAY => level = delay_level(value)?,
            // It was delivered by a timer and is sent again.
            names::TIMER_OUT_MS => was_timed = true,
            _ => {
                if let Some(at) = TIMER.iter().position(|known| *known == name) {
                    times[at] = Some(value);
                }
            }
        }
    }
    seen.kind = match (prepared, u32::try_from(level)) {
        (true, Ok(1..)) => Kind::PreparedDelayed,
        (true, _) if !was_timed && times.iter().any(Option::is_some) => Kind::PreparedDelayed,
        (true, _) => Kind::Prepared,
        (false, Ok(level @ 1..)) => Kind::Delayed(Wish::Level(level)),
        (false, _) if was_timed => Kind::Normal,
        (false, _) => time(times)?.map_or(Kind::Normal, Kind::Delayed),
    };
    Ok(seen)
}

/// What the timer's properties say: the first of [`TIMER`] that is there counts.
fn time([seconds, ms, at]: [Option<&str>; TIMER.len()]) -> Result<Option<Wish>, BrokerError> {
    let number = |text: &str| text.parse::<i64>().ok().map(|number| u64::try_from(number).unwrap_or(0));
    let wish = match (seconds, ms, at) {
        (Some(text), ..) => number(text).map(|seconds| Wish::After(seconds.saturating_mul(1000))),
        (_, Some(text), _) => number(text).map(Wish::After),
        (.., Some(text)) => number(text).map(Wish::At),
        (None, None, None) => return Ok(None),
    };
    let illegal =
        || BrokerError::IllegalMessage("timer message illegal, its time is not a number".to_owned());
    wish.map(Some).ok_or_else(illegal)
}

fn delay_level(value: &str) -> Result<i32, BrokerError> {
    value.parse().map_err(|_| {
        BrokerError::IllegalMessage(format!("the property DELAY has the value {value:?}, expected a level"))
    })
}

/// The properties to store. `unique_key` is added unless the client sent one. A message that is parked has a real topic.
pub(crate) fn store(
    sent: &[u8],
    seen: &Seen<'_>,
    stamp: &Stamp,
    unique_key: &str,
    real_topic: Option<&str>,
) -> Result<Bytes, BrokerError> {
    let mut out = BytesMut::with_capacity(stored_len(sent, seen, stamp, unique_key, real_topic));
    // What a timer delays keeps what its producer said.
    let drops_timer = matches!(seen.kind, Kind::Delayed(Wish::Level(_))) || real_topic.is_none();
    for (name, value) in iter(sent) {
        if !is_dropped(name, value, drops_timer) {
            append(&mut out, name, value);
        }
    }
    if let Some(topic) = real_topic {
        append(&mut out, names::REAL_TOPIC, topic);
    }
    if seen.unique_key.is_none() {
        append(&mut out, names::UNIQUE_KEY, unique_key);
    }
    out.put_slice(&stamp.encoded);
    let added_later = if real_topic.is_some() { DELIVERY_BYTES } else { 0 };
    if out.len() + added_later > PROPERTIES_BYTES_MAX {
        return Err(BrokerError::IllegalMessage(format!(
            "the message properties have {} bytes as stored, the limit is {PROPERTIES_BYTES_MAX}",
            out.len()
        )));
    }
    Ok(out.freeze())
}

/// Bytes of the properties as stored, if nothing of them is dropped. Exact, because a buffer that is full when it is
/// frozen needs no second allocation to be shared.
fn stored_len(
    sent: &[u8],
    seen: &Seen<'_>,
    stamp: &Stamp,
    unique_key: &str,
    real_topic: Option<&str>,
) -> usize {
    // Some clients leave the last separator out.
    let separator = usize::from(sent.last().is_some_and(|last| *last != names::VALUE_END));
    let added = if seen.unique_key.is_none() { names::UNIQUE_KEY.len() + unique_key.len() + 2 } else { 0 };
    let parked = real_topic.map_or(0, |topic| names::REAL_TOPIC.len() + topic.len() + 2);
    sent.len() + separator + added + parked + stamp.encoded.len()
}

pub(super) fn is_dropped(name: &str, value: &str, drops_timer: bool) -> bool {
    match name {
        names::POP_CK | names::MSG_REGION | names::TRACE_ON | names::CLUSTER | names::REAL_TOPIC => true,
        names::DELAY => value != "0",
        _ => drops_timer && TIMER.contains(&name),
    }
}

/// What no transaction can be.
pub(super) fn illegal(why: &str) -> BrokerError {
    BrokerError::IllegalMessage(format!("transactional message illegal, {why}"))
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
        let bytes = store(sent, &look(sent).expect("readable"), &stamp, "NEW", None).expect("short enough");
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
        assert_eq!(kind(&[("DELAY", "3")]), Ok(Kind::Delayed(Wish::Level(3))));
        assert_eq!(kind(&[("DELAY", "-3")]), Ok(Kind::Normal));
        assert_eq!(kind(&[("TIMER_DELAY_SEC", "9")]), Ok(Kind::Delayed(Wish::After(9000))));
        assert_eq!(kind(&[("TIMER_DELAY_MS", "9")]), Ok(Kind::Delayed(Wish::After(9))));
        assert_eq!(kind(&[("TIMER_DELIVER_MS", "9")]), Ok(Kind::Delayed(Wish::At(9))));
        assert_eq!(kind(&[("TIMER_DELIVER_MS", "-9")]), Ok(Kind::Delayed(Wish::At(0))));
        assert_eq!(kind(&[("TRAN_MSG", "TRUE")]), Ok(Kind::Prepared));
        assert_eq!(kind(&[("TRAN_MSG", "false")]), Ok(Kind::Normal));
        for delay in ["DELAY", "TIMER_DELAY_SEC", "TIMER_DELIVER_MS"] {
            assert_eq!(kind(&[("TRAN_MSG", "true"), (delay, "3")]), Ok(Kind::PreparedDelayed));
        }
        assert_eq!(kind(&[("TRAN_MSG", "true"), ("DELAY", "0")]), Ok(Kind::Prepared));
        for (name, value) in [("DELAY", "soon"), ("TIMER_DELAY_SEC", "1.5"), ("TIMER_DELIVER_MS", "now")] {
            assert!(kind(&[(name, value)]).is_err(), "{name}");
        }
    }

    #[test]
    fn a_level_counts_more_than_a_time_and_seconds_more_than_the_rest() {
        let kind = |pairs: &[(&str, &str)]| look(&encoded(pairs)).map(|seen| seen.kind);
        let (seconds, ms, at) =
            (("TIMER_DELAY_SEC", "9"), ("TIMER_DELAY_MS", "8"), ("TIMER_DELIVER_MS", "7"));
        assert_eq!(kind(&[at, ms, seconds, ("DELAY", "2")]), Ok(Kind::Delayed(Wish::Level(2))));
        assert_eq!(kind(&[at, ms, seconds]), Ok(Kind::Delayed(Wish::After(9000))));
        assert_eq!(kind(&[at, ms]), Ok(Kind::Delayed(Wish::After(8))));
        assert_eq!(kind(&[at, ("TIMER_OUT_MS", "7")]), Ok(Kind::Normal), "it was delivered before");
    }

    #[test]
    fn a_parked_message_keeps_its_real_topic_and_what_its_timer_was_told() {
        let stored = |pairs: &[(&str, &str)]| {
            let (sent, stamp) = (encoded(pairs), Stamp::new("c", "r", true));
            let stored = store(&sent, &look(&sent).expect("readable"), &stamp, "NEW", Some("orders"));
            let stored = stored.expect("short enough");
            iter(&stored).map(|(name, value)| (name.to_owned(), value.to_owned())).collect::<Vec<_>>()
        };
        let timed = stored(&[("TIMER_DELAY_SEC", "9"), ("UNIQ_KEY", "U"), ("REAL_TOPIC", "forged")]);
        assert_eq!(names_of(&timed)[..3], ["TIMER_DELAY_SEC", "UNIQ_KEY", "REAL_TOPIC"]);
        assert_eq!(timed[2].1, "orders");
        let by_level = stored(&[("DELAY", "2"), ("TIMER_DELAY_SEC", "9"), ("UNIQ_KEY", "U")]);
        assert_eq!(names_of(&by_level)[..2], ["UNIQ_KEY", "REAL_TOPIC"]);
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
            for topic in [None, Some("orders")] {
                let stored = store(sent, &seen, &stamp, "NEW", topic).expect("short enough");
                assert_eq!(stored_len(sent, &seen, &stamp, "NEW", topic), stored.len());
            }
        }
    }

    #[test]
    fn properties_that_grow_past_the_limit_are_refused() {
        let sent = encoded(&[("own", &"x".repeat(PROPERTIES_BYTES_MAX - 6))]);
        let seen = look(&sent).expect("readable");
        let refused = store(&sent, &seen, &Stamp::new("c", "r", true), "U", None).expect_err("too long");
        assert!(matches!(refused, BrokerError::IllegalMessage(_)), "{refused:?}");
    }
}
