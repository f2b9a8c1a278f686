//! The state as a whole: what callers read, and how a command changes it. `state.I1`, a limit of its size: see [`STATE_BYTES_MAX`].

use std::collections::BTreeMap;

use crate::command::Command;
use crate::operation::Outcome;
use crate::section::{NextOffsets, NoMessages};
use crate::sections::groups::ConsumerGroup;
use crate::sections::locks::Locks;
use crate::sections::min_offsets::MinOffsets;
use crate::sections::popped::{CarriedMessage, PopQueue, Popped};
use crate::sections::sent_back::SentBack;
use crate::sections::timers::Timers;
use crate::sections::topics::Topic;
use crate::sections::transactions::{Half, Transactions};

pub use crate::registry::State;

/// Bytes that the encoded state may grow to: a million offsets of names of 50 bytes. The largest checkpoint is 32 times as
/// large.
///
/// `state.I1`: no command that makes the state larger is proposed while it is at this limit. Commands that are under way
/// together may pass it together, by no more than they hold. What changes or removes something is always taken.
pub const STATE_BYTES_MAX: u64 = 128 << 20;

impl State {
    /// The group's feature level.
    pub fn level(&self) -> u16 {
        self.features.level()
    }

    /// The topic of that name.
    pub fn topic(&self, name: &str) -> Option<&Topic> {
        self.topics.get(name)
    }

    /// All topics, by name.
    pub fn topics(&self) -> impl Iterator<Item = &Topic> {
        self.topics.iter()
    }

    /// The consumer group of that name.
    pub fn group(&self, name: &str) -> Option<&ConsumerGroup> {
        self.groups.get(name)
    }

    /// All consumer groups, by name.
    pub fn groups(&self) -> impl Iterator<Item = &ConsumerGroup> {
        self.groups.iter()
    }

    /// The next offset that `group` wants of a queue, if it ever committed one; not below what is deleted.
    pub fn offset(&self, group: &str, topic: &str, queue: u32) -> Option<u64> {
        let popping = PopQueue { group: group.to_owned(), topic: topic.to_owned(), queue };
        let offset = self.offset_as_stored(&popping)?;
        Some(self.min_offsets.get(topic, queue).max(offset))
    }

    /// The same as it is stored: it may lie below what is deleted.
    pub fn offset_as_stored(&self, queue: &PopQueue) -> Option<u64> {
        let committed = || self.offsets.get(&queue.group, &queue.topic, queue.queue);
        self.popped.cursor(queue).or_else(committed)
    }

    /// Every committed offset of a group: (topic, queue, offset), in no order.
    pub fn offsets_of(&self, group: &str) -> impl Iterator<Item = (&str, u32, u64)> {
        let mut all: BTreeMap<(&str, u32), u64> =
            self.offsets.of(group).map(|(topic, queue, offset)| ((topic, queue), offset)).collect();
        all.extend(self.popped.cursors_of(group).map(|(topic, queue, offset)| ((topic, queue), offset)));
        all.into_iter()
            .map(|((topic, queue), offset)| (topic, queue, offset))
            .map(|(topic, queue, offset)| (topic, queue, self.min_offsets.get(topic, queue).max(offset)))
    }

    /// Where queues begin because what was before is deleted.
    pub fn min_offsets(&self) -> &MinOffsets {
        &self.min_offsets
    }

    /// Takes back the deletions after the queues stood at `next`: (topic, queue) to next offset.
    pub fn forget_deletions_after(&mut self, next: impl Fn(&str, u32) -> u64) {
        self.min_offsets.forget_after(next);
    }

    /// The latest reading of the lease clock that a request for locks carried.
    pub fn lease_clock_ms(&self) -> u64 {
        self.locks.clock_ms()
    }

    /// What consumers sent back; a copy costs little.
    pub fn sent_back(&self) -> &SentBack {
        &self.sent_back
    }

    /// Which delayed messages are still to be delivered; a copy costs little.
    pub fn timers(&self) -> &Timers {
        &self.timers
    }

    /// Which transactions are open, and what became of others; a copy costs little.
    pub fn transactions(&self) -> &Transactions {
        &self.transactions
    }

    /// What is in flight by POP; a copy costs little.
    pub fn popped(&self) -> &Popped {
        &self.popped
    }

    /// Messages in flight were stored further on, in this order. By how many bytes the encoded state grows.
    pub fn store_carried(&mut self, messages: &[CarriedMessage]) -> i64 {
        messages.iter().map(|message| self.popped.store(message)).sum()
    }

    /// Half messages were stored, in this order: their transactions are open, or moved. By how many bytes the encoded state grows.
    pub fn store_halves(&mut self, halves: Vec<Half>) -> i64 {
        halves.into_iter().map(|half| self.transactions.store(half)).sum()
    }

    /// Orderly locks; a copy costs little.
    pub fn locks(&self) -> &Locks {
        &self.locks
    }

    /// Whether any client of the group holds a lock that is alive at this reading of the lease clock: the group consumes in
    /// order.
    pub fn has_live_locks(&self, group: &str, now_ms: u64) -> bool {
        self.locks.are_live(group, now_ms)
    }

    /// The last number that a `Count` told.
    #[cfg(feature = "next-level")]
    pub fn counted(&self) -> u64 {
        self.counted.0
    }

    /// By how many bytes the encoded state grows if the command is applied now; below zero if it shrinks. `queues` is as of
    /// the record before it. Twice the same new thing in one command counts twice, and a lock as if it were granted.
    pub fn growth(&self, command: &Command, queues: &dyn NextOffsets) -> i64 {
        command.growth(self, queues)
    }

    /// Applies one committed command where no topic has messages.
    pub fn apply(&mut self, command: impl Into<Command>) -> Outcome {
        self.apply_with(command, &NoMessages)
    }

    /// Applies one committed command; `queues` is as of the record before it.
    pub fn apply_with(&mut self, command: impl Into<Command>, queues: &dyn NextOffsets) -> Outcome {
        command.into().apply(self, queues)
    }

    /// The same for a command whose effect on sections that depend on order is included already (`snapshots.I3`). Its outcome is
    /// not used: the command was answered when it was first applied.
    pub fn apply_again(&mut self, command: Command, queues: &dyn NextOffsets) -> Outcome {
        if command.depends_on_order() {
            return Outcome::Done;
        }
        self.change_but_for_ordered(|state| command.apply(state, queues))
    }
}
