//! The replicated metadata: topics, consumer groups, consumer offsets, orderly locks.
//!
//! Built by applying committed commands only, on every replica in the same order. It reads no clock and
//! draws no random number. Not here: the messages (the log) and the consume queues (the engine).

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

use crate::command::{Command, ConsumerGroup, OffsetCommit, Outcome, QueueRef, Topic};

/// A lock on one queue, held by one client of a group.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
struct Lock {
    client: String,
    expires_ms: u64,
}

/// Topics, groups, offsets and locks as of the last applied record.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Metadata {
    topics: BTreeMap<String, Topic>,
    groups: BTreeMap<String, ConsumerGroup>,
    /// group -> topic -> queue -> next offset to consume
    offsets: BTreeMap<String, BTreeMap<String, BTreeMap<u32, u64>>>,
    /// group -> queue -> lock
    locks: BTreeMap<String, BTreeMap<QueueRef, Lock>>,
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

    /// The next offset that `group` wants of a queue, if it ever committed one.
    pub fn offset(&self, group: &str, topic: &str, queue: u32) -> Option<u64> {
        self.offsets.get(group)?.get(topic)?.get(&queue).copied()
    }

    /// Every committed offset of a group: (topic, queue, offset), in no order.
    pub fn offsets_of(&self, group: &str) -> impl Iterator<Item = (&str, u32, u64)> {
        let topics = self.offsets.get(group).into_iter().flatten();
        topics.flat_map(|(topic, queues)| {
            queues.iter().map(|(queue, offset)| (topic.as_str(), *queue, *offset))
        })
    }

    /// Applies one committed command.
    pub fn apply(&mut self, command: Command) -> Outcome {
        match command {
            Command::PutTopic(topic) => {
                self.topics.insert(topic.name.clone(), topic);
                Outcome::Done
            }
            Command::CreateTopic(topic) => insert_new(&mut self.topics, topic.name.clone(), topic),
            Command::DeleteTopic { name } => self.delete_topic(&name),
            Command::PutGroup(group) => {
                self.groups.insert(group.name.clone(), group);
                Outcome::Done
            }
            Command::CreateGroup(group) => insert_new(&mut self.groups, group.name.clone(), group),
            Command::DeleteGroup { name, clean_offsets } => self.delete_group(&name, clean_offsets),
            Command::CommitOffsets(commits) => {
                commits.into_iter().for_each(|commit| self.commit_offset(commit));
                Outcome::Done
            }
            Command::LockQueues { group, client, queues, now_ms, ttl_ms } => {
                Outcome::Locked(self.lock(group, &client, queues, now_ms, ttl_ms))
            }
            Command::UnlockQueues { group, client, queues } => {
                self.unlock(&group, &client, &queues);
                Outcome::Done
            }
        }
    }

    fn delete_topic(&mut self, name: &str) -> Outcome {
        if self.topics.remove(name).is_none() {
            return Outcome::NotFound;
        }
        // Offsets of a deleted topic are kept: queue offsets are never used again, so they stay true if
        // the topic is created once more.
        Outcome::Done
    }

    fn delete_group(&mut self, name: &str, clean_offsets: bool) -> Outcome {
        if clean_offsets {
            self.offsets.remove(name);
        }
        self.locks.remove(name);
        if self.groups.remove(name).is_none() { Outcome::NotFound } else { Outcome::Done }
    }

    fn commit_offset(&mut self, commit: OffsetCommit) {
        let topics = self.offsets.entry(commit.group).or_default();
        topics.entry(commit.topic).or_default().insert(commit.queue, commit.offset);
    }

    fn lock(
        &mut self,
        group: String,
        client: &str,
        queues: Vec<QueueRef>,
        now_ms: u64,
        ttl_ms: u64,
    ) -> Vec<QueueRef> {
        let locks = self.locks.entry(group).or_default();
        let mut held = Vec::with_capacity(queues.len());
        for queue in queues {
            let free =
                locks.get(&queue).is_none_or(|lock| lock.client == client || lock.expires_ms <= now_ms);
            if free {
                let lock = Lock { client: client.to_owned(), expires_ms: now_ms.saturating_add(ttl_ms) };
                locks.insert(queue.clone(), lock);
                held.push(queue);
            }
        }
        held
    }

    fn unlock(&mut self, group: &str, client: &str, queues: &[QueueRef]) {
        let Some(locks) = self.locks.get_mut(group) else { return };
        for queue in queues {
            if locks.get(queue).is_some_and(|lock| lock.client == client) {
                locks.remove(queue);
            }
        }
    }

    /// Whether any client of the group holds a lock that is alive at `now_ms`: the group consumes in order.
    pub fn has_live_locks(&self, group: &str, now_ms: u64) -> bool {
        self.locks.get(group).is_some_and(|locks| locks.values().any(|lock| lock.expires_ms > now_ms))
    }
}

fn insert_new<T>(map: &mut BTreeMap<String, T>, name: String, value: T) -> Outcome {
    match map.entry(name) {
        std::collections::btree_map::Entry::Occupied(_) => Outcome::Exists,
        std::collections::btree_map::Entry::Vacant(slot) => {
            slot.insert(value);
            Outcome::Done
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn queue(number: u32) -> QueueRef {
        QueueRef { topic: "orders".into(), queue: number }
    }

    fn lock(client: &str, now_ms: u64) -> Command {
        Command::LockQueues {
            group: "g".into(),
            client: client.into(),
            queues: vec![queue(0), queue(1)],
            now_ms,
            ttl_ms: 60_000,
        }
    }

    #[test]
    fn a_lock_is_exclusive_until_it_expires_or_is_given_back() {
        let mut metadata = Metadata::default();
        assert_eq!(metadata.apply(lock("a", 0)), Outcome::Locked(vec![queue(0), queue(1)]));
        assert_eq!(metadata.apply(lock("b", 59_999)), Outcome::Locked(vec![]));
        assert_eq!(metadata.apply(lock("a", 30_000)), Outcome::Locked(vec![queue(0), queue(1)]));
        assert_eq!(metadata.apply(lock("b", 89_999)), Outcome::Locked(vec![]), "the renewal counts");
        assert_eq!(metadata.apply(lock("b", 90_000)), Outcome::Locked(vec![queue(0), queue(1)]));
        let unlock = |client: &str| Command::UnlockQueues {
            group: "g".into(),
            client: client.into(),
            queues: vec![queue(0)],
        };
        metadata.apply(unlock("a"));
        assert_eq!(metadata.apply(lock("a", 90_001)), Outcome::Locked(vec![]), "only the holder unlocks");
        metadata.apply(unlock("b"));
        assert_eq!(metadata.apply(lock("a", 90_001)), Outcome::Locked(vec![queue(0)]));
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
}
