//! A place in the log from which stamping can go on.

use super::mark::Start;
use crate::counters::QueueCounters;
use crate::record::EntryId;

/// The state of the log after some record, from which stamping can go on.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct StampBase {
    /// The record's entry; `None` before the first.
    pub id: Option<EntryId>,
    /// The position after the record.
    pub position: u64,
    /// The record's header crc.
    pub prev_crc: u32,
    /// The next offset of every queue.
    pub counters: QueueCounters,
}

impl StampBase {
    pub(super) fn start(&self, epoch: u64) -> Start {
        Start { epoch, id: self.id, position: self.position, prev_crc: self.prev_crc }
    }
}
