//! Damaged units: what is known of them until they are whole again.
//!
//! A unit is found damaged when it is read for a consumer or by the scrub, or when what it leads to is not the message
//! asked for. It is noted here, and whoever mends it is told at once. Not here: how it is mended, see [`super::Mending`].

use std::collections::BTreeMap;
use std::ops::Range;
use std::sync::Arc;

use parking_lot::Mutex;

use super::ConsumeQueues;
use super::queue::Queue;
use crate::log::Watcher;

/// Damaged units remembered at most; more are found again once these are mended.
const DAMAGES_MAX: usize = 1024;

/// A place in a consume queue.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub struct UnitPlace {
    /// The topic.
    pub topic: Arc<str>,
    /// The queue.
    pub queue: u32,
    /// The offset.
    pub offset: u64,
}

/// The damage known.
#[derive(Default)]
pub(super) struct Damages {
    /// True for a unit that looks whole and led to another message all the same.
    known: Mutex<BTreeMap<UnitPlace, bool>>,
    watcher: Mutex<Option<Watcher>>,
}

impl Damages {
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
    fn forget_place(&self, place: &UnitPlace) {
        self.known.lock().remove(place);
    }

    /// Which of these units look whole and are not to be believed.
    pub(super) fn misleading(&self, queue: &Queue, offsets: Range<u64>) -> Vec<u64> {
        let range = queue.place(offsets.start)..queue.place(offsets.end);
        let known = self.known.lock();
        known.range(range).filter(|(_, misleading)| **misleading).map(|(place, _)| place.offset).collect()
    }
}

impl ConsumeQueues {
    /// The damaged units known; of a stretch of them perhaps only the first.
    pub fn damages(&self) -> Vec<UnitPlace> {
        self.inner.damages.known.lock().keys().cloned().collect()
    }

    /// How many damaged units are known.
    pub fn damaged(&self) -> usize {
        self.inner.damages.known.lock().len()
    }

    /// Calls `watcher` whenever damage is found from now on.
    pub fn on_damage(&self, watcher: Watcher) {
        *self.inner.damages.watcher.lock() = Some(watcher);
    }

    /// Notes that units led to other messages than theirs.
    pub fn distrust(&self, topic: &str, queue: u32, offsets: Range<u64>) {
        let Some(queue) = self.inner.find(topic, queue) else { return };
        let (min, next) = queue.bounds();
        for offset in offsets.start.max(min)..offsets.end.min(next) {
            self.inner.damages.note(&queue, offset, true);
        }
    }

    /// The queue of a damaged unit; without one, the damage is forgotten.
    pub(super) fn damaged_queue(&self, place: &UnitPlace) -> Option<Arc<Queue>> {
        let queue = self.inner.find(&place.topic, place.queue);
        if queue.is_none() {
            self.inner.damages.forget_place(place);
        }
        queue
    }
}
