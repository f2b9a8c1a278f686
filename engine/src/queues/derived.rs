//! Consume queues as a derived structure, for those who apply, sync, trim, scrub and repair without knowing what.
//!
//! Their point of the log is that of the checkpoint that was saved after their last sync: they write none themselves.

use parking_lot::Mutex;

use super::ConsumeQueues;
use super::arrival::Arrival;
use super::error::QueuesError;
use super::mend::{MendError, Mending};
use super::unit::UnitPlace;
use crate::derived::{Derived, DerivedError, RepairStep, ScrubStep, Taken};
use crate::log::{CommitLog, StampBase, Watcher};
use crate::record::Record;

/// Consume queues with how far a scrub and a repair of them have come.
pub struct DerivedQueues {
    queues: ConsumeQueues,
    /// Where the scrub goes on.
    scrub: Mutex<Option<UnitPlace>>,
    repair: Mutex<Repair>,
}

#[derive(Default)]
struct Repair {
    /// The search under way.
    mending: Option<Mending>,
    /// The last damaged unit that was tried in this round.
    tried: Option<UnitPlace>,
}

impl DerivedQueues {
    /// Another handle to these queues.
    pub fn new(queues: ConsumeQueues) -> DerivedQueues {
        DerivedQueues { queues, scrub: Mutex::default(), repair: Mutex::default() }
    }
}

impl From<QueuesError> for DerivedError {
    fn from(error: QueuesError) -> DerivedError {
        match error {
            QueuesError::DiskFull { path } => DerivedError::DiskFull { path },
            error => DerivedError::Failed(error.into()),
        }
    }
}

impl From<MendError> for DerivedError {
    fn from(error: MendError) -> DerivedError {
        match error {
            MendError::Queues(error) => error.into(),
            error => DerivedError::NotRepaired(error.into()),
        }
    }
}

impl Derived for DerivedQueues {
    fn name(&self) -> &'static str {
        "consume queues"
    }

    fn apply(&self, record: &Record, arrivals: &mut Vec<Arrival>) -> Result<Taken, DerivedError> {
        // Units are written as they come: a sync has little to do.
        Ok(self.queues.apply(record, arrivals).map(|()| Taken::Held)?)
    }

    fn sync(&self) -> Result<(), DerivedError> {
        Ok(self.queues.sync()?)
    }

    fn reset(&self, at: &StampBase) -> Result<(), DerivedError> {
        *self.repair.lock() = Repair::default();
        *self.scrub.lock() = None;
        Ok(self.queues.reset(&at.counters)?)
    }

    fn trim(&self, start: &StampBase) -> Result<(), DerivedError> {
        Ok(self.queues.trim(&start.counters)?)
    }

    fn scrub(&self, bytes: u64) -> ScrubStep {
        let mut next = self.scrub.lock();
        let scrubbed = self.queues.scrub(next.take(), bytes);
        *next = scrubbed.next;
        ScrubStep { bytes: scrubbed.bytes, over: next.is_none() }
    }

    fn damaged(&self) -> usize {
        self.queues.damaged()
    }

    fn on_damage(&self, watcher: Watcher) {
        self.queues.on_damage(watcher);
    }

    fn repair(&self, log: &CommitLog, upto: u64, bytes: usize) -> Result<RepairStep, DerivedError> {
        let mut repair = self.repair.lock();
        let mut mending = match repair.mending.take() {
            Some(mending) => mending,
            None => {
                let damages = self.queues.damages().into_iter();
                let mut left =
                    damages.skip_while(|place| repair.tried.as_ref().is_some_and(|tried| place <= tried));
                let Some(place) = left.next() else {
                    repair.tried = None;
                    return Ok(RepairStep::RoundOver);
                };
                repair.tried = Some(place.clone());
                match self.queues.begin_mend(log, &place)? {
                    Some(mending) => mending,
                    None => return Ok(RepairStep::Repaired(0)),
                }
            }
        };
        if !mending.step(log, upto, bytes)? {
            repair.mending = Some(mending);
            return Ok(RepairStep::Searching);
        }
        let UnitPlace { topic, queue, offset } = mending.place();
        let units = self.queues.mend(mending)?;
        tracing::warn!(%topic, queue, offset, units, "damaged units mended");
        Ok(RepairStep::Repaired(units))
    }

    fn disk_full(&self) -> bool {
        self.queues.disk_full()
    }

    fn retry(&self) -> Result<bool, DerivedError> {
        Ok(self.queues.retry()?)
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use super::*;
    use crate::derived::LogPoint;
    use crate::derived::conformance::{Story, Subject, check, dir};
    use crate::disk::Disk;

    struct Queues;

    impl Subject for Queues {
        type Structure = DerivedQueues;

        fn open(
            &self,
            disk: Arc<dyn Disk>,
            saved: &StampBase,
            begin: &StampBase,
        ) -> (DerivedQueues, LogPoint) {
            let open = |at: &StampBase| {
                let queues = ConsumeQueues::open(disk.clone(), dir(), &at.counters, &begin.counters)?;
                Ok((DerivedQueues::new(queues), LogPoint::from(at)))
            };
            open(saved).or_else(|_: QueuesError| open(begin)).unwrap()
        }

        fn dump(&self, structure: &DerivedQueues, story: &Story, begin: &StampBase) -> Vec<String> {
            let mut dump = Vec::new();
            for (topic, number, _) in story.log.counters().iter() {
                let (first, next) = structure.queues.bounds(topic, number).unwrap_or_default();
                let from = first.max(begin.counters.get(&**topic, number));
                let units = structure.queues.units(topic, number, from, 1000).unwrap();
                assert_eq!(from + units.len() as u64, next);
                let lines =
                    units.iter().zip(from..).map(|(unit, at)| format!("{topic} {number} {at} {unit:?}"));
                dump.extend(lines);
            }
            dump
        }
    }

    #[test]
    fn consume_queues_are_a_derived_structure() {
        check(&Queues);
    }
}
