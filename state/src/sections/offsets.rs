//! Consumer offsets: how far each group has come in each queue.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

use super::sent_back::SentBack;
use super::size::{OFFSET_BYTES, entry, new_map, signed};
use crate::bounds::{ENTRIES_MAX, OutOfBounds, at_most, check_group_name, check_topic_name};
use crate::cow_map::CowMap;
use crate::operation::{Apply, Operation, Outcome};
use crate::queue_ref::QueueRef;
use crate::section::{Has, NextOffsets, Section};

/// A consumer group's progress in one queue.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct OffsetCommit {
    /// The consumer group.
    pub group: String,
    /// The topic.
    pub topic: String,
    /// The queue's number.
    pub queue: u32,
    /// The next offset the group wants to consume.
    pub offset: u64,
}

/// Group -> topic -> queue -> next offset to consume.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Offsets(CowMap<String, CowMap<String, BTreeMap<u32, u64>>>);

impl Section for Offsets {
    const TAG: u16 = 3;
}

impl Offsets {
    pub(crate) fn get(&self, group: &str, topic: &str, queue: u32) -> Option<u64> {
        self.0.get(group)?.get(topic)?.get(&queue).copied()
    }

    pub(crate) fn of(&self, group: &str) -> impl Iterator<Item = (&str, u32, u64)> {
        let topics = self.0.get(group).into_iter().flatten();
        topics.flat_map(|(topic, queues)| {
            queues.iter().map(move |(queue, offset)| (topic.as_str(), *queue, *offset))
        })
    }

    pub(crate) fn forget(&mut self, group: &str) {
        self.0.remove(group);
    }

    pub(crate) fn growth_of_removal(&self, group: &str) -> i64 {
        -entry(group, self.0.get(group))
    }

    fn put(&mut self, commit: OffsetCommit) {
        let topics = self.0.get_or_default(commit.group);
        topics.get_or_default(commit.topic).insert(commit.queue, commit.offset);
    }

    /// The queue, if the group goes back in it: it consumes again what it may have sent back.
    fn goes_back(&self, OffsetCommit { group, topic, queue, offset }: &OffsetCommit) -> Option<QueueRef> {
        let before = self.get(group, topic, *queue)?;
        (*offset < before).then(|| QueueRef { topic: topic.clone(), queue: *queue })
    }

    fn growth_of_put(&self, commit: &OffsetCommit) -> i64 {
        let topics = self.0.get(&commit.group);
        let queues = topics.and_then(|topics| topics.get(&commit.topic));
        let known = queues.is_some_and(|queues| queues.contains_key(&commit.queue));
        let group = if topics.is_none() { new_map(&commit.group) } else { 0 };
        let topic = if queues.is_none() { new_map(&commit.topic) } else { 0 };
        signed(group + topic + if known { 0 } else { OFFSET_BYTES })
    }
}

/// Stores consumer offsets. A lower offset than the stored one is accepted, as RocketMQ does; what the group sent back from there
/// on it may send back again.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct CommitOffsets(pub Vec<OffsetCommit>);

impl Operation for CommitOffsets {
    const KIND: u16 = 32;

    fn check_bounds(&self) -> Result<(), OutOfBounds> {
        at_most("offsets in one command", self.0.len(), ENTRIES_MAX)?;
        self.0.iter().try_for_each(|commit| {
            check_group_name(&commit.group)?;
            check_topic_name(&commit.topic)
        })
    }
}

impl<S: Has<Offsets> + Has<SentBack>> Apply<S> for CommitOffsets {
    fn growth(&self, state: &S, _: &dyn NextOffsets) -> i64 {
        let growth = |commit: &OffsetCommit| {
            let offsets = Offsets::within(state);
            let reset = match offsets.goes_back(commit) {
                Some(queue) => SentBack::within(state).growth_of_reset(&commit.group, &queue, commit.offset),
                None => 0,
            };
            reset + offsets.growth_of_put(commit)
        };
        self.0.iter().map(growth).sum()
    }

    fn apply(self, state: &mut S, _: &dyn NextOffsets) -> Outcome {
        for commit in self.0 {
            if let Some(queue) = Offsets::within(state).goes_back(&commit) {
                SentBack::within_mut(state).forget_from(&commit.group, &queue, commit.offset);
            }
            Offsets::within_mut(state).put(commit);
        }
        Outcome::Done
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::DeleteGroup;
    use crate::State;

    #[test]
    fn offsets_are_kept_per_group_topic_and_queue() {
        let mut state = State::default();
        let commit = |offset| OffsetCommit { group: "g".into(), topic: "t".into(), queue: 1, offset };
        state.apply(CommitOffsets(vec![commit(7)]));
        assert_eq!(state.offset("g", "t", 1), Some(7));
        assert_eq!(state.offset("g", "t", 0), None);
        state.apply(CommitOffsets(vec![commit(3)]));
        assert_eq!(state.offset("g", "t", 1), Some(3), "a lower commit is accepted");
        state.apply(DeleteGroup { name: "g".into(), clean_offsets: true });
        assert_eq!(state.offset("g", "t", 1), None);
    }
}
