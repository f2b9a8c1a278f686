//! What a workload message says: who sent it, where to, as which one.
//!
//! A body is `j|<run>|<producer>|<topic>|<queue>|<seq>|<filler>`. Everything after the run is a
//! function of the [`OpKey`], so a checker rebuilds the expected body and compares every byte;
//! nothing needs to be remembered per message.

use std::fmt;

use serde::{Deserialize, Serialize};

/// Longest filler; lengths vary so that records do not fall on the same boundaries.
const FILLER_BYTES_MAX: u64 = 900;

/// Names one send of one run.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
pub struct OpKey {
    /// Topic number.
    pub topic: u32,
    /// Queue number.
    pub queue: u32,
    /// Producer number.
    pub producer: u32,
    /// Counts the sends of this producer to this queue from 0.
    pub seq: u64,
}

impl fmt::Display for OpKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "topic {} queue {} producer {} seq {}", self.topic, self.queue, self.producer, self.seq)
    }
}

/// The body of this send in run `run`.
#[must_use]
pub fn encode(run: u64, key: OpKey) -> Vec<u8> {
    let OpKey { topic, queue, producer, seq } = key;
    let mut body = format!("j|{run:016x}|{producer}|{topic}|{queue}|{seq}|").into_bytes();
    let mut state =
        mix(run ^ mix(seq ^ mix(u64::from(producer) << 40 | u64::from(topic) << 20 | u64::from(queue))));
    let filler = state % (FILLER_BYTES_MAX + 1);
    for _ in 0..filler {
        state = mix(state);
        body.push(b'a' + (state % 26) as u8);
    }
    body
}

/// What RocketMQ's clients name this message by, on every try: 32 hex digits.
#[must_use]
pub fn unique_key(run: u64, key: OpKey) -> String {
    let OpKey { topic, queue, producer, seq } = key;
    let place = u64::from(topic) << 44 | u64::from(queue) << 24 | u64::from(producer);
    format!("{:016X}{:016X}", mix(run ^ mix(place)), mix(run.rotate_left(32) ^ mix(place ^ mix(seq))))
}

/// Which send this body belongs to; `None` when it is no body of this run, or not every byte of it.
#[must_use]
pub fn decode(run: u64, body: &[u8]) -> Option<OpKey> {
    let head = body.iter().enumerate().filter(|(_, byte)| **byte == b'|').nth(5)?.0;
    let text = std::str::from_utf8(&body[..head]).ok()?;
    let mut parts = text.split('|').skip(2);
    let producer = parts.next()?.parse().ok()?;
    let topic = parts.next()?.parse().ok()?;
    let queue = parts.next()?.parse().ok()?;
    let seq = parts.next()?.parse().ok()?;
    let key = OpKey { topic, queue, producer, seq };
    (encode(run, key) == body).then_some(key)
}

/// splitmix64's output step: enough for fillers and waiting times, and the same everywhere.
#[must_use]
pub fn mix(value: u64) -> u64 {
    let mut z = value.wrapping_add(0x9E37_79B9_7F4A_7C15);
    z = (z ^ (z >> 30)).wrapping_mul(0xBF58_476D_1CE4_E5B9);
    z = (z ^ (z >> 27)).wrapping_mul(0x94D0_49BB_1331_11EB);
    z ^ (z >> 31)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_body_says_which_send_it_is_and_no_byte_may_differ() {
        let key = OpKey { topic: 1, queue: 2, producer: 3, seq: 4 };
        let body = encode(9, key);
        assert_eq!(decode(9, &body), Some(key));
        assert_eq!(decode(8, &body), None, "another run's body is not ours");
        for at in 0..body.len() {
            let mut wrong = body.clone();
            wrong[at] ^= 1;
            assert_ne!(decode(9, &wrong), Some(key), "byte {at} changed unseen");
        }
        assert_eq!(decode(9, &body[..body.len() - 1]), None);
        assert_eq!(decode(9, b""), None);
    }
}
