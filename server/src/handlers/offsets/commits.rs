//! Consumer offsets on their way into the log: many commits, one command.
//!
//! Thousands of consumers commit every few seconds, and each would be a log record of its own. Commits that
//! come while one command is under way, or within [`PAUSE`] after it, go into the next; of several commits
//! for one queue the last counts. A commit that somebody waits for does not wait for the pause. One task
//! drains; it ends when nothing waits and the next commit starts another.
//!
//! Invariants: `commits.I1` a reply is used only when the command its commit went into, or a later one that
//! replaced it, is applied or refused. `turns.I1`: one that arrives after a later one from the same node is
//! not stored. `commits.I2` at most [`WAITING_MAX`] queues and replies wait.

use std::collections::HashMap;
use std::sync::Arc;
use std::time::Duration;

use folio_broker::turns::{Arrived, Key, Order};
use folio_raft::proposal::ProposeError;
use folio_state::{CommitOffsets, OffsetCommit};
use parking_lot::Mutex;
use tokio::sync::Notify;
use tokio::time::Instant;

use crate::broker::Broker;
use crate::error::ServerError;
use crate::reply::Reply;

/// How long oneway commits are gathered; clients commit every 5 s.
const PAUSE: Duration = Duration::from_millis(50);
/// How often it looks: about a record's way to a majority.
const APPLY_POLL: Duration = Duration::from_millis(1);
/// Queues with a waiting commit, and replies that wait, at most.
const WAITING_MAX: usize = 65_536;
/// Commits in one command: well within a log record, whatever the names.
const COMMAND_MAX: usize = 4_096;

/// The next offset of each.
type Offsets = HashMap<Key, u64>;

/// Commits that wait for their command.
#[derive(Default)]
pub(crate) struct Commits {
    waiting: Mutex<Waiting>,
    urgent: Notify,
}

#[derive(Default)]
struct Waiting {
    offsets: Offsets,
    /// What the command under way holds.
    under_way: Arc<Offsets>,
    /// Commands begun, the one under way included.
    begun: u64,
    /// Commands that are applied or refused.
    ended: u64,
    replies: Vec<Reply>,
    arrived: Arrived,
    draining: bool,
}

impl Commits {
    /// Waits until the commits for this queue that came before have ended: a consumer that asks right after its
    /// oneway commit sees it, however long the disk takes. Those that come meanwhile are not waited for.
    pub(super) async fn applied(&self, key: &Key, deadline: Instant) {
        let Some(last) = self.waiting.lock().last(key) else { return };
        while self.waiting.lock().ended < last && Instant::now() < deadline {
            self.urgent.notify_one();
            tokio::time::sleep(APPLY_POLL).await;
        }
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

    fn end(&mut self) {
        self.under_way = Arc::default();
        self.ended = self.begun;
    }
}

/// Commits one offset with the next command.
pub(crate) fn commit(broker: &Arc<Broker>, commit: OffsetCommit, order: Option<Order>, reply: Reply) {
    let commits = &broker.state.commits;
    if let Err(error) = broker.group.check(&CommitOffsets(vec![commit.clone()]).into()) {
        return reply.refuse(error);
    }
    let urgent = !reply.is_oneway();
    let start = {
        let mut waiting = commits.waiting.lock();
        if waiting.offsets.len() >= WAITING_MAX || waiting.replies.len() >= WAITING_MAX {
            drop(waiting);
            return reply.refuse(ProposeError::Busy);
        }
        let key = (commit.group, commit.topic, commit.queue);
        if order.is_some_and(|order| !waiting.arrived.note(&key, order)) {
            drop(waiting);
            return reply.fail(ServerError::Overtaken);
        }
        waiting.offsets.insert(key, commit.offset);
        waiting.replies.push(reply);
        !std::mem::replace(&mut waiting.draining, true)
    };
    if urgent {
        commits.urgent.notify_one();
    }
    if start {
        tokio::spawn(drain(broker.clone()));
    }
}

async fn drain(broker: Arc<Broker>) {
    let commits = &broker.state.commits;
    while let Some((offsets, replies)) = next(commits) {
        let outcome = execute(&broker, &offsets).await;
        commits.waiting.lock().end();
        for reply in replies {
            match &outcome {
                Ok(()) => reply.done(),
                Err(error) => reply.refuse(error.clone()),
            }
        }
        // An urgent commit that came meanwhile has left its permit: no pause then.
        drop(tokio::time::timeout(PAUSE, commits.urgent.notified()).await);
    }
}

/// Everything that waits; `None` ends the drain.
fn next(commits: &Commits) -> Option<(Arc<Offsets>, Vec<Reply>)> {
    let mut waiting = commits.waiting.lock();
    if waiting.offsets.is_empty() {
        waiting.draining = false;
        return None;
    }
    waiting.begun += 1;
    waiting.under_way = Arc::new(std::mem::take(&mut waiting.offsets));
    Some((waiting.under_way.clone(), std::mem::take(&mut waiting.replies)))
}

async fn execute(broker: &Broker, offsets: &Offsets) -> Result<(), ProposeError> {
    let commit = |((group, topic, queue), offset): (&Key, &u64)| OffsetCommit {
        group: group.clone(),
        topic: topic.clone(),
        queue: *queue,
        offset: *offset,
    };
    let mut commits = offsets.iter().map(commit).peekable();
    while commits.peek().is_some() {
        let some: Vec<OffsetCommit> = commits.by_ref().take(COMMAND_MAX).collect();
        broker.group.execute(CommitOffsets(some)).await?;
    }
    Ok(())
}
