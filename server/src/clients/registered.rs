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

/// A registration as a client says it now, beside the one that is known.
pub(super) struct Said<T> {
    pub(super) key: Key,
    pub(super) timed: Timed<T>,
    /// Whether it says anything new.
    pub(super) is_new: bool,
    /// Bytes by which the table grows with it.
    pub(super) growth: isize,
}

impl<T: PartialEq + Serialize> Said<T> {
    pub(super) fn of(known: &BTreeMap<Key, Timed<T>>, key: Key, what: T, heard: Instant) -> Said<T> {
        let known = known.get(&key);
        let same = known.filter(|known| known.what == what);
        let bytes = same.map_or_else(|| bytes_of(&what), |same| same.bytes);
        let growth = signed(bytes) - signed(known.map_or(0, |known| known.bytes));
        Said { key, is_new: same.is_none(), growth, timed: Timed { what, heard, bytes } }
    }
}

fn bytes_of(what: &impl Serialize) -> usize {
    serde_json::to_vec(what).map_or(0, |json| json.len())
}

fn signed(bytes: usize) -> isize {
    isize::try_from(bytes).unwrap_or(isize::MAX)
}
