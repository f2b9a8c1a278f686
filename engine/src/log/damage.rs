//! Damaged records: what is known of them, and how one is mended with the record that a peer holds.
//!
//! A record is found damaged when it is read for a follower, for a consumer or by the scrub. It is noted here until it is
//! whole again; whoever mends it (the layer that knows peers) is told at once.
//!
//! Invariants
//! - `damage.I1`: a damaged record is never handed out.
//! - `damage.I2`: a record is overwritten only where damage was found, only with a whole record of the same position and
//!   index, and only with one that continues its neighbours, as far as they can be read.

use std::collections::BTreeMap;

use parking_lot::Mutex;

use super::error::ReadError;
use super::queue::Change;
use super::segment::base_of;
use super::view::{self, View};
use super::{CommitLog, Completion, Shared};
use crate::record::{Record, RecordHeader};

/// Damaged records remembered at most; more are found again once these are mended.
const DAMAGES_MAX: usize = 1024;

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
    known: Mutex<BTreeMap<u64, Damage>>,
    watcher: Mutex<Option<Watcher>>,
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
        known.insert(damage.position, damage);
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
        self.verified.forget();
        self.damages.note(Damage { position, index, reason: error.to_string() });
        error
    }
}

impl CommitLog {
    /// The damaged records known, lowest first.
    pub fn damages(&self) -> Vec<Damage> {
        self.inner.shared.damages.known.lock().values().cloned().collect()
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
        self.change(fits.map(|()| Some(Change::Mend(record))), done);
    }

    /// The record at a damaged place as the page cache still has it, if that is whole: the disk alone is damaged.
    pub fn cached_copy(&self, damage: &Damage) -> Option<Record> {
        let live =
            self.inner.shared.view.lock().live_at(damage.position, self.inner.shared.config.segment_bytes)?;
        let segment_bytes = self.inner.shared.config.segment_bytes;
        live.segment.copied(damage.position, damage.index, segment_bytes, false).ok()
    }
}

impl Shared {
    /// `damage.I2`
    fn fits(&self, record: &Record) -> Result<(), String> {
        let header = &record.header;
        let position = header.position;
        let known = self.damages.known.lock().get(&position).cloned();
        if known.is_none_or(|damage| damage.index != header.index) {
            return Err(format!("no damage is known of entry {} at position {position}", header.id()));
        }
        if position + u64::from(header.length)
            > base_of(position, self.config.segment_bytes) + self.config.segment_bytes
        {
            return Err(format!("the record at position {position} would cross its segment"));
        }
        let before = header.index.checked_sub(1).and_then(|index| self.header(index));
        if before.is_some_and(|before| {
            before.crc != header.prev_crc || before.end() > position || before.term > header.term
        }) {
            return Err(format!("the record at position {position} does not continue the one before"));
        }
        let after = self.header_after(header);
        if after.is_some_and(|after| after.prev_crc != header.crc) {
            return Err(format!("the record at position {position} is not continued by the one after"));
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
        match next {
            Some(next) => next.segment.copied_header(next.first.1, index),
            None => here.segment.copied_header(end, index),
        }
    }

    /// The header of an entry, if it can be read.
    fn header(&self, index: u64) -> Option<RecordHeader> {
        let holds =
            |view: &View| view.first_index() <= index && view.last.is_some_and(|last| index <= last.index);
        if !holds(&self.view.lock()) {
            return None;
        }
        view::header_of(&self.view, index).ok()
    }
}
