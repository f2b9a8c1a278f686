//! Where queues begin because all that was in them is deleted: with their topic, with their consumer group, or as queues
//! that a topic has no more.
//!
//! A deleted message stays in the log until its segment goes, and its queue offset is never used again. What keeps it from
//! readers is the minimum here: a deletion raises it to the queue's next offset as of that record. It belongs to the
//! replicated metadata, so it is a pure function of the log: equal on every replica, the same again on replay, and saved
//! with checkpoints and snapshots. Retention raises the first offset of a queue too, on each node by what that node has
//! dropped; the consume queues begin at the greater of both.
//!
//! Invariants
//! - `min_offsets.I1` A message that was stored before a deletion is given to no reader of a node that has applied the
//!   deletion, after a restart, a rebuild and on a new replica too.
//! - `min_offsets.I2` A minimum never falls, and is never above the queue's next offset: no message stored after the
//!   deletion is hidden.

use std::collections::BTreeMap;

use folio_engine::counters::QueueCounters;
use folio_engine::queues::ConsumeQueues;
use serde::{Deserialize, Serialize};

use crate::cow_map::CowMap;

/// The next offsets of a topic's queues, as of the last applied record.
pub trait NextOffsets {
    /// Every queue of the topic that ever had a message, with its next offset.
    fn next_offsets(&self, topic: &str) -> Vec<(u32, u64)>;
}

impl NextOffsets for ConsumeQueues {
    fn next_offsets(&self, topic: &str) -> Vec<(u32, u64)> {
        ConsumeQueues::next_offsets(self, topic)
    }
}

/// A group without messages.
pub struct NoMessages;

impl NextOffsets for NoMessages {
    fn next_offsets(&self, _topic: &str) -> Vec<(u32, u64)> {
        Vec::new()
    }
}

/// Topic -> queue -> the first offset that is not deleted. As many as there are queues that lost their messages.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct MinOffsets(CowMap<String, BTreeMap<u32, u64>>);

impl MinOffsets {
    /// The first offset of a queue that is not deleted; 0 if none is.
    pub fn get(&self, topic: &str, queue: u32) -> u64 {
        self.0.get(topic).and_then(|queues| queues.get(&queue)).copied().unwrap_or(0)
    }

    /// The queues of a topic in which messages were deleted, with their first offsets.
    pub fn of(&self, topic: &str) -> impl Iterator<Item = (u32, u64)> {
        self.0.get(topic).into_iter().flatten().map(|(queue, min)| (*queue, *min))
    }

    /// Deletes all that these queues hold below `next` (`min_offsets.I2`).
    pub(crate) fn raise(&mut self, topic: &str, queues: impl Iterator<Item = (u32, u64)>) {
        for (queue, next) in queues {
            let min = self.0.get_or_default(topic.to_owned()).entry(queue).or_default();
            *min = next.max(*min);
        }
    }

    /// Takes back what was deleted after the queues stood at `next` (`min_offsets.I2`): the records behind that point delete it
    /// again.
    pub(crate) fn forget_after(&mut self, next: &QueueCounters) {
        let kept = self.0.iter().filter_map(|(topic, queues)| {
            let kept = queues.iter().filter(|(queue, min)| **min <= next.get(topic, **queue));
            let kept: BTreeMap<u32, u64> = kept.map(|(queue, min)| (*queue, *min)).collect();
            (!kept.is_empty()).then(|| (topic.clone(), kept))
        });
        self.0 = kept.collect();
    }

    /// Raises the first offsets that a node's retained log gives, for queues opened as of a checkpoint.
    pub(crate) fn raise_in(&self, first: &mut QueueCounters) {
        for (topic, queues) in &self.0 {
            for (queue, min) in queues {
                if first.get(topic, *queue) < *min {
                    first.set(topic, *queue, *min);
                }
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn i2_a_minimum_never_falls() {
        let mut mins = MinOffsets::default();
        mins.raise("t", [(0, 5), (3, 9)].into_iter());
        mins.raise("t", [(0, 4), (3, 10)].into_iter());
        assert_eq!(mins.of("t").collect::<Vec<_>>(), [(0, 5), (3, 10)]);
        assert_eq!((mins.get("t", 0), mins.get("t", 1), mins.get("u", 0)), (5, 0, 0));
    }

    #[test]
    fn i2_a_state_of_before_a_deletion_does_not_know_it() {
        let mut mins = MinOffsets::default();
        mins.raise("t", [(0, 5), (1, 9)].into_iter());
        mins.raise("u", [(0, 3)].into_iter());
        let mut next = QueueCounters::new();
        next.set("t", 0, 5);
        next.set("t", 1, 8);
        mins.forget_after(&next);
        assert_eq!(mins.of("t").collect::<Vec<_>>(), [(0, 5)]);
        assert_eq!(mins.of("u").count(), 0);
    }

    #[test]
    fn the_greater_of_retention_and_deletion_counts() {
        let mut mins = MinOffsets::default();
        mins.raise("t", [(0, 5), (1, 5), (2, 5)].into_iter());
        let mut first = QueueCounters::new();
        first.set("t", 0, 3);
        first.set("t", 1, 7);
        first.set("u", 1, 2);
        mins.raise_in(&mut first);
        let first: Vec<_> = first.iter().map(|(topic, queue, first)| (&**topic, queue, first)).collect();
        assert_eq!(first, [("t", 0, 5), ("t", 1, 7), ("t", 2, 5), ("u", 1, 2)]);
    }
}
