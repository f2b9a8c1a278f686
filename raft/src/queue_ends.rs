//! What the replicated state may ask of the consume queues.

use folio_engine::counters::QueueCounters;
use folio_engine::queues::ConsumeQueues;
use folio_state::NextOffsets;
use folio_state::sections::min_offsets::MinOffsets;

/// Where the queues end, as of the last applied record.
pub(crate) struct QueueEnds<'a>(pub(crate) &'a ConsumeQueues);

impl NextOffsets for QueueEnds<'_> {
    fn next_offsets(&self, topic: &str) -> Vec<(u32, u64)> {
        self.0.next_offsets(topic)
    }
}

/// Raises the first offsets that a node's retained log gives to what is deleted, for queues opened as of a checkpoint.
pub(crate) fn raise_firsts(first: &mut QueueCounters, deleted: &MinOffsets) {
    for (topic, queue, min) in deleted.iter() {
        if first.get(topic, queue) < min {
            first.set(topic, queue, min);
        }
    }
}

#[cfg(test)]
mod tests {
    use folio_state::{DeleteTopic, State};

    use super::*;

    struct Ends;

    impl NextOffsets for Ends {
        fn next_offsets(&self, _topic: &str) -> Vec<(u32, u64)> {
            vec![(0, 5), (1, 5), (2, 5)]
        }
    }

    #[test]
    fn the_greater_of_retention_and_deletion_counts() {
        let mut state = State::default();
        state.apply_with(DeleteTopic { name: "t".into() }, &Ends);
        let mut first = QueueCounters::new();
        first.set("t", 0, 3);
        first.set("t", 1, 7);
        first.set("u", 1, 2);
        raise_firsts(&mut first, state.min_offsets());
        let first: Vec<_> = first.iter().map(|(topic, queue, first)| (&**topic, queue, first)).collect();
        assert_eq!(first, [("t", 0, 5), ("t", 1, 7), ("t", 2, 5), ("u", 1, 2)]);
    }
}
