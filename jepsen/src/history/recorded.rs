//! How delays, send-backs and transactions are recorded, and whether what is to come of them has come.

use std::collections::HashSet;

use super::delays::{Delayed, Recall, Recalled};
use super::op::Outcome;
use super::send_backs::{Moved, SendBack};
use super::transactions::{Check, End, Half};
use super::{History, Line, Recorder};
use crate::payload::OpKey;

impl History {
    /// Messages that are to be delivered by the end of the run: acknowledged, due by then, and certainly not taken back.
    pub fn awaited(&self) -> impl Iterator<Item = &Delayed> {
        let may_be_gone = |recall: &&Recall| recall.recalled != Recalled::Refused;
        let gone: HashSet<OpKey> = self.recalls.iter().filter(may_be_gone).map(|recall| recall.key).collect();
        let was_stored = |delayed: &&Delayed| matches!(delayed.op.outcome, Outcome::Ok { .. });
        let near = self.delayed.iter().filter(was_stored).filter(|delayed| !delayed.is_far);
        near.filter(move |delayed| !gone.contains(&delayed.op.key))
    }

    /// Whether a consumer was given all of them.
    #[must_use]
    pub fn delayed_came(&self) -> bool {
        let given = self.polls.iter().flat_map(|poll| &poll.found).filter_map(|found| found.key);
        let given: HashSet<OpKey> = given.collect();
        self.awaited().all(|delayed| given.contains(&delayed.op.key))
    }

    /// Whether a consumer was given all that is to come again.
    #[must_use]
    pub fn moved_came(&self) -> bool {
        let given = self.polls.iter().flat_map(|poll| poll.found.iter().map(|found| (poll.queue, found)));
        let given: HashSet<Moved> = given.filter_map(|(queue, found)| Moved::of(queue, found)).collect();
        let mut acked = self.send_backs.iter().filter(|sent| sent.acked_us.is_some());
        acked.all(|sent| given.contains(&sent.moved))
    }

    /// Half messages that were acknowledged, and whose producers commit.
    pub fn committing(&self) -> impl Iterator<Item = &Half> {
        let was_stored = |half: &&Half| matches!(half.op.outcome, Outcome::Ok { .. });
        self.halves.iter().filter(was_stored).filter(|half| half.commits)
    }

    /// Whether a consumer was given all of them.
    #[must_use]
    pub fn committed_came(&self) -> bool {
        let given = self.polls.iter().flat_map(|poll| &poll.found).filter_map(|found| found.key);
        let given: HashSet<OpKey> = given.collect();
        self.committing().all(|half| given.contains(&half.op.key))
    }
}

impl Recorder {
    /// Records a finished delayed send.
    pub fn delayed(&self, delayed: Delayed) {
        let mut inner = self.inner.lock();
        inner.write(&Line::Delayed(&delayed));
        inner.history.delayed.push(delayed);
    }

    /// Records what became of a recall.
    pub fn recall(&self, recall: Recall) {
        let mut inner = self.inner.lock();
        inner.write(&Line::Recall(&recall));
        inner.history.recalls.push(recall);
    }

    /// Looks at what is recorded so far.
    pub fn look<T>(&self, look: impl FnOnce(&History) -> T) -> T {
        look(&self.inner.lock().history)
    }

    /// Records what a consumer sent back.
    pub fn send_back(&self, sent: SendBack) {
        let mut inner = self.inner.lock();
        inner.write(&Line::SendBack(&sent));
        inner.history.send_backs.push(sent);
    }

    /// Records a finished send of a half message.
    pub fn half(&self, half: Half) {
        let mut inner = self.inner.lock();
        inner.write(&Line::Half(&half));
        inner.history.halves.push(half);
    }

    /// Records the end of a transaction.
    pub fn ending(&self, end: End) {
        let mut inner = self.inner.lock();
        inner.write(&Line::Ending(&end));
        inner.history.endings.push(end);
    }

    /// Records a question.
    pub fn check(&self, check: Check) {
        let mut inner = self.inner.lock();
        inner.write(&Line::Check(&check));
        inner.history.checks.push(check);
    }
}
