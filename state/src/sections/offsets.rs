//! Consumer offsets: how far each group has come in each queue.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

use super::size::{OFFSET_BYTES, entry, new_map, signed};
use crate::cow_map::CowMap;
use crate::section::Section;

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

    pub(super) fn put(&mut self, commit: OffsetCommit) {
        let topics = self.0.get_or_default(commit.group);
        topics.get_or_default(commit.topic).insert(commit.queue, commit.offset);
    }

    pub(super) fn growth_of_put(&self, commit: &OffsetCommit) -> i64 {
        let topics = self.0.get(&commit.group);
        let queues = topics.and_then(|topics| topics.get(&commit.topic));
        let known = queues.is_some_and(|queues| queues.contains_key(&commit.queue));
        let group = if topics.is_none() { new_map(&commit.group) } else { 0 };
        let topic = if queues.is_none() { new_map(&commit.topic) } else { 0 };
        signed(group + topic + if known { 0 } else { OFFSET_BYTES })
    }
}
