//! The commands. Each is an [`Edit`] of one queue, or nothing where the state is another one than its leader saw.

use serde::{Deserialize, Serialize};

use super::batch::{
    ATTEMPT_BYTES_MAX, BATCH_MESSAGES_MAX, BATCH_SPAN_MAX, Batch, BatchId, InOrder, NOWHERE, OfQueue,
    PopQueue,
};
use super::edit::Edit;
use super::table::Popped;
use crate::bounds::{OutOfBounds, at_most, check_group_name, check_topic_name};
use crate::operation::{Apply, Operation, Outcome, Unmet};
use crate::section::{Has, NextOffsets, Section};
use crate::sections::features::POP;
use crate::sections::offsets::Offsets;

fn check_queue(queue: &PopQueue) -> Result<(), OutOfBounds> {
    check_group_name(&queue.group)?;
    check_topic_name(&queue.topic)
}

/// A command that is an edit of one queue.
trait Edits {
    fn queue(&self) -> &PopQueue;
    fn edit(&self, of: &OfQueue) -> Option<Edit>;

    /// Why it must not come to be applied to this state.
    fn unmet(&self, _: &Popped) -> Option<String> {
        None
    }
}

fn growth_of<S: Has<Popped>>(command: &impl Edits, state: &S) -> i64 {
    let popped = Popped::within(state);
    let edit = popped.queues.get(command.queue()).and_then(|of| command.edit(of));
    edit.map_or(0, |edit| popped.growth(command.queue(), &edit))
}

fn apply_edit<S: Has<Popped>>(command: &impl Edits, state: &mut S) -> Outcome {
    let popped = Popped::within_mut(state);
    let of = popped.queues.get(command.queue());
    let Some(edit) = of.and_then(|of| command.edit(of)) else {
        return Outcome::NotFound;
    };
    popped.apply(command.queue(), edit);
    Outcome::Done
}

/// What the command is written as, and what it does: that of an edit.
macro_rules! edits {
    ($Command:ident, $kind:literal) => {
        impl Operation for $Command {
            const KIND: u16 = $kind;
            const SINCE: u16 = POP;
            const DEPENDS_ON_ORDER: bool = true;

            fn check_bounds(&self) -> Result<(), OutOfBounds> {
                check_queue(&self.queue)
            }
        }

        impl<S: Has<Popped>> Apply<S> for $Command {
            fn growth(&self, state: &S, _: &dyn NextOffsets) -> i64 {
                growth_of(self, state)
            }

            fn precondition(&self, state: &S) -> Result<(), Unmet> {
                self.unmet(Popped::within(state)).map_or(Ok(()), |why| Err(Unmet(why)))
            }

            fn apply(self, state: &mut S, _: &dyn NextOffsets) -> Outcome {
                apply_edit(&self, state)
            }
        }
    };
}

/// Messages of a queue are popped. It counts if the group's offset is still the one that the leader saw.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct PopMessages {
    /// From where, by whom.
    pub queue: PopQueue,
    /// The group's offset before.
    pub from: Option<u64>,
    /// The next offset to be popped; what lies between and is not in the batch is of no interest to the group.
    pub next: u64,
    /// First offset and time.
    pub id: BatchId,
    /// The offsets of the messages, less the first, ascending; nothing where the cursor only moves.
    pub diffs: Vec<u32>,
    /// Where the first one lies in the log.
    pub position: u64,
    /// When they come again, ms since the epoch.
    pub visible_ms: u64,
    /// In which kind of retry topic.
    pub retry_v2: bool,
    /// The attempt id, for a group that consumes in order.
    pub attempt: Option<String>,
}

impl PopMessages {
    fn edit(&self, popped: &Popped, offset: Option<u64>) -> Option<Edit> {
        let of = popped.queues.get(&self.queue);
        let is_as_seen = offset == self.from && self.next >= self.from.unwrap_or(0);
        let is_known = of.is_some_and(|of| of.batches.contains_key(&self.id));
        let is_blocked = of.is_some_and(|of| of.ordered.is_some());
        if !is_as_seen || is_known || is_blocked {
            return None;
        }
        if self.diffs.is_empty() {
            return Some(Edit { cursor: Some(Some(self.next)), ..Edit::default() });
        }
        let order = self.attempt.clone().map(|attempt| InOrder { attempt, attempts: 0, next: self.next });
        let cursor = if order.is_some() { self.id.start } else { self.next };
        let batch = Batch {
            visible_ms: self.visible_ms,
            until_ms: self.visible_ms,
            position: self.position,
            retry_v2: self.retry_v2,
            diffs: self.diffs.clone(),
            acked: 0,
            gone: 0,
            order,
        };
        Some(Edit { cursor: Some(Some(cursor)), put: vec![(self.id, batch)], ..Edit::default() })
    }
}

