use super::*;
use crate::sections::features::POP;
use crate::{
    Command, CommitOffsets, DeleteGroup, DeleteTopic, NextOffsets, OffsetCommit, Outcome, RaiseLevel, State,
};

struct Ends;

impl NextOffsets for Ends {
    fn next_offsets(&self, _: &str) -> Vec<(u32, u64)> {
        vec![(0, 100)]
    }
}

fn queue() -> PopQueue {
    PopQueue { group: "g".into(), topic: "t".into(), queue: 0 }
}

fn id(start: u64, popped_ms: u64) -> BatchId {
    BatchId { start, popped_ms }
}

fn pop(from: Option<u64>, id: BatchId, count: u32) -> PopMessages {
    PopMessages {
        queue: queue(),
        from,
        next: id.start + u64::from(count),
        id,
        diffs: (0..count).collect(),
        position: 1000 + id.start,
        visible_ms: id.popped_ms + 60,
        retry_v2: false,
        attempt: None,
    }
}

fn ordered(from: Option<u64>, id: BatchId, count: u32, attempt: &str) -> PopMessages {
    PopMessages { attempt: Some(attempt.into()), ..pop(from, id, count) }
}

fn ack(id: BatchId, offset: u64) -> AckPopped {
    AckPopped { queue: queue(), id, offset }
}

fn change(id: BatchId, offset: u64, popped_ms: u64, visible_ms: u64) -> ChangePopped {
    ChangePopped { queue: queue(), id, offset, popped_ms, visible_ms }
}

fn revive(id: BatchId, offset: u64) -> RevivePopped {
    RevivePopped { queue: queue(), id, offset }
}

fn commit(offset: u64) -> CommitOffsets {
    CommitOffsets(vec![OffsetCommit { group: "g".into(), topic: "t".into(), queue: 0, offset }])
}

/// Checks what each step says that it adds.
struct Counted(State);

impl Counted {
    fn new() -> Counted {
        let mut state = State::default();
        state.apply(RaiseLevel { level: POP });
        Counted(state)
    }

    fn apply(&mut self, command: impl Into<Command>) -> Outcome {
        let command = command.into();
        let (growth, before) = (self.0.growth(&command, &Ends), self.0.encoded_bytes() as i64);
        let outcome = self.0.apply_with(command.clone(), &Ends);
        assert_eq!(self.0.encoded_bytes() as i64, before + growth, "{command:?}");
        let count: u64 = self.0.popped().batches().map(|(.., batch)| batch.count()).sum();
        assert_eq!(self.0.popped().in_flight(&queue()), count);
        assert_eq!(self.0.popped().count(), self.0.popped().batches().count() as u64);
        outcome
    }

    fn carry(&mut self, id: BatchId, offset: u64, position: u64) {
        let before = self.0.encoded_bytes() as i64;
        let at = Carried { position, bytes: 50 };
        let growth = self.0.store_carried(&[CarriedMessage { queue: queue(), id, offset, at }]);
        assert_eq!(self.0.encoded_bytes() as i64, before + growth);
    }

    fn in_flight(&self) -> Vec<u64> {
        let all = self.0.popped().batches();
        all.flat_map(|(_, id, batch)| batch.in_flight(id).collect::<Vec<_>>()).collect()
    }

    fn offset(&self) -> Option<u64> {
        self.0.offset("g", "t", 0)
    }

    fn popping(&self, id: BatchId, offset: u64, now_ms: u64) -> Popping {
        self.0.popped().popping(&queue(), (id, 60), (offset, self.offset()), now_ms)
    }
}

