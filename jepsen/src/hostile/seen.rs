//! Which messages of the good client were acknowledged, and which came back: one bit each.

use parking_lot::Mutex;

/// Bytes of a message's body.
const BODY_BYTES: usize = 64;

/// The account of one run.
#[derive(Debug, Default)]
pub(crate) struct Seen(Mutex<Bits>);

#[derive(Debug, Default)]
struct Bits {
    acknowledged: Vec<u64>,
    consumed: Vec<u64>,
}

impl Seen {
    /// Message `seq` was acknowledged.
    pub(crate) fn acknowledge(&self, seq: u64) {
        set(&mut self.0.lock().acknowledged, seq);
    }

    /// Message `seq` was consumed; whether that was the first time.
    pub(crate) fn consume(&self, seq: u64) -> bool {
        set(&mut self.0.lock().consumed, seq)
    }

    /// Acknowledged messages before `end` that were not consumed.
    #[must_use]
    pub(crate) fn missing_before(&self, end: u64) -> u64 {
        let bits = self.0.lock();
        let consumed = bits.consumed.iter().copied().chain(std::iter::repeat(0));
        let words = (0u64..).step_by(64).zip(bits.acknowledged.iter().zip(consumed));
        let words = words.take_while(|(first, _)| *first < end);
        let missing = words.map(|(first, (acknowledged, consumed))| {
            let counted = u64::MAX >> 64u64.saturating_sub(end - first);
            u64::from((acknowledged & !consumed & counted).count_ones())
        });
        missing.sum()
    }

    /// Messages acknowledged so far.
    #[must_use]
    pub(crate) fn acknowledged(&self) -> u64 {
        self.0.lock().acknowledged.iter().map(|word| u64::from(word.count_ones())).sum()
    }
}

/// Sets a bit; whether it was not set before.
fn set(bits: &mut Vec<u64>, at: u64) -> bool {
    let (word, bit) = ((at / 64) as usize, 1 << (at % 64));
    if bits.len() <= word {
        bits.resize(word + 1, 0);
    }
    let first = bits[word] & bit == 0;
    bits[word] |= bit;
    first
}

/// The body of message `seq` of this run.
#[must_use]
pub(crate) fn body(run: u64, seq: u64) -> Vec<u8> {
    let mut body = format!("h|{run:016x}|{seq}|").into_bytes();
    body.resize(BODY_BYTES, b'.');
    body
}

/// Which message this is, if it is one of this run, whole.
#[must_use]
pub(crate) fn parse(run: u64, bytes: &[u8]) -> Option<u64> {
    let text = std::str::from_utf8(bytes).ok()?;
    let seq = text.strip_prefix("h|")?.split('|').nth(1)?.parse().ok()?;
    (body(run, seq) == bytes).then_some(seq)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_was_acknowledged_and_did_not_come_back_is_missing() {
        let seen = Seen::default();
        for seq in [0, 63, 64, 1000] {
            seen.acknowledge(seq);
        }
        assert_eq!((seen.acknowledged(), seen.missing_before(2000)), (4, 4));
        assert!(seen.consume(63) && !seen.consume(63));
        // Of unknown outcome, and stored.
        assert!(seen.consume(5000));
        assert_eq!(seen.missing_before(2000), 3);
        let before = [0, 1, 64, 65, 1000, 1001].map(|end| seen.missing_before(end));
        assert_eq!(before, [0, 1, 1, 2, 2, 3]);
    }

    #[test]
    fn a_body_with_one_wrong_byte_is_no_message() {
        let good = body(7, 123);
        assert_eq!(good.len(), BODY_BYTES);
        assert_eq!(parse(7, &good), Some(123));
        assert_eq!(parse(8, &good), None);
        for at in 0..good.len() {
            let mut wrong = good.clone();
            wrong[at] ^= 1;
            assert_ne!(parse(7, &wrong), Some(123), "byte {at}");
        }
    }
}
