//! A change of one queue: what each command comes to, before it is counted or made. So what is counted is what is made.

use super::batch::{Batch, BatchId, Carried, CarriedMessage, NOWHERE, OfQueue, PopQueue};
use super::table::Popped;
use crate::codec::encoded_bytes;
use crate::sections::size::signed;

/// Bytes of a batch with its id, without its offsets and its order.
const BATCH_BYTES: i64 = 8 + 8 + 8 + 8 + 8 + 1 + 8 + 4 + 4 + 1;
/// Bytes of a message's offset.
const DIFF_BYTES: i64 = 4;
/// Bytes that an ordered batch has besides, without its attempt id.
const ORDER_BYTES: i64 = 8 + 4 + 8;
/// Bytes of where a message is carried.
const CARRIED_BYTES: i64 = 8 + 8 + 4;
/// Bytes of a queue without its name, a cursor, an ordered batch and what is in flight.
const QUEUE_BYTES: i64 = 1 + 8 + 8 + 8 + 1 + 8 + 8;
/// Bytes of which batch is the ordered one.
const ORDERED_BYTES: i64 = 8 + 8;
/// Bytes of a message that has left.
const LEFT_BYTES: i64 = 8 + 8;
/// Bytes of a cursor.
const CURSOR_BYTES: i64 = 8;

/// What changes in a queue; first what is removed.
#[derive(Debug, Default)]
pub(super) struct Edit {
    /// The cursor, if that changes.
    pub(super) cursor: Option<Option<u64>>,
    /// Batches that leave.
    pub(super) remove: Vec<BatchId>,
    /// Batches that come, or replace one.
    pub(super) put: Vec<(BatchId, Batch)>,
    /// Messages that are carried.
    pub(super) carry: Vec<(u64, Carried)>,
    /// Messages that are not in flight any more.
    pub(super) uncarry: Vec<u64>,
    /// When what comes again was over.
    pub(super) over_ms: u64,
    /// What leaves otherwise than by an acknowledgement, and until when a handle of it has time.
    pub(super) left: Vec<(u64, u64)>,
}

impl Edit {
    /// A batch as it is after a change: one without messages in flight leaves.
    pub(super) fn settle(&mut self, id: BatchId, batch: Batch) {
        if batch.count() == 0 {
            self.remove.push(id);
        } else {
            self.put.push((id, batch));
        }
    }

    /// All of a queue leaves.
    fn of_all(of: &OfQueue) -> Edit {
        Edit {
            remove: of.batches.iter().map(|(id, _)| *id).collect(),
            uncarry: of.carried.iter().map(|(offset, _)| *offset).collect(),
            left: of.batches.iter().flat_map(|(id, batch)| batch.ends(*id)).collect(),
            ..Edit::default()
        }
    }

    /// Which batch is the ordered one after it.
    fn ordered(&self, before: Option<BatchId>) -> Option<BatchId> {
        let kept = before.filter(|id| !self.remove.contains(id));
        let put = self.put.iter().find(|(_, batch)| batch.order.is_some());
        put.map(|(id, _)| *id).or(kept)
    }
}

fn batch_bytes(batch: &Batch) -> i64 {
    let order = batch.order.as_ref().map_or(0, |order| ORDER_BYTES + order.attempt.len() as i64);
    BATCH_BYTES + DIFF_BYTES * batch.diffs.len() as i64 + order
}

fn queue_bytes(queue: &PopQueue) -> i64 {
    signed(encoded_bytes(queue)) + QUEUE_BYTES
}

impl Popped {
    /// By how many bytes the encoded state grows with a change.
    pub(super) fn growth(&self, queue: &PopQueue, edit: &Edit) -> i64 {
        let none = OfQueue::default();
        let known = self.queues.get(queue);
        let of = known.unwrap_or(&none);
        let (mut growth, mut batches) = (0, of.batches.len());
        for batch in edit.remove.iter().filter_map(|id| of.batches.get(id)) {
            growth -= batch_bytes(batch);
            batches -= 1;
        }
        for (id, batch) in &edit.put {
            growth += batch_bytes(batch);
            match of.batches.get(id).filter(|_| !edit.remove.contains(id)) {
                Some(before) => growth -= batch_bytes(before),
                None => batches += 1,
            }
        }
        let comes = edit.carry.iter().filter(|(offset, _)| !of.carried.contains_key(offset)).count();
        let goes = edit.uncarry.iter().filter(|offset| of.carried.contains_key(*offset)).count();
        growth += CARRIED_BYTES * (comes as i64 - goes as i64);
        let cursor = edit.cursor.unwrap_or(of.cursor);
        let cursor_bytes = |cursor: Option<u64>| cursor.map_or(0, |_| CURSOR_BYTES);
        growth += cursor_bytes(cursor) - cursor_bytes(of.cursor);
        let (_, left) = of.after(edit.over_ms, &edit.left);
        growth += LEFT_BYTES * (left.len() as i64 - of.left.len() as i64);
        let ordered_bytes = |ordered: Option<BatchId>| ordered.map_or(0, |_| ORDERED_BYTES);
        growth += ordered_bytes(edit.ordered(of.ordered)) - ordered_bytes(of.ordered);
        match (known.is_some(), cursor.is_some() || batches > 0) {
            (false, true) => growth + queue_bytes(queue),
            (true, false) => growth - queue_bytes(queue) - LEFT_BYTES * left.len() as i64,
            _ => growth,
        }
    }

