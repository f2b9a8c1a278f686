//! One derived structure, and the point of the log up to which records were applied to it.

use std::sync::atomic::{AtomicBool, Ordering};

use folio_engine::derived::{Derived, DerivedError, LogPoint, Taken};
use folio_engine::log::{CommitLog, ReadError, StampBase};
use folio_engine::queues::Arrival;
use folio_engine::record::Record;
use parking_lot::Mutex;

/// How a structure follows the log.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Follows {
    /// With the state, record by record: apply waits for it, and a checkpoint counts on it.
    State,
    /// At its own pace: what it misses is brought to it later.
    Log,
}

/// See the module.
pub(crate) struct Slot {
    structure: Box<dyn Derived>,
    follows: Follows,
    place: Mutex<Place>,
    sync_wanted: AtomicBool,
}

struct Place {
    reached: LogPoint,
    /// The index before which all is to be brought to it: apply has passed by there.
    missed: u64,
}

/// Why a step of bringing a structure up did nothing, or not all.
#[derive(Debug, thiserror::Error)]
pub(crate) enum BringUpError {
    /// Records are damaged, and repaired meanwhile; or they were purged, and the structure begins later soon.
    #[error(transparent)]
    Log(#[from] ReadError),
    #[error(transparent)]
    Structure(#[from] DerivedError),
}

impl Slot {
    pub(super) fn new(structure: Box<dyn Derived>, follows: Follows, reached: LogPoint) -> Slot {
        let place = Mutex::new(Place { reached, missed: 0 });
        Slot { structure, follows, place, sync_wanted: AtomicBool::new(false) }
    }

    pub(crate) fn structure(&self) -> &dyn Derived {
        &*self.structure
    }

    pub(crate) fn follows(&self) -> Follows {
        self.follows
    }

    pub(super) fn miss_before(&self, index: u64) {
        let mut place = self.place.lock();
        place.missed = place.missed.max(index);
    }

    /// Takes a record as it is applied (`derived.I6`, `derived.I7`). True when the structure lacks records or wants a sync.
    pub(super) fn apply(&self, record: &Record, arrivals: &mut Vec<Arrival>) -> Result<bool, DerivedError> {
        if self.follows == Follows::State {
            return self.structure.apply(record, arrivals).map(|taken| self.note(taken));
        }
        let mut place = self.place.lock();
        let (index, next) = (record.header.index, place.reached.next_index());
        if index < next {
            return Ok(false);
        }
        if index == next
            && let Ok(taken) = self.structure.apply(record, arrivals)
        {
            place.reached = LogPoint::after(record);
            return Ok(self.note(taken));
        }
        place.missed = place.missed.max(index + 1);
        Ok(true)
    }

    /// Has it synced by whoever brings it up.
    pub(super) fn want_sync(&self) {
        self.sync_wanted.store(true, Ordering::Release);
    }

    fn note(&self, taken: Taken) -> bool {
        let wanted = taken == Taken::SyncWanted;
        if wanted {
            self.want_sync();
        }
        wanted
    }

    pub(super) fn reset(&self, at: &StampBase) -> Result<(), DerivedError> {
        let mut place = self.place.lock();
        self.structure.reset(at)?;
        *place = Place { reached: at.into(), missed: 0 };
        Ok(())
    }

    pub(super) fn trim(&self, start: &StampBase) -> Result<(), DerivedError> {
        if self.follows == Follows::Log {
            let mut place = self.place.lock();
            if place.reached.next_index() < LogPoint::from(start).next_index() {
                self.structure.reset(start)?;
                place.reached = start.into();
                return Ok(());
            }
        }
        self.structure.trim(start)
    }

    /// Whether the structure is built up to what was applied: what it does not find there is not there.
    pub(crate) fn is_up(&self) -> bool {
        let place = self.place.lock();
        self.follows == Follows::State || place.reached.next_index() >= place.missed
    }

    /// Whether it lacks records or wants a sync.
    pub(crate) fn needs_work(&self) -> bool {
        self.sync_wanted.load(Ordering::Acquire) || !self.is_up()
    }

    /// Syncs the structure if it wants that, and brings about `bytes` of the log to it, entries up to `applied`. Whether it came
    /// further. Blocks on the disk.
    pub(crate) fn bring_up(&self, log: &CommitLog, applied: u64, bytes: usize) -> Result<bool, BringUpError> {
        let synced = self.sync_wanted.swap(false, Ordering::AcqRel);
        if synced && let Err(error) = self.structure.sync() {
            self.want_sync();
            return Err(error.into());
        }
        if self.is_up() {
            return Ok(synced);
        }
        let (next, missed) = {
            let place = self.place.lock();
            (place.reached.next_index(), place.missed)
        };
        let records = log.read(next, missed.min(applied.saturating_add(1)), bytes)?;
        for record in &records {
            if let Err(refused) = self.bring(record) {
                if !matches!(refused, DerivedError::Busy(_)) {
                    return Err(refused.into());
                }
                self.structure.sync()?;
                self.bring(record)?;
            }
        }
        Ok(synced || !records.is_empty())
    }

    /// Applies a record if it is the next one: the structure may have been reset meanwhile.
    fn bring(&self, record: &Record) -> Result<(), DerivedError> {
        let mut place = self.place.lock();
        if record.header.index == place.reached.next_index() {
            let taken = self.structure.apply(record, &mut Vec::new())?;
            place.reached = LogPoint::after(record);
            self.note(taken);
        }
        Ok(())
    }
}

/// Whether a structure that is built up to `at` is of this log, which begins at `begin`.
pub(super) fn is_of(log: &CommitLog, begin: &StampBase, at: &LogPoint) -> bool {
    let Some(id) = at.id else { return begin.id.is_none() };
    if begin.id.is_some_and(|begin| id.index <= begin.index) {
        return at.is_after(begin.id, begin.prev_crc);
    }
    let read = log.read(id.index, id.index + 1, 1).unwrap_or_default();
    read.first().is_some_and(|record| at.is_after(Some(record.id()), record.header.crc))
}

#[cfg(test)]
mod tests;
