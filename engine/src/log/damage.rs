//! Damaged records: what is known of them, and the copies that stand in for some. How one is repaired with the record that a
//! peer holds: [`super::mend`].
//!
//! A record is found damaged when it is read for a follower, for a consumer or by the scrub. It is noted here until it is
//! whole again; the layer that knows peers is told at once, and repairs it.
//!
//! A repair may fail: the sector may not take a write either, or a page that it shares with another damaged record cannot
//! be written in part, or not be read until all of it is written. Then the copy is kept in memory and stands in for the
//! damaged record until a later repair succeeds.
//!
//! Invariants
//! - `damage.I1`: a damaged record is never handed out.
//! - `damage.I2`: a record is overwritten only where damage was found, only with a whole record of the same position and
//!   index, and only with one that continues its neighbours, as far as they can be read.
//! - `damage.I3`: a repair that fails changes nothing else: the log goes on, and readers get the copy.
//! - `damage.I4`: a repair is done once the device gives it back.
//! - `damage.I5`: damage in a segment does not keep it from being dropped.
//!
//! `damage.I6`, of what is part of no record, is kept by [`super::filler`].

use std::collections::{BTreeMap, VecDeque};

use parking_lot::Mutex;

use super::segment::base_of;
use crate::record::Record;

/// Damaged records remembered at most; more are found again once these are mended.
const DAMAGES_MAX: usize = 1024;
/// Bytes of copies that stand in for damaged records: four of the longest. Of more, the oldest records have none, and
/// their readers wait for the next repair.
const STAND_INS_BYTES_MAX: usize = 32 << 20;

/// A record that cannot be read.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Damage {
    /// Where it starts.
    pub position: u64,
    /// The entry it holds.
    pub index: u64,
    /// What is wrong with it.
    pub reason: String,
}

/// Called when damage is found, on the thread that found it: must not block.
pub type Watcher = Box<dyn Fn() + Send + Sync>;

/// The damage known.
#[derive(Default)]
pub(super) struct Damages {
    known: Mutex<BTreeMap<u64, Known>>,
    watcher: Mutex<Option<Watcher>>,
}

struct Known {
    damage: Damage,
    /// A whole copy of the record, which could not be stored.
    stand_in: Option<Record>,
}

impl Damages {
    /// All of it, lowest first.
    pub(super) fn all(&self) -> Vec<Damage> {
        self.known.lock().values().map(|known| known.damage.clone()).collect()
    }

    /// Whom to tell of damage that is found from now on.
    pub(super) fn watch(&self, watcher: Watcher) {
        *self.watcher.lock() = Some(watcher);
    }

    /// The entry of the damaged record there, if one is known.
    pub(super) fn entry_at(&self, position: u64) -> Option<u64> {
        self.known.lock().get(&position).map(|known| known.damage.index)
    }

    /// Whether a damaged record is known there, and no copy stands in for it.
    pub(super) fn is_unreadable(&self, position: u64) -> bool {
        let known = self.known.lock();
        known.get(&position).is_some_and(|known| known.stand_in.is_none())
    }

    /// Notes damage; tells whoever watches.
    pub(super) fn note(&self, damage: Damage) {
        let mut known = self.known.lock();
        if known.len() >= DAMAGES_MAX || known.contains_key(&damage.position) {
            return;
        }
        tracing::error!(
            position = damage.position,
            index = damage.index,
            reason = damage.reason,
            "rot found in the commit log"
        );
        known.insert(damage.position, Known { damage, stand_in: None });
        drop(known);
        if let Some(watcher) = &*self.watcher.lock() {
            watcher();
        }
    }

    pub(super) fn forget(&self, position: u64) {
        self.known.lock().remove(&position);
    }

    /// Forgets damage outside the log as it is now.
    pub(super) fn keep_within(&self, start: u64, end: u64) {
        self.known.lock().retain(|position, _| (start..end).contains(position));
    }

    pub(super) fn contains(&self, position: u64) -> bool {
        self.known.lock().contains_key(&position)
    }

    /// The copy that stands in for a damaged record.
    pub(super) fn stand_in(&self, position: u64, index: u64) -> Option<Record> {
        let known = self.known.lock();
        known.get(&position)?.stand_in.clone().filter(|record| record.header.index == index)
    }

    /// Has a copy stand in for a damaged record.
    pub(super) fn keep(&self, record: &Record) {
        let mut known = self.known.lock();
        let Some(damaged) = known.get_mut(&record.position()) else { return };
        damaged.stand_in = Some(record.clone());
        let bytes = |known: &Known| known.stand_in.as_ref().map_or(0, |record| record.frame().len());
        let mut held: usize = known.values().map(bytes).sum();
        let others = known.iter_mut().filter(|(position, _)| **position != record.position());
        for (_, other) in others {
            if held <= STAND_INS_BYTES_MAX {
                break;
            }
            held -= bytes(other);
            other.stand_in = None;
        }
    }

    /// The copies that lie side by side around `record`, with it: together they may cover pages that none covers alone.
    pub(super) fn side_by_side(&self, record: &Record, segment_bytes: u64) -> Vec<Record> {
        let known = self.known.lock();
        let base = base_of(record.position(), segment_bytes);
        let inside = |copy: &Record| base_of(copy.position(), segment_bytes) == base;
        let mut run = VecDeque::from([record.clone()]);
        for copy in known.range(..record.position()).rev().map_while(|(_, known)| known.stand_in.as_ref()) {
            if run.front().is_none_or(|first| first.position() != copy.end()) || !inside(copy) {
                break;
            }
            run.push_front(copy.clone());
        }
        for copy in known.range(record.end()..).map_while(|(_, known)| known.stand_in.as_ref()) {
            if run.back().is_none_or(|last| last.end() != copy.position()) || !inside(copy) {
                break;
            }
            run.push_back(copy.clone());
        }
        run.into()
    }
}
