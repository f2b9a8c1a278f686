//! What was applied lately: fingerprint to position, in two generations.
//!
//! New fingerprints go into the young generation. When it is full (half of the configured keys, bytes of log, or the
//! configured age), it becomes the old one, and the old one is forgotten as a whole. So a fingerprint costs one insertion
//! and no removal, at least half of the bounds is remembered at any time, and never more than the bounds (`dedup.I4`).

use std::collections::HashMap;
use std::hash::{BuildHasherDefault, Hasher};

use crate::config::DedupConfig;

/// See the module.
pub(super) struct Window {
    keys: usize,
    bytes: u64,
    age_ms: i64,
    young: Generation,
    old: Generation,
}

/// A map by fingerprints, which are hashes already.
pub(super) type Prints<T> = HashMap<u64, T, BuildHasherDefault<Prehashed>>;

#[derive(Default)]
struct Generation {
    positions: Prints<u64>,
    /// Its first record.
    first: Option<Place>,
}

/// Where and when a record was stored.
#[derive(Debug, Clone, Copy)]
pub(super) struct Place {
    pub(super) index: u64,
    pub(super) position: u64,
    pub(super) end: u64,
    pub(super) stored_ms: i64,
}

impl Window {
    pub(super) fn new(config: &DedupConfig) -> Window {
        let keys = (config.keys / 2).max(1);
        // All the room at once: a table that grows under load stops the applying task while it does.
        let generation =
            || Generation { positions: Prints::with_capacity_and_hasher(keys, <_>::default()), first: None };
        Window {
            keys,
            bytes: config.bytes / 2,
            age_ms: i64::try_from(config.age.as_millis()).unwrap_or(i64::MAX),
            young: generation(),
            old: generation(),
        }
    }

    /// Adds the fingerprints of a record, with the positions of their messages.
    pub(super) fn add(&mut self, place: Place, prints: &[(u64, u64)]) {
        if let Some(first) = self.young.first
            && (place.end.saturating_sub(first.position) > self.bytes
                || place.stored_ms.saturating_sub(first.stored_ms) >= self.age_ms)
        {
            self.turn();
        }
        // Also a record without keys takes the window on.
        self.young.first.get_or_insert(place);
        for (print, position) in prints {
            if self.young.positions.len() >= self.keys {
                self.turn();
            }
            self.young.first.get_or_insert(place);
            self.young.positions.insert(*print, *position);
        }
    }

    pub(super) fn position(&self, print: u64) -> Option<u64> {
        self.young.positions.get(&print).or_else(|| self.old.positions.get(&print)).copied()
    }

    /// The oldest record whose fingerprints are here.
    pub(super) fn oldest(&self) -> Option<Place> {
        self.old.first.or(self.young.first)
    }

    pub(super) fn reset(&mut self) {
        self.turn();
        self.turn();
    }

    /// The young generation grows old, the old one is forgotten; its memory is used again.
    fn turn(&mut self) {
        std::mem::swap(&mut self.young, &mut self.old);
        self.young.positions.clear();
        self.young.first = None;
    }

    #[cfg(test)]
    pub(super) fn len(&self) -> usize {
        self.young.positions.len() + self.old.positions.len()
    }
}

/// Takes a fingerprint for its own hash.
#[derive(Default)]
pub(crate) struct Prehashed(u64);

impl Hasher for Prehashed {
    fn finish(&self) -> u64 {
        self.0
    }

    fn write(&mut self, bytes: &[u8]) {
        // Not used by u64 keys; correct for any other.
        self.0 = bytes.iter().fold(self.0, |hash, byte| hash.rotate_left(8) ^ u64::from(*byte));
    }

    fn write_u64(&mut self, print: u64) {
        self.0 = print;
    }
}
