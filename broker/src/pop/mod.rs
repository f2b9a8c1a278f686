//! POP: a consumer is given messages of any queue of a topic, for a while; what it does not acknowledge in that time comes again.
//!
//! Only the leader pops, one request at a time from each queue ([`locks`]): [`Broker::pop`] chooses messages behind the cursors ([`look`], [`pick`]), reads them, has them noted as in flight, and gives them out
//! once that is committed. What is in flight is replicated state, so a handle is good at any leader ([`ends`]). What comes again by itself is the
//! driver's business (`folio_raft::driver`).
//!
//! A group's retries of a topic are in a topic of their own; one pop in five looks there first, the others last. A group that consumes in order has
//! none: its messages stay in their queues, which they block.
//!
//! A pop that finds nothing waits at the node that its client is connected to ([`waits`]).
//!
//! - `pop.I6` Requests that wait are bounded, for each group and topic and in all.

mod assignment;
mod ends;
mod give;
mod list;
mod locks;
mod look;
mod peek;
mod pick;
mod waits;

use std::sync::Arc;

use bytes::Bytes;
use folio_protocol::Name;
use folio_protocol::flags::PermissionBits;
use folio_protocol::limits::POP_MESSAGES_MAX;
use folio_protocol::popped::Retry;
use folio_protocol::subscription::TagFilter;
use folio_raft::log_rate_limiter::LogRateLimiter;
use folio_state::Topic;

use crate::broker::Broker;
use crate::error::BrokerError;
use crate::reads::ReadMemory;
use crate::topics::message_type;

pub use assignment::{Assignments, Queue, assign};
pub use ends::{Changed, Popped};
pub use list::{InFlightList, ListedBatch};
pub(crate) use locks::PopLocks;
pub(crate) use waits::Waits;
pub use waits::{Waiter, WaitsFull};

/// The longest invisible time, ms: RocketMQ's for gRPC clients, twelve hours.
pub const INVISIBLE_MAX_MS: u64 = 12 * 3_600_000;

/// What a client asks for.
#[derive(Debug, Clone)]
pub struct ToPop {
    /// Its consumer group.
    pub group: Name,
    /// The topic.
    pub topic: Name,
    /// The queue; negative for any.
    pub queue_id: i32,
    /// At most how many messages.
    pub messages_max: i32,
    /// Their invisible time, ms.
    pub invisible_ms: i64,
    /// Whether a group without an offset begins behind the last message of an old queue.
    pub begins_at_end: bool,
    /// Which messages; none for all.
    pub expression: Option<String>,
    /// The expression's language; none: tags.
    pub expression_kind: Option<String>,
    /// The attempt id of a group that consumes in order, perhaps empty.
    pub attempt: Option<String>,
}

/// Messages of one queue.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct GivenBatch {
    /// Which topic they are of.
    pub retry: Retry,
    /// The queue.
    pub queue: u32,
    /// The first offset of the batch.
    pub start: u64,
    /// The messages' offsets, ascending.
    pub offsets: Vec<u64>,
    /// How often they were given before, in order.
    pub attempts: u32,
}

/// What a pop was given.
#[derive(Debug, Default)]
pub struct Given {
    /// When, ms since the epoch.
    pub popped_ms: u64,
    /// For how long, ms.
    pub invisible_ms: u64,
    /// How many messages are left behind the cursors.
    pub rest: u64,
    /// Of which queues; nothing: there was no message, or, if some are left, none yet that is wanted.
    pub batches: Vec<GivenBatch>,
    /// The encoded messages, one after the other.
    pub messages: Vec<Bytes>,
    /// What was taken of the share of reads, until the messages are in the queue of their client (`disk_reads.I1`).
    pub memory: Option<ReadMemory>,
}

static OUT_OF_ORDER: LogRateLimiter = LogRateLimiter::new();

