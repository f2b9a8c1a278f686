//! Choosing what a pop is given of one queue.

use folio_protocol::message::MessageView;
use folio_protocol::popped::Retry;
use folio_protocol::subscription::TagFilter;
use folio_state::sections::popped::IN_FLIGHT_MAX;
use folio_state::{BatchId, PopMessages, PopQueue};

use crate::broker::Broker;
use crate::error::BrokerError;
use crate::pull::{Batch, Limits, choose};

/// Bytes of one answer, as a pull's; the first message always fits.
const BYTES_MAX: usize = 4 << 20;

/// How a queue is popped.
pub(super) struct Rules<'a> {
    pub(super) filter: &'a TagFilter,
    /// Messages at most.
    pub(super) max: usize,
    pub(super) popped_ms: u64,
    pub(super) invisible_ms: u64,
    pub(super) begins_at_end: bool,
    pub(super) attempt: Option<&'a str>,
    pub(super) retry_v2: bool,
}

/// What is chosen of a queue.
pub(super) struct Pick {
    pub(super) pop: PopMessages,
    pub(super) batch: Batch,
}

impl Pick {
    pub(super) fn bytes(&self) -> usize {
        self.batch.bytes
    }

    /// Which topic it is of.
    pub(super) fn retry(&self) -> Retry {
        Retry::of_topic(&self.pop.queue.topic)
    }
}

/// What there is in a queue.
pub(super) enum Found {
    /// Messages, or units that the group does not want.
    Some(Box<Pick>),
    /// Nothing behind the cursor, or an ordered batch in flight.
    Nothing,
    /// As many messages are in flight as may be (`pop.I3`).
    Full,
}

/// Where a group goes on in a queue, as it is stored and as it counts.
pub(super) fn place(
    broker: &Broker,
    queue: &PopQueue,
    begins_at_end: bool,
) -> Result<(Option<u64>, u64, u64), BrokerError> {
    let from = broker.group.state().offset_as_stored(queue);
    let deleted = broker.group.state().min_offsets().get(&queue.topic, queue.queue);
    let (min, max) = broker.group.queues().bounds(&queue.topic, queue.queue).unwrap_or((deleted, deleted));
    let start = match from {
        Some(from) => from,
        None if begins_at_end && Retry::of_topic(&queue.topic) == Retry::Normal => {
            broker.begin_if_young(&queue.topic, queue.queue)?.unwrap_or(max)
        }
        None => min,
    };
    Ok((from, start.max(min).max(deleted), max))
}

/// Chooses messages of a queue. Reads its units.
pub(super) fn pick(broker: &Broker, queue: PopQueue, rules: &Rules<'_>) -> Result<Found, BrokerError> {
    let (from, start, end) = place(broker, &queue, rules.begins_at_end)?;
    let in_flight = broker.group.state().popped().in_flight(&queue);
    if start >= end && !(from.is_none() && start > 0) {
        return Ok(Found::Nothing);
    }
    let room = usize::try_from(IN_FLIGHT_MAX.saturating_sub(in_flight)).unwrap_or(0).min(rules.max);
    if room == 0 {
        return Ok(Found::Full);
    }
    let limits = Limits { messages: room, bytes: BYTES_MAX };
    let batch = choose(broker, (&queue.topic, queue.queue), start, rules.filter, limits)?;
    let offsets: Vec<u64> = batch.runs.iter().flat_map(|run| run.first..run.first + run.messages).collect();
    let first = offsets.first().copied().unwrap_or(start);
    let pop = PopMessages {
        from,
        next: batch.next,
        id: BatchId { start: first, popped_ms: rules.popped_ms },
        diffs: offsets.iter().map(|offset| (offset - first) as u32).collect(),
        position: batch.runs.first().map_or(0, |run| run.position),
        visible_ms: rules.popped_ms + rules.invisible_ms,
        retry_v2: rules.retry_v2,
        attempt: rules.attempt.map(str::to_owned),
        queue,
    };
    Ok(Found::Some(Box::new(Pick { pop, batch })))
}

/// Whether a message is the one that was carried, or that of its queue itself.
pub(super) fn is_of_queue(view: &MessageView<'_>, queue: &PopQueue) -> bool {
    view.topic() == queue.topic
}
