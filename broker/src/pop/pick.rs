//! Choosing what a pop is given of one queue.

use folio_protocol::popped::Retry;
use folio_protocol::subscription::TagFilter;
use folio_state::sections::popped::IN_FLIGHT_MAX;
use folio_state::{BatchId, PopMessages, PopQueue};

use crate::broker::Broker;
use crate::error::BrokerError;
use crate::pull::{Batch, Limits, choose};

/// How a queue is popped.
pub(super) struct Rules<'a> {
    pub(super) filter: &'a TagFilter,
    /// Messages and their bytes at most; the first message always fits.
    pub(super) limits: Limits,
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

/// What there is in a queue.
pub(super) enum Found {
    /// Messages, or units that the group does not want.
    Some(Box<Pick>),
    /// Nothing behind the cursor.
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
    if start >= end && !(from.is_none() && start > 0) {
        return Ok(Found::Nothing);
    }
    let (in_flight, has_place) = {
        let state = broker.group.state();
        (state.popped().in_flight(&queue), state.popped().has_place(&queue))
    };
    let room = usize::try_from(IN_FLIGHT_MAX.saturating_sub(in_flight)).unwrap_or(0);
    if room == 0 || !has_place {
        return Ok(Found::Full);
    }
    let limits = Limits { messages: room.min(rules.limits.messages), ..rules.limits };
    let batch = chosen(broker, &queue, start, rules.filter, limits)?;
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

/// From `start` on, or behind what retention lets go (`pop.I4`).
fn chosen(
    broker: &Broker,
    queue: &PopQueue,
    start: u64,
    filter: &TagFilter,
    limits: Limits,
) -> Result<Batch, BrokerError> {
    let PopQueue { topic, queue, .. } = queue;
    let batch = choose(broker, (topic, *queue), start, filter, limits)?;
    let floor = broker.group.pop_floor();
    if batch.runs.first().is_none_or(|run| run.position >= floor) {
        return Ok(batch);
    }
    let kept = broker.group.queues().search(topic, *queue, |unit| unit.position.cmp(&floor));
    let kept = kept.map_err(|error| BrokerError::Unreadable(error.to_string()))?;
    choose(broker, (topic, *queue), kept.unwrap_or(start).max(start), filter, limits)
}
