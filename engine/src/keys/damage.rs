//! The damaged blocks that are known.

use std::collections::BTreeSet;

use parking_lot::Mutex;

use super::run::RunId;
use crate::log::Watcher;

/// Damaged blocks remembered at most; more are found again once these are repaired.
const DAMAGES_MAX: usize = 1024;

/// A block of a run; 0 is its header.
pub(super) type Place = (RunId, u64);

/// See the module.
#[derive(Default)]
pub(super) struct Damages {
    known: Mutex<BTreeSet<Place>>,
    watcher: Mutex<Option<Watcher>>,
}

impl Damages {
    pub(super) fn note(&self, place: Place) {
        let mut known = self.known.lock();
        if known.len() >= DAMAGES_MAX || !known.insert(place) {
            return;
        }
        drop(known);
        let ((from, to), block) = place;
        tracing::error!(from, to, block, "rot found in the key index");
        if let Some(watcher) = &*self.watcher.lock() {
            watcher();
        }
    }

    pub(super) fn watch(&self, watcher: Watcher) {
        *self.watcher.lock() = Some(watcher);
    }

    pub(super) fn count(&self) -> usize {
        self.known.lock().len()
    }

    /// The first one behind `place`.
    pub(super) fn after(&self, place: Option<Place>) -> Option<Place> {
        let known = self.known.lock();
        known.iter().find(|known| place.is_none_or(|place| **known > place)).copied()
    }

    /// Forgets those for which `gone` says so.
    pub(super) fn forget(&self, gone: impl Fn(&Place) -> bool) {
        self.known.lock().retain(|place| !gone(place));
    }
}