impl Operation for PopMessages {
    const KIND: u16 = 128;
    const SINCE: u16 = POP;
    const DEPENDS_ON_ORDER: bool = true;

    fn check_bounds(&self) -> Result<(), OutOfBounds> {
        check_queue(&self.queue)?;
        at_most("popped messages", self.diffs.len(), BATCH_MESSAGES_MAX)?;
        let span = self.diffs.last().map_or(0, |last| *last as usize);
        at_most("offsets from the first popped message to the last", span, BATCH_SPAN_MAX as usize)?;
        at_most("bytes of an attempt id", self.attempt.as_ref().map_or(0, String::len), ATTEMPT_BYTES_MAX)
    }
}

fn offset_of<S: Has<Popped> + Has<Offsets>>(state: &S, queue: &PopQueue) -> Option<u64> {
    let committed = || Offsets::within(state).get(&queue.group, &queue.topic, queue.queue);
    Popped::within(state).cursor(queue).or_else(committed)
}

impl<S: Has<Popped> + Has<Offsets>> Apply<S> for PopMessages {
    fn growth(&self, state: &S, _: &dyn NextOffsets) -> i64 {
        let popped = Popped::within(state);
        self.edit(popped, offset_of(state, &self.queue)).map_or(0, |edit| popped.growth(&self.queue, &edit))
    }

    fn apply(self, state: &mut S, _: &dyn NextOffsets) -> Outcome {
        let offset = offset_of(state, &self.queue);
        let popped = Popped::within_mut(state);
        let Some(edit) = self.edit(popped, offset) else { return Outcome::NotFound };
        popped.apply(&self.queue, edit);
        Outcome::Done
    }
}

/// What is left of an ordered batch is given again.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct PopAgain {
    /// From where, by whom.
    pub queue: PopQueue,
    /// The batch as it was given before.
    pub id: BatchId,
    /// When it became visible, as the leader saw it: its client may have asked for another time meanwhile.
    pub seen_ms: u64,
    /// When it is given now, ms since the epoch.
    pub popped_ms: u64,
    /// When it becomes visible, ms since the epoch.
    pub visible_ms: u64,
    /// The attempt id.
    pub attempt: String,
    /// Whether that is an attempt more; not so for one whose client repeats it.
    pub counts: bool,
}

impl Edits for PopAgain {
    fn queue(&self) -> &PopQueue {
        &self.queue
    }

    fn edit(&self, of: &OfQueue) -> Option<Edit> {
        let batch = of.batches.get(&self.id).filter(|batch| batch.visible_ms == self.seen_ms)?;
        let order = batch.order.as_ref()?;
        let left: Vec<u64> = batch.in_flight(self.id).collect();
        let start = *left.first()?;
        let order = InOrder {
            attempt: self.attempt.chars().take(ATTEMPT_BYTES_MAX).collect(),
            attempts: order.attempts.saturating_add(u32::from(self.counts)),
            next: order.next,
        };
        let again = Batch {
            visible_ms: self.visible_ms,
            until_ms: batch.until_ms.max(self.visible_ms),
            diffs: left.iter().map(|offset| (offset - start) as u32).collect(),
            acked: 0,
            gone: 0,
            order: Some(order),
            ..*batch
        };
        let id = BatchId { start, popped_ms: self.popped_ms };
        Some(Edit { remove: vec![self.id], put: vec![(id, again)], ..Edit::default() })
    }
}

edits!(PopAgain, 129);

/// A message was handled.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct AckPopped {
    /// From where, by whom.
    pub queue: PopQueue,
    /// Its batch.
    pub id: BatchId,
    /// Its offset.
    pub offset: u64,
}

/// The cursor of a queue whose ordered batch has changed.
fn cursor(id: BatchId, batch: &Batch) -> Option<Option<u64>> {
    let order = batch.order.as_ref()?;
    Some(Some(batch.in_flight(id).next().unwrap_or(order.next)))
}

impl Edits for AckPopped {
    fn queue(&self) -> &PopQueue {
        &self.queue
    }

    fn edit(&self, of: &OfQueue) -> Option<Edit> {
        let mut batch = of.batches.get(&self.id)?.clone();
        let bit = batch.bit(self.id, self.offset).filter(|bit| (batch.acked | batch.gone) & bit == 0)?;
        batch.acked |= bit;
        let mut edit =
            Edit { cursor: cursor(self.id, &batch), uncarry: vec![self.offset], ..Edit::default() };
        edit.settle(self.id, batch);
        Some(edit)
    }
}

