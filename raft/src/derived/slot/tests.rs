use std::path::Path;
use std::sync::Arc;

use folio_engine::derived::{RepairStep, ScrubStep};
use folio_engine::disk::RealDisk;
use folio_engine::log::{LogConfig, Watcher};
use folio_engine::record::{Draft, EntryId, RecordKind};

use super::*;

/// Holds the indexes that it was given; refuses as many as it is told to.
#[derive(Clone, Default)]
struct Fake(Arc<Mutex<Held>>);

#[derive(Default)]
struct Held {
    indexes: Vec<u64>,
    refuses: usize,
    busy: bool,
    syncs: usize,
    trimmed: Option<u64>,
}

impl Derived for Fake {
    fn name(&self) -> &'static str {
        "fakes"
    }

    fn apply(&self, record: &Record, _: &mut Vec<Arrival>) -> Result<Taken, DerivedError> {
        let mut held = self.0.lock();
        if held.refuses > 0 {
            held.refuses -= 1;
            return Err(DerivedError::DiskFull { path: "/fakes".into() });
        }
        if held.busy {
            return Err(DerivedError::Busy("fakes"));
        }
        held.indexes.push(record.header.index);
        Ok(if record.header.index % 4 == 3 { Taken::SyncWanted } else { Taken::Held })
    }

    fn sync(&self) -> Result<(), DerivedError> {
        let mut held = self.0.lock();
        held.syncs += 1;
        held.busy = false;
        Ok(())
    }

    fn reset(&self, _: &StampBase) -> Result<(), DerivedError> {
        self.0.lock().indexes.clear();
        Ok(())
    }

    fn trim(&self, start: &StampBase) -> Result<(), DerivedError> {
        self.0.lock().trimmed = start.id.map(|id| id.index);
        Ok(())
    }

    fn scrub(&self, _: u64) -> ScrubStep {
        ScrubStep { bytes: 0, over: true }
    }

    fn damaged(&self) -> usize {
        0
    }

    fn on_damage(&self, _: Watcher) {}

    fn repair(&self, _: &CommitLog, _: u64, _: usize) -> Result<RepairStep, DerivedError> {
        Ok(RepairStep::RoundOver)
    }

    fn disk_full(&self) -> bool {
        false
    }

    fn retry(&self) -> Result<bool, DerivedError> {
        Ok(true)
    }
}

fn filled(dir: &Path, count: u64) -> (CommitLog, Vec<Record>) {
    let log = CommitLog::open(Arc::new(RealDisk), dir, LogConfig::default(), StampBase::default()).unwrap();
    let append = |index| {
        log.append(EntryId { term: 1, index }, Draft::with_payload(RecordKind::Command, b"command")).unwrap()
    };
    let records = (0..count).map(append).collect();
    (log, records)
}

fn point(record: &Record) -> StampBase {
    let LogPoint { id, position, crc } = LogPoint::after(record);
    StampBase { id, position, prev_crc: crc, counters: Default::default() }
}

fn apply(slot: &Slot, record: &Record) -> bool {
    slot.apply(record, &mut Vec::new()).unwrap()
}

/// Brings up to `applied`, in steps of about a record.
fn bring_up(slot: &Slot, log: &CommitLog, applied: u64) {
    while slot.needs_work() && slot.bring_up(log, applied, 1).unwrap() {}
}

