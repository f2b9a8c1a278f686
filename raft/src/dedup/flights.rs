//! Messages under way: proposed, and not applied yet. A retry of one of them is parked until its outcome is known; what
//! repeats a message whose client other nodes are being asked about waits for their answer.

use tokio::time::Instant;

use super::attempts::{Attempts, Earlier};
use super::window::Prints;
use crate::proposal::PROMPT;
use crate::proposer::Waiting;

/// Repeats that may be parked; their bytes count as waiting.
const PARKED_MAX: usize = 32_768;
/// Questions to other nodes that may be open at once.
const QUESTIONS_MAX: usize = 1_024;

/// Where a message under way will be.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Place {
    /// The record it is in.
    pub(crate) flight: u64,
    /// Which one of the record's messages it is.
    pub(crate) ordinal: u32,
}

/// A message under way.
#[derive(Debug, Clone, Copy)]
struct UnderWay {
    place: Place,
    earlier: Earlier,
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
    under_way: Prints<UnderWay>,
    parked: Vec<Parked>,
    /// By the fingerprint asked about: what came meanwhile.
    questions: Prints<Vec<Waiting>>,
    behind: usize,
    pub(crate) attempts: Attempts,
}

impl Flights {
    /// Begins a record.
    pub(crate) fn begin(&mut self) -> u64 {
        self.next += 1;
        self.next
    }

    /// Notes messages of a record by their fingerprints, consecutive from `first`, and the attempt they came with.
    pub(crate) fn add(&mut self, first: Place, prints: &[u64], earlier: Earlier) {
        for (print, ordinal) in prints.iter().zip(first.ordinal..) {
            self.attempts.forget(*print);
            self.under_way.insert(*print, UnderWay { place: Place { ordinal, ..first }, earlier });
        }
    }

    /// The place of these messages, if all of them are under way in one record, side by side; and how they came.
    pub(crate) fn find(&self, prints: &[u64]) -> Option<(Place, Earlier)> {
        let UnderWay { place: first, earlier } = *self.under_way.get(prints.first()?)?;
        let together = prints.iter().zip(first.ordinal..).all(|(print, ordinal)| {
            self.under_way.get(print).is_some_and(|found| found.place == Place { ordinal, ..first })
        });
        together.then_some((first, earlier))
    }

    /// Parks a retry; gives it back when too many are.
    pub(crate) fn park(&mut self, place: Place, waiting: Waiting) -> Result<(), Waiting> {
        if self.parked.len() + self.behind >= PARKED_MAX {
            return Err(waiting);
        }
        self.parked.push(Parked { place, waiting });
        Ok(())
    }

    /// Takes the repeats that wait for a record; the record goes on.
    pub(crate) fn unpark(&mut self, flight: u64) -> Vec<Parked> {
        self.parked.extract_if(.., |parked| parked.place.flight == flight).collect()
    }

    /// Ends a record, whose messages had these fingerprints; its outcome is for those that are returned, too.
    pub(crate) fn land(&mut self, flight: u64, prints: &[u64], stored: bool) -> Vec<Parked> {
        let now = Instant::now();
        for print in prints {
            let Some(found) = self.under_way.get(print).filter(|found| found.place.flight == flight) else {
                continue;
            };
            if stored && now.saturating_duration_since(found.earlier.by) >= PROMPT {
                self.attempts.note_late(*print, found.earlier.by, now);
                self.attempts.note_first(*print, Earlier { late: true, ..found.earlier });
            }
            self.under_way.remove(print);
        }
        self.parked.extract_if(.., |parked| parked.place.flight == flight).collect()
    }

    /// Opens a question about a fingerprint; false if too many are open.
    pub(crate) fn ask(&mut self, print: u64) -> bool {
        let asks = self.questions.len() < QUESTIONS_MAX;
        if asks {
            self.questions.entry(print).or_default();
        }
        asks
    }

    /// Lets a repeat wait for an open question about its fingerprint. Gives it back if there is none, or, as `Err`, if
    /// too many wait.
    pub(crate) fn wait_for_question(
        &mut self,
        print: u64,
        waiting: Waiting,
    ) -> Result<Option<Waiting>, Waiting> {
        let full = self.parked.len() + self.behind >= PARKED_MAX;
        match self.questions.get_mut(&print) {
            None => Ok(Some(waiting)),
            Some(_) if full => Err(waiting),
            Some(behind) => {
                behind.push(waiting);
                self.behind += 1;
                Ok(None)
            }
        }
    }

    /// Closes a question; what waited for it is returned, in order.
    pub(crate) fn answered(&mut self, print: u64) -> Vec<Waiting> {
        let behind = self.questions.remove(&print).unwrap_or_default();
        self.behind -= behind.len();
        behind
    }
}
