//! One registration: what a client said, when it said it last, and how much of the table it takes.

use std::collections::BTreeMap;

use serde::Serialize;
use tokio::time::Instant;

use super::duplicates::Key;

/// What a client registered.
pub(super) struct Timed<T> {
    pub(super) what: T,
    pub(super) heard: Instant,
    /// As it is told to other nodes.
    pub(super) bytes: usize,
}

/// Puts a registration into its map; whether it says anything new.
pub(super) fn register<T: PartialEq + Serialize>(
    map: &mut BTreeMap<Key, Timed<T>>,
    key: Key,
    what: T,
    heard: Instant,
) -> bool {
    match map.get_mut(&key) {
        Some(known) if known.what == what => {
            known.heard = heard;
            false
        }
        _ => {
            let bytes = bytes_of(&what);
            map.insert(key, Timed { what, heard, bytes });
            true
        }
    }
}

/// By how many bytes the registration makes its map larger.
pub(super) fn growth<T: PartialEq + Serialize>(map: &BTreeMap<Key, Timed<T>>, key: &Key, what: &T) -> isize {
    let signed = |bytes: usize| isize::try_from(bytes).unwrap_or(isize::MAX);
    match map.get(key) {
        Some(known) if known.what == *what => 0,
        Some(known) => signed(bytes_of(what)) - signed(known.bytes),
        None => signed(bytes_of(what)),
    }
}

fn bytes_of(what: &impl Serialize) -> usize {
    serde_json::to_vec(what).map_or(0, |json| json.len())
}
