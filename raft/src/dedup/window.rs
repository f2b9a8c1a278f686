//! What was applied lately: fingerprint to position, in two generations.
//!
//! New fingerprints go into the young generation. When it is full (half of the configured keys, bytes of log, or the
//! configured age), it becomes the old one, and the old one is forgotten as a whole. So a fingerprint costs one insertion
//! and no removal, at least half of the bounds is remembered at any time, and never more than the bounds (`dedup.I4`).
//!
//! When a message was applied is known from its position ([`Timeline`]), to a tenth of a second and by the monotonic clock
//! of this process: a message that is older than the configured age is not found, whether or not anything came after it.

use std::collections::{HashMap, VecDeque};
use std::hash::{BuildHasherDefault, Hasher};
use std::time::Duration;

use tokio::time::Instant;

use crate::config::DedupConfig;

/// Set in a position whose message was stored before under the same fingerprint: its application sends an object again.
const MANY: u64 = 1 << 63;
/// Records applied within this time share one time.
const STEP: Duration = Duration::from_millis(100);
/// Times known at once: of a minute and more. Past that, the oldest records pass for as old as the oldest known time.
const TIMES_MAX: usize = 1_024;

/// See the module.
pub(super) struct Window {
    keys: usize,
    bytes: u64,
    age: Duration,
    young: Generation,
    old: Generation,
    times: Timeline,
}

/// A message found in the window.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Found {
    pub(super) position: u64,
    /// Whether another one was stored before it under the same fingerprint, as far as the window goes back.
    pub(super) many: bool,
    /// It was applied here within these two times.
    pub(super) applied: (Instant, Instant),
}

/// A map by fingerprints, which are hashes already.
pub(super) type Prints<T> = HashMap<u64, T, BuildHasherDefault<Prehashed>>;

#[derive(Default)]
struct Generation {
    positions: Prints<u64>,
    /// Its first record, and when it was applied.
    first: Option<(Place, Instant)>,
}

/// Where a record is.
#[derive(Debug, Clone, Copy)]
pub(super) struct Place {
    pub(super) index: u64,
    pub(super) position: u64,
    pub(super) end: u64,
}

/// From which position on records were applied at which time, ascending in both.
#[derive(Default)]
struct Timeline(VecDeque<(u64, Instant)>);

impl Timeline {
    fn note(&mut self, position: u64, now: Instant) {
        if self.0.back().is_some_and(|(_, last)| now < *last + STEP) {
            return;
        }
        if self.0.len() == TIMES_MAX {
            self.0.pop_front();
        }
        self.0.push_back((position, now));
    }

    /// Forgets times of which no record at `position` or behind it is.
    fn forget_before(&mut self, position: u64) {
        while self.0.get(1).is_some_and(|(next, _)| *next <= position) {
            self.0.pop_front();
        }
    }

    fn of(&self, position: u64) -> Option<(Instant, Instant)> {
        let after = self.0.partition_point(|(from, _)| *from <= position);
        let (_, from) = self.0.get(after.saturating_sub(1))?;
        Some((*from, *from + STEP))
    }
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
            age: config.age,
            young: generation(),
            old: generation(),
            times: Timeline::default(),
        }
    }

    /// Adds the fingerprints of a record that was applied at a time, with the positions of their messages.
    pub(super) fn add(&mut self, place: Place, applied: Instant, prints: &[(u64, u64)]) {
        if let Some((first, at)) = self.young.first
            && (place.end.saturating_sub(first.position) > self.bytes
                || applied.saturating_duration_since(at) >= self.age)
        {
            self.turn();
        }
        // Also a record without keys takes the window on.
        self.young.first.get_or_insert((place, applied));
        self.times.note(place.position, applied);
        for (print, position) in prints {
            if self.young.positions.len() >= self.keys {
                self.turn();
            }
            self.young.first.get_or_insert((place, applied));
            if self.young.positions.insert(*print, *position).is_some() {
                self.young.positions.insert(*print, *position | MANY);
            }
        }
    }

    /// Nothing is stored under this fingerprint any more.
    pub(super) fn forget(&mut self, print: u64) {
        self.young.positions.remove(&print);
        self.old.positions.remove(&print);
    }

    /// The last message stored under a fingerprint, unless it is too old by now.
    pub(super) fn find(&self, print: u64, now: Instant) -> Option<Found> {
        let (young, old) = (self.young.positions.get(&print), self.old.positions.get(&print));
        let marked = *young.or(old)?;
        let (position, many) = (marked & !MANY, marked & MANY != 0 || (young.is_some() && old.is_some()));
        let applied = self.times.of(position)?;
        // dedup.I4: by the clock, not by what was stored since.
        let is_remembered = now.saturating_duration_since(applied.0) < self.age;
        is_remembered.then_some(Found { position, many, applied })
    }

    /// The oldest record whose fingerprints are here.
    pub(super) fn oldest(&self) -> Option<Place> {
        self.old.first.or(self.young.first).map(|(place, _)| place)
    }

    pub(super) fn reset(&mut self) {
        self.turn();
        self.turn();
        self.times = Timeline::default();
    }

    /// The young generation grows old, the old one is forgotten; its memory is used again.
    fn turn(&mut self) {
        std::mem::swap(&mut self.young, &mut self.old);
        self.young.positions.clear();
        self.young.first = None;
        if let Some((first, _)) = self.old.first {
            self.times.forget_before(first.position);
        }
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
