//! Popped messages: which messages a consumer group was given by POP, and which of them it has not acknowledged.
//!
//! For each queue that a group pops from ([`PopQueue`]) there is a *cursor*, the next offset to be popped, and the *batches* in flight
//! ([`Batch`]). A batch is what one pop was given of one queue: its first offset and pop time, which are in the handle ([`BatchId`]), the other
//! offsets, a bit for each message that was acknowledged, a bit for each that left the batch in another way, and when it becomes visible. So a
//! message in flight takes four bytes and its part of 61. The cursor is the group's offset in that queue ([`crate::State::offset`]), from the first
//! pop until the group commits an offset: then that counts, and the next pop begins there.
//!
//! | command | effect |
//! |---|---|
//! | [`PopMessages`] | moves the cursor from where the leader saw it, and adds a batch |
//! | [`PopAgain`] | an ordered batch is given again, what is left of it |
//! | [`AckPopped`] | one message is handled |
//! | [`ChangePopped`] | one message gets a batch of its own, with another time |
//! | [`RevivePopped`] | one message left: it comes with what is stored of it, a retry or a dead letter, in one transition |
//! | [`ExpirePopped`] | a batch without messages in flight is forgotten |
//! | [`CarryPopped`] | messages in flight are stored further on; it comes with them. What is applied of them says where they lie ([`CarriedMessage`]) |
//! | [`SetRequestMode`] | whether the clients of a group pull or pop |
//!
//! In an ordered batch ([`InOrder`]) the cursor stands at the first message that is not acknowledged, and while the batch is there nothing else is
//! popped from its queue. It does not come again by itself: the next pop gets it, once it is visible, or at once if it has the same attempt id.
//!
//! Each command says what the leader decided, times included. One that finds another state, since an offset was committed or a topic was
//! deleted meanwhile, changes nothing, and who asked looks what became of it.
//!
//! - `pop.I1` An offset of a queue is in flight in one batch at most. An acknowledged one never is again, until the group goes back.
//! - `pop.I2` A message leaves its batch once: acknowledged, changed, or revived with what is stored of it.
//! - `pop.I3` Batches are bounded by what a leader takes: [`BATCHES_MAX`] in all, [`IN_FLIGHT_MAX`] messages for each group and queue.
//! - `pop.I4` Retention drops no segment that holds a message in flight.
//! - `pop.I5` Once the leader has said that a message is acknowledged, no handle of it, however old, makes it come again.

mod commands;
mod edit;
mod modes;

use serde::{Deserialize, Serialize};

use self::edit::Edit;
use super::features::POP;
use crate::cow_map::CowMap;
use crate::section::Section;

pub use commands::{AckPopped, CarryPopped, ChangePopped, ExpirePopped, PopAgain, PopMessages, RevivePopped};
pub use modes::{RequestMode, SetRequestMode};

/// Batches of all groups and queues: about 24 MiB of state.
pub const BATCHES_MAX: u64 = 262_144;
/// Messages in flight of one group and queue (`popInflightMessageThreshold`).
pub const IN_FLIGHT_MAX: u64 = 10_000;
/// Messages of one batch: each has a bit.
pub const BATCH_MESSAGES_MAX: usize = 32;
/// Bytes of an attempt id.
pub const ATTEMPT_BYTES_MAX: usize = 255;
/// The value of [`Batch::position`] where the batch needs nothing of the log.
pub const NOWHERE: u64 = u64::MAX;

/// A queue as one consumer group pops from it.
#[derive(Debug, Clone, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
pub struct PopQueue {
    /// The consumer group.
    pub group: String,
    /// The topic; perhaps a retry topic of the group.
    pub topic: String,
    /// The queue's number.
    pub queue: u32,
}

/// What a handle says of its batch.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
pub struct BatchId {
    /// Its first offset.
    pub start: u64,
    /// When it was popped, by the leader's clock, ms since the epoch.
    pub popped_ms: u64,
}

/// Messages that one pop was given of one queue.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Batch {
    /// When what is in flight of it comes again, ms since the epoch.
    pub visible_ms: u64,
    /// None of its messages in flight that are not carried lies before; or [`NOWHERE`].
    pub position: u64,
    /// Whether its messages come again in the retry topic of the second kind.
    pub retry_v2: bool,
    /// The offsets of its messages, less the first.
    pub diffs: Vec<u32>,
    /// A bit for each: it was acknowledged.
    pub acked: u32,
    /// A bit for each: it left the batch in another way.
    pub gone: u32,
    /// For a group that consumes in order.
    pub order: Option<InOrder>,
}

/// What an ordered batch has besides.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct InOrder {
    /// By which its client repeats the pop.
    pub attempt: String,
    /// How often it was given before.
    pub attempts: u32,
    /// Where the cursor goes when all is acknowledged.
    pub next: u64,
}

