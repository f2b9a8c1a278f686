//! What consumers sent back: of which message which consumer group was given another attempt, or a dead letter.
//!
//! A consumer that does not hear the answer to a send-back sends it again, perhaps to another leader and much later. The note
//! says that the message was moved, so that it is not moved twice. Note and moved message are in one log record (a transition).
//!
//! What is forgotten:
//!
//! - the notes of a group of whose retry or dead-letter topic messages are deleted, with the topic, with queues that it loses, or with
//!   the group and its offsets: what was moved there may be gone, and who sends it back again must not be told that it is there;
//! - the notes of a queue from an offset on, when the group commits that offset and had committed a later one: it consumes these
//!   messages again, and each may be sent back again. An operator who resets a group's offsets does just that;
//! - the oldest notes, an eighth of them, when a group has more than [`GROUP_NOTES_MAX`], or all together more than
//!   [`NOTES_MAX`];
//! - what lies below the floor: where the leader's log began when it last looked ([`RaiseFloor`]). Such a message is not moved at
//!   all, as if no node had it any more, so that no note is missed.
//!
//! Invariants
//! - `sent_back.I1` A message is moved for a group once, until what notes it is forgotten by one of these rules.
//! - `sent_back.I2` There are never more notes than these limits, for any history of commands.

use folio_protocol::names;
use serde::{Deserialize, Serialize};

use super::features::TRANSITIONS;
use super::size::{COUNT_BYTES, entry, signed};
use crate::bounds::{OutOfBounds, check_group_name, check_topic_name};
use crate::codec::encoded_bytes;
use crate::cow_map::CowMap;
use crate::operation::{Apply, Operation, Outcome, Unmet};
use crate::queue_ref::QueueRef;
use crate::section::{Has, NextOffsets, Section};

/// Notes of one group.
pub const GROUP_NOTES_MAX: u64 = 32_768;
/// Notes of all groups together: about 6 MiB of state.
pub const NOTES_MAX: u64 = 262_144;
/// Of the notes at a limit the oldest part of so many is forgotten.
const FORGET_PART: u64 = 8;

/// Bytes of a note under its queue: offset, position, number.
const NOTE_BYTES: u64 = 24;

/// That a message was moved.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
struct Note {
    /// Where the message lies in the log.
    position: u64,
    /// How many notes were made before it.
    number: u64,
}

/// Queue -> offset -> note.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
struct OfGroup {
    queues: CowMap<QueueRef, CowMap<u64, Note>>,
    count: u64,
}

impl OfGroup {
    fn get(&self, queue: &QueueRef, offset: u64) -> Option<&Note> {
        self.queues.get(queue)?.get(&offset)
    }

    fn notes(&self) -> impl Iterator<Item = &Note> {
        self.queues.values().flat_map(CowMap::values)
    }

    fn retain(&mut self, keep: impl Fn(&QueueRef, u64, &Note) -> bool) {
        let mut queues = CowMap::default();
        for (queue, notes) in &self.queues {
            let kept = notes.iter().filter(|(offset, note)| keep(queue, **offset, note));
            let kept: CowMap<u64, Note> = kept.map(|(offset, note)| (*offset, note.clone())).collect();
            if kept.len() > 0 {
                queues.insert(queue.clone(), kept);
            }
        }
        self.count = queues.values().map(|notes| notes.len() as u64).sum();
        self.queues = queues;
    }
}

/// All notes.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct SentBack {
    groups: CowMap<String, OfGroup>,
    count: u64,
    /// The number of the next note.
    next: u64,
    floor: u64,
}

impl Section for SentBack {
    const TAG: u16 = 7;
    const SINCE: u16 = TRANSITIONS;
    const DEPENDS_ON_ORDER: bool = true;
}

impl SentBack {
    /// Whether the group was given the message once more already.
    pub fn has(&self, group: &str, queue: &QueueRef, offset: u64) -> bool {
        self.groups.get(group).is_some_and(|notes| notes.get(queue, offset).is_some())
    }

    /// Messages below this position of the log are not moved any more.
    pub fn floor(&self) -> u64 {
        self.floor
    }

    /// How many notes there are.
    pub fn count(&self) -> u64 {
        self.count
    }

    fn add(&mut self, NoteSentBack { group, queue, offset, position }: NoteSentBack) {
        let note = Note { position, number: self.next };
        self.next += 1;
        let of_group = self.groups.get_or_default(group.clone());
        if of_group.queues.get_or_default(queue).insert(offset, note).is_none() {
            of_group.count += 1;
            self.count += 1;
        }
        if of_group.count > GROUP_NOTES_MAX {
            let oldest = oldest(of_group.notes().map(|note| note.number), of_group.count);
            self.retain_in(&group, |_, _, note| note.number >= oldest);
        }
        if self.count > NOTES_MAX {
            let numbers = self.groups.values().flat_map(OfGroup::notes).map(|note| note.number);
            let oldest = oldest(numbers, self.count);
            self.retain(|note| note.number >= oldest);
        }
    }