    /// Makes a change.
    pub(super) fn apply(&mut self, queue: &PopQueue, edit: Edit) {
        let of = self.queues.get_or_default(queue.clone());
        of.ordered = edit.ordered(of.ordered);
        (of.over_ms, of.left) = of.after(edit.over_ms, &edit.left);
        for id in edit.remove {
            if let Some(batch) = of.batches.remove(&id) {
                of.in_flight -= batch.count();
                self.batches -= 1;
            }
        }
        for (id, batch) in edit.put {
            of.in_flight += batch.count();
            match of.batches.insert(id, batch) {
                Some(before) => of.in_flight -= before.count(),
                None => self.batches += 1,
            }
        }
        for (offset, at) in edit.carry {
            of.carried.insert(offset, at);
        }
        for offset in edit.uncarry {
            of.carried.remove(&offset);
        }
        of.cursor = edit.cursor.unwrap_or(of.cursor);
        if of.cursor.is_none() && of.batches.len() == 0 {
            self.over_ms = self.over_ms.max(of.left_until_ms());
            self.queues.remove(queue);
        }
    }

    /// The group has committed an offset of the queue, which had `before`. What it goes back to is in flight no more, nor is an ordered batch.
    fn edit_of_commit(&self, queue: &PopQueue, offset: u64, before: Option<u64>) -> Option<Edit> {
        let of = self.queues.get(queue)?;
        let mut edit = Edit { cursor: of.cursor.map(|_| None), ..Edit::default() };
        let goes_back = before.is_some_and(|before| offset < before);
        for (id, batch) in &of.batches {
            let leaves = |at: &u64| batch.order.is_some() || (goes_back && *at >= offset);
            let left: Vec<u64> = batch.in_flight(*id).filter(leaves).collect();
            if left.is_empty() {
                continue;
            }
            let mut batch = batch.clone();
            batch.gone |= left.iter().filter_map(|at| batch.bit(*id, *at)).fold(0, |bits, bit| bits | bit);
            edit.left.extend(left.iter().map(|at| (*at, batch.until_ms)));
            edit.settle(*id, batch);
            edit.uncarry.extend(left);
        }
        Some(edit)
    }

    /// What [`Popped::committed`] adds.
    pub(crate) fn growth_of_commit(&self, queue: &PopQueue, offset: u64, before: Option<u64>) -> i64 {
        let edit = self.edit_of_commit(queue, offset, before);
        edit.map_or(0, |edit| self.growth(queue, &edit))
    }

    /// The group has committed an offset of the queue, which had `before`: it goes on from there.
    pub(crate) fn committed(&mut self, queue: &PopQueue, offset: u64, before: Option<u64>) {
        if let Some(edit) = self.edit_of_commit(queue, offset, before) {
            self.apply(queue, edit);
        }
    }

    /// Messages of these queues are deleted: what is in flight of them is gone. The cursors stay, as offsets do.
    fn edits_of_loss(&self, topic: &str, lost: &[(u32, u64)]) -> Vec<(PopQueue, Edit)> {
        let is_lost =
            |queue: &PopQueue| queue.topic == topic && lost.iter().any(|(number, _)| *number == queue.queue);
        let of_topic = self.queues.iter().filter(|(queue, _)| is_lost(queue));
        // They never come again, whatever is said of their handles.
        let edit = |of: &OfQueue| Edit { left: Vec::new(), ..Edit::of_all(of) };
        of_topic.map(|(queue, of)| (queue.clone(), edit(of))).collect()
    }

    /// What [`Popped::lose`] adds.
    pub(crate) fn growth_of_loss(&self, topic: &str, lost: &[(u32, u64)]) -> i64 {
        let edits = self.edits_of_loss(topic, lost);
        edits.iter().map(|(queue, edit)| self.growth(queue, edit)).sum()
    }

    /// Messages of these queues are deleted.
    pub(crate) fn lose(&mut self, topic: &str, lost: &[(u32, u64)]) {
        self.edits_of_loss(topic, lost).into_iter().for_each(|(queue, edit)| self.apply(&queue, edit));
    }

    /// The group is deleted with its offsets.
    fn edits_of_removal(&self, group: &str) -> Vec<(PopQueue, Edit)> {
        let of_group = self.queues.iter().filter(|(queue, _)| queue.group == group);
        let edit = |of: &OfQueue| Edit { cursor: Some(None), ..Edit::of_all(of) };
        of_group.map(|(queue, of)| (queue.clone(), edit(of))).collect()
    }

    /// What [`Popped::forget`] adds.
    pub(crate) fn growth_of_removal(&self, group: &str) -> i64 {
        let edits = self.edits_of_removal(group);
        let of_queues: i64 = edits.iter().map(|(queue, edit)| self.growth(queue, edit)).sum();
        of_queues + self.modes.growth_of_removal(group)
    }

    /// The group is deleted with its offsets.
    pub(crate) fn forget(&mut self, group: &str) {
        self.edits_of_removal(group).into_iter().for_each(|(queue, edit)| self.apply(&queue, edit));
        self.modes.forget(group);
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
