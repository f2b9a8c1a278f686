//! The key index as a derived structure.

use parking_lot::Mutex;

use super::block::BLOCK_BYTES;
use super::damage::Place;
use super::repair::Repairing;
use super::run::{BLOCKS_TOGETHER, RunId};
use super::{Added, KeyIndex};
use crate::derived::{Derived, DerivedError, LogPoint, RepairStep, ScrubStep, Taken};
use crate::log::{CommitLog, StampBase, Watcher};
use crate::queues::Arrival;
use crate::record::Record;

/// The name of the structure.
pub const KEY_INDEX: &str = "the key index";

/// The index with how far a scrub and a repair of it have come.
pub struct DerivedKeys {
    keys: KeyIndex,
    /// The run and the block where the scrub goes on.
    scrub: Mutex<(RunId, u64)>,
    repair: Mutex<Repair>,
}

#[derive(Default)]
struct Repair {
    repairing: Option<Repairing>,
    /// The last damaged block that was tried in this round.
    tried: Option<Place>,
}

impl DerivedKeys {
    /// Another handle to this index.
    pub fn new(keys: KeyIndex) -> DerivedKeys {
        DerivedKeys { keys, scrub: Mutex::default(), repair: Mutex::default() }
    }

    /// The search for the next damaged block that is known; `Err` says what the step was instead.
    fn next(&self, repair: &mut Repair) -> Result<Result<Repairing, RepairStep>, DerivedError> {
        if let Some(repairing) = repair.repairing.take() {
            return Ok(Ok(repairing));
        }
        let inner = &self.keys.inner;
        repair.tried = inner.damages.after(repair.tried);
        let Some((id, block)) = repair.tried else { return Ok(Err(RepairStep::RoundOver)) };
        let run = inner.runs.read().iter().find(|run| run.id() == id).cloned();
        let begun = match run {
            Some(run) => Repairing::begin(&*inner.disk, run, block)?,
            None => None,
        };
        Ok(begun.ok_or_else(|| {
            inner.damages.forget(|place| *place == (id, block));
            RepairStep::Repaired(0)
        }))
    }
}

impl Derived for DerivedKeys {
    fn name(&self) -> &'static str {
        KEY_INDEX
    }

    fn apply(&self, record: &Record, _: &mut Vec<Arrival>) -> Result<Taken, DerivedError> {
        match self.keys.inner.add(record)? {
            Added::Held => Ok(Taken::Held),
            Added::SyncWanted => Ok(Taken::SyncWanted),
            Added::Refused => Err(DerivedError::Busy(self.name())),
        }
    }

    fn sync(&self) -> Result<(), DerivedError> {
        Ok(self.keys.inner.sync()?)
    }

    fn reset(&self, at: &StampBase) -> Result<(), DerivedError> {
        *self.repair.lock() = Repair::default();
        Ok(self.keys.inner.reset(at.into())?)
    }

    fn trim(&self, start: &StampBase) -> Result<(), DerivedError> {
        Ok(self.keys.inner.trim(LogPoint::from(start).next_index())?)
    }

    fn scrub(&self, bytes: u64) -> ScrubStep {
        let inner = &self.keys.inner;
        let runs = inner.runs.read().clone();
        let (mut next, mut read) = (self.scrub.lock(), 0);
        for run in runs.iter().filter(|run| run.id() >= next.0) {
            let blocks = run.header.blocks() + 1;
            let mut at = if run.id() == next.0 { next.1 } else { 0 };
            while at < blocks {
                if read >= bytes {
                    *next = (run.id(), at);
                    return ScrubStep { bytes: read, over: false };
                }
                let end = blocks.min(at + BLOCKS_TOGETHER as u64);
                let damaged = match run.reader(&*inner.disk) {
                    Ok(reader) => reader.damaged(at..end),
                    Err(_) => (at..end).collect(),
                };
                // One that was merged or dropped meanwhile is no damage.
                if !damaged.is_empty() && inner.runs.read().iter().any(|current| current.id() == run.id()) {
                    damaged.into_iter().for_each(|block| inner.damages.note((run.id(), block)));
                }
                read += (end - at) * BLOCK_BYTES as u64;
                at = end;
            }
        }
        *next = Default::default();
        ScrubStep { bytes: read, over: true }
    }

    fn damaged(&self) -> usize {
        self.keys.inner.damages.count()
    }

    fn on_damage(&self, watcher: Watcher) {
        self.keys.inner.damages.watch(watcher);
    }

    fn repair(&self, log: &CommitLog, upto: u64, bytes: usize) -> Result<RepairStep, DerivedError> {
        let inner = &self.keys.inner;
        let mut repair = self.repair.lock();
        let mut repairing = match self.next(&mut repair)? {
            Ok(repairing) => repairing,
            Err(step) => return Ok(step),
        };
        if !repairing.step(log, upto, bytes)? {
            repair.repairing = Some(repairing);
            return Ok(RepairStep::Searching);
        }
        let _alone = inner.writing.lock();
        let id = repairing.run.id();
        if !inner.runs.read().iter().any(|run| run.id() == id) {
            return Ok(RepairStep::Repaired(0));
        }
        let blocks = repairing.finish(&*inner.disk)?;
        inner.damages.forget(|(run, block)| *run == id && repairing.blocks.contains(block));
        tracing::warn!(
            from = id.0,
            to = id.1,
            block = repairing.blocks.start,
            blocks,
            "damaged blocks of the key index repaired"
        );
        Ok(RepairStep::Repaired(blocks))
    }

    fn disk_full(&self) -> bool {
        self.keys.inner.full.load(std::sync::atomic::Ordering::Acquire)
    }

    fn retry(&self) -> Result<bool, DerivedError> {
        if !self.disk_full() {
            return Ok(true);
        }
        match self.sync() {
            Err(DerivedError::DiskFull { .. }) => Ok(false),
            synced => synced.map(|()| true),
        }
    }
}

#[cfg(test)]
mod tests;
