//! Commands and states as builds before this crate wrote them: by position, without numbers of their own. Read, and never
//! written.
//!
//! A command was the envelope of version 1 and a variant's index (4 bytes), then its fields. A state was its sections' maps
//! one after the other; the envelope around it is the checkpoint's (crate `raft`).
//!
//! Four of the commands do what no command does any more: a replica that replays them and one whose checkpoint has their
//! effects must agree.

pub mod operations;

use std::collections::{BTreeMap, BTreeSet};

use serde::Deserialize;
#[cfg(test)]
use serde::Serialize;

use crate::codec::{self, CodecError};
use crate::command::Command;
use crate::queue_ref::QueueRef;
use crate::sections::groups::{ConsumerGroup, ConsumerGroups, CreateGroup, DeleteGroup, PutGroup};
use crate::sections::locks::{ByGroup, ExpireLocks, LockQueues, Locks, UnlockQueues};
use crate::sections::min_offsets::MinOffsets;
use crate::sections::offset_commits::CommitOffsets;
use crate::sections::offsets::{OffsetCommit, Offsets};
use crate::sections::topics::{CreateTopic, DeleteTopic, PutTopic, Topic, Topics};
use crate::state::State;

use operations::{DeleteGroupV1, DeleteTopicV1, LockQueuesV1, PutTopicV1};

/// Numbers from here on are of commands that are applied and never proposed.
pub const KINDS_FROM: u16 = 0x7000;

/// A command by its place in the list.
#[derive(Debug, Deserialize)]
#[cfg_attr(test, derive(Serialize))]
enum CommandV1 {
    PutTopicV1(Topic),
    CreateTopic(Topic),
    DeleteTopicV1 { name: String },
    PutGroup(ConsumerGroup),
    CreateGroup(ConsumerGroup),
    DeleteGroupV1 { name: String, clean_offsets: bool },
    CommitOffsets(Vec<OffsetCommit>),
    LockQueuesV1 { group: String, client: String, queues: Vec<QueueRef>, now_ms: u64, ttl_ms: u64 },
    UnlockQueues { group: String, client: String, queues: Vec<QueueRef> },
    PutTopic(Topic),
    DeleteTopic { name: String },
    DeleteGroup { name: String, clean_offsets: bool },
    LockQueues { group: String, client: String, queues: Vec<QueueRef>, now_ms: u64, ttl_ms: u64 },
    ExpireLocks { now_ms: u64, locks: BTreeMap<String, BTreeSet<QueueRef>> },
}

/// The command in a record's payload.
pub(crate) fn decode_command(payload: &[u8]) -> Result<Command, CodecError> {
    Ok(match codec::decode::<CommandV1>(payload)? {
        CommandV1::PutTopicV1(topic) => PutTopicV1(topic).into(),
        CommandV1::CreateTopic(topic) => CreateTopic(topic).into(),
        CommandV1::DeleteTopicV1 { name } => DeleteTopicV1 { name }.into(),
        CommandV1::PutGroup(group) => PutGroup(group).into(),
        CommandV1::CreateGroup(group) => CreateGroup(group).into(),
        CommandV1::DeleteGroupV1 { name, clean_offsets } => DeleteGroupV1 { name, clean_offsets }.into(),
        CommandV1::CommitOffsets(commits) => CommitOffsets(commits).into(),
        CommandV1::LockQueuesV1 { group, client, queues, now_ms, ttl_ms } => {
            LockQueuesV1(LockQueues { group, client, queues, now_ms, ttl_ms }).into()
        }
        CommandV1::UnlockQueues { group, client, queues } => UnlockQueues { group, client, queues }.into(),
        CommandV1::PutTopic(topic) => PutTopic(topic).into(),
        CommandV1::DeleteTopic { name } => DeleteTopic { name }.into(),
        CommandV1::DeleteGroup { name, clean_offsets } => DeleteGroup { name, clean_offsets }.into(),
        CommandV1::LockQueues { group, client, queues, now_ms, ttl_ms } => {
            LockQueues { group, client, queues, now_ms, ttl_ms }.into()
        }
        CommandV1::ExpireLocks { now_ms, locks } => ExpireLocks { now_ms, locks }.into(),
    })
}

/// The first form of the state.
#[derive(Debug, Deserialize)]
#[cfg_attr(test, derive(Serialize))]
pub struct StateV1 {
    topics: Topics,
    groups: ConsumerGroups,
    offsets: Offsets,
    locks: ByGroup,
}

impl From<StateV1> for State {
    fn from(earlier: StateV1) -> State {
        let StateV1 { topics, groups, offsets, locks } = earlier;
        let (locks, min_offsets) = (Locks::of_earlier_build(locks), MinOffsets::default());
        StateV2 { topics, groups, offsets, locks, min_offsets }.into()
    }
}

/// The second form: with the lease clock, and with deletions.
#[derive(Debug, Deserialize)]
#[cfg_attr(test, derive(Serialize))]
pub struct StateV2 {
    topics: Topics,
    groups: ConsumerGroups,
    offsets: Offsets,
    locks: Locks,
    min_offsets: MinOffsets,
}