    fn retain(&mut self, keep: impl Fn(&Note) -> bool) {
        let loses = |notes: &OfGroup| notes.notes().any(|note| !keep(note));
        let changed = self.groups.iter().filter(|(_, notes)| loses(notes));
        let changed: Vec<String> = changed.map(|(name, _)| name.clone()).collect();
        changed.iter().for_each(|name| self.retain_in(name, |_, _, note| keep(note)));
    }

    fn retain_in(&mut self, group: &str, keep: impl Fn(&QueueRef, u64, &Note) -> bool) {
        let Some(notes) = self.groups.get_mut(group) else { return };
        let before = notes.count;
        notes.retain(keep);
        let kept = notes.count;
        self.count -= before - kept;
        if kept == 0 {
            self.groups.remove(group);
        }
    }

    /// Forgets the notes of the group that moved messages to this topic, if there is one: messages of the topic are deleted.
    pub(crate) fn forget_moved_to(&mut self, topic: &str) {
        if let Some(notes) = mover(topic).and_then(|group| self.groups.remove(group)) {
            self.count -= notes.count;
        }
    }

    /// What [`SentBack::forget_moved_to`] adds.
    pub(crate) fn growth_of_loss(&self, topic: &str) -> i64 {
        mover(topic).map_or(0, |group| -entry(group, self.groups.get(group)))
    }

    /// Forgets the notes of a queue from an offset on: the group consumes it again from there.
    pub(crate) fn forget_from(&mut self, group: &str, queue: &QueueRef, from: u64) {
        if self.groups.get(group).is_some_and(|notes| notes.queues.contains_key(queue)) {
            self.retain_in(group, |of, offset, _| of != queue || offset < from);
        }
    }

    /// What [`SentBack::forget_from`] adds.
    pub(crate) fn growth_of_reset(&self, group: &str, queue: &QueueRef, from: u64) -> i64 {
        let Some(before) = self.groups.get(group).filter(|notes| notes.queues.contains_key(queue)) else {
            return 0;
        };
        let mut after = before.clone();
        after.retain(|of, offset, _| of != queue || offset < from);
        entry(group, Some(&after).filter(|notes| notes.count > 0)) - entry(group, Some(before))
    }

    /// What a change of the notes adds. It is made on a copy: for what is rare.
    fn growth_of(&self, change: impl FnOnce(&mut SentBack)) -> i64 {
        let mut changed = self.clone();
        change(&mut changed);
        signed(encoded_bytes(&changed)) - signed(encoded_bytes(self))
    }

    fn growth_of_note(&self, note: &NoteSentBack) -> i64 {
        let of_group = self.groups.get(&note.group);
        if self.count >= NOTES_MAX || of_group.is_some_and(|notes| notes.count >= GROUP_NOTES_MAX) {
            return self.growth_of(|notes| notes.add(note.clone()));
        }
        let queue = of_group.and_then(|notes| notes.queues.get(&note.queue));
        let new_group = encoded_bytes(&note.group) + 2 * COUNT_BYTES;
        let new_queue = encoded_bytes(&note.queue) + COUNT_BYTES;
        let known = queue.is_some_and(|notes| notes.contains_key(&note.offset));
        signed(
            if of_group.is_none() { new_group } else { 0 }
                + if queue.is_none() { new_queue } else { 0 }
                + if known { 0 } else { NOTE_BYTES },
        )
    }
}

/// The group whose messages are moved to this topic.
fn mover(topic: &str) -> Option<&str> {
    names::group_of_retry_topic(topic).or_else(|| names::group_of_dlq_topic(topic))
}

/// The number of the first note that is kept of so many.
fn oldest(numbers: impl Iterator<Item = u64>, count: u64) -> u64 {
    let mut numbers: Vec<u64> = numbers.collect();
    let at = ((count / FORGET_PART).max(1) as usize).min(numbers.len().saturating_sub(1));
    *numbers.select_nth_unstable(at).1
}

/// Notes that a message is moved for a group. It comes with the moved message, in one transition.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct NoteSentBack {
    /// The consumer group.
    pub group: String,
    /// The queue of the message that was sent back.
    pub queue: QueueRef,
    /// Its offset there.
    pub offset: u64,
    /// Its place in the log.
    pub position: u64,
}

