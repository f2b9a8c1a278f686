//! What is applied anywhere is committed: it never changes, a majority has it durably at that moment, it is the same
//! bytes everywhere, and every later leader has it (leader completeness).

use std::collections::BTreeMap;

use folio_engine::record::Record;
use folio_raft::status::Status;

use super::logs::Replica;
use super::oracle::Oracle;
use super::{Checked, violation};

struct Entry {
    record: Record,
    /// No node had said a newer term when this was first seen applied: it was committed in this one or before.
    term: u64,
}

#[derive(Default)]
pub(crate) struct Committed {
    entries: BTreeMap<u64, Entry>,
    pub(crate) count_copies: bool,
    /// Header crcs of what the weak node had durably when it last died: it helped to commit that, and may have lost it.
    held_before: BTreeMap<u64, u32>,
}

impl Committed {
    pub(crate) fn last(&self) -> u64 {
        self.entries.last_key_value().map_or(0, |(index, _)| *index)
    }

    /// The records in order.
    pub(crate) fn records(&self) -> impl Iterator<Item = &Record> {
        self.entries.values().map(|entry| &entry.record)
    }

    /// Takes in what the node has applied since it was last looked at.
    pub(crate) fn follow(
        &mut self,
        status: &Status,
        term: u64,
        replicas: &mut BTreeMap<u64, Replica>,
        oracle: &mut Oracle,
    ) -> Checked {
        let node = status.node_id;
        let Some(from) = replicas.get(&node).map(|replica| replica.applied) else { return Ok(()) };
        if from >= status.applied {
            return Ok(());
        }
        for (&index, record) in replicas[&node].records.range(from + 1..=status.applied) {
            if let Some(known) = self.entries.get(&index) {
                if known.record.frame() != record.frame() {
                    let seen = format!(
                        "node {node} applied another entry {} than {}",
                        record.id(),
                        known.record.id()
                    );
                    return Err(violation("committed never changes", seen));
                }
                continue;
            }
            let copies = replicas.values().filter(|replica| replica.holds(record)).count();
            let lost = self.held_before.get(&index) == Some(&record.header.crc);
            // While members change there is a voter more, for a part of the log only.
            let voters = match status.voters.len() {
                0..=2 => 1,
                3 | 4 => 3,
                _ => 5,
            };
            if self.count_copies && (copies + usize::from(lost)) * 2 <= voters {
                let seen = format!("node {node} applied {}, which {copies} nodes have durably", record.id());
                return Err(violation("committed by a majority", seen));
            }
            oracle.committed(record)?;
            self.entries.insert(index, Entry { record: record.clone(), term });
        }
        if let Some(replica) = replicas.get_mut(&node) {
            replica.applied = status.applied;
        }
        Ok(())
    }

    /// To be called for the weak node when it died.
    pub(crate) fn held_before(&mut self, weak: &Replica) {
        self.held_before.extend(weak.records.iter().map(|(index, record)| (*index, record.header.crc)));
    }

    /// A new leader's log holds everything that was committed in earlier terms.
    pub(crate) fn check_leader(&self, status: &Status, replica: &Replica) -> Checked {
        // What lies below its first record was purged, after it was applied.
        let first = replica.records.first_key_value().map_or(0, |(index, _)| *index);
        let earlier = self.entries.range(first..).filter(|(_, entry)| entry.term < status.term);
        for (index, entry) in earlier {
            let held = replica.records.get(index);
            if held.is_none_or(|held| held.frame() != entry.record.frame()) {
                return Err(missing(status, *index, &entry.record));
            }
        }
        Ok(())
    }
}

fn missing(status: &Status, index: u64, record: &Record) -> super::Violation {
    let seen = format!(
        "node {} leads in term {} without the committed entry {} at index {index}",
        status.node_id,
        status.term,
        record.id()
    );
    violation("leader completeness", seen)
}
