//! Seeded sequences of requests, each of them done to the model, too.

use super::*;
use crate::disk::sim::SeededChoice;

const SEEDS: u64 = 12;
const STEPS: usize = 120;

/// A log and the model, which are to be the same.
struct Both<P: Place> {
    place: P,
    log: P::Log,
    modelled: InMemory,
    model: MemoryLog,
    random: SeededChoice,
    term: u64,
    /// Behind the last purge: where a log is opened from.
    base: StampBase,
    vote: u8,
}

impl<P: Place> Both<P> {
    fn new(seed: u64) -> Self {
        let (mut place, mut modelled) = (P::new(), InMemory::new());
        let base = StampBase::default();
        let (log, model) = (place.open(&base), modelled.open(&base));
        Both { place, log, modelled, model, random: SeededChoice::new(seed), term: 1, base, vote: 0 }
    }

    fn last_index(&self) -> u64 {
        self.model.state().last.map_or(0, |last| last.index)
    }

    fn append(&mut self) {
        let route = [("a", 0), ("a", 1), ("b", 0)][self.random.below(3) as usize];
        let (kind, bytes) = (self.random.below(3), self.random.below(900) as usize);
        let draft = || match kind {
            0 => command(bytes),
            1 => transition(&[route]),
            _ => messages(&[route, ("c", 0)]),
        };
        let id = EntryId { term: self.term, index: self.last_index() + 1 };
        let (record, modelled) =
            (self.log.append(id, draft()).unwrap(), self.model.append(id, draft()).unwrap());
        assert_eq!(record.frame(), modelled.frame(), "log.I8");
    }

    /// Asks both for the same, and compares the outcomes.
    fn ask(&self, on_log: impl FnOnce(Completion), on_model: impl FnOnce(Completion)) {
        assert_eq!(wait(on_log), wait(on_model));
    }

    fn truncate(&mut self) {
        let keep = self.last_index().checked_sub(self.random.below(6)).filter(|keep| *keep > 0);
        self.ask(|done| self.log.truncate_after(keep, done), |done| self.model.truncate_after(keep, done));
        self.term += 1;
    }

    /// Purges all there is, or most of it.
    fn purge(&mut self) {
        let keep = self.last_index().saturating_sub(self.random.below(6));
        let Ok(records) = self.model.read(keep, keep + 1, 1) else { return };
        let Some(record) = records.first() else { return };
        // The counters there, as a checkpoint has them.
        let tail = self.model.read(keep + 1, u64::MAX, usize::MAX).unwrap();
        self.ask(|done| self.log.submit(done), |done| self.model.submit(done));
        let whole = self.model.reopen(&self.base);
        wait(|done| whole.truncate_after(Some(keep), done)).unwrap();
        let (id, prev_crc) = (record.id(), record.header.crc);
        self.base = StampBase { id: Some(id), position: record.end(), prev_crc, counters: whole.counters() };
        self.ask(|done| self.log.purge(id, done), |done| self.model.purge(id, done));
        assert_eq!(self.log.read(keep + 1, u64::MAX, usize::MAX).unwrap().len(), tail.len());
    }

    fn vote(&mut self) {
        self.vote = self.vote.wrapping_add(1).max(1);
        let vote = [self.vote];
        self.ask(|done| self.log.save_vote(&vote, done), |done| self.model.save_vote(&vote, done));
    }

    fn read(&mut self) {
        let start = self.last_index().saturating_sub(self.random.below(30));
        let (end, max_bytes) = (start + self.random.below(20), self.random.below(3_000) as usize);
        let of = |read: Result<Vec<Record>, ReadError>| {
            read.map(|records| records.iter().map(|record| record.frame().clone()).collect::<Vec<_>>())
        };
        assert_eq!(of(self.log.read(start, end, max_bytes)), of(self.model.read(start, end, max_bytes)));
    }

    fn reopen(&mut self) {
        self.log.close();
        self.model.close();
        self.log = self.place.open(&self.base);
        self.modelled = InMemory::of(&self.model);
        self.model = self.modelled.open(&self.base);
    }

    fn step(&mut self) {
        match self.random.below(100) {
            0..50 => self.append(),
            50..60 => self.ask(|done| self.log.submit(done), |done| self.model.submit(done)),
            60..70 => self.truncate(),
            70..74 => self.purge(),
            74..80 => self.vote(),
            80..94 => self.read(),
            94..97 => {
                let settled = self.last_index().saturating_sub(self.random.below(4));
                self.log.forget_undo(settled);
                self.model.forget_undo(settled);
            }
            _ => self.reopen(),
        }
        self.compare();
    }

    fn compare(&self) {
        let (found, expected) = (self.log.state(), self.model.state());
        assert_eq!((found.first_index, found.last), (expected.first_index, expected.last));
        assert_eq!((found.purged, found.start_position), (expected.purged, expected.start_position));
        assert_eq!(found.next_position, expected.next_position);
        assert!(found.durable_position >= expected.durable_position, "log.I1");
        assert_eq!((self.log.counters(), self.log.vote()), (self.model.counters(), self.model.vote()));
    }
}

pub(super) fn any_sequence_of_requests_does_what_it_does_to_the_model<P: Place>() {
    for seed in 0..SEEDS {
        let mut both = Both::<P>::new(seed);
        (0..STEPS).for_each(|_| both.step());
        both.reopen();
        both.compare();
        assert_eq!(frames(&both.log), frames(&both.model), "seed {seed}");
    }
}

pub(super) fn a_crash_takes_nothing_that_a_completion_told_of<P: Crashes>() {
    for seed in 0..SEEDS {
        let (mut place, mut random) = (P::new(), SeededChoice::new(seed));
        let base = StampBase::default();
        let mut log = place.open(&base);
        for round in 1..=6u64 {
            let first = log.state().last.map_or(1, |last| last.index + 1);
            fill(&log, round, first..=first + random.below(5));
            if round % 2 == 0 {
                let keep = log.state().last.map(|last| last.index - 1);
                log.truncate_after(keep, Box::new(|outcome| outcome.unwrap()));
            }
            wait(|done| log.save_vote(&[round as u8], done)).unwrap();
            let told = frames(&log);
            let next = log.state().last.map_or(1, |last| last.index + 1);
            fill(&log, round, next..=next + random.below(4));
            let asked = frames(&log);
            let left = place.crash(log, &base, random.below(u64::MAX));
            let (found, state) = (frames(&left), left.state());
            assert!(found.starts_with(&told), "seed {seed} round {round}: log.I1, log.I7");
            assert!(asked.starts_with(&found), "seed {seed} round {round}: nothing else");
            assert_eq!(left.vote().as_deref(), Some(&[round as u8][..]), "log.I4");
            assert_eq!((state.durable, state.durable_position), (state.last, state.next_position));
            log = left;
        }
    }
}