/// Where a carried message lies.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct Carried {
    /// Its position.
    pub position: u64,
    /// Its length.
    pub bytes: u32,
}

/// A message in flight that was stored further on.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct CarriedMessage {
    /// Whose it is.
    pub queue: PopQueue,
    /// Its batch.
    pub id: BatchId,
    /// Its offset.
    pub offset: u64,
    /// Where it lies now.
    pub at: Carried,
}

impl Batch {
    /// Which bit a message has.
    fn bit(&self, id: BatchId, offset: u64) -> Option<u32> {
        let diff = u32::try_from(offset.checked_sub(id.start)?).ok()?;
        self.diffs.binary_search(&diff).ok().map(|at| 1 << at)
    }

    /// The offsets of the messages that are in flight.
    pub fn in_flight(&self, id: BatchId) -> impl Iterator<Item = u64> {
        let left = !(self.acked | self.gone);
        let diffs = self.diffs.iter().enumerate().filter(move |(at, _)| left >> at & 1 == 1);
        diffs.map(move |(_, diff)| id.start + u64::from(*diff))
    }

    /// How many messages are in flight.
    pub fn count(&self) -> u64 {
        self.diffs.len() as u64 - u64::from((self.acked | self.gone).count_ones())
    }
}

/// A queue of a group.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
struct OfQueue {
    cursor: Option<u64>,
    in_flight: u64,
    batches: CowMap<BatchId, Batch>,
    carried: CowMap<u64, Carried>,
}

impl OfQueue {
    fn ordered(&self) -> Option<(BatchId, &Batch)> {
        let mut all = self.batches.iter().map(|(id, batch)| (*id, batch));
        all.find(|(_, batch)| batch.order.is_some())
    }
}

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

/// See the module.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Popped {
    queues: CowMap<PopQueue, OfQueue>,
    batches: u64,
    modes: modes::Modes,
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
            self.batches().filter(|(.., batch)| batch.count() > 0).map(|(.., batch)| batch.position);
        carried.chain(batches).filter(|position| *position < upto).min()
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
        let is_elsewhere = |of: &OfQueue| {
            let mut holding = of.batches.iter().filter(|(id, _)| id.start <= offset);
            holding.any(|(id, batch)| batch.in_flight(*id).any(|at| at == offset))
        };
        if of.is_some_and(is_elsewhere) {
            Popping::Superseded
        } else if id.popped_ms.saturating_add(invisible_ms) <= now_ms
            || committed.is_none_or(|next| offset >= next)
        {
            Popping::Not
        } else {
            // A batch leaves before its time only when all of it is acknowledged.
            Popping::Acked
        }
    }

    /// What a message's latest handle says, if the one that is asked about was replaced by it.
    pub fn changed(&self, queue: &PopQueue, offset: u64, after: BatchId) -> Option<(BatchId, &Batch)> {
        let batches = self.queues.get(queue)?.batches.iter().map(|(id, batch)| (*id, batch));
        let mut later = batches.filter(|(id, _)| id.start == offset && id.popped_ms > after.popped_ms);
        later.find(|(id, batch)| batch.in_flight(*id).any(|at| at == offset))
    }

    /// How the clients of a group get the messages of a topic, if an operator has said so.
    pub fn mode(&self, group: &str, topic: &str) -> Option<RequestMode> {
        self.modes.get(group, topic)
    }

    /// All modes: (group, topic, mode).
    pub fn modes(&self) -> impl Iterator<Item = (&str, &str, RequestMode)> {
        self.modes.iter()
    }

    /// A message in flight was stored further on; returns by how many bytes the encoded state grows.
    pub(crate) fn store(&mut self, message: &CarriedMessage) -> i64 {
        // One that is not in flight any more is needed nowhere.
        let Some(edit) = self.edit_of_carried(message) else { return 0 };
        let growth = self.growth(&message.queue, &edit);
        self.apply(&message.queue, edit);
        growth
    }

    fn edit_of_carried(&self, CarriedMessage { queue, id, offset, at }: &CarriedMessage) -> Option<Edit> {
        let of = self.queues.get(queue)?;
        let batch = of.batches.get(id)?;
        if !batch.in_flight(*id).any(|other| other == *offset) {
            return None;
        }
        let all = batch.in_flight(*id).all(|other| other == *offset || of.carried.contains_key(&other));
        let put = if all { vec![(*id, Batch { position: NOWHERE, ..batch.clone() })] } else { Vec::new() };
        Some(Edit { put, carry: vec![(*offset, *at)], ..Edit::default() })
    }
}

#[cfg(test)]
mod tests;