impl From<StateV2> for State {
    fn from(earlier: StateV2) -> State {
        let StateV2 { topics, groups, offsets, locks, min_offsets } = earlier;
        State { topics, groups, offsets, locks, min_offsets, ..State::default() }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::section::NextOffsets;

    /// What logs hold stays readable: the numbers of the variants, as earlier builds wrote them.
    #[test]
    fn golden_bytes_of_earlier_commands() {
        let text = |text: &str| [&(text.len() as u64).to_le_bytes()[..], text.as_bytes()].concat();
        let record = |variant: u32, body: &[u8]| [b"FQ\x01\0", &variant.to_le_bytes()[..], body].concat();
        let name = || "t".to_owned();
        let queue = [text("t"), 3_u32.to_le_bytes().to_vec()].concat();
        let one = || 1_u64.to_le_bytes().to_vec();
        let unlock = [text("g"), text("c"), one(), queue.clone()].concat();
        let lock = [&unlock[..], &7_u64.to_le_bytes(), &9_u64.to_le_bytes()].concat();
        let expired = [7_u64.to_le_bytes().to_vec(), one(), text("g"), one(), queue.clone()].concat();
        let commit = [one(), text("g"), queue, 5_u64.to_le_bytes().to_vec()].concat();
        let topic = crate::codec::encode(&Topic::new("t", 8))[4..].to_vec();
        let consumers = crate::codec::encode(&ConsumerGroup::new("g"))[4..].to_vec();
        let (group, client) = (|| "g".to_owned(), || "c".to_owned());
        let queues = || vec![QueueRef { topic: name(), queue: 3 }];
        let locks =
            || LockQueues { group: group(), client: client(), queues: queues(), now_ms: 7, ttl_ms: 9 };
        let offset = OffsetCommit { group: group(), topic: name(), queue: 3, offset: 5 };
        let golden: [(Vec<u8>, Command); 14] = [
            (record(0, &topic), PutTopicV1(Topic::new("t", 8)).into()),
            (record(1, &topic), CreateTopic(Topic::new("t", 8)).into()),
            (record(2, &text("t")), DeleteTopicV1 { name: name() }.into()),
            (record(3, &consumers), PutGroup(ConsumerGroup::new("g")).into()),
            (record(4, &consumers), CreateGroup(ConsumerGroup::new("g")).into()),
            (
                record(5, &[text("g"), vec![1]].concat()),
                DeleteGroupV1 { name: group(), clean_offsets: true }.into(),
            ),
            (record(6, &commit), CommitOffsets(vec![offset]).into()),
            (record(7, &lock), LockQueuesV1(locks()).into()),
            (record(8, &unlock), UnlockQueues { group: group(), client: client(), queues: queues() }.into()),
            (record(9, &topic), PutTopic(Topic::new("t", 8)).into()),
            (record(10, &text("t")), DeleteTopic { name: name() }.into()),
            (
                record(11, &[text("g"), vec![0]].concat()),
                DeleteGroup { name: group(), clean_offsets: false }.into(),
            ),
            (record(12, &lock), locks().into()),
            (
                record(13, &expired),
                ExpireLocks { now_ms: 7, locks: [(group(), queues().into_iter().collect())].into() }.into(),
            ),
        ];
        for (bytes, command) in golden {
            assert_eq!(Command::decode(&bytes), Ok(command));
            assert!(Command::decode(&bytes[..bytes.len() - 1]).is_err());
        }
        assert!(Command::decode(&record(14, &[])).is_err());
    }

    /// One topic, group, offset, lock and minimum, by their bytes.
    #[test]
    fn golden_bytes_of_earlier_states() {
        let text = |text: &str| [&(text.len() as u64).to_le_bytes()[..], text.as_bytes()].concat();
        let one = || 1_u64.to_le_bytes().to_vec();
        let topics = [one(), text("t"), crate::codec::encode(&Topic::new("t", 8))[4..].to_vec()].concat();
        let groups =
            [one(), text("g"), crate::codec::encode(&ConsumerGroup::new("g"))[4..].to_vec()].concat();
        let queue = 3_u32.to_le_bytes().to_vec();
        let by_queue = |value: u64| [one(), queue.clone(), value.to_le_bytes().to_vec()].concat();
        let offsets = [one(), text("g"), one(), text("t"), by_queue(5)].concat();
        let lock = [text("c"), 9_u64.to_le_bytes().to_vec()].concat();
        let locks = [one(), text("g"), one(), text("t"), queue.clone(), lock].concat();
        let first = [topics, groups, offsets, locks].concat();
        let minimums = [one(), text("t"), by_queue(6)].concat();
        let second = [&first[..], &7_u64.to_le_bytes(), &minimums].concat();
        let known = |state: &State| {
            assert_eq!(state.topics().collect::<Vec<_>>(), [&Topic::new("t", 8)]);
            assert_eq!(state.groups().collect::<Vec<_>>(), [&ConsumerGroup::new("g")]);
            assert!(state.locks().of("g").is_some_and(|locks| locks.len() == 1));
        };
        let state = State::from(codec::decode_body::<StateV1>(&first).unwrap());
        known(&state);
        assert_eq!((state.offset("g", "t", 3), state.lease_clock_ms()), (Some(5), 0));
        let state = State::from(codec::decode_body::<StateV2>(&second).unwrap());
        known(&state);
        assert_eq!((state.offset("g", "t", 3), state.lease_clock_ms()), (Some(6), 7));
        assert!(state.has_live_locks("g", 8) && !state.has_live_locks("g", 9));
    }

    /// Replicas that start behind such records and those that replay them must agree.
    #[test]
    fn deletions_in_logs_of_earlier_builds_delete_no_message() {
        struct Ends;
        impl NextOffsets for Ends {
            fn next_offsets(&self, _: &str) -> Vec<(u32, u64)> {
                vec![(0, 7), (1, 7)]
            }
        }
        let mut state = State::default();
        state.apply_with(PutTopicV1(Topic::new("t", 2)), &Ends);
        state.apply_with(PutTopicV1(Topic::new("t", 1)), &Ends);
        state.apply_with(DeleteTopicV1 { name: "t".into() }, &Ends);
        state.apply_with(DeleteGroupV1 { name: "g".into(), clean_offsets: true }, &Ends);
        assert_eq!(state, State::default());
    }
}
