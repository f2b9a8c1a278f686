//! Where an index stands: how far it holds the log, and what it need not hold.

use folio_protocol::parked::TimerKey;

use super::entry::TimerEntry;
use crate::record::EntryId;

/// A place between two records of the log.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct TimersPoint {
    /// The entry before it; `None` before the first one.
    pub id: Option<EntryId>,
    /// Where that entry's record ends.
    pub position: u64,
    /// Header crc of that record.
    pub crc: u32,
}

/// What is not pending any more by a state that was saved: what has this key or a lower one, and what lies before this position.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Gone {
    /// The key.
    pub watermark: TimerKey,
    /// The position.
    pub start: u64,
}

impl Gone {
    pub(super) fn has(self, entry: &TimerEntry) -> bool {
        entry.key <= self.watermark || entry.key.position < self.start
    }

    pub(super) fn is_within(self, other: Gone) -> bool {
        self.watermark <= other.watermark && self.start <= other.start
    }
}
