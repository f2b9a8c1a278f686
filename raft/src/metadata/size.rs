//! How large the metadata are when they are encoded, and how much larger a command makes them.
//!
//! They are part of every checkpoint and snapshot, which have a largest size; so they have one far below it, and what would
//! make them grow beyond is refused before it is proposed. What changes or removes something is always taken.
//!
//! - `metadata.I1`: no command that makes the metadata larger is proposed while they are at [`METADATA_BYTES_MAX`].
//!   Commands that are under way together may pass it together, by no more than they hold; the largest checkpoint is 32
//!   times as large.

use std::collections::BTreeSet;

use serde::Serialize;

use folio_protocol::names;

use super::Metadata;
use crate::codec::encoded_bytes;
use crate::command::{Command, OffsetCommit, QueueRef, Topic};
use crate::min_offsets::NextOffsets;

/// Bytes that the encoded metadata may grow to: a million offsets of names of 50 bytes.
pub const METADATA_BYTES_MAX: u64 = 128 << 20;

/// Bytes of a number of entries, before the entries.
const COUNT_BYTES: u64 = 8;
/// Bytes of an offset under its queue.
const OFFSET_BYTES: u64 = 12;
/// Bytes of a lock's time.
const EXPIRY_BYTES: u64 = 8;

impl Metadata {
    /// Bytes of the encoded metadata. Looks at all of them.
    pub fn encoded_bytes(&self) -> u64 {
        encoded_bytes(self)
    }

    /// By how much the command makes them larger, if it is applied now; below zero for smaller. `queues` is as of the record
    /// before it. Twice the same new thing in one command counts twice, and a lock as if it were granted.
    pub fn growth(&self, command: &Command, queues: &impl NextOffsets) -> i64 {
        match command {
            Command::PutTopicV1(topic) => replaced(&topic.name, topic, self.topics.get(&topic.name)),
            Command::PutTopic(topic) => {
                replaced(&topic.name, topic, self.topics.get(&topic.name))
                    + self.growth_of_lost_queues(topic, queues)
            }
            Command::CreateTopic(topic) if self.topics.contains_key(&topic.name) => 0,
            Command::CreateTopic(topic) => replaced(&topic.name, topic, None),
            Command::DeleteTopicV1 { name } => -entry(name, self.topics.get(name)),
            Command::DeleteTopic { name } => self.growth_of_deletion(name, queues),
            Command::PutGroup(group) => replaced(&group.name, group, self.groups.get(&group.name)),
            Command::CreateGroup(group) if self.groups.contains_key(&group.name) => 0,
            Command::CreateGroup(group) => replaced(&group.name, group, None),
            Command::DeleteGroupV1 { name, clean_offsets } => -self.bytes_of_group(name, *clean_offsets),
            Command::DeleteGroup { name, clean_offsets } => {
                let retries = || self.growth_of_deletion(&names::retry_topic(name), queues);
                let retries = if *clean_offsets { retries() } else { 0 };
                retries - self.bytes_of_group(name, *clean_offsets)
            }
            Command::CommitOffsets(commits) => {
                commits.iter().map(|commit| self.growth_of_commit(commit)).sum()
            }
            Command::LockQueuesV1 { group, client, queues, .. }
            | Command::LockQueues { group, client, queues, .. } => {
                self.growth_of_locks(group, client, queues)
            }
            Command::UnlockQueues { group, client, queues } => {
                let locks = self.locks.of(group);
                let held = queues.iter().filter_map(|queue| Some((queue, locks?.get(queue)?)));
                -held
                    .filter(|(_, lock)| lock.client == *client)
                    .map(|held| signed(encoded_bytes(&held)))
                    .sum::<i64>()
            }
            Command::ExpireLocks { now_ms, locks } => -locks
                .iter()
                .map(|(group, queues)| self.bytes_of_expired(group, queues, *now_ms))
                .sum::<i64>(),
        }
    }

    fn bytes_of_expired(&self, group: &String, queues: &BTreeSet<QueueRef>, now_ms: u64) -> i64 {
        let Some(locks) = self.locks.of(group).filter(|_| self.locks.has_clock()) else { return 0 };
        let held = queues.iter().filter_map(|queue| locks.get_key_value(queue));
        let expired: Vec<_> = held.filter(|(_, lock)| self.locks.is_over(lock, now_ms)).collect();
        let of_group = if expired.len() == locks.len() { encoded_bytes(group) + COUNT_BYTES } else { 0 };
        signed(expired.iter().map(encoded_bytes).sum::<u64>() + of_group)
    }

    fn bytes_of_group(&self, name: &String, with_offsets: bool) -> i64 {
        let offsets = self.offsets.get(name).filter(|_| with_offsets);
        entry(name, offsets) + entry(name, self.locks.of(name)) + entry(name, self.groups.get(name))
    }

    fn growth_of_deletion(&self, topic: &String, queues: &impl NextOffsets) -> i64 {
        self.growth_of_minimums(topic, queues.next_offsets(topic).into_iter())
            - entry(topic, self.topics.get(topic))
    }

    fn growth_of_lost_queues(&self, topic: &Topic, queues: &impl NextOffsets) -> i64 {
        let Some(before) = self.topics.get(&topic.name) else { return 0 };
        let (had, has) = (before.queue_count(), topic.queue_count());
        if has >= had {
            return 0;
        }
        let lost = queues.next_offsets(&topic.name).into_iter();
        self.growth_of_minimums(&topic.name, lost.filter(|(queue, _)| (has..had).contains(queue)))
    }

