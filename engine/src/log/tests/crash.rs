//! Power cuts: after every prefix of the disk operations of a history, whatever the disk made of the unsynced ones, the
//! log that is found holds all that was completed, nothing that was truncated, and goes on (log.I1, I2, I4, I6, I7).

use std::sync::atomic::{AtomicUsize, Ordering};

use super::*;
use crate::disk::sim::{KeepAll, LoseAll, SeededChoice, SimDisk, for_each_prefix};

const DIR: &str = "/data";

/// One step of a history.
#[derive(Debug, Clone, Copy)]
enum Step {
    /// That many records of that many payload bytes.
    Append(u64, usize),
    TruncateAfter(u64),
    Purge(u64),
    Vote(u8),
    /// The log goes on after this index, at a place far ahead.
    Reset(u64),
}
use Step::*;

/// What the log holds after a step.
#[derive(Debug, Clone, Default, PartialEq)]
struct Held {
    purged: Option<EntryId>,
    entries: Vec<EntryId>,
    vote: Option<u8>,
}

impl Held {
    fn of(log: &CommitLog) -> Held {
        let state = log.state();
        let records = log.read(state.first_index, u64::MAX, usize::MAX).unwrap();
        let vote = log.vote().map(|vote| vote[0]);
        Held { purged: state.purged, entries: records.iter().map(Record::id).collect(), vote }
    }

    fn after(&self, step: Step, term: u64) -> Held {
        let mut held = self.clone();
        match step {
            Append(count, _) => {
                let next = held.entries.last().or(held.purged.as_ref()).map_or(1, |last| last.index + 1);
                held.entries.extend((next..next + count).map(|index| EntryId { term, index }));
            }
            TruncateAfter(keep) => held.entries.retain(|id| id.index <= keep),
            Purge(upto) => {
                held.purged = held.entries.iter().find(|id| id.index == upto).copied();
                held.entries.retain(|id| id.index > upto);
            }
            Vote(vote) => held.vote = Some(vote),
            Reset(index) => (held.purged, held.entries) = (Some(EntryId { term, index }), Vec::new()),
        }
        held
    }

    /// Every state on the way, each step in its own term, so that an entry appended again has another name.
    fn all(steps: &[Step]) -> Vec<Held> {
        let mut states = vec![Held::default()];
        for (at, step) in steps.iter().enumerate() {
            states.push(states[at].after(*step, at as u64));
        }
        states
    }

    /// Whether a crash may leave `self` when the first of `states` was completed and the others were asked for: one of
    /// them, cut short by no more than they are cut short themselves.
    fn is_between(&self, states: &[Held]) -> bool {
        let cut_short =
            |state: &Held| state.purged == self.purged && state.entries.starts_with(&self.entries);
        let purged = |id: &EntryId| self.purged.is_some_and(|purged| id.index <= purged.index);
        let dropped = |id: &EntryId| states.iter().any(|state| !state.entries.contains(id));
        let safe = |id: &EntryId| self.entries.contains(id) || purged(id) || dropped(id);
        states.iter().any(cut_short)
            && states.iter().any(|state| state.vote == self.vote)
            && states[0].entries.iter().all(safe)
    }
}

fn start(disk: &SimDisk, base: StampBase) -> Result<CommitLog, OpenError> {
    let config = LogConfig { segment_bytes: 2048, cache_bytes: 0, sync: true };
    CommitLog::open(Arc::new(disk.clone()), Path::new(DIR), config, base)
}

/// Where a reset goes to: the same for every run.
fn reset_base(index: u64, term: u64) -> StampBase {
    let id = Some(EntryId { term, index });
    StampBase { id, position: 10 * 2048 + 700, prev_crc: 0xabcd, counters: QueueCounters::default() }
}

fn run(disk: &SimDisk, steps: &[Step], done: &Arc<AtomicUsize>) {
    let ready = disk.create_dir_all(Path::new(DIR)).and_then(|()| disk.sync_dir(Path::new("/")));
    let Ok(log) = ready.map_err(|_| ()).and_then(|()| start(disk, StampBase::default()).map_err(|_| ()))
    else {
        return;
    };
    for (at, step) in steps.iter().enumerate() {
        let (term, done) = (at as u64, done.clone());
        let done: Completion = Box::new(move |outcome| {
            if outcome.is_ok() {
                done.store(at + 1, Ordering::SeqCst);
            }
        });
        match *step {
            Append(count, bytes) => {
                for _ in 0..count {
                    let index = log.state().last.map_or(1, |last| last.index + 1);
                    if log.append(EntryId { term, index }, command(bytes)).is_err() {
                        return;
                    }
                }
                log.submit(done);
            }
            TruncateAfter(keep) => log.truncate_after(Some(keep), done),
            Purge(upto) => {
                let Ok(records) = log.read(upto, upto + 1, 1) else { return };
                log.purge(records[0].id(), done);
            }
            Vote(vote) => log.save_vote(&[vote], done),
            Reset(index) => log.reset(reset_base(index, term), done),
        }
        // Sometimes all in one group, sometimes one after the other.
        if at % 2 == 0 {
            let _ = wait(|done| log.submit(done));
        }
    }
}

