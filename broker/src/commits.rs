//! Consumer offsets on their way into the log: many commits, one command.
//!
//! Thousands of consumers commit every few seconds, and each would be a log record of its own. Commits that
//! come while one command is under way, or within [`PAUSE`] after it, go into the next; of several commits
//! for one queue the last counts. A commit that somebody waits for does not wait for the pause. One task
//! drains; it ends when nothing waits and the next commit starts another.
//!
//! Invariants: `commits.I1` a caller is told only when the command its commit went into, or a later one that
//! replaced it, is applied or refused. `turns.I1`: one that arrives after a later one from the same node is
//! not stored. `commits.I2` at most [`WAITING_MAX`] queues and callers wait.

use std::collections::HashMap;
use std::sync::Arc;
use std::time::Duration;

use folio_raft::proposal::ProposeError;
use folio_state::OffsetCommit;
use parking_lot::Mutex;
use tokio::sync::{Notify, watch};
use tokio::time::{Instant, timeout_at};

use crate::error::BrokerError;
use crate::turns::{Arrived, Key, Order};

/// How long oneway commits are gathered; clients commit every 5 s.
const PAUSE: Duration = Duration::from_millis(50);
/// Queues with a waiting commit, and callers that wait, at most.
const WAITING_MAX: usize = 65_536;

/// The next offset of each.
pub(crate) type Offsets = HashMap<Key, u64>;

/// Told once what became of a commit.
pub type Done = Box<dyn FnOnce(Result<(), BrokerError>) + Send>;

/// Commits that wait for their command.
#[derive(Default)]
pub(crate) struct Commits {
    waiting: Mutex<Waiting>,
    urgent: Notify,
    /// Commands that are applied or refused.
    ended: watch::Sender<u64>,
}

#[derive(Default)]
struct Waiting {
    offsets: Offsets,
    /// What the command under way holds.
    under_way: Arc<Offsets>,
    /// Commands begun, the one under way included.
    begun: u64,
    dones: Vec<Done>,
    arrived: Arrived,
    draining: bool,
}

impl Commits {
    /// Waits until the commits for this queue that came before have ended: a consumer that asks right after its
    /// oneway commit sees it, however long the disk takes. Those that come meanwhile are not waited for.
    pub(crate) async fn applied(&self, key: &Key, deadline: Instant) {
        let mut ended = self.ended.subscribe();
        let Some(last) = self.waiting.lock().last(key) else { return };
        // One that is not in a command yet goes into the next: no pause before that.
        self.urgent.notify_one();
        drop(timeout_at(deadline, ended.wait_for(|ended| *ended >= last)).await);
    }

    /// Adds a commit to the next command. Returns whether no task drains yet: the caller starts one then.
    pub(crate) fn add(
        &self,
        commit: OffsetCommit,
        order: Option<Order>,
        is_urgent: bool,
        done: Done,
    ) -> Result<bool, (BrokerError, Done)> {
        let mut waiting = self.waiting.lock();
        if waiting.offsets.len() >= WAITING_MAX || waiting.dones.len() >= WAITING_MAX {
            return Err((ProposeError::Busy.into(), done));
        }
        let key = (commit.group, commit.topic, commit.queue);
        if order.is_some_and(|order| !waiting.arrived.note(&key, order)) {
            return Err((BrokerError::Overtaken, done));
        }
        waiting.offsets.insert(key, commit.offset);
        waiting.dones.push(done);
        let starts = !std::mem::replace(&mut waiting.draining, true);
        drop(waiting);
        if is_urgent {
            self.urgent.notify_one();
        }
        Ok(starts)
    }

    /// Everything that waits; `None` ends the drain.
    pub(crate) fn next(&self) -> Option<(Arc<Offsets>, Vec<Done>)> {
        let mut waiting = self.waiting.lock();
        if waiting.offsets.is_empty() {
            waiting.draining = false;
            return None;
        }
        waiting.begun += 1;
        waiting.under_way = Arc::new(std::mem::take(&mut waiting.offsets));
        Some((waiting.under_way.clone(), std::mem::take(&mut waiting.dones)))
    }

    /// The command under way is applied or refused.
    pub(crate) fn end(&self) {
        let begun = self.waiting.lock().end();
        self.ended.send_replace(begun);
    }

    /// Waits while commits are gathered. An urgent commit that came meanwhile has left its permit: no pause then.
    pub(crate) async fn gather(&self) {
        drop(tokio::time::timeout(PAUSE, self.urgent.notified()).await);
    }
}

impl Waiting {
    /// Which command the newest commit for this queue goes with, if one is on its way.
    fn last(&self, key: &Key) -> Option<u64> {
        if self.offsets.contains_key(key) {
            return Some(self.begun + 1);
        }
        self.under_way.contains_key(key).then_some(self.begun)
    }

    /// How many commands have ended.
    fn end(&mut self) -> u64 {
        self.under_way = Arc::default();
        self.begun
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const LIMIT: Duration = Duration::from_secs(10);

    fn commit(commits: &Commits, offset: u64) {
        let (group, topic, queue) = key();
        let commit = OffsetCommit { group, topic, queue, offset };
        assert!(commits.add(commit, None, false, Box::new(drop)).is_ok());
    }

    fn key() -> Key {
        ("g".to_owned(), "orders".to_owned(), 0)
    }

    #[tokio::test(start_paused = true)]
    async fn a_question_waits_for_the_commits_that_came_before_it_and_not_for_later_ones() {
        let commits = Arc::new(Commits::default());
        commit(&commits, 1);
        let (asked, asking) = (Instant::now(), commits.clone());
        let question = tokio::spawn(async move { asking.applied(&key(), asked + LIMIT).await });
        // Behind a command that is gathered, and one that has begun.
        tokio::task::yield_now().await;
        commits.gather().await;
        assert_eq!(asked.elapsed(), Duration::ZERO, "no pause while somebody waits");
        assert!(commits.next().is_some());
        commit(&commits, 2);
        assert!(!question.is_finished());
        commits.end();
        question.await.unwrap();
        assert_eq!(asked.elapsed(), Duration::ZERO);
        commits.applied(&("g".to_owned(), "other".to_owned(), 0), asked + LIMIT).await;
        assert_eq!(asked.elapsed(), Duration::ZERO, "nothing to wait for");
        commits.applied(&key(), asked + LIMIT).await;
        assert_eq!(asked.elapsed(), LIMIT, "the second one never ends");
    }
}