/// A pop that may be served.
struct Subject {
    topic: Topic,
    queue: Option<u32>,
    max: usize,
    filter: TagFilter,
}

impl Broker {
    /// The topic that a pop, a peek or a question is about, in RocketMQ's order of checks.
    fn popped_topic(
        &self,
        group: &str,
        topic: &str,
        queue_id: i32,
    ) -> Result<(Topic, Option<u32>), BrokerError> {
        if !self.settings.permission.is_readable() {
            return Err(BrokerError::NoPermission("the broker pop message is forbidden".to_owned()));
        }
        let known = self.topic(topic).ok_or_else(|| BrokerError::TopicNotExist(topic.to_owned()))?;
        if !PermissionBits(known.perm).is_readable() {
            return Err(BrokerError::NoPermission(format!(
                "the topic[{topic}] peeking message is forbidden"
            )));
        }
        let queue = u32::try_from(queue_id).ok();
        if queue.is_some_and(|queue| queue >= known.read_queues) {
            return Err(BrokerError::InvalidParameter(format!(
                "queueId[{queue_id}] is illegal, topic:[{topic}] topicConfig.readQueueNums:[{}]",
                known.read_queues
            )));
        }
        let of = self.consumer_group(group).ok_or_else(|| BrokerError::GroupNotExist(group.to_owned()))?;
        if !of.consume_enable {
            return Err(BrokerError::NoPermission(format!("subscription group no permission, {group}")));
        }
        Ok((known, queue))
    }

    fn pop_subject(&self, wish: &ToPop) -> Result<Subject, BrokerError> {
        let max = usize::try_from(wish.messages_max).unwrap_or(0);
        if max > POP_MESSAGES_MAX {
            let text = format!("a pop of {max} messages, the limit is {POP_MESSAGES_MAX}");
            return Err(BrokerError::InvalidParameter(text));
        }
        let (topic, queue) = self.popped_topic(&wish.group, &wish.topic, wish.queue_id)?;
        if wish.attempt.is_none()
            && message_type::is_fifo(&topic)
            && let Some(left_out) = OUT_OF_ORDER.admit()
        {
            tracing::warn!(
                group = &*wish.group,
                topic = topic.name,
                left_out,
                "a group pops from a FIFO topic, and its requests do not ask for order (order=true): it is not kept"
            );
        }
        let expression = wish.expression.as_deref().filter(|expression| !expression.is_empty());
        let filter = match (expression, wish.expression_kind.as_deref()) {
            (None, _) => TagFilter::All,
            (Some(expression), None | Some("" | folio_protocol::body::TAG)) => TagFilter::parse(expression)?,
            (Some(_), Some(other)) => return Err(BrokerError::FilterNotSupported(other.to_owned())),
        };
        Ok(Subject { topic, queue, max: max.max(1), filter })
    }

    /// The retry topics of a group that exist.
    fn pop_retry_topics(&self, group: &str, topic: &str) -> Vec<(Retry, Topic)> {
        let state = self.group.state();
        let names = [Retry::V1, Retry::V2].map(|retry| (retry, retry.topic(group, topic)));
        names.into_iter().filter_map(|(retry, name)| Some((retry, state.topic(&name)?.clone()))).collect()
    }

    /// Waits with a request that found nothing; refused where too many wait.
    pub fn wait_for_pop(
        self: &Arc<Self>,
        group: &str,
        topic: &str,
        queue_id: i32,
    ) -> Result<Waiter, WaitsFull> {
        let retries = [Retry::V1, Retry::V2].map(|retry| retry.topic(group, topic));
        self.pop_waits.wait(group, topic, queue_id, &retries)
    }

    /// Every request that waits looks again: the node stops.
    pub fn release_pops(&self) {
        self.pop_waits.wake_all();
    }

    /// How many requests wait.
    pub fn waiting_pops(&self, group: &str, topic: &str, queue_id: i32) -> usize {
        self.pop_waits.count(group, topic, queue_id)
    }
}
