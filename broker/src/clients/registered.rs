//! One registration: what a client said, when it said it last, and how much of the table it takes.

use std::collections::BTreeMap;
use std::sync::Arc;

use serde::Serialize;
use tokio::time::Instant;

use super::duplicates::Key;
use super::feed::Number;

/// What a client registered.
pub(super) struct Timed<T> {
    pub(super) what: Arc<T>,
    pub(super) heard: Instant,
    /// As it is told to other nodes.
    pub(super) bytes: usize,
    pub(super) number: Number,
}

/// A registration as a client says it now, beside the one that is known.
pub(super) struct Said<T> {
    pub(super) key: Key,
    /// The known one's, if it says the same.
    pub(super) what: Arc<T>,
    pub(super) bytes: usize,
    /// Bytes by which the table grows with it.
    pub(super) growth: isize,
}

impl<T> Timed<T> {
    /// Whether this is what a client says now.
    pub(super) fn says(&self, what: &Arc<T>) -> bool {
        Arc::ptr_eq(&self.what, what)
    }
}

impl<T: PartialEq + Serialize> Said<T> {
    pub(super) fn of(known: &BTreeMap<Key, Timed<T>>, key: Key, what: T) -> Said<T> {
        let known = known.get(&key);
        let same = known.filter(|known| *known.what == what);
        let bytes = same.map_or_else(|| bytes_of(&what), |same| same.bytes);
        let growth = signed(bytes) - signed(known.map_or(0, |known| known.bytes));
        let what = match same {
            Some(same) => same.what.clone(),
            None => Arc::new(what),
        };
        Said { key, what, bytes, growth }
    }
}

fn bytes_of(what: &impl Serialize) -> usize {
    serde_json::to_vec(what).map_or(0, |json| json.len())
}

fn signed(bytes: usize) -> isize {
    isize::try_from(bytes).unwrap_or(isize::MAX)
}
