//! When a message that was given becomes visible again, as far as its consumers know.

use std::collections::HashMap;

use super::super::delays::DRIFT_MS;
use super::flights::Story;
use super::given::Given;
use crate::history::{Ended, History, PopChange};

/// The earliest and the latest time at which a message may be visible again, ms since the epoch.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Visible {
    pub(super) earliest: u64,
    pub(super) latest: u64,
}

/// What changes of invisible times say.
pub(super) struct Windows<'a> {
    history: &'a History,
    /// Of ordered batches: group, queue, and pop time.
    of_batch: HashMap<(&'a str, u32, u64), Vec<&'a PopChange>>,
}

impl<'a> Windows<'a> {
    pub(super) fn of(history: &'a History) -> Self {
        let mut of_batch: HashMap<_, Vec<&PopChange>> = HashMap::new();
        for change in &history.pop_changes {
            let batch = (change.group.as_str(), change.queue, change.popped_ms);
            of_batch.entry(batch).or_default().push(change);
        }
        Self { history, of_batch }
    }

    pub(super) fn visible_ms(&self, story: &Story<'_>, given: &Given<'_>) -> Visible {
        let at_ms = given.one.popped_ms + given.one.invisible_ms;
        let first = Visible { earliest: at_ms, latest: at_ms };
        if given.pop.attempt.is_some() {
            let batch = (given.pop.group.as_str(), given.one.queue, given.one.popped_ms);
            let changes = self.of_batch.get(&batch).into_iter().flatten();
            return changes.fold(first, |visible, change| visible.or(self.changed(change)));
        }
        let changes = story.changes.iter().filter(|change| change.attempts == given.one.attempts);
        changes.fold(first, |visible, change| match change.ended {
            // It says what counts, whatever was before.
            Ended::Yes => self.changed(change).unwrap_or(visible),
            Ended::Refused | Ended::Unknown => visible.or(self.changed(change)),
        })
    }

    /// When a change has a message become visible, if it counts; one of unknown outcome counts at any time from when it was asked.
    fn changed(&self, change: &PopChange) -> Option<Visible> {
        let day_ms = |at_us| self.history.day_ms(at_us) + change.invisible_ms;
        match (change.ended, change.visible_ms) {
            (Ended::Refused, _) => None,
            (Ended::Yes, Some(at_ms)) => Some(Visible { earliest: at_ms, latest: at_ms }),
            _ => Some(Visible {
                earliest: day_ms(change.invoked_us).saturating_sub(DRIFT_MS),
                latest: day_ms(change.completed_us) + DRIFT_MS,
            }),
        }
    }
}

impl Visible {
    fn or(self, other: Option<Self>) -> Self {
        let Some(other) = other else { return self };
        Self { earliest: self.earliest.min(other.earliest), latest: self.latest.max(other.latest) }
    }
}
