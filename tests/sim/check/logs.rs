//! Log matching: an entry of one term and index is the same record, after the same record, in every log.
//!
//! A record's header crc covers the one before it, so equal crcs are equal logs up to there.

use std::collections::BTreeMap;

use folio_engine::log::ReadError;
use folio_engine::record::{EntryId, Record};
use folio_raft::group::Group;
use folio_raft::status::Status;

use super::{Checked, violation};

/// What one node's log gave out last.
#[derive(Default)]
pub(crate) struct Replica {
    pub(crate) records: BTreeMap<u64, Record>,
    pub(crate) durable: Option<EntryId>,
    /// Index up to which what was applied was compared.
    pub(crate) applied: u64,
    seen: Option<(Option<EntryId>, u64, u64)>,
}

impl Replica {
    /// What was not durable may be gone.
    pub(crate) fn died(&mut self) {
        let durable = self.durable.map_or(0, |id| id.index);
        drop(self.records.split_off(&(durable + 1)));
        (self.applied, self.seen) = (0, None);
    }

    /// Whether the node holds the record durably.
    pub(crate) fn holds(&self, record: &Record) -> bool {
        let index = record.header.index;
        let is_durable = self.durable.is_some_and(|id| index <= id.index);
        is_durable && self.records.get(&index).is_some_and(|held| held.header.crc == record.header.crc)
    }
}

/// Every entry that was ever seen in any log.
#[derive(Default)]
pub(crate) struct Logs {
    crcs: BTreeMap<(u64, u64), (u32, u32)>,
}

impl Logs {
    /// Reads what changed in the node's log since it was last looked at.
    pub(crate) fn follow(&mut self, replica: &mut Replica, group: &Group, status: &Status) -> Checked {
        let log = group.log().state();
        replica.durable = log.durable;
        let now = (log.last, log.first_index, log.next_position);
        if replica.seen == Some(now) {
            return Ok(());
        }
        let last = log.last.map_or(0, |last| last.index);
        drop(replica.records.split_off(&(last + 1)));
        while replica.records.first_key_value().is_some_and(|(index, _)| *index < log.first_index) {
            replica.records.pop_first();
        }
        let read = |start: u64, end: u64, bytes: usize| match group.log().read(start, end, bytes) {
            Ok(found) => Ok(Some(found)),
            // Damaged, and not mended yet: it is looked at again.
            Err(ReadError::Rot { position, .. } | ReadError::Misplaced { position, .. })
                if group.log().is_damaged(position) =>
            {
                Ok(None)
            }
            Err(error) => Err(violation("log readable", format!("node {}: {error}", status.node_id))),
        };
        while let Some((&index, known)) = replica.records.last_key_value() {
            let Some(found) = read(index, index + 1, 1)? else { return Ok(()) };
            if found.first().is_some_and(|record| record.header.crc == known.header.crc) {
                break;
            }
            replica.records.remove(&index);
        }
        let mut next = replica.records.last_key_value().map_or(log.first_index, |(index, _)| index + 1);
        while next <= last && log.last.is_some() {
            let Some(found) = read(next, last + 1, 1 << 20)? else { return Ok(()) };
            if found.is_empty() {
                break;
            }
            for record in found {
                next = record.header.index + 1;
                self.check(&record, status.node_id)?;
                replica.records.insert(record.header.index, record);
            }
        }
        replica.seen = Some(now);
        Ok(())
    }

    fn check(&mut self, record: &Record, node: u64) -> Checked {
        let header = &record.header;
        let crcs = (header.crc, header.prev_crc);
        let known = *self.crcs.entry((header.term, header.index)).or_insert(crcs);
        if known == crcs {
            return Ok(());
        }
        let seen = format!("node {node} holds another entry {} than was seen before", record.id());
        Err(violation("log matching", seen))
    }
}
