use std::collections::BTreeSet;

use proptest::prelude::*;

use super::*;
use crate::disk::sim::{LoseAll, SimDisk};
use crate::record::{Draft, EntryId, RecordKind};
use crate::sample::message;

const DIR: &str = "/data";

fn key(due_ms: u64, position: u64) -> TimerKey {
    TimerKey { due_ms, position }
}

/// A record of messages that are due at these times; those of 0 are not parked.
fn record(index: u64, position: u64, dues: &[u64]) -> Record {
    let mut draft = Draft::new(RecordKind::Messages, 0);
    for due_ms in dues {
        let mut bytes = message(if *due_ms == 0 { "orders" } else { parked::TOPIC }, 0, b"body");
        if *due_ms > 0 {
            parked::raise_due(&mut bytes, *due_ms).unwrap();
        }
        draft.payload_mut().extend_from_slice(&bytes);
        draft.messages += 1;
    }
    draft.seal(EntryId { term: 1, index }, position, 0).unwrap()
}

/// A log of records, one behind the other.
#[derive(Default)]
struct Log(Vec<Record>);

impl Log {
    fn add(&mut self, dues: &[u64]) -> Record {
        let position = self.0.last().map_or(0, Record::end);
        let record = record(self.0.len() as u64, position, dues);
        self.0.push(record.clone());
        record
    }

    fn point(&self) -> TimersPoint {
        let last = self.0.last();
        last.map_or(TimersPoint::default(), |last| TimersPoint {
            id: Some(last.id()),
            position: last.end(),
            crc: last.header.crc,
        })
    }

    /// Opens the index and applies what it lacks.
    fn open(&self, disk: &Arc<SimDisk>) -> TimerIndex {
        self.open_with(disk, Gone::default())
    }

    fn open_with(&self, disk: &Arc<SimDisk>, gone: Gone) -> TimerIndex {
        let (index, from) = TimerIndex::open(disk.clone(), Path::new(DIR), self.point(), gone).unwrap();
        let lacking = self.0.iter().filter(|record| record.position() >= from.position);
        lacking.for_each(|record| assert!(index.apply(record).is_ok()));
        index
    }
}

fn all(index: &TimerIndex) -> Vec<u64> {
    let due = index.due(TimerKey::default(), u64::MAX, usize::MAX, |_| true).unwrap();
    due.iter().map(|entry| entry.key.due_ms).collect()
}

#[test]
fn what_is_parked_is_found_by_its_turn() {
    let (disk, mut log) = (Arc::new(SimDisk::new()), Log::default());
    let index = log.open(&disk);
    assert_eq!(index.next(TimerKey::default()).unwrap(), None);
    for dues in [&[30, 0, 10][..], &[0], &[20, 10]] {
        assert!(!index.apply(&log.add(dues)).unwrap());
    }
    let due = |above, upto, max| {
        let due = index.due(above, upto, max, |_| true).unwrap();
        due.into_iter().map(|entry| entry.key).collect::<Vec<_>>()
    };
    let found = due(TimerKey::default(), 20, 9);
    assert_eq!(found.iter().map(|key| key.due_ms).collect::<Vec<_>>(), [10, 10, 20]);
    assert!(found[0].position < found[1].position);
    assert_eq!(due(found[0], 25, 1), [found[1]]);
    assert_eq!(index.next(found[1]).unwrap(), Some(found[2]));
    let entry = index.due(found[1], 20, 1, |_| true).unwrap()[0];
    assert_eq!(entry.bytes as usize, message(parked::TOPIC, 0, b"body").len());
    assert_eq!(
        index.lying(TimerKey::default(), (found[0].position, u64::MAX), 2, |_| true).unwrap().len(),
        2
    );
}

#[test]
fn timer_index_i2_what_was_synced_survives_a_power_cut() {
    let (disk, mut log) = (Arc::new(SimDisk::new()), Log::default());
    let index = log.open(&disk);
    index.apply(&log.add(&[30, 10])).unwrap();
    index.sync().unwrap();
    index.apply(&log.add(&[20])).unwrap();
    let after = Arc::new(disk.crash(&mut LoseAll));
    let (index, from) =
        TimerIndex::open(after.clone(), Path::new(DIR), log.point(), Gone::default()).unwrap();
    assert_eq!((all(&index), from.position), (vec![10, 30], log.0[1].position()));
    assert_eq!(all(&log.open(&after)), [10, 20, 30]);
}

/// A sync, and no checkpoint after it: the group may go on with other records in their place.
#[test]
fn what_lies_behind_the_checkpoint_is_void() {
    let (disk, mut log) = (Arc::new(SimDisk::new()), Log::default());
    let index = log.open(&disk);
    index.apply(&log.add(&[10])).unwrap();
    index.apply(&log.add(&[20, 5])).unwrap();
    index.sync().unwrap();
    log.0.truncate(1);
    let index = log.open(&disk);
    assert_eq!((all(&index), index.next(TimerKey::default()).unwrap().unwrap().due_ms), (vec![10], 10));
    index.apply(&log.add(&[7])).unwrap();
    index.sync().unwrap();
    assert_eq!(all(&log.open(&disk)), [7, 10]);
}