#[test]
fn derived_i6_every_record_comes_once_and_in_order_to_one_that_is_behind() {
    let dir = tempfile::tempdir().unwrap();
    let (log, records) = filled(dir.path(), 12);
    let fake = Fake::default();
    let slot = Slot::new(Box::new(fake.clone()), Follows::Log, LogPoint::default());
    // A start from a checkpoint after entry 5, with the structure deleted.
    slot.miss_before(6);
    assert!(slot.needs_work() && !slot.is_up());
    assert!(apply(&slot, &records[6]), "passed by");
    assert!(fake.0.lock().indexes.is_empty());
    // Entry 6 is passed by and not published yet: the structure is not up before it has that, too.
    bring_up(&slot, &log, 5);
    assert!(!slot.is_up());
    assert_eq!(fake.0.lock().indexes, [0, 1, 2, 3, 4, 5]);
    bring_up(&slot, &log, 6);
    assert!(slot.is_up() && !slot.needs_work());
    // Now with apply; what is applied again is not taken twice.
    for record in &records[5..9] {
        apply(&slot, record);
    }
    // derived.I7: what it refuses is no error, and is brought to it later.
    fake.0.lock().refuses = 1;
    assert!(apply(&slot, &records[9]) && apply(&slot, &records[10]));
    assert!(!slot.is_up());
    bring_up(&slot, &log, 10);
    assert!(apply(&slot, &records[11]), "it wants a sync");
    let syncs = fake.0.lock().syncs;
    bring_up(&slot, &log, 11);
    let held = fake.0.lock();
    assert_eq!((&held.indexes, held.syncs), (&(0..12).collect(), syncs + 1));
    log.close();
}

#[test]
fn a_busy_one_is_synced_and_goes_on() {
    let dir = tempfile::tempdir().unwrap();
    let (log, records) = filled(dir.path(), 3);
    let fake = Fake::default();
    let slot = Slot::new(Box::new(fake.clone()), Follows::Log, LogPoint::default());
    fake.0.lock().busy = true;
    assert!(apply(&slot, &records[0]));
    bring_up(&slot, &log, 0);
    assert_eq!((&fake.0.lock().indexes[..], slot.is_up()), (&[0][..], true));
    log.close();
}

#[test]
fn one_that_follows_with_the_state_is_applied_what_apply_applies() {
    let dir = tempfile::tempdir().unwrap();
    let (log, records) = filled(dir.path(), 2);
    let fake = Fake::default();
    let slot = Slot::new(Box::new(fake.clone()), Follows::State, LogPoint::default());
    fake.0.lock().refuses = 1;
    assert!(slot.apply(&records[1], &mut Vec::new()).is_err());
    apply(&slot, &records[1]);
    assert_eq!((&fake.0.lock().indexes[..], slot.is_up()), (&[1][..], true));
    log.close();
}

#[test]
fn retention_moves_one_that_is_behind_to_the_new_start_and_trims_the_others() {
    let dir = tempfile::tempdir().unwrap();
    let (log, records) = filled(dir.path(), 8);
    let fake = Fake::default();
    let slot = Slot::new(Box::new(fake.clone()), Follows::Log, LogPoint::default());
    apply(&slot, &records[0]);
    slot.miss_before(8);
    slot.trim(&point(&records[0])).unwrap();
    assert_eq!(fake.0.lock().trimmed, Some(0));
    slot.trim(&point(&records[4])).unwrap();
    assert!(fake.0.lock().indexes.is_empty());
    assert_eq!(fake.0.lock().trimmed, Some(0), "there was nothing to trim");
    bring_up(&slot, &log, 7);
    assert_eq!(fake.0.lock().indexes, [5, 6, 7]);
    log.close();
}

#[test]
fn a_point_is_of_the_log_that_has_its_record() {
    let dir = tempfile::tempdir().unwrap();
    let (log, records) = filled(dir.path(), 4);
    let begin = StampBase::default();
    assert!(is_of(&log, &begin, &LogPoint::default()));
    assert!(is_of(&log, &begin, &LogPoint::after(&records[3])));
    let other = LogPoint { crc: 7, ..LogPoint::after(&records[3]) };
    let beyond = LogPoint { id: Some(EntryId { term: 1, index: 4 }), ..LogPoint::after(&records[3]) };
    assert!(!is_of(&log, &begin, &other) && !is_of(&log, &begin, &beyond));
    // Of a log that begins after entry 2.
    let begin = point(&records[2]);
    assert!(is_of(&log, &begin, &LogPoint::after(&records[2])));
    assert!(
        !is_of(&log, &begin, &LogPoint::after(&records[1])) && !is_of(&log, &begin, &LogPoint::default())
    );
    log.close();
}
