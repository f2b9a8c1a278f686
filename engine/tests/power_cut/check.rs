//! What must hold of a log that is opened after a power cut, a kill or a fault.

use std::path::Path;
use std::sync::Arc;

use folio_engine::disk::Disk;
use folio_engine::disk::sim::{LoseAll, SeededChoice, SimDisk};
use folio_engine::{CommitLog, Record, StampBase};

use crate::model::{Model, State};
use crate::workload::{CONFIG, Run, append_more, base_after};

/// A log as it was found.
struct Found {
    /// The last purged index.
    purged: u64,
    records: Vec<Record>,
    vote: u64,
}

impl Found {
    fn last(&self) -> u64 {
        self.records.last().map_or(self.purged, |record| record.header.index)
    }

    fn frames(&self) -> Vec<&[u8]> {
        self.records.iter().map(|record| &record.frame()[..]).collect()
    }
}

/// Opens the log on `disk` and checks it against the run; then it must take more, and keep that through a power cut.
pub(crate) fn after(disk: &SimDisk, run: &Run, name: &str) {
    let base = run.model.base();
    let log = open(disk, &base, name);
    let found = found(&log, name);
    check(&found, &run.model, name);
    check_stamps(&log, &found, &run.model, name);
    let more = append_more(&log, 7);
    log.close();
    let again = open(&disk.crash(&mut SeededChoice::new(9)), &base, name);
    let expected: Vec<&[u8]> =
        found.frames().into_iter().chain(more.iter().map(|r| &r.frame()[..])).collect();
    assert_eq!(self::found(&again, name).frames(), expected, "{name}: what was appended after recovery");
    again.close();
}

/// Opens the log on `disk` and checks it against the run.
pub(crate) fn holds(disk: &SimDisk, run: &Run, name: &str) {
    let log = open(disk, &run.model.base(), name);
    check(&found(&log, name), &run.model, name);
    log.close();
}

/// Opens the log on `disk`, checks it, and cuts the power: what an open log showed is durable.
pub(crate) fn after_restart(disk: &SimDisk, run: &Run, name: &str) {
    let base = run.model.base();
    let log = open(disk, &base, name);
    let found = found(&log, name);
    check(&found, &run.model, name);
    let again = open(&disk.crash(&mut LoseAll), &base, name);
    let kept = self::found(&again, name);
    assert_eq!(kept.frames(), found.frames(), "{name}: what the log showed once is durable");
    assert_eq!((kept.vote, kept.purged), (found.vote, found.purged), "{name}");
    log.close();
    again.close();
}

fn open(disk: &SimDisk, base: &StampBase, name: &str) -> CommitLog {
    let shared: Arc<dyn Disk> = Arc::new(disk.clone());
    CommitLog::open(shared, Path::new("/"), CONFIG, base.clone())
        .unwrap_or_else(|error| panic!("{name}: the log does not open: {error}"))
}

fn found(log: &CommitLog, name: &str) -> Found {
    let state = log.state();
    assert_eq!(state.durable, state.last, "{name}: what is found is durable");
    let end = state.last.map_or(state.first_index, |last| last.index + 1);
    let (mut records, mut next) = (Vec::new(), state.first_index);
    while next < end {
        let some =
            log.read(next, end, 1 << 20).unwrap_or_else(|error| panic!("{name}: entry {next}: {error}"));
        assert!(!some.is_empty(), "{name}: entry {next} of {end} is not there");
        next += some.len() as u64;
        records.extend(some);
    }
    let vote = log.vote().map_or(0, |vote| u64::from_be_bytes(vote[..].try_into().expect("8 bytes")));
    Found { purged: state.purged.map_or(0, |id| id.index), records, vote }
}

/// The log is one of the states since the last acknowledged one, or lies between two of them.
fn check(found: &Found, model: &Model, name: &str) {
    let acknowledged = model.acknowledged();
    let votes = model.states[acknowledged].vote..=model.now().vote;
    assert!(votes.contains(&found.vote), "{name}: vote {} of {votes:?}", found.vote);
    // log.I4: a vote that is found says that all before it is durable.
    let voted = model.states.iter().position(|state| state.vote == found.vote).unwrap_or(0);
    let since = &model.states[acknowledged.max(voted)..];
    let purged = since.iter().any(|state| state.purged == found.purged);
    assert!(purged, "{name}: purged {}, at least {}", found.purged, since[0].purged);
    let mut least = since[0].last();
    let fits = (0..since.len()).any(|at| {
        // While the request after this one is under way, a part of it may have happened.
        least = least.min(since[(at + 1).min(since.len() - 1)].last());
        found.last() >= least && is_prefix(found, &since[at])
    });
    let indexes: Vec<_> = found.records.iter().map(|record| record.id().to_string()).collect();
    let states: Vec<_> = since.iter().map(|state| (state.purged, state.last())).collect();
    assert!(
        fits,
        "{name}: found {indexes:?} after {}, acknowledged {acknowledged}, vote {} of request {voted}: {states:?}",
        found.purged, found.vote
    );
}

fn is_prefix(found: &Found, state: &State) -> bool {
    found.last() <= state.last()
        && found.records.iter().all(|record| {
            let entry = state.entries.get(&record.header.index);
            entry.is_some_and(|entry| entry.record.frame() == record.frame())
        })
}

/// Positions and queue offsets are dense, and the log goes on counting where they end.
fn check_stamps(log: &CommitLog, found: &Found, model: &Model, name: &str) {
    let base = model.base();
    let skip = base.id.map_or(0, |id| id.index);
    let records = found.records.iter().filter(|record| record.header.index > skip);
    let end = records.fold(base, |base, record| base_after(record, base.counters));
    assert_eq!(log.counters(), end.counters, "{name}: the counters of the recovered log");
}