#[test]
fn pop_i1_a_pop_counts_where_its_leader_saw_the_offset() {
    let mut state = Counted::new();
    assert_eq!(state.apply(pop(Some(0), id(0, 10), 4)), Outcome::NotFound, "the group has none");
    assert_eq!(state.apply(pop(None, id(0, 10), 4)), Outcome::Done);
    assert_eq!(state.apply(pop(None, id(0, 11), 4)), Outcome::NotFound);
    assert_eq!(state.apply(pop(Some(4), id(4, 11), 2)), Outcome::Done);
    assert_eq!((state.in_flight(), state.offset()), ((0..6).collect(), Some(6)));
    state.apply(PopMessages { next: 9, ..pop(Some(6), id(6, 12), 0) });
    assert_eq!((state.0.popped().count(), state.offset()), (2, Some(9)), "nothing that the group wants");
    assert_eq!(state.apply(PopMessages { next: 7, ..pop(Some(9), id(9, 12), 0) }), Outcome::NotFound);
}

#[test]
fn pop_i5_an_acknowledged_message_stays_acknowledged_by_any_handle() {
    let mut state = Counted::new();
    let first = id(0, 10);
    state.apply(pop(None, first, 3));
    assert_eq!(state.popping(first, 1, 20), Popping::InFlight);
    assert_eq!(state.apply(ack(first, 1)), Outcome::Done);
    assert_eq!(state.apply(ack(first, 1)), Outcome::NotFound);
    assert_eq!((state.popping(first, 1, 20), state.in_flight()), (Popping::Acked, vec![0, 2]));
    state.apply(ack(first, 0));
    state.apply(ack(first, 2));
    assert_eq!((state.0.popped().count(), state.popping(first, 2, 20)), (0, Popping::Acked));
    assert_eq!(state.popping(first, 2, 70), Popping::Not, "nobody knows any more");
    assert_eq!(state.popping(first, 3, 20), Popping::Not, "it was not popped");
    assert_eq!(state.offset(), Some(3));
}

#[test]
fn pop_i2_a_changed_message_is_in_flight_by_its_new_handle_alone() {
    let mut state = Counted::new();
    let first = id(0, 10);
    state.apply(pop(None, first, 2));
    assert_eq!(state.apply(change(first, 0, 20, 25)), Outcome::Done);
    let own = id(0, 20);
    assert_eq!(state.apply(change(first, 0, 21, 90)), Outcome::NotFound);
    assert_eq!(
        (state.popping(first, 0, 21), state.popping(own, 0, 21)),
        (Popping::Superseded, Popping::InFlight)
    );
    assert_eq!(
        state.0.popped().changed(&queue(), 0, first).map(|(id, batch)| (id, batch.visible_ms)),
        Some((own, 25))
    );
    state.apply(ack(first, 1));
    assert_eq!((state.0.popped().count(), state.in_flight()), (1, vec![0]), "the first one is forgotten");
    assert_eq!(state.popping(first, 0, 21), Popping::Superseded);
    // It has come again by then; the first handle, whose time is not over, does not tell otherwise.
    assert_eq!(revive(own, 0).unmet_in(&state), None);
    state.apply(revive(own, 0));
    assert_eq!(state.popping(first, 0, 30), Popping::Not);
    assert_eq!((state.0.popped().count(), state.popping(first, 0, 80)), (0, Popping::Not));
}

/// Whatever ends its flight but an acknowledgement: an earlier handle, which says a later time, was called acknowledged.
#[test]
fn pop_i5_a_message_was_called_acknowledged_that_would_come_again() {
    let first = id(0, 10);
    // It was changed to a shorter time, and came again.
    let mut state = Counted::new();
    state.apply(pop(None, first, 1));
    state.apply(change(first, 0, 20, 25));
    state.apply(revive(id(0, 20), 0));
    assert_eq!(state.popping(first, 0, 30), Popping::Not);
    // The group went back.
    let mut state = Counted::new();
    state.apply(pop(None, first, 2));
    state.apply(commit(0));
    state.apply(PopMessages { visible_ms: 21, ..pop(Some(0), id(0, 20), 2) });
    state.apply(revive(id(0, 20), 0));
    state.apply(revive(id(0, 20), 1));
    assert_eq!(state.popping(first, 1, 30), Popping::Not);
    // It was given once more, in order, for a shorter time, and became a dead letter.
    let mut state = Counted::new();
    state.apply(ordered(None, first, 1, "a"));
    let again = PopAgain {
        queue: queue(),
        id: first,
        seen_ms: 70,
        popped_ms: 20,
        visible_ms: 25,
        attempt: "a".into(),
        counts: false,
    };
    state.apply(again);
    state.apply(revive(id(0, 20), 0));
    assert_eq!(state.popping(first, 0, 30), Popping::Not);
    // Its queue is known no more.
    let mut state = Counted::new();
    state.apply(pop(None, first, 1));
    state.apply(DeleteGroup { name: "g".into(), clean_offsets: true });
    state.apply(pop(None, id(0, 20), 1));
    state.apply(ack(id(0, 20), 0));
    state.apply(pop(Some(1), id(1, 21), 1));
    assert_eq!(state.popping(first, 0, 30), Popping::Not);
}

