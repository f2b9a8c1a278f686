//! Commits of consumer offsets, and what goes with them: notes of what was sent back, and what is in flight by POP.

use serde::{Deserialize, Serialize};

use super::offsets::{OffsetCommit, Offsets};
use super::popped::{PopQueue, Popped};
use super::sent_back::SentBack;
use crate::bounds::{ENTRIES_MAX, OutOfBounds, at_most, check_group_name, check_topic_name};
use crate::operation::{Apply, Operation, Outcome};
use crate::queue_ref::QueueRef;
use crate::section::{Has, NextOffsets, Section};

/// Stores consumer offsets. A lower offset than the stored one is accepted, as RocketMQ does; what the group sent back from there
/// on it may send back again, and what it popped from there on it may pop again.
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

/// A commit with what the group's offset was.
struct Change<'a> {
    commit: &'a OffsetCommit,
    popping: PopQueue,
    before: Option<u64>,
}

impl<'a> Change<'a> {
    fn of<S: Has<Offsets> + Has<Popped>>(state: &S, commit: &'a OffsetCommit) -> Change<'a> {
        let OffsetCommit { group, topic, queue, .. } = commit;
        let popping = PopQueue { group: group.clone(), topic: topic.clone(), queue: *queue };
        let committed = || Offsets::within(state).get(group, topic, *queue);
        let before = Popped::within(state).cursor(&popping).or_else(committed);
        Change { commit, popping, before }
    }

    /// The queue, if the group goes back in it: it consumes again what it may have sent back.
    fn goes_back(&self) -> Option<QueueRef> {
        let OffsetCommit { topic, queue, offset, .. } = self.commit;
        (*offset < self.before?).then(|| QueueRef { topic: topic.clone(), queue: *queue })
    }
}

impl<S: Has<Offsets> + Has<SentBack> + Has<Popped>> Apply<S> for CommitOffsets {
    fn growth(&self, state: &S, _: &dyn NextOffsets) -> i64 {
        let growth = |commit: &OffsetCommit| {
            let change = Change::of(state, commit);
            let reset = match change.goes_back() {
                Some(queue) => SentBack::within(state).growth_of_reset(&commit.group, &queue, commit.offset),
                None => 0,
            };
            let popped = Popped::within(state);
            reset
                + popped.growth_of_commit(&change.popping, commit.offset, change.before)
                + Offsets::within(state).growth_of_put(commit)
        };
        self.0.iter().map(growth).sum()
    }

    fn apply(self, state: &mut S, _: &dyn NextOffsets) -> Outcome {
        for commit in self.0 {
            let change = Change::of(state, &commit);
            if let Some(queue) = change.goes_back() {
                SentBack::within_mut(state).forget_from(&commit.group, &queue, commit.offset);
            }
            Popped::within_mut(state).committed(&change.popping, commit.offset, change.before);
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
