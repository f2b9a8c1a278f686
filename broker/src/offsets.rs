//! Offsets: a consumer's and a queue's.
//!
//! A consumer's offsets are replicated like messages: a commit is done when it is applied, a new leader
//! goes on with them. Not here: how commits are gathered ([`crate::commits`]).

use std::cmp::Ordering;
use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use folio_engine::queues::{QueuesError, Unit};
use folio_protocol::message::MessageView;
use folio_raft::proposal::ProposeError;
use folio_state::{CommitOffsets, OffsetCommit};
use tokio::time::Instant;

use crate::broker::Broker;
use crate::commits::{Done, Offsets};
use crate::error::BrokerError;
use crate::turns::{Key, Order, Turns};

/// A queue whose first message is at most this far behind the end of the log is young: a group without an
/// offset starts at its first message. Upstream's measure is 40 % of the machine's memory; a fixed number
/// makes replicas agree.
const YOUNG_BYTES: u64 = 4 << 30;

/// Pause before a unit that is about to be mended is looked at again.
const MEND_PAUSE: Duration = Duration::from_millis(50);

/// Commits in one command: well within a log record, whatever the names.
const COMMAND_MAX: usize = 4_096;

/// The question where a group goes on in a queue.
#[derive(Debug, Clone)]
pub struct OffsetQuestion {
    /// The consumer group.
    pub group: String,
    /// The topic.
    pub topic: String,
    /// The queue's number.
    pub queue_id: i32,
    /// Whether a group without an offset begins at the first message of a young queue.
    pub begins_if_young: bool,
}

/// A group's progress in a queue, as its client says it.
#[derive(Debug, Clone)]
pub struct Progress {
    /// The consumer group.
    pub group: String,
    /// The topic.
    pub topic: String,
    /// The queue's number.
    pub queue_id: i32,
    /// The offset to go on with.
    pub offset: i64,
}

/// Which message is looked for by a time.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Bound {
    /// The first message stored at or after the time, or the offset after the last.
    Lower,
    /// The last one stored at or before it, or the first message.
    Upper,
}

impl Broker {
    /// Where a group goes on in a queue.
    ///
    /// A consumer that goes on from an old offset is given everything since then again. So commits that came
    /// before the question are applied first, those of `turns` included that wait to be handed out (`turns.I1`), and this node
    /// proves that it leads and has applied everything. For the same reason it takes its time until `deadline` before it says
    /// that it cannot tell (`forward.I3`).
    pub async fn consumer_offset(
        &self,
        question: &OffsetQuestion,
        turns: Option<&Turns>,
        deadline: Instant,
    ) -> Result<u64, BrokerError> {
        if let Ok(queue) = queue_number(question.queue_id) {
            let key = (question.group.clone(), question.topic.clone(), queue);
            self.commits.applied(&key, deadline).await;
            if let Some(turns) = turns {
                turns.let_pass(&key, deadline).await;
            }
        }
        loop {
            self.group.confirm().await?;
            match self.applied_offset(question) {
                Err(BrokerError::Unreadable(_)) if Instant::now() < deadline => {}
                offset => return offset,
            }
            tokio::time::sleep(MEND_PAUSE).await;
        }
    }

    fn applied_offset(&self, question: &OffsetQuestion) -> Result<u64, BrokerError> {
        let queue = queue_number(question.queue_id)?;
        if let Some(offset) = self.group.state().offset(&question.group, &question.topic, queue) {
            return Ok(offset);
        }
        let begin =
            if question.begins_if_young { self.begin_if_young(&question.topic, queue)? } else { None };
        begin.ok_or_else(|| {
            BrokerError::NotFound("Not found, maybe this group consumer boot first".to_owned())
        })
    }

    /// The first offset of a queue that still has its first message, if that is not long ago. The first after its topic was
    /// deleted counts: who consumes the topic of that name now wants all of it. A queue that was only deleted begins there, too.
    pub(crate) fn begin_if_young(&self, topic: &str, queue: u32) -> Result<Option<u64>, BrokerError> {
        let begin = self.group.state().min_offsets().get(topic, queue);
        let first = match self.group.queues().units(topic, queue, begin, 1) {
            Err(QueuesError::Trimmed { .. }) => return Ok(None),
            first => first.map_err(|error| BrokerError::Unreadable(error.to_string()))?,
        };
        let end = self.group.log().state().next_position;
        let is_young = match first.first() {
            Some(unit) => end.saturating_sub(unit.position) <= YOUNG_BYTES,
            None => begin > 0,
        };
        Ok(is_young.then_some(begin))
    }

    /// A group's progress as a commit, if group, topic and queue exist.
    pub fn check_progress(&self, progress: Progress) -> Result<OffsetCommit, BrokerError> {
        let Progress { group, topic, queue_id, offset } = progress;
        if self.group.state().group(&group).is_none() {
            return Err(BrokerError::GroupNotExist(group));
        }
        let Some(known) = self.topic(&topic) else {
            return Err(BrokerError::TopicNotExist(topic));
        };
        let queue = queue_number(queue_id)?;
        if queue >= known.queue_count() {
            return Err(BrokerError::InvalidParameter(format!("topic[{topic}] has no queue {queue}")));
        }
        let offset = u64::try_from(offset)
            .map_err(|_| BrokerError::InvalidParameter(format!("the offset {offset} is negative")))?;
        Ok(OffsetCommit { group, topic, queue, offset })
    }