/// It was told that its message comes again, which never did: another one of the queue had left while a handle of it had time.
#[test]
fn pop_i5_a_repeat_of_an_acknowledgement_is_told_so_whatever_left_besides() {
    let mut state = Counted::new();
    state.apply(PopMessages { visible_ms: 500, ..pop(None, id(0, 10), 1) });
    state.apply(change(id(0, 10), 0, 20, 25));
    state.apply(pop(Some(1), id(1, 22), 1));
    state.apply(revive(id(0, 20), 0));
    state.apply(ack(id(1, 22), 1));
    let now = |state: &Counted, id, invisible_ms, offset| {
        state.0.popped().popping(&queue(), (id, invisible_ms), (offset, state.offset()), 30)
    };
    assert_eq!(now(&state, id(1, 22), 60, 1), Popping::Acked);
    assert_eq!(now(&state, id(0, 10), 490, 0), Popping::Not);
    // Once there are too many of them nothing is told for certain that has less time than the first of these.
    for offset in 2..300 {
        state.apply(PopMessages { visible_ms: 600 + offset, ..pop(Some(offset), id(offset, 40), 1) });
        state.apply(change(id(offset, 40), offset, 50, 55));
        state.apply(revive(id(offset, 50), offset));
    }
    assert_eq!(now(&state, id(1, 22), 60, 1), Popping::Not);
    assert!((2..300).all(|offset| now(&state, id(offset, 40), 560 + offset, offset) == Popping::Not));
}

/// A client that changed its message's time again and again filled the state with batches.
#[test]
fn pop_i3_changes_of_one_message_do_not_add_batches() {
    let mut state = Counted::new();
    state.apply(pop(None, id(0, 10), 2));
    let mut last = id(0, 10);
    for popped_ms in 11..50 {
        assert_eq!(state.apply(change(last, 0, popped_ms, popped_ms + 60)), Outcome::Done);
        last = id(0, popped_ms);
    }
    assert_eq!((state.0.popped().count(), state.in_flight()), (2, vec![1, 0]));
}

#[test]
fn pop_i3_a_queue_has_no_more_batches_than_its_part_of_what_the_others_leave() {
    let mut popped = Popped::default();
    assert!(popped.has_place(&queue()));
    popped.batches = BATCHES_MAX - 7;
    assert!(!popped.has_place(&queue()));
    popped.batches = BATCHES_MAX - 8;
    assert!(popped.has_place(&queue()), "the others leave eight");
}

/// Popped in order and without order: what was acknowledged came again.
#[test]
fn pop_i1_nothing_is_popped_behind_an_ordered_batch() {
    let mut state = Counted::new();
    state.apply(ordered(None, id(0, 10), 2, "a"));
    assert_eq!(state.apply(pop(Some(0), id(0, 11), 2)), Outcome::NotFound);
    state.apply(ack(id(0, 10), 0));
    state.apply(ack(id(0, 10), 1));
    assert_eq!(state.apply(pop(Some(2), id(2, 12), 2)), Outcome::Done);
    assert_eq!(state.apply(ordered(Some(4), id(4, 13), 1, "b")), Outcome::Done, "behind what is in flight");
    state.apply(ack(id(4, 13), 4));
    assert_eq!((state.offset(), state.in_flight()), (Some(5), vec![2, 3]));
}

