//! What is in flight: batches, and the queues that they are of.

use serde::{Deserialize, Serialize};

use crate::cow_map::CowMap;

/// Batches of all groups and queues: about 24 MiB of state.
pub const BATCHES_MAX: u64 = 262_144;
/// Messages in flight of one group and queue (`popInflightMessageThreshold`).
pub const IN_FLIGHT_MAX: u64 = 10_000;
/// Messages of one batch: each has a bit.
pub const BATCH_MESSAGES_MAX: usize = 32;
/// How far the last offset of a batch may be from its first one: a pop looks no further.
pub const BATCH_SPAN_MAX: u64 = 1024;
/// Messages of a queue that left while a handle of theirs has time, and are known one by one.
const LEFT_MAX: usize = 256;
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
    /// The latest end of all handles that its messages ever had, ms since the epoch: an earlier handle may say a later time.
    pub until_ms: u64,
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
    pub(super) fn bit(&self, id: BatchId, offset: u64) -> Option<u32> {
        let diff = u32::try_from(offset.checked_sub(id.start)?).ok()?;
        self.diffs.binary_search(&diff).ok().map(|at| 1 << at)
    }

    /// The offsets of the messages that are in flight.
    pub fn in_flight(&self, id: BatchId) -> impl Iterator<Item = u64> {
        let left = !(self.acked | self.gone);
        let diffs = self.diffs.iter().enumerate().filter(move |(at, _)| left >> at & 1 == 1);
        diffs.map(move |(_, diff)| id.start + u64::from(*diff))
    }

    /// What is in flight, and until when a handle of it has time.
    pub(super) fn ends(&self, id: BatchId) -> impl Iterator<Item = (u64, u64)> {
        self.in_flight(id).map(|offset| (offset, self.until_ms))
    }

    /// How many messages are in flight.
    pub fn count(&self) -> u64 {
        self.diffs.len() as u64 - u64::from((self.acked | self.gone).count_ones())
    }
}

/// A queue of a group.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct OfQueue {
    pub(super) cursor: Option<u64>,
    pub(super) in_flight: u64,
    /// The latest end of a batch whose message has come again. A handle that ends no later may be one of that, whatever the clock of the leader
    /// says that is asked now.
    pub(super) over_ms: u64,
    /// Messages that left otherwise than by an acknowledgement, and until when a handle of theirs has time: later than `over_ms`.
    pub(super) left: CowMap<u64, u64>,
    /// The ordered batch.
    pub(super) ordered: Option<BatchId>,
    pub(super) batches: CowMap<BatchId, Batch>,
    pub(super) carried: CowMap<u64, Carried>,
}

impl OfQueue {
    pub(super) fn ordered(&self) -> Option<(BatchId, &Batch)> {
        let id = self.ordered?;
        Some((id, self.batches.get(&id)?))
    }

    /// `over_ms` and `left` after that is over, and these have left. What does not fit raises `over_ms`.
    pub(super) fn after(&self, over_ms: u64, left: &[(u64, u64)]) -> (u64, CowMap<u64, u64>) {
        let mut over_ms = over_ms.max(self.over_ms);
        if left.is_empty() && (over_ms == self.over_ms || self.left.len() == 0) {
            return (over_ms, self.left.clone());
        }
        let known = self.left.iter().map(|(offset, until_ms)| (*offset, *until_ms));
        let mut all: Vec<(u64, u64)> = known.chain(left.iter().copied()).collect();
        // The later end of each message counts, and comes last.
        all.sort_by_key(|(_, until_ms)| *until_ms);
        let late = all.len().saturating_sub(LEFT_MAX);
        over_ms = all[..late].last().map_or(over_ms, |(_, until_ms)| over_ms.max(*until_ms));
        all.retain(|(_, until_ms)| *until_ms > over_ms);
        (over_ms, all.into_iter().collect())
    }

    /// The latest end of a handle of what has left.
    pub(super) fn left_until_ms(&self) -> u64 {
        self.left.values().copied().max().unwrap_or(0).max(self.over_ms)
    }

    /// The batches that may hold an offset.
    pub(super) fn around(&self, offset: u64) -> impl Iterator<Item = (BatchId, &Batch)> {
        let first = BatchId { start: offset.saturating_sub(BATCH_SPAN_MAX), popped_ms: 0 };
        let near = self.batches.iter_from(&first).take_while(move |(id, _)| id.start <= offset);
        near.map(|(id, batch)| (*id, batch))
    }
}