/// An index that was pruned by a later state than the one that a start goes on from lacks what is pending there.
#[test]
fn timer_index_i1_an_index_of_a_later_state_is_built_again() {
    let (disk, mut log) = (Arc::new(SimDisk::new()), Log::default());
    let index = log.open(&disk);
    index.apply(&log.add(&[10, 20])).unwrap();
    let gone = Gone { watermark: key(10, u64::MAX), start: 0 };
    index.forget(gone);
    index.sync().unwrap();
    assert_eq!(all(&log.open_with(&disk, gone)), [20]);
    assert_eq!(all(&log.open(&disk)), [10, 20]);
}

#[test]
fn timer_index_i4_a_damaged_or_deleted_index_is_built_again() {
    let (disk, mut log) = (Arc::new(SimDisk::new()), Log::default());
    let index = log.open(&disk);
    index.apply(&log.add(&[10, 20])).unwrap();
    index.sync().unwrap();
    let path = run::path(&Path::new(DIR).join("timers"), 0);
    let file = disk.open(&path, crate::disk::OpenMode::ReadWrite).unwrap();
    file.write_all_at(&[std::io::IoSlice::new(b"x")], 100).unwrap();
    let error = index.due(TimerKey::default(), 99, 9, |_| true).unwrap_err();
    assert!(matches!(error, TimersError::Damaged { block: 0, .. }), "{error}");
    let index = log.open(&disk);
    assert_eq!(all(&index), [10, 20]);
    index.sync().unwrap();
    disk.remove_dir_all(&Path::new(DIR).join("timers")).unwrap();
    assert_eq!(all(&log.open(&disk)), [10, 20]);
}

#[test]
fn timer_index_i3_a_record_is_refused_where_memory_holds_too_many() {
    let (disk, mut log) = (Arc::new(SimDisk::new()), Log::default());
    let index = log.open(&disk);
    let mut wanted = 0;
    let refused = loop {
        let record = log.add(&(1..=4096).collect::<Vec<u64>>());
        match index.apply(&record) {
            Ok(sync_wanted) => wanted += usize::from(sync_wanted),
            Err(error) => break (error, record),
        }
    };
    assert!(matches!(refused.0, TimersError::Busy) && wanted > 0);
    index.sync().unwrap();
    assert!(!index.apply(&refused.1).unwrap());
    assert_eq!(all(&index).len(), log.0.len() * 4096);
}

#[test]
fn a_sync_that_finds_the_disk_full_keeps_everything_in_memory() {
    let (disk, mut log) = (Arc::new(SimDisk::new()), Log::default());
    let index = log.open(&disk);
    index.apply(&log.add(&[30, 10])).unwrap();
    disk.set_capacity(Some(disk.used()));
    assert!(matches!(index.sync().unwrap_err(), TimersError::DiskFull(_)));
    assert_eq!(all(&index), [10, 30]);
    disk.set_capacity(None);
    index.sync().unwrap();
    assert_eq!((all(&log.open(&disk)), index.runs().len()), (vec![10, 30], 1));
}

#[derive(Debug, Clone)]
enum Step {
    Apply(Vec<u64>),
    Sync,
    Deliver(u64),
    Carry(u8),
    /// The state is saved.
    Forget,
    Restart,
}

fn step() -> impl Strategy<Value = Step> {
    prop_oneof![
        4 => prop::collection::vec(0..60u64, 1..6).prop_map(Step::Apply),
        3 => Just(Step::Sync),
        1 => (0..60u64).prop_map(Step::Deliver),
        1 => any::<u8>().prop_map(Step::Carry),
        2 => Just(Step::Forget),
        1 => Just(Step::Restart),
    ]
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(64))]

    /// `timer_index.I1`
    #[test]
    fn it_holds_what_may_be_pending(steps in prop::collection::vec(step(), 1..80)) {
        let (mut disk, mut log) = (Arc::new(SimDisk::new()), Log::default());
        let mut index = log.open(&disk);
        let (mut model, mut watermark, mut start) = (BTreeSet::new(), TimerKey::default(), 0);
        let mut saved = Gone::default();
        for step in steps {
            match step {
                Step::Apply(dues) => {
                    let record = log.add(&dues);
                    index.apply(&record).unwrap();
                    let mut position = record.messages_position();
                    for due_ms in dues {
                        if due_ms > 0 {
                            model.insert(key(due_ms, position));
                        }
                        let topic = if due_ms > 0 { parked::TOPIC } else { "orders" };
                        position += message(topic, 0, b"body").len() as u64;
                    }
                }
                Step::Sync => index.sync().unwrap(),
                Step::Deliver(due_ms) => watermark = watermark.max(key(due_ms, u64::MAX)),
                Step::Carry(part) => start = start.max(log.point().position * u64::from(part) / 255),
                Step::Forget => {
                    saved = Gone { watermark, start };
                    index.forget(saved);
                }
                Step::Restart => {
                    disk = Arc::new(disk.crash(&mut LoseAll));
                    index = log.open_with(&disk, saved);
                    // The records behind the checkpoint are applied once more.
                }
            }
            let pending = |entry: &TimerEntry| entry.key.position >= start;
            let due = index.due(watermark, u64::MAX, usize::MAX, pending).unwrap();
            let found: Vec<TimerKey> = due.iter().map(|entry| entry.key).collect();
            let expected: Vec<TimerKey> =
                model.iter().copied().filter(|key| *key > watermark && key.position >= start).collect();
            prop_assert_eq!(&found, &expected);
            let next = index.next(watermark).unwrap();
            prop_assert!(next <= expected.first().copied().or(next));
            prop_assert!(index.runs().len() <= RUNS_MAX);
        }
    }
}
