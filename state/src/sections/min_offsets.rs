//! Where queues begin because all that was in them is deleted: with their topic, with their consumer group, or as queues
//! that a topic has no more.
//!
//! A deleted message stays in the log until its segment goes, and its queue offset is never used again. What keeps it from
//! readers is the minimum here: a deletion raises it to the queue's next offset as of that record. So the minimum is a
//! function of the log: equal on every replica, the same again on replay, and saved with checkpoints and snapshots.
//! Retention raises the first offset of a queue too, on each node by what that node has dropped; the consume queues begin at
//! the greater of both.
//!
//! Invariants
//! - `min_offsets.I1` A message that was stored before a deletion is given to no reader of a node that has applied the
//!   deletion, after a restart, a rebuild and on a new replica too.
//! - `min_offsets.I2` A minimum never falls, and is never above the queue's next offset: no message stored after the
//!   deletion is hidden.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

use super::size::{OFFSET_BYTES, new_map, signed};
use crate::cow_map::CowMap;
use crate::section::Section;

/// Topic -> queue -> the first offset that is not deleted. As many as there are queues that lost their messages.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct MinOffsets(CowMap<String, BTreeMap<u32, u64>>);

impl Section for MinOffsets {
    const TAG: u16 = 5;
}

impl MinOffsets {
    /// The first offset of a queue that is not deleted; 0 if none is.
    pub fn get(&self, topic: &str, queue: u32) -> u64 {
        self.0.get(topic).and_then(|queues| queues.get(&queue)).copied().unwrap_or(0)
    }

    /// The queues of a topic in which messages were deleted, with their first offsets.
    pub fn of(&self, topic: &str) -> impl Iterator<Item = (u32, u64)> {
        self.0.get(topic).into_iter().flatten().map(|(queue, min)| (*queue, *min))
    }

    /// All of them: (topic, queue, first offset).
    pub fn iter(&self) -> impl Iterator<Item = (&str, u32, u64)> {
        let topics = self.0.iter();
        topics
            .flat_map(|(topic, queues)| queues.iter().map(move |(queue, min)| (topic.as_str(), *queue, *min)))
    }

    /// Deletes all that these queues hold below `next` (`min_offsets.I2`).
    pub(crate) fn raise(&mut self, topic: &str, next: Vec<(u32, u64)>) {
        for (queue, next) in next {
            let min = self.0.get_or_default(topic.to_owned()).entry(queue).or_default();
            *min = next.max(*min);
        }
    }

    /// What [`MinOffsets::raise`] adds; a minimum that is there already is replaced in its place.
    pub(crate) fn growth(&self, topic: &str, next: &[(u32, u64)]) -> i64 {
        let known = self.0.get(topic);
        let is_new = |queue: &u32| known.is_none_or(|queues| !queues.contains_key(queue));
        let new = next.iter().filter(|(queue, _)| is_new(queue)).count() as u64;
        let topic_bytes = if known.is_none() && new > 0 { new_map(topic) } else { 0 };
        signed(topic_bytes + new * OFFSET_BYTES)
    }

