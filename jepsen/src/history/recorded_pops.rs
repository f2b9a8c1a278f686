//! How pops are recorded, and whether everything was popped and acknowledged.

use std::collections::HashSet;

use super::op::Outcome;
use super::pops::{Pop, PopAck, PopChange, PopEnd};
use super::transactions::Ended;
use super::{History, Line, Recorder};
use crate::payload::OpKey;

/// A group's message that may have been acknowledged.
type Handled<'a> = HashSet<(&'a str, OpKey)>;

impl History {
    /// Whether each group may have acknowledged every message that was acknowledged to its producer, or given to the group.
    #[must_use]
    pub fn pops_handled(&self, groups: &[String]) -> bool {
        let may_be = |ack: &&PopAck| ack.ended != Ended::Refused;
        let handled: Handled<'_> =
            self.pop_acks.iter().filter(may_be).map(|ack| (&*ack.group, ack.key)).collect();
        let is_handled = |group: &'_ str, key: OpKey| handled.contains(&(group, key));
        let mut stored = self.ops.iter().filter(|op| matches!(op.outcome, Outcome::Ok { .. }));
        let mut given =
            self.pops.iter().flat_map(|pop| pop.given.iter().flatten().map(move |one| (pop, one)));
        stored.all(|op| groups.iter().all(|group| is_handled(group, op.key)))
            && given.all(|(pop, one)| one.key.is_none_or(|key| is_handled(&pop.group, key)))
    }
}

impl Recorder {
    /// Records a pop.
    pub fn pop(&self, pop: Pop) {
        let mut inner = self.inner.lock();
        inner.write(&Line::Pop(&pop));
        inner.history.pops.push(pop);
    }

    /// Records an acknowledgement.
    pub fn pop_ack(&self, ack: PopAck) {
        let mut inner = self.inner.lock();
        inner.write(&Line::PopAck(&ack));
        inner.history.pop_acks.push(ack);
    }

    /// Records a change of an invisible time.
    pub fn pop_change(&self, change: PopChange) {
        let mut inner = self.inner.lock();
        inner.write(&Line::PopChange(&change));
        inner.history.pop_changes.push(change);
    }

    /// Records that consumers had the time to pop and acknowledge everything.
    pub fn pop_end(&self, end: PopEnd) {
        let mut inner = self.inner.lock();
        inner.write(&Line::PopEnd(&end));
        inner.history.pop_end = Some(end);
    }
}