impl Operation for NoteSentBack {
    const KIND: u16 = 80;
    const SINCE: u16 = TRANSITIONS;
    const DEPENDS_ON_ORDER: bool = true;

    fn check_bounds(&self) -> Result<(), OutOfBounds> {
        check_group_name(&self.group)?;
        check_topic_name(&self.queue.topic)
    }
}

impl<S: Has<SentBack>> Apply<S> for NoteSentBack {
    fn growth(&self, state: &S, _: &dyn NextOffsets) -> i64 {
        SentBack::within(state).growth_of_note(self)
    }

    /// `sent_back.I1`
    fn precondition(&self, state: &S) -> Result<(), Unmet> {
        let NoteSentBack { group, queue, offset, .. } = self;
        if SentBack::within(state).has(group, queue, *offset) {
            let QueueRef { topic, queue } = queue;
            return Err(Unmet(format!(
                "sent_back.I1: offset {offset} of queue {queue} of topic {topic} is moved twice for group {group}"
            )));
        }
        Ok(())
    }

    fn apply(self, state: &mut S, _: &dyn NextOffsets) -> Outcome {
        SentBack::within_mut(state).add(self);
        Outcome::Done
    }
}

/// Forgets what lies below a position of the log, where the leader's log begins. A lower floor changes nothing.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct RaiseFloor {
    /// The new floor.
    pub floor: u64,
}

impl RaiseFloor {
    fn raise(&self, notes: &mut SentBack) {
        notes.floor = notes.floor.max(self.floor);
        let floor = notes.floor;
        notes.retain(|note| note.position >= floor);
    }
}

impl Operation for RaiseFloor {
    const KIND: u16 = 81;
    const SINCE: u16 = TRANSITIONS;
    const DEPENDS_ON_ORDER: bool = true;

    fn check_bounds(&self) -> Result<(), OutOfBounds> {
        Ok(())
    }
}

impl<S: Has<SentBack>> Apply<S> for RaiseFloor {
    fn growth(&self, state: &S, _: &dyn NextOffsets) -> i64 {
        SentBack::within(state).growth_of(|notes| self.raise(notes))
    }

