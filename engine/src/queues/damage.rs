//! Damaged units: what is known of them until they are whole again.
//!
//! A unit is found damaged when it is read for a consumer or by the scrub, or when what it leads to is not the message
//! asked for. It is noted here, and whoever mends it is told at once. Not here: how it is mended, see [`super::Mending`].

use std::collections::BTreeMap;
use std::ops::Range;

use parking_lot::Mutex;

use super::queue::Queue;
use super::unit::UnitPlace;
use crate::log::Watcher;

/// Damaged units remembered at most; more are found again once these are mended.
const DAMAGES_MAX: usize = 1024;

/// The damage known.
#[derive(Default)]
pub(super) struct Damages {
    /// True for a unit that looks whole and led to another message all the same.
    known: Mutex<BTreeMap<UnitPlace, bool>>,
    watcher: Mutex<Option<Watcher>>,
}

impl Damages {
    /// The damaged units known.
    pub(super) fn places(&self) -> Vec<UnitPlace> {
        self.known.lock().keys().cloned().collect()
    }

    /// How many of them there are.
    pub(super) fn count(&self) -> usize {
        self.known.lock().len()
    }

    /// Whom to tell of damage that is found from now on.
    pub(super) fn watch(&self, watcher: Watcher) {
        *self.watcher.lock() = Some(watcher);
    }

    /// Notes damage; tells whoever watches. `misleading`: the unit itself looks whole.
    pub(super) fn note(&self, queue: &Queue, offset: u64, misleading: bool) {
        let place = queue.place(offset);
        let mut known = self.known.lock();
        if known.len() >= DAMAGES_MAX || known.contains_key(&place) {
            return;
        }
        tracing::error!(
            topic = &*place.topic,
            place.queue,
            offset,
            misleading,
            "rot found in a consume queue"
        );
        known.insert(place, misleading);
        drop(known);
        if let Some(watcher) = &*self.watcher.lock() {
            watcher();
        }
    }

    /// The units of these offsets are whole, or gone.
    pub(super) fn forget(&self, queue: &Queue, offsets: Range<u64>) {
        let gone = queue.place(offsets.start)..queue.place(offsets.end);
        self.known.lock().retain(|place, _| !gone.contains(place));
    }

    /// There is no such queue any more.
    pub(super) fn forget_place(&self, place: &UnitPlace) {
        self.known.lock().remove(place);
    }

    /// Which of these units look whole and are not to be believed.
    pub(super) fn misleading(&self, queue: &Queue, offsets: Range<u64>) -> Vec<u64> {
        let range = queue.place(offsets.start)..queue.place(offsets.end);
        let known = self.known.lock();
        known.range(range).filter(|(_, misleading)| **misleading).map(|(place, _)| place.offset).collect()
    }
}