/// A leader whose clock was behind that of the one before said of a message that had come again: acknowledged.
#[test]
fn pop_i5_a_clock_that_is_behind_called_a_message_acknowledged_that_had_come_again() {
    let mut state = Counted::new();
    state.apply(pop(None, id(0, 10), 1));
    state.apply(revive(id(0, 10), 0));
    assert_eq!(state.popping(id(0, 10), 0, 20), Popping::Not);
    state.apply(pop(Some(1), id(1, 30), 1));
    state.apply(ack(id(1, 30), 1));
    assert_eq!(state.popping(id(1, 30), 1, 20), Popping::Acked, "its time is later");
}

/// Its deadline was the one that it had: the message never came again (apache/rocketmq#10276).
#[test]
fn pop_i2_a_change_to_the_same_deadline_keeps_the_message() {
    let mut state = Counted::new();
    state.apply(pop(None, id(0, 10), 1));
    state.apply(change(id(0, 10), 0, 30, 70));
    assert_eq!(state.in_flight(), [0]);
    assert_eq!(state.0.popped().batch(&queue(), id(0, 30)).map(|batch| batch.visible_ms), Some(70));
}

#[test]
fn pop_i2_a_message_comes_again_once() {
    let mut state = Counted::new();
    let first = id(0, 10);
    state.apply(pop(None, first, 3));
    state.apply(ack(first, 0));
    assert!(revive(first, 0).unmet_in(&state).is_some_and(|why| why.starts_with("pop.I2")));
    assert_eq!(state.apply(revive(first, 0)), Outcome::NotFound);
    assert_eq!(state.apply(revive(first, 1)), Outcome::Done);
    assert_eq!(state.popping(first, 1, 20), Popping::Superseded, "its batch is there");
    assert_eq!(state.apply(ack(first, 1)), Outcome::NotFound);
    state.apply(revive(first, 2));
    assert_eq!((state.0.popped().count(), state.popping(first, 2, 70)), (0, Popping::Not));
    assert_eq!(revive(first, 2).unmet_in(&state), None, "forgotten");
}

impl RevivePopped {
    fn unmet_in(&self, state: &Counted) -> Option<String> {
        Command::from(self.clone()).precondition(&state.0).err().map(|unmet| unmet.to_string())
    }
}

#[test]
fn an_ordered_batch_blocks_its_queue_until_all_is_acknowledged() {
    let mut state = Counted::new();
    let first = id(0, 10);
    state.apply(ordered(None, first, 3, "a"));
    assert_eq!((state.offset(), state.in_flight()), (Some(0), vec![0, 1, 2]));
    assert_eq!(state.apply(ordered(Some(0), id(0, 11), 3, "b")), Outcome::NotFound);
    state.apply(ack(first, 1));
    assert_eq!(state.offset(), Some(0));
    state.apply(ack(first, 0));
    assert_eq!(state.offset(), Some(2));
    let again = PopAgain {
        queue: queue(),
        id: first,
        seen_ms: 70,
        popped_ms: 80,
        visible_ms: 140,
        attempt: "b".into(),
        counts: true,
    };
    let early = PopAgain { seen_ms: 69, ..again.clone() };
    assert_eq!(state.apply(early), Outcome::NotFound, "its time was changed meanwhile");
    assert_eq!(state.apply(again.clone()), Outcome::Done);
    assert_eq!(state.apply(again), Outcome::NotFound, "it has another handle now");
    let (now, batch) = state.0.popped().ordered(&queue()).unwrap();
    assert_eq!((now, batch.order.as_ref().map(|order| order.attempts)), (id(2, 80), Some(1)));
    state.apply(change(now, 2, 90, 95));
    assert_eq!(state.0.popped().meant(&queue(), id(2, 80), 2), now);
    assert_eq!(state.0.popped().ordered(&queue()).map(|(_, batch)| batch.visible_ms), Some(95));
    state.apply(ack(now, 2));
    assert_eq!((state.0.popped().count(), state.offset()), (0, Some(3)));
    assert_eq!(state.apply(ordered(Some(3), id(3, 100), 1, "c")), Outcome::Done);
}

