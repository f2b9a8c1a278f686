//! Makes the state as of a boundary again, from a later state and the records between.
//!
//! Where queues stand is exact: a queue's first message behind the boundary has its next offset, and a queue without one
//! stands where it stands later. Topics, groups and offsets are those of the later state: every command says what
//! is to be, not by how much it changes, so that applying the records between once more leads to the same state again
//! (`snapshots.I3`, tested below). What no record between changes is as it was anyway.
//!
//! Some sections depend on the order of the commands (`Section::DEPENDS_ON_ORDER`). Locks do: a client that was refused a lock
//! then might be given it now, and the replica would hold it for that client against all others. So a state that is made again
//! says after which entry these sections are as they are, and no entry up to there changes them. A replica that starts from it can lead only after it has applied more.
//!
//! A minimum above where its queue stands is of a deletion between, which the records do once more; it is left out. So that
//! they can, a topic that a record between replaces is taken as that record has it, with the queues that the record took
//! away: those that nobody misses in the later state either.
//!
//! The members are those of the later state as well, or those before the first change between, as far as that tells: who
//! starts from here learns of the change from the log before it has a vote.

use std::collections::btree_map::Entry;
use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::io;

use anyhow::Context;
use folio_engine::checkpoint::Checkpoint;
use folio_engine::counters::QueueCounters;
use folio_engine::log::{CommitLog, StampBase};
use folio_engine::record::{Record, RecordKind};
use folio_protocol::message::peek;
use folio_state::sections::min_offsets::MinOffsets;
use folio_state::{Command, PutTopic, State, Topic};

use super::Boundary;
use crate::codec;
use crate::shared::Shared;
use crate::skip_entry::SkipEntry;
use crate::state_machine::SavedState;
use crate::types::{Membership, StoredMembership, log_id};

/// Log bytes read together.
const SCAN_BYTES: usize = 4 << 20;

/// The state at `boundary`. `skip_entry`: the entries that an operator has named. Blocks on the disk.
pub(crate) fn remake(
    log: &CommitLog,
    boundary: &Boundary,
    later: &Checkpoint,
    skip_entry: &SkipEntry,
) -> anyhow::Result<Checkpoint> {
    let (first, prev_crc) = boundary.first.context("no record is behind it yet")?;
    let last = later.base.id.filter(|id| id.index >= first).context("the later state is not behind it")?;
    let mut saved = SavedState::decode(&later.state)?;
    saved.ordered_as_of = Some(saved.ordered_as_of.unwrap_or(0).max(last.index));
    let mut scan = Scan::new(later.base.counters.clone());
    scan.read(log, first, last.index, skip_entry)?;
    scan.go_back(&mut saved.state);
    if let Some(membership) = scan.membership {
        saved.membership = StoredMembership::new(Some(log_id(boundary.id)), before(&membership)?);
    }
    let base =
        StampBase { id: Some(boundary.id), position: boundary.position, prev_crc, counters: scan.counters };
    Ok(Checkpoint { base, state: saved.encode_for_any()? })
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
    first_puts: BTreeMap<String, FirstPut>,
    /// The next offset of every queue with a message so far.
    ends: HashMap<String, BTreeMap<u32, u64>>,
}

/// The first record that replaces a topic, and where the topic's queues with messages between ended then.
struct FirstPut {
    topic: Topic,
    ends: BTreeMap<u32, u64>,
}

impl Scan {
    pub(crate) fn new(later: QueueCounters) -> Scan {
        Scan { counters: later, membership: None, first_puts: BTreeMap::new(), ends: HashMap::new() }
    }

    /// Reads the entries `first` to `last`.
    pub(crate) fn read(
        &mut self,
        log: &CommitLog,
        first: u64,
        last: u64,
        skip_entry: &SkipEntry,
    ) -> anyhow::Result<()> {
        let mut index = first;
        while index <= last {
            let records = log.read(index, last + 1, SCAN_BYTES)?;
            let Some(end) = records.last() else { anyhow::bail!("the log ends before entry {index}") };
            index = end.header.index + 1;
            records.iter().try_for_each(|record| self.take(record, skip_entry))?;
        }
        Ok(())
    }

    fn take(&mut self, record: &Record, skip_entry: &SkipEntry) -> anyhow::Result<()> {
        let decode = |payload: &[u8]| {
            let command = skip_entry.applied(record.id(), payload);
            command.with_context(|| format!("entry {}", record.id()))
        };
        match record.header.kind {
            RecordKind::Messages => self.take_messages(record),
            RecordKind::Transition => {
                let commands = record.commands().map(|command| decode(&command));
                // All or none were applied.
                if let Some(commands) = commands.collect::<anyhow::Result<Option<Vec<_>>>>()? {
                    commands.into_iter().for_each(|command| self.take_command(command));
                }
                self.take_messages(record)
            }
            RecordKind::Membership if self.membership.is_none() => {
                self.membership = Some(codec::decode_membership(&record.payload())?);
                Ok(())
            }
            RecordKind::Command => {
                if let Some(command) = decode(&record.payload())? {
                    self.take_command(command);
                }
                Ok(())
            }
            _ => Ok(()),
        }
    }

    fn take_command(&mut self, command: Command) {
        let Command::PutTopic(PutTopic(topic)) = command else { return };
        if let Entry::Vacant(first) = self.first_puts.entry(topic.name.clone()) {
            let ends = self.ends.get(&topic.name).cloned().unwrap_or_default();
            first.insert(FirstPut { topic, ends });
        }
    }

    fn take_messages(&mut self, record: &Record) -> anyhow::Result<()> {
        let mut rest = record.messages();
        while !rest.is_empty() {
            let route = peek(rest)?;
            rest = &rest[route.total_size..];
            self.take_message(std::str::from_utf8(route.topic)?, route.queue_id, route.queue_offset);
        }
        Ok(())
    }

    fn take_message(&mut self, topic: &str, queue: u32, offset: u64) {
        let known = self.ends.get_mut(topic).and_then(|ends| ends.get_mut(&queue));
        if let Some(end) = known {
            *end = offset + 1;
            return;
        }
        self.ends.entry(topic.to_owned()).or_default().insert(queue, offset + 1);
        self.counters.set(topic, queue, offset);
    }

    /// Makes the later state the one before the records that were read.
    fn go_back(&self, state: &mut State) {
        let topics: Vec<Topic> =
            self.first_puts.values().map(|put| self.before(put, state.min_offsets())).collect();
        state.forget_deletions_after(|topic, queue| self.counters.get(topic, queue));
        topics.into_iter().for_each(|topic| drop(state.apply(PutTopic(topic))));
    }

    /// A topic before the first record that replaces it: no narrower than it was, as far as that took messages away.
    fn before(&self, put: &FirstPut, mins: &MinOffsets) -> Topic {
        let mut topic = put.topic.clone();
        let width = topic.queue_count();
        let stood = self.counters.iter().filter(|(name, ..)| ***name == *topic.name);
        let mut ended: BTreeMap<u32, u64> = stood.map(|(_, queue, next)| (queue, next)).collect();
        ended.extend(&put.ends);
        ended.retain(|queue, _| *queue >= width);
        let taken = ended.iter().take_while(|(queue, end)| mins.get(&topic.name, **queue) >= **end).last();
        if let Some((last, _)) = taken {
            topic.write_queues = topic.write_queues.max(last + 1);
        }
        topic
    }
}

#[cfg(test)]
mod tests;