    fn apply(self, state: &mut S, _: &dyn NextOffsets) -> Outcome {
        self.raise(SentBack::within_mut(state));
        Outcome::Done
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{
        Command, CommitOffsets, DeleteGroup, DeleteTopic, OffsetCommit, PutTopic, RaiseLevel, State, Topic,
    };

    fn queue(number: u32) -> QueueRef {
        QueueRef { topic: "orders".into(), queue: number }
    }

    fn note(group: &str, number: u32, offset: u64) -> NoteSentBack {
        NoteSentBack { group: group.into(), queue: queue(number), offset, position: 1000 + offset }
    }

    fn noted(state: &State, group: &str, number: u32) -> Vec<u64> {
        (0..100).filter(|offset| state.sent_back().has(group, &queue(number), *offset)).collect()
    }

    #[test]
    fn sent_back_i1_a_message_is_moved_once_for_each_group() {
        let mut state = State::default();
        assert_eq!(note("g", 0, 7).precondition(&state), Ok(()));
        state.apply(note("g", 0, 7));
        let unmet = note("g", 0, 7).precondition(&state).unwrap_err();
        assert!(unmet.to_string().contains("offset 7 of queue 0 of topic orders"), "{unmet}");
        for other in [note("h", 0, 7), note("g", 1, 7), note("g", 0, 8)] {
            assert_eq!(other.precondition(&state), Ok(()));
            state.apply(other);
        }
        // Applied all the same, it is one note.
        state.apply(note("g", 0, 7));
        assert_eq!(state.sent_back().count(), 4);
    }

    #[test]
    fn a_group_that_consumes_again_may_send_back_again() {
        let mut state = State::default();
        let commit = |queue, offset| {
            CommitOffsets(vec![OffsetCommit { group: "g".into(), topic: "orders".into(), queue, offset }])
        };
        [1, 5, 8].into_iter().for_each(|offset| drop(state.apply(note("g", 0, offset))));
        state.apply(note("g", 1, 5));
        state.apply(note("h", 0, 5));
        // A consumer commits the lowest offset that it is not done with: there are notes above it.
        for offset in [2, 2, 6] {
            state.apply(commit(0, offset));
            assert_eq!(noted(&state, "g", 0), [1, 5, 8], "it went on to {offset}");
        }
        state.apply(commit(0, 5));
        assert_eq!((noted(&state, "g", 0), noted(&state, "g", 1)), (vec![1], vec![5]));
        assert_eq!((noted(&state, "h", 0), state.sent_back().count()), (vec![5], 3));
    }

    #[test]
    fn a_group_that_is_deleted_with_its_offsets_begins_anew() {
        let mut state = State::default();
        state.apply(note("g", 0, 5));
        state.apply(note("h", 0, 5));
        state.apply(DeleteGroup { name: "g".into(), clean_offsets: false });
        assert_eq!(noted(&state, "g", 0), [5], "its retries and offsets are there");
        state.apply(DeleteGroup { name: "g".into(), clean_offsets: true });
        assert_eq!((noted(&state, "g", 0), noted(&state, "h", 0)), (vec![], vec![5]));
        assert_eq!(state.sent_back().count(), 1);
    }

    /// The message was in no queue any more, and who sent it back was told that it is.
    #[test]
    fn sent_back_i1_what_was_moved_and_then_deleted_was_never_moved_again() {
        struct Ends;
        impl NextOffsets for Ends {
            fn next_offsets(&self, _: &str) -> Vec<(u32, u64)> {
                vec![(0, 3), (1, 4)]
            }
        }
        let delete = |name: &str| Command::from(DeleteTopic { name: name.into() });
        let put = |queues| Command::from(PutTopic(Topic::new("%RETRY%g".to_owned(), queues)));
        for (deletes, forgets) in [
            (delete("%RETRY%g"), true),
            (delete("%DLQ%g"), true),
            (put(1), true),
            (put(2), false),
            (put(3), false),
            (delete("orders"), false),
            (delete("g"), false),
        ] {
            let mut state = State::default();
            state.apply(RaiseLevel { level: TRANSITIONS });
            state.apply(put(2));
            state.apply(note("g", 0, 5));
            state.apply(note("h", 0, 5));
            let (growth, before) = (state.growth(&deletes, &Ends), state.encoded_bytes() as i64);
            state.apply_with(deletes.clone(), &Ends);
            assert_eq!(noted(&state, "g", 0).is_empty(), forgets, "{deletes:?}");
            assert_eq!(noted(&state, "h", 0), [5], "{deletes:?}");
            assert_eq!(state.encoded_bytes() as i64, before + growth, "{deletes:?}");
        }
    }

    #[test]
    fn what_lies_below_the_floor_is_forgotten() {
        let mut state = State::default();
        [1, 5, 8].into_iter().for_each(|offset| drop(state.apply(note("g", 0, offset))));
        state.apply(RaiseFloor { floor: 1005 });
        state.apply(RaiseFloor { floor: 7 });
        assert_eq!((noted(&state, "g", 0), state.sent_back().floor()), (vec![5, 8], 1005));
        state.apply(RaiseFloor { floor: 9999 });
        assert_eq!(state.sent_back().groups.len(), 0);
    }

    #[test]
    fn sent_back_i2_the_oldest_notes_go_when_a_group_has_too_many() {
        let mut state = State::default();
        state.apply(RaiseLevel { level: TRANSITIONS });
        // Positions do not tell their age.
        for offset in (0..GROUP_NOTES_MAX).rev() {
            state.apply(note("g", (offset % 3) as u32, offset));
        }
        state.apply(note("h", 0, 0));
        assert_eq!(state.sent_back().count(), GROUP_NOTES_MAX + 1);
        let last = note("g", 7, 0);
        let growth = state.growth(&last.clone().into(), &crate::NoMessages);
        let before = state.encoded_bytes() as i64;
        state.apply(last);
        assert_eq!(state.encoded_bytes() as i64, before + growth);
        let kept = GROUP_NOTES_MAX - GROUP_NOTES_MAX / FORGET_PART + 1;
        assert_eq!(state.sent_back().count(), kept + 1);
        let newest = |offset: u64| state.sent_back().has("g", &queue((offset % 3) as u32), offset);
        assert!(newest(0) && newest(kept - 2) && !newest(kept - 1) && !newest(GROUP_NOTES_MAX - 1));
        assert!(state.sent_back().has("g", &queue(7), 0) && state.sent_back().has("h", &queue(0), 0));
    }

    #[test]
    fn sent_back_i2_the_oldest_notes_go_when_all_groups_have_too_many() {
        let mut state = State::default();
        for number in 0..=NOTES_MAX {
            state.apply(note(&format!("g{}", number % 16), 0, number / 16));
        }
        let notes = state.sent_back();
        assert_eq!(notes.count(), NOTES_MAX + 1 - NOTES_MAX / FORGET_PART);
        assert!(!notes.has("g0", &queue(0), 0) && notes.has("g0", &queue(0), NOTES_MAX / 16));
        assert_eq!(notes.count, notes.groups.values().map(|notes| notes.count).sum::<u64>());
    }
}
