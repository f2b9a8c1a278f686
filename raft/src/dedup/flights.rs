//! Messages under way: proposed, and not applied yet. A repeat of one of them is parked until its outcome is known.

use super::window::Prints;
use crate::proposer::Waiting;

/// Repeats that may be parked; their bytes count as waiting.
const PARKED_MAX: usize = 32_768;

/// Where a message under way will be.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Place {
    /// The record it is in.
    pub(crate) flight: u64,
    /// Which one of the record's messages it is.
    pub(crate) ordinal: u32,
}

/// A proposal that repeats messages under way, the first of them at `place`.
pub(crate) struct Parked {
    pub(crate) place: Place,
    pub(crate) waiting: Waiting,
}

/// All records of this node that are under way.
#[derive(Default)]
pub(crate) struct Flights {
    next: u64,
    places: Prints<Place>,
    parked: Vec<Parked>,
}

impl Flights {
    /// Begins a record.
    pub(crate) fn begin(&mut self) -> u64 {
        self.next += 1;
        self.next
    }

    /// Notes messages of a record by their fingerprints, consecutive from `first`.
    pub(crate) fn add(&mut self, first: Place, prints: &[u64]) {
        for (print, ordinal) in prints.iter().zip(first.ordinal..) {
            self.places.insert(*print, Place { ordinal, ..first });
        }
    }

    /// The place of these messages, if all of them are under way in one record, side by side.
    pub(crate) fn find(&self, prints: &[u64]) -> Option<Place> {
        let first = *self.places.get(prints.first()?)?;
        let together = prints
            .iter()
            .zip(first.ordinal..)
            .all(|(print, ordinal)| self.places.get(print) == Some(&Place { ordinal, ..first }));
        together.then_some(first)
    }

    /// Parks a repeat; gives it back when too many are.
    pub(crate) fn park(&mut self, place: Place, waiting: Waiting) -> Result<(), Waiting> {
        if self.parked.len() >= PARKED_MAX {
            return Err(waiting);
        }
        self.parked.push(Parked { place, waiting });
        Ok(())
    }

    /// Ends a record, whose messages had these fingerprints; its outcome is for those that are returned, too.
    pub(crate) fn land(&mut self, flight: u64, prints: &[u64]) -> Vec<Parked> {
        for print in prints {
            if self.places.get(print).is_some_and(|place| place.flight == flight) {
                self.places.remove(print);
            }
        }
        self.parked.extract_if(.., |parked| parked.place.flight == flight).collect()
    }
}
