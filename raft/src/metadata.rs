//! The replicated metadata: topics, consumer groups, consumer offsets, orderly locks.
//!
//! Built by applying committed commands only, on every replica in the same order. It reads no clock and
//! draws no random number. Not here: the messages (the log) and the consume queues (the engine).

pub mod size;

use std::collections::BTreeMap;

use folio_engine::counters::QueueCounters;
use folio_protocol::names;
use serde::{Deserialize, Serialize};

use crate::command::{Command, ConsumerGroup, OffsetCommit, Outcome, Topic};
use crate::cow_map::CowMap;
use crate::locks::{ByGroup, Locks, Wish};
use crate::min_offsets::{MinOffsets, NextOffsets, NoMessages};

/// Group -> topic -> queue -> next offset to consume.
type Offsets = CowMap<String, CowMap<String, BTreeMap<u32, u64>>>;

/// Topics, groups, offsets and locks as of the last applied record, and what is deleted. A copy costs
/// little.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Metadata {
    topics: CowMap<String, Topic>,
    groups: CowMap<String, ConsumerGroup>,
    offsets: Offsets,
    locks: Locks,
    min_offsets: MinOffsets,
}

/// The same as earlier builds wrote it.
#[derive(Debug, Clone, Default, Serialize, Deserialize)]
pub(crate) struct MetadataV1 {
    topics: CowMap<String, Topic>,
    groups: CowMap<String, ConsumerGroup>,
    offsets: Offsets,
    locks: ByGroup,
}

#[cfg(test)]
impl MetadataV1 {
    /// One topic and nothing else.
    pub(crate) fn with_topic(topic: Topic) -> MetadataV1 {
        MetadataV1 { topics: CowMap::from_iter([(topic.name.clone(), topic)]), ..MetadataV1::default() }
    }
}

impl From<MetadataV1> for Metadata {
    fn from(earlier: MetadataV1) -> Metadata {
        let MetadataV1 { topics, groups, offsets, locks } = earlier;
        let (locks, min_offsets) = (Locks::of_earlier_build(locks), MinOffsets::default());
        Metadata { topics, groups, offsets, locks, min_offsets }
    }
}

impl Metadata {
    /// The topic of that name.
    pub fn topic(&self, name: &str) -> Option<&Topic> {
        self.topics.get(name)
    }

    /// All topics, by name.
    pub fn topics(&self) -> impl Iterator<Item = &Topic> {
        self.topics.values()
    }

    /// The consumer group of that name.
    pub fn group(&self, name: &str) -> Option<&ConsumerGroup> {
        self.groups.get(name)
    }

    /// All consumer groups, by name.
    pub fn groups(&self) -> impl Iterator<Item = &ConsumerGroup> {
        self.groups.values()
    }

    /// The next offset that `group` wants of a queue, if it ever committed one; not below what is deleted.
    pub fn offset(&self, group: &str, topic: &str, queue: u32) -> Option<u64> {
        let offset = self.offsets.get(group)?.get(topic)?.get(&queue)?;
        Some(self.min_offsets.get(topic, queue).max(*offset))
    }

    /// Every committed offset of a group: (topic, queue, offset), in no order.
    pub fn offsets_of(&self, group: &str) -> impl Iterator<Item = (&str, u32, u64)> {
        let topics = self.offsets.get(group).into_iter().flatten();
        topics.flat_map(|(topic, queues)| {
            let min = |queue| self.min_offsets.get(topic, queue);
            queues.iter().map(move |(queue, offset)| (topic.as_str(), *queue, min(*queue).max(*offset)))
        })
    }

    /// Where queues begin because what was before is deleted.
    pub fn min_offsets(&self) -> &MinOffsets {
        &self.min_offsets
    }

    /// Takes back the deletions after the queues stood at `next`.
    pub(crate) fn forget_deletions_after(&mut self, next: &QueueCounters) {
        self.min_offsets.forget_after(next);
    }

    /// The latest reading of the lease clock that a request for locks carried.
    pub(crate) fn lease_clock_ms(&self) -> u64 {
        self.locks.clock_ms()
    }

    /// Orderly locks; a copy costs little.
    pub(crate) fn locks(&self) -> &Locks {
        &self.locks
    }