    /// Commits one offset with the next command; `done` is told when it is applied. `order`: its place among the commits of
    /// its node's clients. One that is not urgent is gathered with others.
    pub fn commit_offset(
        self: &Arc<Self>,
        commit: OffsetCommit,
        order: Option<Order>,
        is_urgent: bool,
        done: Done,
    ) {
        if let Err(error) = self.group.check(&CommitOffsets(vec![commit.clone()]).into()) {
            return done(Err(error.into()));
        }
        match self.commits.add(commit, order, is_urgent, done) {
            Ok(true) => drop(tokio::spawn(drain(self.clone()))),
            Ok(false) => {}
            Err((error, done)) => done(Err(error)),
        }
    }

    /// A queue's first offset and the one after its last message that consumers may see; a queue without messages, or that does
    /// not exist, is empty at 0. Only the leader can tell.
    pub async fn queue_bounds(&self, topic: &str, queue_id: i32) -> Result<(u64, u64), BrokerError> {
        self.group.confirm().await?;
        Ok(self.bounds(topic, queue_id))
    }

    /// The offset at a point in time, ms since the epoch. Reads old messages, hence apart from the runtime's threads.
    pub async fn offset_at(
        self: &Arc<Self>,
        topic: String,
        queue_id: i32,
        time: i64,
        bound: Bound,
    ) -> Result<u64, BrokerError> {
        self.apart(move |broker| broker.search(&topic, queue_id, time, bound)).await
    }

    /// When a queue's first message was stored, ms since the epoch; -1 if there is none.
    pub async fn earliest_time(self: &Arc<Self>, topic: String, queue_id: i32) -> Result<i64, BrokerError> {
        self.apart(move |broker| broker.first_time(&topic, queue_id)).await
    }

    /// Reads what may be on disk only, once this node has proved that it leads.
    pub(crate) async fn apart<T: Send + 'static>(
        self: &Arc<Self>,
        read: impl FnOnce(&Broker) -> Result<T, BrokerError> + Send + 'static,
    ) -> Result<T, BrokerError> {
        self.group.confirm().await?;
        let broker = self.clone();
        let read = tokio::task::spawn_blocking(move || read(&broker)).await;
        // The task does not panic and is not aborted: an error here means the runtime is going down.
        read.unwrap_or_else(|error| Err(BrokerError::Internal(error.to_string())))
    }

    pub(crate) fn search(
        &self,
        topic: &str,
        queue_id: i32,
        wanted: i64,
        bound: Bound,
    ) -> Result<u64, BrokerError> {
        let (min, _) = self.bounds(topic, queue_id);
        let mut failed = None;
        let order = |unit| match self.stored_at(unit) {
            Ok(time) if bound == Bound::Upper && time == wanted => Ordering::Less,
            Ok(time) => time.cmp(&wanted),
            Err(error) => {
                failed = Some(error);
                Ordering::Equal
            }
        };
        let queue = queue_number(queue_id)?;
        let found = self.group.queues().search(topic, queue, order);
        let found = found.map_err(|error| BrokerError::Internal(error.to_string()))?.unwrap_or(0);
        match failed {
            Some(error) => Err(error),
            None if bound == Bound::Upper => Ok(found.saturating_sub(1).max(min)),
            None => Ok(found),
        }
    }

    fn first_time(&self, topic: &str, queue_id: i32) -> Result<i64, BrokerError> {
        let (min, _) = self.bounds(topic, queue_id);
        let units = self.group.queues().units(topic, queue_number(queue_id)?, min, 1);
        let units = units.map_err(|error| BrokerError::Internal(error.to_string()))?;
        units.first().map_or(Ok(-1), |unit| self.stored_at(*unit))
    }

    /// When a message was stored, ms.
    pub(crate) fn stored_at(&self, unit: Unit) -> Result<i64, BrokerError> {
        let unreadable =
            |why: String| BrokerError::Internal(format!("the message at {}: {why}", unit.position));
        let bytes = self.group.log().bytes(unit.position, unit.size as usize);
        let bytes = bytes.map_err(|error| unreadable(error.to_string()))?;
        let message = MessageView::parse(&bytes).map_err(|error| unreadable(error.to_string()))?;
        Ok(message.store_timestamp())
    }

    pub(crate) fn bounds(&self, topic: &str, queue_id: i32) -> (u64, u64) {
        let queue = u32::try_from(queue_id).ok();
        queue.and_then(|queue| self.group.queues().bounds(topic, queue)).unwrap_or((0, 0))
    }
}

fn queue_number(queue_id: i32) -> Result<u32, BrokerError> {
    u32::try_from(queue_id)
        .map_err(|_| BrokerError::InvalidParameter(format!("queueId[{queue_id}] is illegal")))
}

async fn drain(broker: Arc<Broker>) {
    while let Some((offsets, dones)) = broker.commits.next() {
        let outcome = execute(&broker, &offsets).await;
        broker.commits.end();
        for done in dones {
            done(outcome.clone().map_err(BrokerError::from));
        }
        broker.commits.gather().await;
    }
}

/// How far commits move each group forward. A group's first commit in a queue says nothing of what it consumed.
fn moved(broker: &Broker, commits: &[OffsetCommit]) -> BTreeMap<String, u64> {
    let state = broker.group.state();
    let mut moved = BTreeMap::new();
    for OffsetCommit { group, topic, queue, offset } in commits {
        let forward = state.offset(group, topic, *queue).map_or(0, |before| offset.saturating_sub(before));
        *moved.entry(group.clone()).or_default() += forward;
    }
    moved
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
        let moved = moved(broker, &some);
        broker.group.execute(CommitOffsets(some)).await?;
        moved.iter().for_each(|(group, messages)| broker.rates.consumed(group, *messages));
    }
    Ok(())
}
