//! All that is in flight, as it is read.

use serde::{Deserialize, Serialize};

use super::batch::{BATCHES_MAX, Batch, BatchId, Carried, OfQueue, PopQueue};
use super::modes::{Modes, RequestMode};
use crate::cow_map::CowMap;
use crate::section::Section;
use crate::sections::features::POP;

/// The batches of one queue are at most one of so many parts of those that the others leave.
const QUEUE_PART: u64 = 8;

/// What became of a message, as far as its handle goes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Popping {
    /// It is in flight in the batch that the handle names.
    InFlight,
    /// It was acknowledged.
    Acked,
    /// It is in flight by another handle, which was given later.
    Superseded,
    /// It is not in flight: its time was over, or its offset was not popped.
    Not,
}

/// All that is in flight.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Popped {
    pub(super) queues: CowMap<PopQueue, OfQueue>,
    pub(super) batches: u64,
    /// The latest `over_ms` of queues that are known no more.
    pub(super) over_ms: u64,
    pub(super) modes: Modes,
}

impl Section for Popped {
    const TAG: u16 = 10;
    const SINCE: u16 = POP;
    const DEPENDS_ON_ORDER: bool = true;
}

impl Popped {
    /// The next offset to be popped, if the group has popped from the queue since it last committed an offset.
    pub fn cursor(&self, queue: &PopQueue) -> Option<u64> {
        self.queues.get(queue)?.cursor
    }

    /// The cursors of a group: (topic, queue, offset).
    pub fn cursors_of(&self, group: &str) -> impl Iterator<Item = (&str, u32, u64)> {
        let of_group = self.queues.iter().filter(move |(queue, _)| queue.group == group);
        of_group.filter_map(|(queue, of)| Some((queue.topic.as_str(), queue.queue, of.cursor?)))
    }

    /// Messages of the queue that are in flight.
    pub fn in_flight(&self, queue: &PopQueue) -> u64 {
        self.queues.get(queue).map_or(0, |of| of.in_flight)
    }

    /// Whether there may be one batch more of a queue (`pop.I3`): none has more than its part of what the others leave.
    pub fn has_place(&self, queue: &PopQueue) -> bool {
        let of_queue = self.queues.get(queue).map_or(0, |of| of.batches.len() as u64);
        of_queue < (BATCHES_MAX.saturating_sub(self.batches) + of_queue) / QUEUE_PART
    }

    /// Batches of all queues.
    pub fn count(&self) -> u64 {
        self.batches
    }

    /// One batch.
    pub fn batch(&self, queue: &PopQueue, id: BatchId) -> Option<&Batch> {
        self.queues.get(queue)?.batches.get(&id)
    }

    /// The ordered batch of a queue.
    pub fn ordered(&self, queue: &PopQueue) -> Option<(BatchId, &Batch)> {
        self.queues.get(queue)?.ordered()
    }

    /// The batch that a handle means. That of an ordered batch may name the message as its first one, as RocketMQ's clients do once they have
    /// changed its time.
    pub fn meant(&self, queue: &PopQueue, id: BatchId, offset: u64) -> BatchId {
        let Some(of) = self.queues.get(queue).filter(|of| !of.batches.contains_key(&id)) else { return id };
        let same = of.ordered().filter(|(ordered, batch)| {
            ordered.popped_ms == id.popped_ms && id.start == offset && batch.bit(*ordered, offset).is_some()
        });
        same.map_or(id, |(ordered, _)| ordered)
    }

    /// All batches. Looks at all.
    pub fn batches(&self) -> impl Iterator<Item = (&PopQueue, BatchId, &Batch)> {
        let all = self.queues.iter();
        all.flat_map(|(queue, of)| of.batches.iter().map(move |(id, batch)| (queue, *id, batch)))
    }

    /// Where a message in flight was stored once more, if it was.
    pub fn carried(&self, queue: &PopQueue, offset: u64) -> Option<Carried> {
        self.queues.get(queue)?.carried.get(&offset).copied()
    }

    /// Whether a message in flight may lie before a position, and the lowest such. Looks at all.
    pub fn lowest_before(&self, upto: u64) -> Option<u64> {
        let carried = self.queues.iter().flat_map(|(_, of)| of.carried.values().map(|at| at.position));
        let batches =
            self.queues.iter().flat_map(|(_, of)| of.batches.iter().map(move |(id, batch)| (of, *id, batch)));
        let lying = batches.filter(|(of, id, batch)| {
            // All that is still in flight of it may be carried by now.
            batch.position < upto && batch.in_flight(*id).any(|offset| !of.carried.contains_key(&offset))
        });
        carried.chain(lying.map(|(.., batch)| batch.position)).filter(|position| *position < upto).min()
    }

    /// What became of a message, by its handle and the leader's clock. `committed` is the group's offset in the queue.
    pub fn popping(
        &self,
        queue: &PopQueue,
        (id, invisible_ms): (BatchId, u64),
        (offset, committed): (u64, Option<u64>),
        now_ms: u64,
    ) -> Popping {
        let of = self.queues.get(queue);
        if let Some(batch) = of.and_then(|of| of.batches.get(&id)) {
            return match batch.bit(id, offset) {
                None => Popping::Not,
                Some(bit) if batch.acked & bit != 0 => Popping::Acked,
                Some(bit) if batch.gone & bit != 0 => Popping::Superseded,
                Some(_) => Popping::InFlight,
            };
        }
        let is_elsewhere =
            |of: &OfQueue| of.around(offset).any(|(id, batch)| batch.in_flight(id).any(|at| at == offset));
        let end_ms = id.popped_ms.saturating_add(invisible_ms);
        let over_ms = of.map_or(0, |of| of.over_ms).max(self.over_ms);
        let has_left = of.and_then(|of| of.left.get(&offset)).is_some_and(|until_ms| end_ms <= *until_ms);
        if of.is_some_and(is_elsewhere) {
            Popping::Superseded
        } else if has_left || end_ms <= now_ms.max(over_ms) || committed.is_none_or(|next| offset >= next) {
            Popping::Not
        } else {
            // What left in any other way is known to have, or has raised `over_ms`.
            Popping::Acked
        }
    }

    /// What a message's latest handle says, if the one that is asked about was replaced by it.
    pub fn changed(&self, queue: &PopQueue, offset: u64, after: BatchId) -> Option<(BatchId, &Batch)> {
        let mut batches = self.queues.get(queue)?.around(offset);
        batches.find(|(id, batch)| {
            let is_later = id.start == offset && id.popped_ms > after.popped_ms;
            is_later && batch.in_flight(*id).any(|at| at == offset)
        })
    }

    /// How the clients of a group get the messages of a topic, if an operator has said so.
    pub fn mode(&self, group: &str, topic: &str) -> Option<RequestMode> {
        self.modes.get(group, topic)
    }

    /// All modes: (group, topic, mode).
    pub fn modes(&self) -> impl Iterator<Item = (&str, &str, RequestMode)> {
        self.modes.iter()
    }
}