edits!(AckPopped, 130);

/// A message becomes visible at another time.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct ChangePopped {
    /// From where, by whom.
    pub queue: PopQueue,
    /// Its batch.
    pub id: BatchId,
    /// Its offset.
    pub offset: u64,
    /// The pop time of its new handle. That of an ordered one stays.
    pub popped_ms: u64,
    /// When it becomes visible, ms since the epoch.
    pub visible_ms: u64,
}

impl ChangePopped {
    /// An ordered batch waits for its first message, and for others as long as they need.
    fn in_order(&self, mut batch: Batch) -> Edit {
        let is_first = batch.in_flight(self.id).next() == Some(self.offset);
        batch.visible_ms = if is_first { self.visible_ms } else { self.visible_ms.max(batch.visible_ms) };
        batch.until_ms = batch.until_ms.max(self.visible_ms);
        Edit { put: vec![(self.id, batch)], ..Edit::default() }
    }
}

impl Edits for ChangePopped {
    fn queue(&self) -> &PopQueue {
        &self.queue
    }

    fn edit(&self, of: &OfQueue) -> Option<Edit> {
        let mut batch = of.batches.get(&self.id)?.clone();
        let bit = batch.bit(self.id, self.offset).filter(|bit| (batch.acked | batch.gone) & bit == 0)?;
        if batch.order.is_some() {
            return Some(self.in_order(batch));
        }
        let id = BatchId { start: self.offset, popped_ms: self.popped_ms };
        if of.batches.contains_key(&id) {
            return None;
        }
        batch.gone |= bit;
        let is_carried = of.carried.contains_key(&self.offset);
        let own = Batch {
            visible_ms: self.visible_ms,
            until_ms: batch.until_ms.max(self.visible_ms),
            position: if is_carried { NOWHERE } else { batch.position },
            retry_v2: batch.retry_v2,
            diffs: vec![0],
            acked: 0,
            gone: 0,
            order: None,
        };
        let mut edit = Edit { put: vec![(id, own)], ..Edit::default() };
        edit.settle(self.id, batch);
        Some(edit)
    }
}

edits!(ChangePopped, 131);

/// A message was not acknowledged in time. It comes with what is stored of it, in one transition.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct RevivePopped {
    /// From where, by whom.
    pub queue: PopQueue,
    /// Its batch.
    pub id: BatchId,
    /// Its offset.
    pub offset: u64,
}

impl Edits for RevivePopped {
    /// `pop.I2`. A batch that is not there was forgotten when the group went back, or with the messages of its queue.
    fn unmet(&self, popped: &Popped) -> Option<String> {
        let RevivePopped { queue, id, offset } = self;
        let batch = popped.batch(queue, *id)?;
        let is_in_flight = batch.in_flight(*id).any(|at| at == *offset);
        let left_before =
            || format!("pop.I2: {offset} of {queue:?} comes again and was not in flight in {id:?}");
        (!is_in_flight && batch.bit(*id, *offset).is_none_or(|bit| batch.acked & bit != 0)).then(left_before)
    }

    fn queue(&self) -> &PopQueue {
        &self.queue
    }

    fn edit(&self, of: &OfQueue) -> Option<Edit> {
        let mut batch = of.batches.get(&self.id)?.clone();
        let bit = batch.bit(self.id, self.offset).filter(|bit| (batch.acked | batch.gone) & bit == 0)?;
        batch.gone |= bit;
        let mut edit = Edit {
            cursor: cursor(self.id, &batch),
            uncarry: vec![self.offset],
            over_ms: batch.visible_ms,
            left: vec![(self.offset, batch.until_ms)],
            ..Edit::default()
        };
        edit.settle(self.id, batch);
        Some(edit)
    }
}

edits!(RevivePopped, 132);

/// Messages in flight are stored once more, because what lies before a position is to be dropped. It comes with them, in one transition, and
/// changes nothing itself.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct CarryPopped {
    /// Nothing that is in flight is to lie before this position.
    pub upto: u64,
}

impl Operation for CarryPopped {
    const KIND: u16 = 133;
    const SINCE: u16 = POP;
    const DEPENDS_ON_ORDER: bool = true;

    fn check_bounds(&self) -> Result<(), OutOfBounds> {
        Ok(())
    }
}

impl<S: Has<Popped>> Apply<S> for CarryPopped {
    fn growth(&self, _: &S, _: &dyn NextOffsets) -> i64 {
        0
    }

    fn apply(self, _: &mut S, _: &dyn NextOffsets) -> Outcome {
        Outcome::Done
    }
}
