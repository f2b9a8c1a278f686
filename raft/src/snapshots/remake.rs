//! Makes the state as of a boundary again, from a later state and the records between.
//!
//! Where queues stand is exact: a queue's first message behind the boundary has its next offset, and a queue without one
//! stands where it stands later. Topics, groups, offsets and locks are those of the later state: every command says what
//! is to be, not by how much it changes, so that applying the records between once more leads to the same state again
//! (`snapshots.I3`, tested below). Locks alone depend on each other; one that differs meanwhile is over when it expires.
//! What no record between changes is as it was anyway. A topic is taken as the first record that replaces it has it: that
//! record then takes no queue away from it, whose loss the later state knows of.
//!
//! A minimum above where its queue stands is of a deletion between, which the records do once more; it is left out.
//!
//! The members are those of the later state as well, or those before the first change between, as far as that tells: who
//! starts from here learns of the change from the log before it has a vote.

use std::collections::{BTreeMap, BTreeSet, HashMap, HashSet};
use std::io;

use anyhow::Context;
use folio_engine::checkpoint::Checkpoint;
use folio_engine::counters::QueueCounters;
use folio_engine::log::{CommitLog, StampBase};
use folio_engine::record::{HEADER_BYTES, Record, RecordKind};
use folio_protocol::message::peek;

use super::Boundary;
use crate::codec;
use crate::command::{Command, Topic};
use crate::shared::Shared;
use crate::state_machine::State;
use crate::types::{Membership, StoredMembership, log_id};

/// Log bytes read together.
const SCAN_BYTES: usize = 4 << 20;

/// The state at `boundary`. Blocks on the disk.
pub(crate) fn remake(log: &CommitLog, boundary: &Boundary, later: &Checkpoint) -> anyhow::Result<Checkpoint> {
    let (first, prev_crc) = boundary.first.context("no record is behind it yet")?;
    let last = later.base.id.filter(|id| id.index >= first).context("the later state is not behind it")?;
    let mut state = State::decode(&later.state)?;
    let mut scan = Scan::new(later.base.counters.clone());
    scan.read(log, first, last.index)?;
    state.metadata.forget_deletions_after(&scan.counters);
    scan.first_puts.into_values().for_each(|topic| drop(state.metadata.apply(Command::PutTopic(topic))));
    if let Some(membership) = scan.membership {
        state.membership = StoredMembership::new(Some(log_id(boundary.id)), before(&membership)?);
    }
    let base =
        StampBase { id: Some(boundary.id), position: boundary.position, prev_crc, counters: scan.counters };
    Ok(Checkpoint { base, state: state.encode_for_any()? })
}

/// The nearest later snapshot that is whole. Blocks on the disk.
pub(crate) fn later_snapshot(shared: &Shared, boundary: &Boundary) -> io::Result<Option<Checkpoint>> {
    let snapshots = shared.checkpoints.snapshots().map_err(io::Error::other)?;
    let behind = snapshots.into_iter().filter(|position| *position > boundary.position);
    let mut whole = behind.filter_map(|position| shared.checkpoints.load_snapshot(position).ok().flatten());
    Ok(whole.next())
}

/// The members before a change of them: the voters still are in the first set of the change.
fn before(change: &Membership) -> anyhow::Result<Membership> {
    let voters: BTreeSet<u64> = change.get_joint_config().first().cloned().unwrap_or_default();
    let nodes = change.nodes().map(|(id, node)| (*id, node.clone()));
    Ok(Membership::new(vec![voters], nodes.collect::<BTreeMap<_, _>>())?)
}

/// What the records between tell.
pub(crate) struct Scan {
    /// At first of the later state; where a queue has a message, that one's offset.
    pub(crate) counters: QueueCounters,
    /// The first one.
    membership: Option<Membership>,
    /// By name.
    first_puts: BTreeMap<String, Topic>,
    seen: HashMap<Vec<u8>, HashSet<u32>>,
}

