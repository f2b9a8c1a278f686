//! Sizes of encoded parts of sections, for `Operation::growth`.

use serde::Serialize;

use crate::codec::encoded_bytes;

/// Bytes of a number of entries, before the entries.
pub(super) const COUNT_BYTES: u64 = 8;
/// Bytes of an offset under its queue.
pub(super) const OFFSET_BYTES: u64 = 12;

/// What an entry of a map takes; nothing without a value.
pub(super) fn entry<T: Serialize>(key: &str, value: Option<&T>) -> i64 {
    value.map_or(0, |value| signed(encoded_bytes(key) + encoded_bytes(value)))
}

/// What replacing an entry's value adds.
pub(super) fn replaced<T: Serialize>(key: &str, new: &T, old: Option<&T>) -> i64 {
    entry(key, Some(new)) - entry(key, old)
}

/// What a new key that leads to a map adds, before that map's entries.
pub(super) fn new_map(key: &str) -> u64 {
    encoded_bytes(key) + COUNT_BYTES
}

pub(super) fn signed(bytes: u64) -> i64 {
    i64::try_from(bytes).unwrap_or(i64::MAX)
}