#[test]
fn a_group_that_goes_back_pops_again_from_there() {
    let mut state = Counted::new();
    state.apply(pop(None, id(0, 10), 3));
    state.apply(pop(Some(3), id(3, 11), 3));
    state.apply(ack(id(3, 11), 4));
    state.apply(commit(1));
    assert_eq!((state.in_flight(), state.offset()), (vec![0], Some(1)));
    assert_eq!(state.popping(id(3, 11), 3, 20), Popping::Not);
    assert_eq!(state.apply(pop(Some(6), id(6, 12), 3)), Outcome::NotFound, "it was decided before");
    state.apply(pop(Some(1), id(1, 13), 4));
    assert_eq!(state.in_flight(), [0, 1, 2, 3, 4]);
    state.apply(commit(50));
    assert_eq!(state.in_flight(), [0, 1, 2, 3, 4], "what was skipped before is still to be handled");
    state.apply(ordered(Some(50), id(50, 14), 2, "a"));
    state.apply(commit(60));
    assert_eq!((state.0.popped().ordered(&queue()), state.offset()), (None, Some(60)));
}

#[test]
fn what_is_deleted_is_not_in_flight() {
    let mut state = Counted::new();
    state.apply(pop(None, id(0, 10), 3));
    state.carry(id(0, 10), 1, 5000);
    state.apply(DeleteTopic { name: "t".into() });
    assert_eq!((state.in_flight(), state.offset()), (vec![], Some(100)), "offsets stay");
    state.apply(pop(Some(3), id(100, 20), 1));
    state.apply(SetRequestMode {
        group: "g".into(),
        topic: "t".into(),
        mode: RequestMode { pops: true, share: 0 },
    });
    state.apply(DeleteGroup { name: "g".into(), clean_offsets: false });
    assert_eq!(state.in_flight(), [100], "a group of that name may come back");
    state.apply(DeleteGroup { name: "g".into(), clean_offsets: true });
    assert_eq!((state.in_flight(), state.offset(), state.0.popped().mode("g", "t")), (vec![], None, None));
    assert_eq!((state.0.popped().queues.len(), state.0.popped().count()), (0, 0));
}

#[test]
fn pop_i4_the_log_is_needed_from_the_first_message_in_flight_that_is_not_carried() {
    let mut state = Counted::new();
    let first = id(0, 10);
    state.apply(pop(None, first, 3));
    let lowest = |state: &Counted| state.0.popped().lowest_before(u64::MAX);
    assert_eq!((lowest(&state), state.0.popped().lowest_before(1000)), (Some(1000), None));
    state.apply(ack(first, 1));
    state.carry(first, 1, 4000);
    state.carry(first, 0, 5000);
    assert_eq!(lowest(&state), Some(1000));
    state.carry(first, 2, 5100);
    assert_eq!((lowest(&state), state.0.popped().carried(&queue(), 1)), (Some(5000), None));
    state.carry(first, 0, 9000);
    assert_eq!(
        (lowest(&state), state.0.popped().carried(&queue(), 0).map(|at| at.position)),
        (Some(5100), Some(9000))
    );
    state.apply(change(first, 0, 20, 90));
    assert_eq!(state.0.popped().batch(&queue(), id(0, 20)).map(|batch| batch.position), Some(NOWHERE));
    // Some of a batch are carried, and the others are acknowledged before they are.
    state.apply(pop(Some(3), id(3, 30), 2));
    state.carry(id(3, 30), 3, 9500);
    assert_eq!(lowest(&state), Some(1003));
    state.apply(ack(id(3, 30), 4));
    assert_eq!(state.0.popped().lowest_before(5000), None);
    state.apply(ack(id(3, 30), 3));
    state.apply(ack(id(0, 20), 0));
    state.apply(revive(first, 2));
    assert_eq!(lowest(&state), None);
}