    /// Of the minimums of these queues; one that is there already is replaced in its place.
    fn growth_of_minimums(&self, topic: &String, queues: impl Iterator<Item = (u32, u64)>) -> i64 {
        let known: Vec<u32> = self.min_offsets.of(topic).map(|(queue, _)| queue).collect();
        let new = queues.filter(|(queue, _)| !known.contains(queue)).count() as u64;
        let topic_bytes = if known.is_empty() && new > 0 { encoded_bytes(topic) + COUNT_BYTES } else { 0 };
        signed(topic_bytes + new * OFFSET_BYTES)
    }

    fn growth_of_commit(&self, commit: &OffsetCommit) -> i64 {
        let topics = self.offsets.get(&commit.group);
        let queues = topics.and_then(|topics| topics.get(&commit.topic));
        let known = queues.is_some_and(|queues| queues.contains_key(&commit.queue));
        let group = if topics.is_none() { encoded_bytes(&commit.group) + COUNT_BYTES } else { 0 };
        let topic = if queues.is_none() { encoded_bytes(&commit.topic) + COUNT_BYTES } else { 0 };
        signed(group + topic + if known { 0 } else { OFFSET_BYTES })
    }

    fn growth_of_locks(&self, group: &String, client: &String, queues: &[QueueRef]) -> i64 {
        let locks = self.locks.of(group);
        let lock_bytes = signed(encoded_bytes(client) + EXPIRY_BYTES);
        let new_group = if locks.is_none() { encoded_bytes(group) + COUNT_BYTES } else { 0 };
        let each = queues.iter().map(|queue| match locks.and_then(|locks| locks.get(queue)) {
            Some(lock) => (lock_bytes - signed(encoded_bytes(lock))).max(0),
            None => lock_bytes + signed(encoded_bytes(queue)),
        });
        signed(new_group) + each.sum::<i64>()
    }
}

/// What an entry of a map takes; nothing without a value.
fn entry<T: Serialize>(key: &String, value: Option<&T>) -> i64 {
    value.map_or(0, |value| signed(encoded_bytes(key) + encoded_bytes(value)))
}

fn replaced<T: Serialize>(key: &String, new: &T, old: Option<&T>) -> i64 {
    entry(key, Some(new)) - entry(key, old)
}

fn signed(bytes: u64) -> i64 {
    i64::try_from(bytes).unwrap_or(i64::MAX)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::command::{ConsumerGroup, Topic};

    /// Two queues of each topic had messages.
    struct Ends;

    impl NextOffsets for Ends {
        fn next_offsets(&self, _topic: &str) -> Vec<(u32, u64)> {
            vec![(0, 5), (2, 9)]
        }
    }

    fn name() -> impl Strategy<Value = String> {
        prop::sample::select(vec!["a", "bb", "ccc"]).prop_map(str::to_owned)
    }

    fn queues() -> impl Strategy<Value = Vec<QueueRef>> {
        let queue = (name(), 0..3u32).prop_map(|(topic, queue)| QueueRef { topic, queue });
        prop::collection::btree_set(queue, 0..4).prop_map(|queues| queues.into_iter().collect())
    }

    /// Of offsets one at a time: twice the same new one in a command counts twice.
    fn command() -> impl Strategy<Value = Command> {
        let commit = (name(), name(), 0..3u32, any::<u64>())
            .prop_map(|(group, topic, queue, offset)| OffsetCommit { group, topic, queue, offset });
        prop_oneof![
            (name(), name()).prop_map(|(name, filter_type)| {
                let queues = filter_type.len() as u32;
                Command::PutTopic(Topic { filter_type, ..Topic::new(name, queues) })
            }),
            name().prop_map(|name| Command::CreateTopic(Topic::new(name, 1))),
            name().prop_map(|name| Command::DeleteTopic { name }),
            (name(), name()).prop_map(|(name, value)| {
                let attributes = [("key".to_owned(), value)].into();
                Command::PutGroup(ConsumerGroup { attributes, ..ConsumerGroup::new(name) })
            }),
            name().prop_map(|name| Command::CreateGroup(ConsumerGroup::new(name))),
            (name(), any::<bool>())
                .prop_map(|(name, clean_offsets)| Command::DeleteGroup { name, clean_offsets }),
            commit.prop_map(|commit| Command::CommitOffsets(vec![commit])),
            // Of one client: what another one holds may be refused.
            (name(), queues(), any::<u64>()).prop_map(|(group, queues, now_ms)| {
                Command::LockQueues { group, client: "c".into(), queues, now_ms, ttl_ms: 9 }
            }),
            (name(), queues())
                .prop_map(|(group, queues)| { Command::UnlockQueues { group, client: "c".into(), queues } }),
            (name(), queues(), any::<u64>()).prop_map(|(group, queues, now_ms)| {
                Command::ExpireLocks { now_ms, locks: [(group, queues.into_iter().collect())].into() }
            }),
        ]
    }

    proptest! {
        #[test]
        fn the_growth_that_is_told_is_the_growth_that_comes(commands in prop::collection::vec(command(), 0..40)) {
            let mut metadata = Metadata::default();
            let mut bytes = signed(metadata.encoded_bytes());
            for command in commands {
                bytes += metadata.growth(&command, &Ends);
                metadata.apply_with(command.clone(), &Ends);
                prop_assert_eq!(signed(metadata.encoded_bytes()), bytes, "{:?}", command);
            }
        }
    }
}
