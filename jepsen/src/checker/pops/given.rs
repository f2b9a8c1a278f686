//! One delivery of what was popped.

use crate::history::{Delivery, Pop};

/// A message that was given so often may be a dead letter: a group gives it once, and 16 times again.
pub(super) const ATTEMPTS_MAX: u32 = 16;
/// A leader says when it popped before it looks what is there: by so much at most, ms.
const LOOK_MS: u64 = 100;

/// One delivery, and the answer that it was part of.
#[derive(Clone, Copy)]
pub(super) struct Given<'a> {
    pub(super) pop: &'a Pop,
    pub(super) one: &'a Delivery,
}

impl Given<'_> {
    pub(super) fn said(&self) -> String {
        let Delivery { is_retry, queue, offset, attempts, popped_ms, invisible_ms, .. } = self.one;
        let by = if *is_retry { "retry queue" } else { "queue" };
        let (invoked_us, completed_us) = (self.pop.invoked_us, self.pop.completed_us);
        format!(
            "{by} {queue} offset {offset}, attempt {attempts}, popped at {popped_ms} ms for {invisible_ms} ms \
             (asked at {invoked_us} us, given at {completed_us} us)"
        )
    }

    /// Whether the other one is the answer to the same attempt of a pop in order.
    pub(super) fn is_repeated_by(&self, other: &Self) -> bool {
        let is_same_place = self.one.offset == other.one.offset && self.one.queue == other.one.queue;
        self.pop.attempt.is_some() && self.pop.attempt == other.pop.attempt && is_same_place
    }

    /// Whether it was given before that time, by the broker's word or by what its consumer saw.
    pub(super) fn is_before(&self, time_ms: u64) -> bool {
        self.pop.completed_ms < time_ms || self.one.popped_ms + LOOK_MS < time_ms
    }
}