impl Scan {
    pub(crate) fn new(later: QueueCounters) -> Scan {
        Scan { counters: later, membership: None, first_puts: BTreeMap::new(), seen: HashMap::new() }
    }

    /// Reads the entries `first` to `last`.
    pub(crate) fn read(&mut self, log: &CommitLog, first: u64, last: u64) -> anyhow::Result<()> {
        let mut index = first;
        while index <= last {
            let records = log.read(index, last + 1, SCAN_BYTES)?;
            let Some(end) = records.last() else { anyhow::bail!("the log ends before entry {index}") };
            index = end.header.index + 1;
            records.iter().try_for_each(|record| self.take(record))?;
        }
        Ok(())
    }

    fn take(&mut self, record: &Record) -> anyhow::Result<()> {
        match record.header.kind {
            RecordKind::Messages => self.take_messages(record),
            RecordKind::Membership if self.membership.is_none() => {
                self.membership = Some(codec::decode_membership(&record.payload())?);
                Ok(())
            }
            RecordKind::Command => {
                self.take_command(Command::decode(&record.payload())?);
                Ok(())
            }
            _ => Ok(()),
        }
    }

    fn take_command(&mut self, command: Command) {
        if let Command::PutTopic(topic) = command {
            self.first_puts.entry(topic.name.clone()).or_insert(topic);
        }
    }

    fn take_messages(&mut self, record: &Record) -> anyhow::Result<()> {
        let mut rest = &record.frame()[HEADER_BYTES..];
        while !rest.is_empty() {
            let route = peek(rest)?;
            rest = &rest[route.total_size..];
            if self.seen.get(route.topic).is_some_and(|queues| queues.contains(&route.queue_id)) {
                continue;
            }
            self.seen.entry(route.topic.to_vec()).or_default().insert(route.queue_id);
            self.counters.set(std::str::from_utf8(route.topic)?, route.queue_id, route.queue_offset);
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::command::{ConsumerGroup, OffsetCommit};
    use crate::metadata::Metadata;

    fn command() -> impl Strategy<Value = Command> {
        let name = || prop::sample::select(vec!["a", "b"]).prop_map(str::to_owned);
        let commit = (name(), name(), 0..2u32, 0..9u64)
            .prop_map(|(group, topic, queue, offset)| OffsetCommit { group, topic, queue, offset });
        prop_oneof![
            (name(), 1..4u32).prop_map(|(name, queues)| Command::PutTopic(Topic::new(name, queues))),
            (name(), 1..4u32).prop_map(|(name, queues)| Command::CreateTopic(Topic::new(name, queues))),
            name().prop_map(|name| Command::DeleteTopic { name }),
            name().prop_map(|name| Command::PutGroup(ConsumerGroup::new(name))),
            (name(), 1..4u32).prop_map(|(name, retry_queues)| {
                Command::CreateGroup(ConsumerGroup { retry_queues, ..ConsumerGroup::new(name) })
            }),
            (name(), any::<bool>())
                .prop_map(|(name, clean_offsets)| Command::DeleteGroup { name, clean_offsets }),
            prop::collection::vec(commit, 0..4).prop_map(Command::CommitOffsets),
        ]
    }

    proptest! {
        /// `snapshots.I3`
        #[test]
        fn records_applied_to_the_state_they_led_to_lead_there_again(
            before in prop::collection::vec(command(), 0..12),
            between in prop::collection::vec(command(), 0..12),
        ) {
            let mut metadata = Metadata::default();
            before.into_iter().for_each(|command| drop(metadata.apply(command)));
            between.iter().cloned().for_each(|command| drop(metadata.apply(command)));
            let later = metadata.clone();
            let mut scan = Scan::new(QueueCounters::new());
            between.iter().cloned().for_each(|command| scan.take_command(command));
            scan.first_puts.into_values().for_each(|topic| drop(metadata.apply(Command::PutTopic(topic))));
            between.into_iter().for_each(|command| drop(metadata.apply(command)));
            prop_assert_eq!(metadata, later);
        }
    }
}