    /// Applies one committed command to a group without messages.
    pub fn apply(&mut self, command: Command) -> Outcome {
        self.apply_with(command, &NoMessages)
    }

    /// Applies one committed command; `queues` is as of the record before it.
    pub fn apply_with(&mut self, command: Command, queues: &impl NextOffsets) -> Outcome {
        match command {
            Command::PutTopicV1(topic) => self.put_topic(topic),
            Command::PutTopic(topic) => {
                self.delete_lost_queues(&topic, queues);
                self.put_topic(topic)
            }
            Command::CreateTopic(topic) => insert_new(&mut self.topics, topic.name.clone(), topic),
            Command::DeleteTopicV1 { name } => removed(self.topics.remove(&name)),
            Command::DeleteTopic { name } => self.delete_topic(&name, queues),
            Command::PutGroup(group) => {
                self.groups.insert(group.name.clone(), group);
                Outcome::Done
            }
            Command::CreateGroup(group) => insert_new(&mut self.groups, group.name.clone(), group),
            Command::DeleteGroupV1 { name, clean_offsets } => self.delete_group(&name, clean_offsets),
            Command::DeleteGroup { name, clean_offsets } => {
                if clean_offsets {
                    self.delete_topic(&names::retry_topic(&name), queues);
                }
                self.delete_group(&name, clean_offsets)
            }
            Command::CommitOffsets(commits) => {
                commits.into_iter().for_each(|commit| self.commit_offset(commit));
                Outcome::Done
            }
            Command::LockQueuesV1 { group, client, queues, now_ms, ttl_ms } => {
                let wish = Wish { group, client, queues, now_ms, ttl_ms };
                Outcome::Locked(self.locks.take_by_wall_clock(wish))
            }
            Command::LockQueues { group, client, queues, now_ms, ttl_ms } => {
                Outcome::Locked(self.locks.take(Wish { group, client, queues, now_ms, ttl_ms }))
            }
            Command::UnlockQueues { group, client, queues } => {
                self.locks.give_back(&group, &client, &queues);
                Outcome::Done
            }
            Command::ExpireLocks { now_ms, locks } => {
                self.locks.expire(now_ms, &locks);
                Outcome::Done
            }
        }
    }

    /// The same for a command whose effect on the locks is included already (`snapshots.I3`). Its outcome is not used: the
    /// command was answered when it was first applied.
    pub(crate) fn apply_but_for_locks(&mut self, command: Command, queues: &impl NextOffsets) -> Outcome {
        if command.is_of_locks() {
            return Outcome::Done;
        }
        let locks = self.locks.clone();
        let outcome = self.apply_with(command, queues);
        self.locks = locks;
        outcome
    }

    fn put_topic(&mut self, topic: Topic) -> Outcome {
        self.topics.insert(topic.name.clone(), topic);
        Outcome::Done
    }

    /// A queue that is still written keeps its messages, even if nobody may read it for a while; one that is still read
    /// keeps them so that consumers can finish it. What is sent to a lost queue by somebody who has not heard yet comes
    /// after the minimum and is kept.
    fn delete_lost_queues(&mut self, topic: &Topic, queues: &impl NextOffsets) {
        let Some(before) = self.topics.get(&topic.name) else { return };
        let (had, has) = (before.queue_count(), topic.queue_count());
        if has < had {
            let lost = queues.next_offsets(&topic.name).into_iter();
            self.min_offsets.raise(&topic.name, lost.filter(|(queue, _)| (has..had).contains(queue)));
        }
    }

    /// Deletes the messages of a topic that does not exist, too: it may have been deleted by an earlier build.
    ///
    /// The offsets of consumer groups stay. Each counts as the new minimum from now on, so a group that comes back reads
    /// all that is sent after the deletion.
    fn delete_topic(&mut self, name: &str, queues: &impl NextOffsets) -> Outcome {
        self.min_offsets.raise(name, queues.next_offsets(name).into_iter());
        removed(self.topics.remove(name))
    }

    fn delete_group(&mut self, name: &str, clean_offsets: bool) -> Outcome {
        if clean_offsets {
            self.offsets.remove(name);
        }
        self.locks.forget(name);
        removed(self.groups.remove(name))
    }

