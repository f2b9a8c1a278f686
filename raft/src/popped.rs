//! Messages in flight by POP, as far as the log is concerned: reads one of them, tells the state of those that were stored further on, and says
//! how far the log is needed for them, which retention asks before it drops a segment.
//!
//! - `pop.I4` Retention drops no segment that holds a message in flight. What is in flight now it sees in the state; and nothing gets into flight
//!   that it may be dropping: a leader pops only what its own limits keep ([`floor`]), and a node drops only what is beyond wider ones
//!   (`group::retention`).

use std::sync::atomic::Ordering;

use bytes::Bytes;
use folio_engine::log::ReadError;
use folio_engine::queues::QueuesError;
use folio_engine::record::{Record, RecordKind};
use folio_protocol::message::{MessageError, MessageView, peek};
use folio_protocol::popped::{CARRIED_TOPIC, InFlight, uncarried};
use folio_state::sections::features::POP;
use folio_state::{BatchId, Carried, CarriedMessage, Command, PopQueue};

use crate::shared::Shared;

/// Bytes of the log that are read together.
const READ_BYTES: usize = 1 << 20;

/// Why a message in flight was not read.
#[derive(Debug, thiserror::Error)]
pub enum Unread {
    /// Its record is damaged, or cannot be read now.
    #[error(transparent)]
    Log(#[from] ReadError),
    /// Its unit is damaged, or cannot be read now.
    #[error(transparent)]
    Queue(#[from] QueuesError),
    /// Another message lies there.
    #[error("no message with offset {offset} of {queue:?} is at position {position}")]
    Other {
        /// Whose it is.
        queue: PopQueue,
        /// Its offset.
        offset: u64,
        /// Where it should lie.
        position: u64,
    },
}

/// The stored bytes of a message in flight, or of one that may be popped; `None` if the log has none. Blocks on the disk.
pub(crate) fn read(shared: &Shared, queue: &PopQueue, offset: u64) -> Result<Option<Bytes>, Unread> {
    let carried = shared.state.read().popped().carried(queue, offset);
    let at = match carried {
        Some(carried) => Some(carried),
        None => in_queue(shared, queue, offset)?,
    };
    let Some(Carried { position, bytes }) = at else { return Ok(None) };
    let lying = shared.log.bytes(position, bytes as usize)?;
    let bytes = match carried {
        Some(_) => MessageView::parse(&lying).map_or(Bytes::new(), |message| uncarried(&message, &lying)),
        None => lying,
    };
    let is_it = MessageView::parse(&bytes).is_ok_and(|message| {
        (message.topic(), message.queue_id(), message.queue_offset()) == (&queue.topic, queue.queue, offset)
    });
    if is_it { Ok(Some(bytes)) } else { Err(Unread::Other { queue: queue.clone(), offset, position }) }
}

/// What lies before is popped no more: this node's limits let it go (`pop.I4`). Whole segments, so that it does not move with each record: a
/// group that has fallen back to it would be given nothing while others write.
pub(crate) fn floor(shared: &Shared) -> u64 {
    let log = shared.log.state();
    let by_size =
        shared.retention_bytes.and_then(|limit| log.next_position.checked_sub(limit)).map_or(0, |upto| {
            let starts = shared.log.segment_starts();
            let due = starts.partition_point(|(position, _)| *position <= upto);
            starts[..due].last().map_or(0, |(position, _)| *position)
        });
    by_size.max(shared.popped_floor.load(Ordering::Relaxed)).max(log.start_position)
}

/// The lowest message that a pop brings into flight which is in this node's log and not applied yet; `u64::MAX` if none is. Reads the log.
pub(crate) fn lowest_not_applied(shared: &Shared) -> Result<u64, ReadError> {
    let (mut next, mut lowest) = (shared.applied_index.load(Ordering::Acquire) + 1, u64::MAX);
    loop {
        let end = shared.log.state().last.map_or(0, |last| last.index + 1);
        let records = if next < end { shared.log.read(next, end, READ_BYTES)? } else { Vec::new() };
        let Some(last) = records.last() else { return Ok(lowest) };
        next = last.header.index + 1;
        for record in records.iter().filter(|record| record.header.kind == RecordKind::Transition) {
            for command in record.commands() {
                if let Ok(Command::PopMessages(pop)) = Command::decode(&command)
                    && !pop.diffs.is_empty()
                {
                    lowest = lowest.min(pop.position);
                }
            }
        }
    }
}

fn in_queue(shared: &Shared, queue: &PopQueue, offset: u64) -> Result<Option<Carried>, QueuesError> {
    let first = shared.queues.bounds(&queue.topic, queue.queue).map(|(first, _)| first);
    if first.is_none_or(|first| offset < first) {
        return Ok(None);
    }
    let units = shared.queues.units(&queue.topic, queue.queue, offset, 1)?;
    Ok(units.first().map(|unit| Carried { position: unit.position, bytes: unit.size }))
}

/// Tells the state of the messages in flight that a record stores further on, as every replica does.
pub(crate) fn apply(shared: &Shared, record: &Record) -> Result<(), MessageError> {
    // Only drivers store one, and below that level no leader.
    if record.header.kind != RecordKind::Transition || shared.level.get() < POP {
        return Ok(());
    }
    // snapshots.I3
    if record.header.index <= shared.ordered_as_of.load(Ordering::Relaxed) {
        return Ok(());
    }
    let carried = of(record)?;
    if !carried.is_empty() {
        let growth = shared.state.write().store_carried(&carried);
        shared.state_bytes.fetch_add(growth, Ordering::Relaxed);
    }
    Ok(())
}

/// The carried messages of a record, in their order.
fn of(record: &Record) -> Result<Vec<CarriedMessage>, MessageError> {
    let (start, messages) = (record.messages_position(), record.messages());
    let (mut at, mut carried) = (0, Vec::new());
    while at < messages.len() {
        let route = peek(&messages[at..])?;
        if route.topic == CARRIED_TOPIC.as_bytes()
            && let Some(whose) = InFlight::of(&MessageView::parse(&messages[at..])?)
        {
            let InFlight { group, topic, queue, start: first, popped_ms, offset } = whose;
            let bytes = u32::try_from(route.total_size).unwrap_or(u32::MAX);
            carried.push(CarriedMessage {
                queue: PopQueue { group, topic, queue },
                id: BatchId { start: first, popped_ms },
                offset,
                at: Carried { position: start + at as u64, bytes },
            });
        }
        at += route.total_size;
    }
    Ok(carried)
}

/// Up to where no message in flight needs the log, at most `upto`. It is by what is applied here: what lies before that is in flight
/// nowhere else, and a group that pops it later finds the queue's first offset above it.
pub(crate) fn clear_before(shared: &Shared, upto: u64) -> u64 {
    let popped = shared.state.read().popped().clone();
    popped.lowest_before(upto).unwrap_or(upto)
}

/// Asks for what is needed before a position to be stored further on. The leader does it, sooner or later.
pub(crate) fn want_clear_before(shared: &Shared, position: u64) {
    shared.popped_wanted.fetch_max(position, Ordering::Relaxed);
}

/// Whether something is asked to be stored further on that is not yet.
pub(crate) fn is_wanted(shared: &Shared) -> bool {
    let wanted = shared.popped_wanted.load(Ordering::Relaxed);
    wanted > shared.log.state().start_position && clear_before(shared, wanted) < wanted
}
