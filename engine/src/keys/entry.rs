//! An entry of the key index, and the keys of a message.

use folio_protocol::message::MessageView;
use folio_protocol::properties;

/// Keys of one message that are indexed at most; a message with more is found by the first ones.
pub const KEYS_PER_MESSAGE_MAX: usize = 64;
/// What separates keys in the property `KEYS`.
const SEPARATOR: char = ' ';

/// A key's hash and where its message lies in the log. Entries are ordered by hash, then by position.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct Entry {
    pub(super) hash: u64,
    pub(super) position: u64,
}

/// The hash of a key within a topic. It is on disk: it never changes.
pub(super) fn key_hash(topic: &str, key: &str) -> u64 {
    let seeded = mix(SEED ^ topic.len() as u64);
    add(add(seeded, topic.as_bytes()), key.as_bytes())
}

const SEED: u64 = 0x9e37_79b9_7f4a_7c15;
const FACTOR: u64 = 0xd6e8_feb8_6659_fd93;

/// Spreads every bit of a word over all of it.
fn mix(word: u64) -> u64 {
    let word = (word ^ (word >> 32)).wrapping_mul(FACTOR);
    let word = (word ^ (word >> 32)).wrapping_mul(FACTOR);
    word ^ (word >> 32)
}

/// Adds bytes to a hash, eight at a time, the length with the last ones.
fn add(mut hash: u64, bytes: &[u8]) -> u64 {
    let (words, rest) = bytes.as_chunks::<8>();
    for word in words {
        hash = mix(hash ^ u64::from_le_bytes(*word)).wrapping_add(SEED);
    }
    let mut last = [0; 8];
    last[..rest.len()].copy_from_slice(rest);
    mix(hash ^ u64::from_le_bytes(last) ^ ((bytes.len() as u64) << 56))
}

/// The hashes under which a message is found: its unique key, and each of its keys.
pub(super) fn hashes(message: &MessageView<'_>, mut found: impl FnMut(u64)) {
    let (topic, mut left) = (message.topic(), KEYS_PER_MESSAGE_MAX);
    for (name, value) in properties::iter(message.properties()) {
        match name {
            properties::UNIQUE_KEY if !value.is_empty() => found(key_hash(topic, value)),
            properties::KEYS => {
                for key in value.split(SEPARATOR).filter(|key| !key.is_empty()) {
                    if left == 0 {
                        break;
                    }
                    left -= 1;
                    found(key_hash(topic, key));
                }
            }
            _ => {}
        }
    }
}

/// Whether a message has this key: what a look-up by hash cannot tell.
pub fn has_key(message: &MessageView<'_>, topic: &str, key: &str) -> bool {
    message.topic() == topic
        && properties::iter(message.properties()).any(|(name, value)| match name {
            properties::UNIQUE_KEY => value == key,
            properties::KEYS => value.split(SEPARATOR).any(|one| one == key),
            _ => false,
        })
}

#[cfg(test)]
mod tests {
    use super::*;

    /// On disk: another hash finds nothing that was stored before.
    #[test]
    fn golden_hashes() {
        let golden = [
            (("orders", "k1"), 0x2a39_34da_b553_04e8),
            (("", ""), 0xf063_b995_0940_cb2c),
            (("orders", "7F0000010000123456789ABCDEF00001"), 0xbd95_d534_1951_4fc2),
        ];
        for ((topic, key), hash) in golden {
            assert_eq!(key_hash(topic, key), hash, "{topic} {key}: {:#x}", key_hash(topic, key));
        }
    }

    #[test]
    fn topic_and_key_do_not_run_into_each_other() {
        let pairs = [("ab", "c"), ("a", "bc"), ("", "abc"), ("abc", ""), ("ab", "c\0"), ("ab\0", "c")];
        let hashes: std::collections::BTreeSet<u64> = pairs.map(|(topic, key)| key_hash(topic, key)).into();
        assert_eq!(hashes.len(), pairs.len());
    }
}