    fn commit_offset(&mut self, commit: OffsetCommit) {
        let topics = self.offsets.get_or_default(commit.group);
        topics.get_or_default(commit.topic).insert(commit.queue, commit.offset);
    }

    /// Whether any client of the group holds a lock that is alive at this reading of the lease clock
    /// ([`crate::group::Group::lease_now_ms`]): the group consumes in order.
    pub fn has_live_locks(&self, group: &str, now_ms: u64) -> bool {
        self.locks.are_live(group, now_ms)
    }
}

fn removed<T>(found: Option<T>) -> Outcome {
    if found.is_some() { Outcome::Done } else { Outcome::NotFound }
}

fn insert_new<T: Clone>(map: &mut CowMap<String, T>, name: String, value: T) -> Outcome {
    if map.contains_key(&name) {
        return Outcome::Exists;
    }
    map.insert(name, value);
    Outcome::Done
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A topic's queues with their next offsets.
    struct Ends(&'static str, Vec<(u32, u64)>);

    impl NextOffsets for Ends {
        fn next_offsets(&self, topic: &str) -> Vec<(u32, u64)> {
            if topic == self.0 { self.1.clone() } else { Vec::new() }
        }
    }

    fn topic(read_queues: u32, write_queues: u32) -> Topic {
        Topic { read_queues, write_queues, ..Topic::new("t", 1) }
    }

    fn mins(metadata: &Metadata) -> Vec<(u32, u64)> {
        metadata.min_offsets().of("t").collect()
    }

    #[test]
    fn create_leaves_an_existing_topic_alone_and_put_replaces_it() {
        let mut metadata = Metadata::default();
        assert_eq!(metadata.apply(Command::CreateTopic(Topic::new("t", 4))), Outcome::Done);
        assert_eq!(metadata.apply(Command::CreateTopic(Topic::new("t", 8))), Outcome::Exists);
        assert_eq!(metadata.topic("t").map(|t| t.read_queues), Some(4));
        assert_eq!(metadata.apply(Command::PutTopic(Topic::new("t", 8))), Outcome::Done);
        assert_eq!(metadata.topic("t").map(|t| t.read_queues), Some(8));
        assert_eq!(metadata.apply(Command::DeleteTopic { name: "t".into() }), Outcome::Done);
        assert_eq!(metadata.apply(Command::DeleteTopic { name: "t".into() }), Outcome::NotFound);
    }

    #[test]
    fn offsets_are_kept_per_group_topic_and_queue() {
        let mut metadata = Metadata::default();
        let commit = |offset| OffsetCommit { group: "g".into(), topic: "t".into(), queue: 1, offset };
        metadata.apply(Command::CommitOffsets(vec![commit(7)]));
        assert_eq!(metadata.offset("g", "t", 1), Some(7));
        assert_eq!(metadata.offset("g", "t", 0), None);
        metadata.apply(Command::CommitOffsets(vec![commit(3)]));
        assert_eq!(metadata.offset("g", "t", 1), Some(3), "a lower commit is accepted");
        metadata.apply(Command::DeleteGroup { name: "g".into(), clean_offsets: true });
        assert_eq!(metadata.offset("g", "t", 1), None);
    }

    #[test]
    fn min_offsets_i1_a_deleted_topic_begins_after_its_messages_in_every_queue() {
        let mut metadata = Metadata::default();
        metadata.apply(Command::CreateTopic(Topic::new("t", 2)));
        let delete = || Command::DeleteTopic { name: "t".into() };
        // Queue 9 is of a time when the topic was wider.
        let first = Ends("t", vec![(0, 5), (1, 3), (9, 2)]);
        assert_eq!(metadata.apply_with(delete(), &first), Outcome::Done);
        assert_eq!(mins(&metadata), [(0, 5), (1, 3), (9, 2)]);
        // A send that was under way came behind the deletion; the topic is created again: it is served.
        metadata.apply_with(Command::CreateTopic(Topic::new("t", 2)), &Ends("t", vec![(0, 6), (1, 3)]));
        assert_eq!(mins(&metadata), [(0, 5), (1, 3), (9, 2)]);
        // An acknowledged deletion deletes, whether or not the topic was there.
        metadata.apply(delete());
        let second = Ends("t", vec![(0, 8), (1, 3)]);
        assert_eq!(metadata.apply_with(delete(), &second), Outcome::NotFound);
        assert_eq!(mins(&metadata), [(0, 8), (1, 3), (9, 2)]);
    }

    #[test]
    fn min_offsets_i1_no_groups_offset_points_at_what_is_deleted() {
        let mut metadata = Metadata::default();
        let commit = |queue, offset| OffsetCommit { group: "g".into(), topic: "t".into(), queue, offset };
        metadata.apply(Command::CommitOffsets(vec![commit(0, 2), commit(1, 4)]));
        metadata.apply_with(Command::DeleteTopic { name: "t".into() }, &Ends("t", vec![(0, 3), (1, 4)]));
        assert_eq!((metadata.offset("g", "t", 0), metadata.offset("g", "t", 1)), (Some(3), Some(4)));
        // A consumer that has not noticed commits what it had.
        metadata.apply(Command::CommitOffsets(vec![commit(0, 2), commit(1, 6)]));
        assert_eq!(metadata.offsets_of("g").collect::<Vec<_>>(), [("t", 0, 3), ("t", 1, 6)]);
    }

    /// Writers leave a queue first, readers finish it, then it is gone.
    #[test]
    fn min_offsets_i1_a_queue_is_deleted_when_it_is_gone_for_readers_and_writers() {
        let ends = Ends("t", vec![(0, 7), (1, 7), (2, 7), (3, 7)]);
        let mut metadata = Metadata::default();
        metadata.apply_with(Command::PutTopic(topic(4, 4)), &ends);
        metadata.apply_with(Command::PutTopic(topic(4, 2)), &ends);
        assert_eq!(mins(&metadata), [], "consumers still read it");
        metadata.apply_with(Command::PutTopic(topic(2, 2)), &ends);
        assert_eq!(mins(&metadata), [(2, 7), (3, 7)]);
        metadata.apply_with(Command::PutTopic(topic(4, 4)), &ends);
        assert_eq!(mins(&metadata), [(2, 7), (3, 7)]);
        metadata.apply_with(Command::PutTopic(topic(1, 4)), &ends);
        metadata.apply_with(Command::PutTopic(topic(4, 4)), &ends);
        assert_eq!(mins(&metadata), [(2, 7), (3, 7)], "producers still wrote queue 1");
    }

    #[test]
    fn min_offsets_i1_a_cleaned_group_takes_its_retries_along_and_leaves_its_dead_letters() {
        let mut metadata = Metadata::default();
        let ends = Ends("%RETRY%g", vec![(0, 4)]);
        let delete = |clean_offsets| Command::DeleteGroup { name: "g".into(), clean_offsets };
        for command in [
            Command::CreateGroup(ConsumerGroup::new("g")),
            Command::CreateTopic(Topic::new("%RETRY%g", 1)),
            Command::CreateTopic(Topic::new("%DLQ%g", 1)),
        ] {
            metadata.apply(command);
        }
        assert_eq!(metadata.apply_with(delete(false), &ends), Outcome::Done);
        assert!(
            metadata.topic("%RETRY%g").is_some(),
            "a group that keeps its offsets goes on with its retries"
        );
        assert_eq!(metadata.apply_with(delete(true), &ends), Outcome::NotFound);
        assert_eq!(metadata.min_offsets().get("%RETRY%g", 0), 4);
        assert!(metadata.topic("%RETRY%g").is_none() && metadata.topic("%DLQ%g").is_some());
    }

    /// Replicas that start behind such records and those that replay them must agree.
    #[test]
    fn deletions_in_logs_of_earlier_builds_delete_no_message() {
        let mut metadata = Metadata::default();
        let ends = Ends("t", vec![(0, 7), (1, 7)]);
        metadata.apply_with(Command::PutTopicV1(topic(2, 2)), &ends);
        metadata.apply_with(Command::PutTopicV1(topic(1, 1)), &ends);
        metadata.apply_with(Command::DeleteTopicV1 { name: "t".into() }, &ends);
        metadata.apply_with(Command::DeleteGroupV1 { name: "g".into(), clean_offsets: true }, &ends);
        assert_eq!(metadata, Metadata::default());
    }
}
