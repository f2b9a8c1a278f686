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
    /// What a node that lost its disk had counts no more; entries committed before that are not counted again.
    pub(crate) count_copies: bool,
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
            if self.count_copies && copies * 2 <= status.voters.len() {
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
