use super::*;
use crate::{Command, NoMessages, RaiseLevel, State};

fn half(group: &str, position: u64) -> Half {
    Half {
        copy_of: None,
        group: group.into(),
        position,
        bytes: 200,
        queue_offset: position / 100,
        stored_ms: 5,
        immunity_s: NO_IMMUNITY,
    }
}

fn end(group: &str, id: u64, ending: Ending) -> EndTransaction {
    EndTransaction { group: group.into(), id, ending }
}

/// Checks what each step says that it adds.
struct Counted(State);

impl Counted {
    fn new() -> Counted {
        let mut state = State::default();
        state.apply(RaiseLevel { level: TRANSACTIONS });
        Counted(state)
    }

    fn store(&mut self, half: Half) {
        let before = self.0.encoded_bytes() as i64;
        let growth = self.0.store_halves(vec![half]);
        assert_eq!(self.0.encoded_bytes() as i64, before + growth);
    }

    fn apply(&mut self, command: impl Into<Command>) -> Outcome {
        let command = command.into();
        let (growth, before) = (self.0.growth(&command, &NoMessages), self.0.encoded_bytes() as i64);
        let outcome = self.0.apply(command);
        assert_eq!(self.0.encoded_bytes() as i64, before + growth);
        outcome
    }

    fn transactions(&self) -> &Transactions {
        self.0.transactions()
    }
}

#[test]
fn transactions_i1_a_transaction_ends_once() {
    let mut state = Counted::new();
    for (group, position) in [("p", 100), ("p", 200), ("q", 300), ("q", 300)] {
        state.store(half(group, position));
    }
    assert_eq!(state.transactions().count(), 3);
    let commit = end("p", 100, Ending::Committed);
    assert_eq!(commit.precondition(&state.0), Ok(()));
    assert!(end("q", 100, Ending::Committed).precondition(&state.0).is_err(), "another group's");
    state.apply(commit.clone());
    assert!(commit.precondition(&state.0).unwrap_err().to_string().starts_with("transactions.I1"));
    let before = state.0.clone();
    assert_eq!(state.apply(end("p", 100, Ending::RolledBack)), Outcome::NotFound);
    assert_eq!(state.0, before, "applied all the same, it changes nothing");
    state.apply(end("p", 200, Ending::RolledBack));
    state.apply(end("q", 300, Ending::GivenUp));
    let endings = [100, 200, 300, 400].map(|id| state.transactions().ending(id));
    let [committed, rolled_back, given_up, none] = endings;
    assert_eq!((committed, rolled_back), (Some(Ending::Committed), Some(Ending::RolledBack)));
    assert_eq!((given_up, none), (Some(Ending::GivenUp), None));
    assert_eq!((state.transactions().count(), state.transactions().groups().count()), (0, 0));
}

#[test]
fn a_copy_moves_what_is_open_and_opens_nothing() {
    let mut state = Counted::new();
    state.store(half("p", 100));
    state.store(half("p", 150));
    state.store(Half { copy_of: Some(100), bytes: 240, ..half("p", 900) });
    let open = *state.transactions().get("p", 100).unwrap();
    assert_eq!((open.position, open.bytes, open.queue_offset), (900, 240, 1));
    let before = |upto| -> Vec<u64> {
        state.transactions().lying_before(upto, 9).into_iter().map(|(_, id, _)| id).collect()
    };
    assert_eq!((before(900), before(901)), (vec![150], vec![150, 100]));
    state.apply(end("p", 100, Ending::Committed));
    state.store(Half { copy_of: Some(100), ..half("p", 950) });
    assert_eq!(state.transactions().get("p", 100), None);
}

#[test]
fn checks_are_counted_of_what_is_open() {
    let mut state = Counted::new();
    state.store(half("p", 100));
    let note = |checks| NoteChecks { group: "p".into(), checks, at_ms: 70 };
    state.apply(note(vec![(100, 3), (7, 1)]));
    let open = *state.transactions().get("p", 100).unwrap();
    assert_eq!((open.checks, open.checked_ms, state.transactions().count()), (3, 70, 1));
    assert!(note(vec![(1, 1); CHECKS_MAX + 1]).check_bounds().is_err());
    state.apply(end("p", 100, Ending::RolledBack));
    assert_eq!(state.apply(note(vec![(100, 4)])), Outcome::NotFound);
}

#[test]
fn transactions_i1_what_was_given_up_is_resumed_once_and_ends_once() {
    let mut state = Counted::new();
    state.store(half("p", 100));
    let resume = ResumeTransaction { group: "p".into(), id: 100, queue_offset: 1, at_ms: 80 };
    assert!(resume.precondition(&state.0).is_err(), "it is open");
    state.apply(end("p", 100, Ending::GivenUp));
    assert_eq!(resume.precondition(&state.0), Ok(()));
    state.apply(resume.clone());
    assert!(resume.precondition(&state.0).is_err(), "it is open again");
    state.store(Half { copy_of: Some(100), ..half("p", 700) });
    let open = *state.transactions().get("p", 100).unwrap();
    assert_eq!((open.position, open.queue_offset, open.checks, open.stored_ms), (700, 1, 0, 80));
    state.apply(end("p", 100, Ending::Committed));
    assert!(resume.precondition(&state.0).is_err(), "it was committed");
    assert_eq!(state.apply(resume), Outcome::NotFound);
}

#[test]
fn transactions_i2_the_first_to_end_are_forgotten() {
    let mut state = State::default();
    state.apply(RaiseLevel { level: TRANSACTIONS });
    for (max, ending) in [(ENDED_MAX, Ending::RolledBack), (GIVEN_UP_MAX, Ending::GivenUp)] {
        for id in 1..=max {
            state.store_halves(vec![half("p", id)]);
            state.apply(end("p", id, ending));
        }
        let mut counted = Counted(state.clone());
        counted.store(half("p", max + 1));
        counted.apply(end("p", max + 1, ending));
        let known = [1, 2, max + 1].map(|id| counted.transactions().ending(id));
        assert_ne!(known[0], Some(ending));
        assert_eq!(known[1..], [Some(ending); 2]);
    }
}

/// Before: the lowest id was forgotten, so that of a transaction that was open for long in the very command that ended it.
#[test]
fn transactions_i2_an_ending_was_forgotten_at_once_because_its_transaction_was_old() {
    for ending in [Ending::RolledBack, Ending::GivenUp] {
        let mut state = State::default();
        state.apply(RaiseLevel { level: TRANSACTIONS });
        state.store_halves(vec![half("p", 1)]);
        for id in 2..=ENDED_MAX.max(GIVEN_UP_MAX) + 1 {
            state.store_halves(vec![half("p", id)]);
            state.apply(end("p", id, ending));
        }
        let mut counted = Counted(state);
        counted.apply(end("p", 1, ending));
        assert_eq!([1, 2].map(|id| counted.transactions().ending(id)), [Some(ending), None]);
    }
}
