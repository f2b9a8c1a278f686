//! Damaged records: what is known of them, and how one is repaired with the record that a peer holds.
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

use std::collections::{BTreeMap, VecDeque};

use parking_lot::Mutex;

use super::error::{NoMend, ReadError, Refusal};
use super::queue::Change;
use super::reader::{Reader, Source};
use super::segment::base_of;
use super::view::{self, View};
use super::{CommitLog, Completion, Shared};
use crate::record::{Record, RecordHeader};

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

impl Shared {
    /// Passes a read's error on, and notes it if it tells of damage. `epoch` is that of the view before the read: what was
    /// truncated meanwhile is not damaged.
    pub(super) fn noted(&self, epoch: u64, error: ReadError) -> ReadError {
        let (position, index) = match &error {
            ReadError::Rot { position, index, .. } | ReadError::Misplaced { position, index } => {
                (*position, *index)
            }
            _ => return error,
        };
        {
            let view = self.view.lock();
            if view.epoch != epoch {
                return ReadError::Changed;
            }
            if !view.holds(index, position, self.config.segment_bytes) {
                // Somebody asked for bytes where no record is: nothing is damaged by that.
                return error;
            }
        }
        self.damages.note(Damage { position, index, reason: error.to_string() });
        error
    }
}

impl CommitLog {
    /// The damaged records known, lowest first.
    pub fn damages(&self) -> Vec<Damage> {
        self.inner.shared.damages.known.lock().values().map(|known| known.damage.clone()).collect()
    }

    /// Calls `watcher` whenever damage is found from now on.
    pub fn on_damage(&self, watcher: Watcher) {
        *self.inner.shared.damages.watcher.lock() = Some(watcher);
    }

    /// Overwrites a damaged record with `record`; it is durable, and readable again, when `done` is called.
    ///
    /// The caller knows that `record` is committed, and hence the only one that can ever stand there. Refused unless
    /// `damage.I2` holds.
    pub fn mend(&self, record: Record, done: Completion) {
        let fits = self.inner.shared.fits(&record);
        self.change(fits.map(|()| Some(Change::Mend(record))).map_err(Refusal::from), done);
    }

    /// The record at a damaged place as memory still has it, if that is whole: as the copy that stands in for it, or in the
    /// page cache where the disk alone is damaged.
    pub fn cached_copy(&self, damage: &Damage) -> Option<Record> {
        let shared = &self.inner.shared;
        if let Some(record) = shared.damages.stand_in(damage.position, damage.index) {
            return Some(record);
        }
        let live = shared.view.lock().live_at(damage.position, shared.config.segment_bytes)?;
        let mut reader = Reader::new(shared, &live.segment, Source::File, u64::MAX);
        reader.record(damage.position, damage.index, 0).ok()
    }

    /// Whether nothing can be read at a damaged place: no copy stands in for the record.
    pub fn is_unreadable(&self, position: u64) -> bool {
        let known = self.inner.shared.damages.known.lock();
        known.get(&position).is_some_and(|known| known.stand_in.is_none())
    }
}

impl Shared {
    /// `damage.I2`
    fn fits(&self, record: &Record) -> Result<(), NoMend> {
        let header = &record.header;
        let position = header.position;
        let known = self.damages.known.lock().get(&position).map(|known| known.damage.index);
        if known != Some(header.index) {
            return Err(NoMend::NoDamage { id: header.id(), position });
        }
        if position + u64::from(header.length)
            > base_of(position, self.config.segment_bytes) + self.config.segment_bytes
        {
            return Err(NoMend::CrossesSegment(position));
        }
        let before = header.index.checked_sub(1).and_then(|index| self.header(index));
        if before.is_some_and(|before| {
            before.crc != header.prev_crc || before.end() > position || before.term > header.term
        }) {
            return Err(NoMend::AfterOther(position));
        }
        let after = self.header_after(header);
        if after.is_some_and(|after| after.prev_crc != header.crc) {
            return Err(NoMend::BeforeOther(position));
        }
        Ok(())
    }

    /// The header that follows `header` in the log, if it can be read: right behind it, or at the next segment's start.
    fn header_after(&self, header: &RecordHeader) -> Option<RecordHeader> {
        let (index, end) = (header.index + 1, header.end());
        let (here, next) = {
            let view = self.view.lock();
            let next = view.segments.iter().find(|live| live.first.0 == index).cloned();
            (view.live_at(header.position, self.config.segment_bytes)?, next)
        };
        let (segment, at) = match &next {
            Some(next) => (&next.segment, next.first.1),
            None => (&here.segment, end),
        };
        Reader::new(self, segment, Source::Anywhere, u64::MAX).header(at, index).ok()
    }

    /// The header of an entry, if it can be read.
    fn header(&self, index: u64) -> Option<RecordHeader> {
        let holds =
            |view: &View| view.first_index() <= index && view.last.is_some_and(|last| index <= last.index);
        if !holds(&self.view.lock()) {
            return None;
        }
        view::header_of(self, index).ok()
    }
}
