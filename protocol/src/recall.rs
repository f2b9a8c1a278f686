//! The handle by which a producer recalls a delayed message, as RocketMQ's clients read it.
//!
//! It is URL-safe base64, with padding, of `v1 topic brokerName timestamp uniqueKey`, separated by blanks. Clients take the broker's name
//! and the unique key off it.

/// What a handle says.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct RecallHandle {
    /// The topic that the message is to be delivered to.
    pub topic: String,
    /// The broker that keeps it.
    pub broker_name: String,
    /// When it is due, ms since the epoch; as text, since it comes from a client.
    pub timestamp: String,
    /// Its unique key.
    pub unique_key: String,
}

const VERSION: &str = "v1";
const DIGITS: &[u8; 64] = b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789-_";
/// Characters of a handle at most: a topic, a broker's name and a key of the largest sizes, and more.
const HANDLE_CHARS_MAX: usize = 4096;

impl RecallHandle {
    /// The handle as clients get it.
    pub fn encode(&self) -> String {
        let RecallHandle { topic, broker_name, timestamp, unique_key } = self;
        to_base64(format!("{VERSION} {topic} {broker_name} {timestamp} {unique_key}").as_bytes())
    }

    /// What a client's handle says; `None` if it is none.
    pub fn decode(handle: &str) -> Option<RecallHandle> {
        if handle.len() > HANDLE_CHARS_MAX {
            return None;
        }
        let text = String::from_utf8(from_base64(handle.trim_end_matches('='))?).ok()?;
        let mut items = text.split(' ').map(str::to_owned);
        if items.next()? != VERSION {
            return None;
        }
        let (topic, broker_name) = (items.next()?, items.next()?);
        Some(RecallHandle { topic, broker_name, timestamp: items.next()?, unique_key: items.next()? })
    }
}

fn to_base64(bytes: &[u8]) -> String {
    let mut out = String::with_capacity(bytes.len().div_ceil(3) * 4);
    for three in bytes.chunks(3) {
        let word =
            three.iter().fold(0_u32, |word, byte| word << 8 | u32::from(*byte)) << (8 * (3 - three.len()));
        for digit in 0..4 {
            let is_there = digit <= three.len();
            let at = (word >> (18 - 6 * digit) & 63) as usize;
            out.push(if is_there { char::from(DIGITS[at]) } else { '=' });
        }
    }
    out
}

fn from_base64(text: &str) -> Option<Vec<u8>> {
    let mut out = Vec::with_capacity(text.len() * 3 / 4);
    for four in text.as_bytes().chunks(4) {
        let mut word = 0_u32;
        for digit in four {
            let value = DIGITS.iter().position(|known| known == digit)?;
            word = word << 6 | value as u32;
        }
        let bytes = (word << (6 * (4 - four.len()))).to_be_bytes();
        let count = [0, 0, 1, 2, 3][four.len()];
        if count == 0 {
            return None;
        }
        out.extend(&bytes[1..=count]);
    }
    Some(out)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn handle() -> RecallHandle {
        RecallHandle {
            topic: "orders".into(),
            broker_name: "broker-a".into(),
            timestamp: "1700000000123".into(),
            unique_key: "7F00000100".into(),
        }
    }

    #[test]
    fn a_handle_is_what_javas_clients_make_of_it() {
        let text = "djEgb3JkZXJzIGJyb2tlci1hIDE3MDAwMDAwMDAxMjMgN0YwMDAwMDEwMA==";
        assert_eq!(handle().encode(), text);
        assert_eq!(RecallHandle::decode(text), Some(handle()));
        assert_eq!(RecallHandle::decode(text.trim_end_matches('=')), Some(handle()));
    }

    #[test]
    fn what_is_no_handle_is_refused() {
        let of = |text: &str| RecallHandle::decode(&to_base64(text.as_bytes()));
        for text in ["", "v1", "v1 t b 5", "v2 t b 5 k"] {
            assert_eq!(of(text), None, "{text}");
        }
        assert_eq!(RecallHandle::decode("a*b"), None);
        assert_eq!(RecallHandle::decode(&"A".repeat(HANDLE_CHARS_MAX + 1)), None);
    }

    proptest! {
        #[test]
        fn base64_gives_back_what_it_was_made_of(bytes in prop::collection::vec(any::<u8>(), 0..40)) {
            prop_assert_eq!(from_base64(to_base64(&bytes).trim_end_matches('=')), Some(bytes));
        }

        #[test]
        fn arbitrary_text_never_panics(text in ".{0,80}") {
            let _ = RecallHandle::decode(&text);
        }
    }
}
