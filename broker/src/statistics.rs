//! What operators ask about queues and groups: what is stored, how far a group has come, who consumes what.
//!
//! Figures of queues and offsets come from the leader, behind a proof that it leads; who is connected, any node knows.

use std::collections::BTreeSet;
use std::sync::Arc;

use folio_protocol::names;
use folio_state::State;

use crate::broker::Broker;
use crate::clock::now_ms;
use crate::error::BrokerError;
use crate::offsets::Bound;

/// Over which time the rate of a topic is taken.
const RATE_MS: i64 = 60_000;

/// What is in a topic.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct TopicFigures {
    /// Its queues, by number.
    pub queues: Vec<QueueFigures>,
    /// Messages stored in a second, over the last minute.
    pub stored_per_second: f64,
}

/// What is in a queue.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct QueueFigures {
    /// Its number.
    pub queue: u32,
    /// The offset of its first message.
    pub first: u64,
    /// The offset after its last one.
    pub end: u64,
    /// When that was stored, ms; 0 without one.
    pub stored_ms: i64,
}

/// How far a group has come.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct GroupFigures {
    /// In each queue of each topic.
    pub queues: Vec<Lag>,
    /// Messages consumed in a second, over the last minute, as this leader has seen it.
    pub consumed_per_second: f64,
}

/// How far a group has come in a queue.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Lag {
    /// The topic.
    pub topic: String,
    /// The queue's number.
    pub queue: u32,
    /// The offset after its last message.
    pub end: u64,
    /// The offset that the group goes on with; the first one, where it has committed none.
    pub offset: u64,
    /// When the message before that was stored, ms; 0 without one.
    pub consumed_ms: i64,
}

impl Broker {
    /// What is in a topic. Reads old messages.
    pub async fn topic_figures(self: &Arc<Self>, topic: String) -> Result<TopicFigures, BrokerError> {
        self.apart(move |broker| {
            let Some(known) = broker.topic(&topic) else { return Err(BrokerError::TopicNotExist(topic)) };
            let queues = (0..known.queue_count()).map(|queue| broker.queue_figures(&topic, queue));
            let queues = queues.collect::<Result<Vec<_>, _>>()?;
            let since = now_ms().cast_signed() - RATE_MS;
            let mut stored = 0;
            // What was stored before is not looked for in queues at rest.
            for queue in queues.iter().filter(|queue| queue.stored_ms >= since) {
                let from = broker.search(&topic, queue.queue.cast_signed(), since, Bound::Lower)?;
                stored += queue.end.saturating_sub(from);
            }
            Ok(TopicFigures { queues, stored_per_second: stored as f64 * 1_000.0 / RATE_MS as f64 })
        })
        .await
    }

    fn queue_figures(&self, topic: &str, queue: u32) -> Result<QueueFigures, BrokerError> {
        let (first, end) = self.bounds(topic, queue.cast_signed());
        let stored_ms = self.stored_before(topic, queue, end)?;
        Ok(QueueFigures { queue, first, end, stored_ms })
    }

    /// When the message before an offset was stored, ms; 0 where there is none.
    fn stored_before(&self, topic: &str, queue: u32, offset: u64) -> Result<i64, BrokerError> {
        let (first, end) = self.bounds(topic, queue.cast_signed());
        if offset <= first || offset > end {
            return Ok(0);
        }
        let units = self.group.queues().units(topic, queue, offset - 1, 1);
        let units = units.map_err(|error| BrokerError::Unreadable(error.to_string()))?;
        units.first().map_or(Ok(0), |unit| self.stored_at(*unit))
    }

    /// How far a group has come, in one topic or in all that it consumes. A topic that its living members do not subscribe to
    /// any more is left out. Reads old messages.
    pub async fn group_figures(
        self: &Arc<Self>,
        group: String,
        topic: Option<String>,
    ) -> Result<GroupFigures, BrokerError> {
        self.apart(move |broker| {
            let topics = match topic {
                Some(topic) => BTreeSet::from([topic]),
                None => broker.topics_of(&group),
            };
            let view = broker.clients.group(&group);
            let is_left = |topic: &str| {
                let of_group = topic == names::retry_topic(&group);
                !of_group && view.as_ref().is_some_and(|view| !view.subscriptions.contains_key(topic))
            };
            let mut queues = Vec::new();
            for topic in topics.iter().filter(|topic| !is_left(topic)) {
                let Some(known) = broker.topic(topic) else { continue };
                for queue in 0..known.queue_count() {
                    queues.push(broker.lag(&group, topic, queue)?);
                }
            }
            Ok(GroupFigures { queues, consumed_per_second: broker.rates.of(&group) })
        })
        .await
    }

    fn lag(&self, group: &str, topic: &str, queue: u32) -> Result<Lag, BrokerError> {
        let offset = self.group.state().offset(group, topic, queue);
        let (first, end) = self.bounds(topic, queue.cast_signed());
        let offset = offset.unwrap_or(first).max(first);
        let consumed_ms = self.stored_before(topic, queue, offset)?;
        Ok(Lag { topic: topic.to_owned(), queue, end, offset, consumed_ms })
    }

    /// The topics that a group consumes: it has offsets there, or a member subscribes to them.
    pub fn topics_of(&self, group: &str) -> BTreeSet<String> {
        let mut topics: BTreeSet<String> = consumed(&self.group.state(), group).map(str::to_owned).collect();
        topics.extend(self.clients.group(group).into_iter().flat_map(|view| view.subscriptions.into_keys()));
        topics
    }

    /// The groups that consume a topic, in the same sense.
    pub fn groups_of(&self, topic: &str) -> BTreeSet<String> {
        let mut groups = self.clients.groups_of(topic);
        let state = self.group.state();
        let consumes = state.groups().filter(|group| consumed(&state, &group.name).any(|name| name == topic));
        groups.extend(consumes.map(|group| group.name.clone()));
        groups
    }
}

fn consumed<'a>(state: &'a State, group: &str) -> impl Iterator<Item = &'a str> {
    state.offsets_of(group).map(|(topic, ..)| topic)
}