/// Opens from the log's own start: these histories have no messages, so there are no counters to know.
fn reopen(disk: &SimDisk) -> CommitLog {
    start(disk, base_of_start(disk)).unwrap()
}

fn base_of_start(disk: &SimDisk) -> StampBase {
    let start = StartFile::open(disk, &Path::new(DIR).join("start")).unwrap().start();
    let (id, position, prev_crc) = (start.id, start.position, start.prev_crc);
    StampBase { id, position, prev_crc, counters: QueueCounters::default() }
}

/// What was found is between the completed state and the last one, and whatever is appended then stays alone.
fn check(disk: &SimDisk, steps: &[Step], done: usize, label: &str) {
    let states = &Held::all(steps);
    let has_root = disk.exists(Path::new(DIR)).unwrap();
    if !has_root {
        assert_eq!(done, 0);
        return;
    }
    let log = reopen(disk);
    let found = Held::of(&log);
    assert!(found.is_between(&states[done..]), "{label}: found {found:?} of {:#?}", &states[done..]);
    let counters = log.counters();
    let next = log.state().last.map_or(1, |last| last.index + 1);
    let mut expected = found.clone();
    for index in next..next + 3 {
        let id = EntryId { term: 1000, index };
        log.append(id, command(90)).unwrap();
        expected.entries.push(id);
    }
    flush(&log);
    drop(log);
    let log = reopen(&disk.crash(&mut LoseAll));
    assert_eq!(Held::of(&log), expected, "{label}: log.I7");
    assert_eq!(log.counters(), counters);
}

fn every_prefix(steps: &[Step]) {
    let counts = std::cell::RefCell::new(Arc::new(AtomicUsize::new(0)));
    let operations = for_each_prefix(
        |disk| {
            *counts.borrow_mut() = Arc::new(AtomicUsize::new(0));
            run(disk, steps, &counts.borrow());
        },
        |disk, prefix| {
            let done = counts.borrow().load(Ordering::SeqCst);
            check(&disk.crash(&mut LoseAll), steps, done, &format!("{prefix} operations, all unsynced lost"));
            check(&disk.crash(&mut KeepAll), steps, done, &format!("{prefix} operations, all kept"));
            for seed in 0..4 {
                let label = format!("{prefix} operations, seed {seed}");
                let mut choice = SeededChoice::new(prefix as u64 * 1000 + seed);
                let crashed = disk.crash(&mut choice);
                let twice = crash_while_opening(&crashed, &mut choice);
                check(&crashed, steps, done, &label);
                check(&twice, steps, done, &format!("{label}, and a cut while opening"));
            }
        },
    );
    assert!(operations > 20, "the history touches the disk");
}

/// Opens with the power cut somewhere on the way.
fn crash_while_opening(disk: &SimDisk, choice: &mut SeededChoice) -> SimDisk {
    let disk = disk.crash(&mut KeepAll);
    if disk.exists(Path::new(DIR)).unwrap() {
        let base = base_of_start(&disk);
        disk.cut_power_at(choice.below(12) as usize);
        drop(start(&disk, base));
    }
    disk.crash(choice)
}

#[test]
fn appends_and_rolls() {
    every_prefix(&[Append(3, 100), Append(8, 300), Append(1, 1900), Append(4, 10), Append(2, 1000)]);
}

#[test]
fn truncations_and_votes() {
    every_prefix(&[
        Append(4, 200),
        Vote(1),
        Append(12, 300),
        TruncateAfter(3),
        Append(2, 150),
        Vote(2),
        TruncateAfter(4),
        Append(6, 400),
        Vote(3),
    ]);
}

#[test]
fn purges() {
    every_prefix(&[
        Append(6, 500),
        Purge(2),
        Append(6, 500),
        Purge(9),
        TruncateAfter(10),
        Append(2, 700),
        Purge(12),
    ]);
}

#[test]
fn a_reset_after_a_tail_that_lies_where_the_log_goes_on() {
    every_prefix(&[Append(30, 900), Vote(7), Reset(100), Append(3, 500), TruncateAfter(101), Append(3, 300)]);
}