    /// Takes back what was deleted after the queues stood at `next` (`min_offsets.I2`): the records behind that point delete
    /// it again.
    pub(crate) fn forget_after(&mut self, next: impl Fn(&str, u32) -> u64) {
        let kept = self.0.iter().filter_map(|(topic, queues)| {
            let kept = queues.iter().filter(|(queue, min)| **min <= next(topic, **queue));
            let kept: BTreeMap<u32, u64> = kept.map(|(queue, min)| (*queue, *min)).collect();
            (!kept.is_empty()).then(|| (topic.clone(), kept))
        });
        self.0 = kept.collect();
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::*;

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

    fn mins(state: &State) -> Vec<(u32, u64)> {
        state.min_offsets().of("t").collect()
    }

    #[test]
    fn i2_a_minimum_never_falls() {
        let mut mins = MinOffsets::default();
        mins.raise("t", vec![(0, 5), (3, 9)]);
        mins.raise("t", vec![(0, 4), (3, 10)]);
        assert_eq!(mins.of("t").collect::<Vec<_>>(), [(0, 5), (3, 10)]);
        assert_eq!((mins.get("t", 0), mins.get("t", 1), mins.get("u", 0)), (5, 0, 0));
    }

    #[test]
    fn i2_a_state_of_before_a_deletion_does_not_know_it() {
        let mut mins = MinOffsets::default();
        mins.raise("t", vec![(0, 5), (1, 9)]);
        mins.raise("u", vec![(0, 3)]);
        mins.forget_after(|topic, queue| if (topic, queue) == ("t", 0) { 5 } else { u64::from(queue) * 8 });
        assert_eq!(mins.of("t").collect::<Vec<_>>(), [(0, 5)]);
        assert_eq!(mins.of("u").count(), 0);
    }

    #[test]
    fn i1_a_deleted_topic_begins_after_its_messages_in_every_queue() {
        let mut state = State::default();
        state.apply(CreateTopic(Topic::new("t", 2)));
        let delete = || DeleteTopic { name: "t".into() };
        // Queue 9 is of a time when the topic was wider.
        let first = Ends("t", vec![(0, 5), (1, 3), (9, 2)]);
        assert_eq!(state.apply_with(delete(), &first), Outcome::Done);
        assert_eq!(mins(&state), [(0, 5), (1, 3), (9, 2)]);
        // A send that was under way came behind the deletion; the topic is created again: it is served.
        state.apply_with(CreateTopic(Topic::new("t", 2)), &Ends("t", vec![(0, 6), (1, 3)]));
        assert_eq!(mins(&state), [(0, 5), (1, 3), (9, 2)]);
        // An acknowledged deletion deletes, whether or not the topic was there.
        state.apply(delete());
        let second = Ends("t", vec![(0, 8), (1, 3)]);
        assert_eq!(state.apply_with(delete(), &second), Outcome::NotFound);
        assert_eq!(mins(&state), [(0, 8), (1, 3), (9, 2)]);
    }

    #[test]
    fn i1_no_groups_offset_points_at_what_is_deleted() {
        let mut state = State::default();
        let commit = |queue, offset| OffsetCommit { group: "g".into(), topic: "t".into(), queue, offset };
        state.apply(CommitOffsets(vec![commit(0, 2), commit(1, 4)]));
        state.apply_with(DeleteTopic { name: "t".into() }, &Ends("t", vec![(0, 3), (1, 4)]));
        assert_eq!((state.offset("g", "t", 0), state.offset("g", "t", 1)), (Some(3), Some(4)));
        // A consumer that has not noticed commits what it had.
        state.apply(CommitOffsets(vec![commit(0, 2), commit(1, 6)]));
        assert_eq!(state.offsets_of("g").collect::<Vec<_>>(), [("t", 0, 3), ("t", 1, 6)]);
    }

    /// Writers leave a queue first, readers finish it, then it is gone.
    #[test]
    fn i1_a_queue_is_deleted_when_it_is_gone_for_readers_and_writers() {
        let ends = Ends("t", vec![(0, 7), (1, 7), (2, 7), (3, 7)]);
        let mut state = State::default();
        state.apply_with(PutTopic(topic(4, 4)), &ends);
        state.apply_with(PutTopic(topic(4, 2)), &ends);
        assert_eq!(mins(&state), [], "consumers still read it");
        state.apply_with(PutTopic(topic(2, 2)), &ends);
        assert_eq!(mins(&state), [(2, 7), (3, 7)]);
        state.apply_with(PutTopic(topic(4, 4)), &ends);
        assert_eq!(mins(&state), [(2, 7), (3, 7)]);
        state.apply_with(PutTopic(topic(1, 4)), &ends);
        state.apply_with(PutTopic(topic(4, 4)), &ends);
        assert_eq!(mins(&state), [(2, 7), (3, 7)], "producers still wrote queue 1");
    }

    #[test]
    fn i1_a_cleaned_group_takes_its_retries_along_and_leaves_its_dead_letters() {
        let mut state = State::default();
        let ends = Ends("%RETRY%g", vec![(0, 4)]);
        let delete = |clean_offsets| DeleteGroup { name: "g".into(), clean_offsets };
        state.apply(CreateGroup(ConsumerGroup::new("g")));
        state.apply(CreateTopic(Topic::new("%RETRY%g", 1)));
        state.apply(CreateTopic(Topic::new("%DLQ%g", 1)));
        assert_eq!(state.apply_with(delete(false), &ends), Outcome::Done);
        assert!(state.topic("%RETRY%g").is_some(), "a group that keeps its offsets goes on with its retries");
        assert_eq!(state.apply_with(delete(true), &ends), Outcome::NotFound);
        assert_eq!(state.min_offsets().get("%RETRY%g", 0), 4);
        assert!(state.topic("%RETRY%g").is_none() && state.topic("%DLQ%g").is_some());
    }
}
