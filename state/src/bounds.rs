//! How long the names and ids in a command may be, and how many things it may name.
//!
//! What a command says is kept by every replica, in memory and in every checkpoint, and a log that holds a command applies
//! it at every start. So each part has a largest size, below anything that a client needs, and a command beyond is refused
//! before it is proposed, from any caller.
//!
//! Commands that only take away are not bounded: what an earlier build let in can still be deleted.
//!
//! - `bounds.I1`: no command with a longer name or id, or with more entries, is proposed.

use std::collections::BTreeMap;

use folio_protocol::limits::{
    ATTRIBUTES_BYTES_MAX, CLIENT_ID_BYTES_MAX, GROUP_BYTES_MAX, RETRY_TOPIC_BYTES_MAX,
};

/// Queues of one topic: each is a file on every replica and a line in every route.
pub const QUEUES_MAX: u32 = 16_384;
/// Entries that one command may have: offsets, or queues to lock.
pub const ENTRIES_MAX: usize = 65_536;
/// Bytes of a topic's `filterType`: an enumeration's name.
pub(crate) const FILTER_TYPE_BYTES_MAX: usize = 64;

/// What is larger than it may be.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("{what}: {size}, the limit is {limit}")]
pub struct OutOfBounds {
    /// What.
    pub what: &'static str,
    /// Its bytes, or its number.
    pub size: usize,
    /// The most that is taken.
    pub limit: usize,
}

/// Refuses a size above its limit.
pub fn at_most(what: &'static str, size: usize, limit: usize) -> Result<(), OutOfBounds> {
    if size > limit { Err(OutOfBounds { what, size, limit }) } else { Ok(()) }
}

pub(crate) fn check_topic_name(name: &str) -> Result<(), OutOfBounds> {
    at_most("bytes of a topic's name", name.len(), RETRY_TOPIC_BYTES_MAX)
}

pub(crate) fn check_group_name(name: &str) -> Result<(), OutOfBounds> {
    at_most("bytes of a group's name", name.len(), GROUP_BYTES_MAX)
}

pub(crate) fn check_client_id(id: &str) -> Result<(), OutOfBounds> {
    at_most("bytes of a client's id", id.len(), CLIENT_ID_BYTES_MAX)
}

pub(crate) fn check_attributes(attributes: &BTreeMap<String, String>) -> Result<(), OutOfBounds> {
    let bytes = attributes.iter().map(|(key, value)| key.len() + value.len()).sum();
    at_most("bytes of attributes", bytes, ATTRIBUTES_BYTES_MAX)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::*;

    fn lock(client: usize, queues: usize, topic: usize) -> Command {
        let queue = QueueRef { topic: "t".repeat(topic), queue: 0 };
        let (group, client) = ("g".into(), "c".repeat(client));
        LockQueues { group, client, queues: vec![queue; queues], now_ms: 0, ttl_ms: 0 }.into()
    }

    fn commit(group: usize, topic: usize) -> Command {
        let (group, topic) = ("g".repeat(group), "t".repeat(topic));
        CommitOffsets(vec![OffsetCommit { group, topic, queue: 0, offset: 0 }]).into()
    }

    fn limit(command: impl Into<Command>) -> Option<usize> {
        command.into().check_bounds().err().map(|error| error.limit)
    }

    /// A client id of 512 KiB with 6,000 queues was 3 GB of state on every node, and stopped them at every start.
    #[test]
    fn bounds_i1_locks_of_a_giant_client_id_were_put_into_the_log() {
        assert_eq!(limit(lock(CLIENT_ID_BYTES_MAX, 3, RETRY_TOPIC_BYTES_MAX)), None);
        assert_eq!(limit(lock(512 << 10, 6_000, 5)), Some(CLIENT_ID_BYTES_MAX));
        assert_eq!(limit(lock(9, ENTRIES_MAX + 1, 1)), Some(ENTRIES_MAX));
        assert_eq!(limit(lock(9, 1, RETRY_TOPIC_BYTES_MAX + 1)), Some(RETRY_TOPIC_BYTES_MAX));
    }

    #[test]
    fn bounds_i1_every_part_of_topics_groups_and_offsets_has_a_limit() {
        assert_eq!(limit(commit(GROUP_BYTES_MAX, RETRY_TOPIC_BYTES_MAX)), None);
        assert_eq!(limit(commit(GROUP_BYTES_MAX + 1, 1)), Some(GROUP_BYTES_MAX));
        assert_eq!(limit(commit(1, RETRY_TOPIC_BYTES_MAX + 1)), Some(RETRY_TOPIC_BYTES_MAX));
        let topic = Topic::new("t", 8);
        let attributes = || [("key".to_owned(), "v".repeat(ATTRIBUTES_BYTES_MAX))].into();
        for (broken, max) in [
            (Topic { name: "t".repeat(256), ..topic.clone() }, RETRY_TOPIC_BYTES_MAX),
            (Topic { read_queues: u32::MAX, ..topic.clone() }, QUEUES_MAX as usize),
            (Topic { filter_type: "f".repeat(65), ..topic.clone() }, FILTER_TYPE_BYTES_MAX),
            (Topic { attributes: attributes(), ..topic.clone() }, ATTRIBUTES_BYTES_MAX),
        ] {
            assert_eq!(limit(PutTopic(broken.clone())), Some(max));
            assert_eq!(limit(CreateTopic(broken)), Some(max));
        }
        let group = ConsumerGroup::new("g");
        for (broken, max) in [
            (ConsumerGroup { name: "g".repeat(121), ..group.clone() }, GROUP_BYTES_MAX),
            (ConsumerGroup { retry_queues: u32::MAX, ..group.clone() }, QUEUES_MAX as usize),
            (ConsumerGroup { attributes: attributes(), ..group.clone() }, ATTRIBUTES_BYTES_MAX),
        ] {
            assert_eq!(limit(PutGroup(broken)), Some(max));
        }
        assert_eq!(limit(PutTopic(topic)), None);
        assert_eq!(limit(CreateGroup(group)), None);
    }

    #[test]
    fn what_an_earlier_build_let_in_can_be_deleted() {
        let name = "x".repeat(1 << 20);
        assert_eq!(limit(DeleteTopic { name: name.clone() }), None);
        assert_eq!(limit(DeleteGroup { name, clean_offsets: true }), None);
    }
}
