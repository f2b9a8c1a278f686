//! Consume queues hold what was applied, through replay, retention, restarts and power cuts.

mod full;

use std::sync::atomic::AtomicBool;

use bytes::Bytes;
use folio_protocol::message::{NewMessage, stamp};

use super::*;
use crate::disk::sim::{Fault, LoseAll, SeededChoice, SimDisk};
use crate::disk::{OpenMode, RealDisk};
use crate::record::RecordKind;
use crate::record::{Draft, EntryId};

/// Makes stamped records, as the log would.
#[derive(Default, Clone)]
pub(super) struct Maker {
    pub(super) counters: QueueCounters,
    position: u64,
    index: u64,
}

impl Maker {
    pub(super) fn at(counters: &QueueCounters) -> Maker {
        Maker { counters: counters.clone(), ..Maker::default() }
    }

    pub(super) fn record(&mut self, messages: &[(&str, u32)]) -> Record {
        // Every other one with a command before its messages.
        let moves = Draft::transition(&[b"move".to_vec()], 0).unwrap();
        let is_move = self.index % 2 == 1;
        let mut draft = if is_move { moves } else { Draft::new(RecordKind::Messages, 0) };
        for (topic, queue) in messages {
            let from = draft.len();
            message(topic, *queue).encode(draft.payload_mut()).unwrap();
            let position = self.position + from as u64;
            let offset = self.counters.advance(topic, *queue, 1);
            stamp(&mut draft.payload_mut()[from..], offset, position);
        }
        draft.messages = messages.len() as u32;
        self.index += 1;
        let record = draft.seal(EntryId { term: 1, index: self.index }, self.position, 0).unwrap();
        self.position = record.end();
        record
    }
}

fn message(topic: &str, queue: u32) -> NewMessage {
    let host = ([127, 0, 0, 1], 10911).into();
    NewMessage {
        topic: topic.into(),
        queue_id: queue,
        flag: 0,
        sys_flag: 0,
        born_timestamp: 1,
        born_host: host,
        store_timestamp: 2,
        store_host: host,
        reconsume_times: 0,
        prepared_transaction_offset: 0,
        body: Bytes::from_static(b"body"),
        properties: Bytes::from_static(b"TAGS\x01TagA\x02"),
    }
}

const TAG_A: i64 = 2_598_919;

pub(super) fn dir() -> &'static Path {
    Path::new("/group")
}

pub(super) fn disk() -> SimDisk {
    let disk = SimDisk::new();
    disk.create_dir_all(dir()).unwrap();
    disk.sync_dir(Path::new("/")).unwrap();
    disk
}

pub(super) fn open(
    disk: &SimDisk,
    at: &QueueCounters,
    min: &QueueCounters,
) -> Result<ConsumeQueues, QueuesError> {
    ConsumeQueues::open(Arc::new(disk.clone()), dir(), at, min)
}

pub(super) fn empty(disk: &SimDisk) -> ConsumeQueues {
    open(disk, &QueueCounters::new(), &QueueCounters::new()).unwrap()
}

pub(super) fn apply(queues: &ConsumeQueues, record: &Record) -> Vec<Arrival> {
    let mut arrivals = Vec::new();
    queues.apply(record, &mut arrivals).unwrap();
    arrivals
}

/// Every unit between the bounds.
pub(super) fn all(queues: &ConsumeQueues, topic: &str, queue: u32) -> Vec<Unit> {
    let (mut at, next) = queues.bounds(topic, queue).unwrap();
    let mut units = Vec::new();
    while at < next {
        let some = queues.units(topic, queue, at, 1000).unwrap();
        assert!(!some.is_empty());
        at += some.len() as u64;
        units.extend(some);
    }
    units
}

pub(super) fn counters(entries: &[(&str, u32, u64)]) -> QueueCounters {
    let mut counters = QueueCounters::new();
    entries.iter().for_each(|(topic, queue, next)| counters.set(topic, *queue, *next));
    counters
}

#[test]
fn what_was_applied_is_read_with_its_place_size_and_tags() {
    let queues = empty(&disk());
    let mut maker = Maker::default();
    let first = maker.record(&[("a", 0), ("%RETRY%g", 1), ("a", 0)]);
    let arrivals = apply(&queues, &first);
    let seen: Vec<_> = arrivals.iter().map(|a| (&*a.topic, a.queue, a.offset, a.tags_code)).collect();
    assert_eq!(seen, [("a", 0, 0, TAG_A), ("%RETRY%g", 1, 0, TAG_A), ("a", 0, 1, TAG_A)]);
    let second = maker.record(&[("a", 0)]);
    apply(&queues, &second);
    let units = queues.units("a", 0, 0, 10).unwrap();
    for unit in &units {
        let record = if unit.position < second.position() { &first } else { &second };
        let at = (unit.position - record.position()) as usize;
        let view = MessageView::parse(&record.frame()[at..]).unwrap();
        assert_eq!((view.topic(), view.total_size()), ("a", unit.size as usize));
    }
    assert_eq!((units.len(), queues.units("a", 0, 1, 1).unwrap()), (3, vec![units[1]]));
    assert_eq!(queues.units("a", 0, 3, 10).unwrap(), []);
    assert_eq!(queues.units("none", 0, 0, 10).unwrap(), []);
    assert_eq!((queues.bounds("a", 0), queues.bounds("a", 1)), (Some((0, 3)), None));
    assert_eq!(queues.counters(), maker.counters);
}

#[test]
fn records_that_hold_no_messages_change_nothing() {
    let queues = empty(&disk());
    let draft = Draft::with_payload(RecordKind::Command, b"no message");
    let record = draft.seal(EntryId { term: 1, index: 1 }, 0, 0).unwrap();
    assert_eq!(apply(&queues, &record), []);
    assert!(queues.counters().is_empty());
}

#[test]
fn many_messages_take_few_writes() {
    let disk = disk();
    let queues = empty(&disk);
    let mut maker = Maker::default();
    let names: Vec<(String, u32)> = (0..1000).map(|i| (format!("t{}", i % 10), i / 10 % 4)).collect();
    let names: Vec<(&str, u32)> = names.iter().map(|(topic, queue)| (topic.as_str(), *queue)).collect();
    let before = disk.ops();
    apply(&queues, &maker.record(&names));
    assert_eq!(disk.ops(), before, "25 units in each of 40 queues stay in memory");
    queues.sync().unwrap();
    let writes = disk.history().iter().filter(|op| format!("{op:?}").starts_with("Write")).count();
    assert_eq!(writes, 40);
}

#[test]
fn memory_and_file_join_without_a_gap_at_every_length() {
    let disk = disk();
    let queues = empty(&disk);
    let mut maker = Maker::default();
    let mut expected = Vec::new();
    for step in 0..700usize {
        let record = maker.record(&[("a", 0)]);
        apply(&queues, &record);
        let (position, size) = (record.messages_position(), record.messages().len() as u32);
        expected.push(Unit { position, size, tags_code: TAG_A });
        if step % 97 == 0 {
            queues.sync().unwrap();
        }
        let from = step.saturating_sub(300);
        assert_eq!(queues.units("a", 0, from as u64, 1000).unwrap(), expected[from..], "after {step}");
    }
    assert_eq!(all(&queues, "a", 0), expected);
}

#[test]
fn a_queue_goes_on_in_the_next_file() {
    let disk = disk();
    let start = counters(&[("a", 2, UNITS_PER_FILE - 3)]);
    let queues = open(&disk, &start, &start).unwrap();
    let mut maker = Maker::at(&start);
    for _ in 0..250 {
        apply(&queues, &maker.record(&[("a", 2)]));
    }
    let expected = all(&queues, "a", 2);
    queues.sync().unwrap();
    let files = disk.list(&dir().join("consumequeue/a/2")).unwrap();
    let names: Vec<_> = files.iter().map(|path| path.file_name().unwrap().to_str().unwrap()).collect();
    assert_eq!(names, ["00000000000000000000", "00000000000006000000"]);
    let disk = disk.crash(&mut LoseAll);
    let queues = open(&disk, &maker.counters, &start).unwrap();
    assert_eq!((all(&queues, "a", 2), expected.len()), (expected, 250));
    // Retention past the first file removes it.
    queues.trim(&counters(&[("a", 2, UNITS_PER_FILE + 5), ("other", 0, 9)])).unwrap();
    assert_eq!(disk.list(&dir().join("consumequeue/a/2")).unwrap().len(), 1);
    assert_eq!(queues.bounds("a", 2), Some((UNITS_PER_FILE + 5, UNITS_PER_FILE + 247)));
    let gone = queues.units("a", 2, UNITS_PER_FILE, 1).unwrap_err();
    assert!(matches!(gone, QueuesError::Trimmed { min: 300_005, .. }), "{gone}");
}

#[test]
fn i1_an_offset_that_is_not_the_next_is_refused() {
    let queues = empty(&disk());
    let mut maker = Maker::at(&counters(&[("a", 0, 1)]));
    let error = queues.apply(&maker.record(&[("a", 0)]), &mut Vec::new()).unwrap_err();
    assert!(error.to_string().starts_with("queues.I1: topic a queue 0 is at offset 0, "), "{error}");
}

#[test]
fn i2_replay_is_skipped_when_equal_and_refused_when_not() {
    let disk = disk();
    let queues = empty(&disk);
    let mut maker = Maker::default();
    let records: Vec<_> = (0..500).map(|_| maker.record(&[("a", 0), ("b", 0)])).collect();
    records.iter().for_each(|record| drop(apply(&queues, record)));
    // Some of them damaged meanwhile.
    let path = dir().join("consumequeue/a/0/00000000000000000000");
    let file = disk.open(&path, OpenMode::ReadWrite).unwrap();
    file.write_all_at(&[std::io::IoSlice::new(&[7; 100])], 70).unwrap();
    for record in &records {
        assert_eq!(apply(&queues, record), []);
    }
    assert_eq!((queues.bounds("a", 0), all(&queues, "b", 0).len()), (Some((0, 500)), 500));
    let damaged: Vec<u64> = queues.damages().iter().map(|place| place.offset).collect();
    assert_eq!(damaged, (3..9).collect::<Vec<_>>(), "queues.I5: noted, to be found again in the log");
    let mut other = Maker { position: 1 << 30, ..Maker::default() };
    let error = queues.apply(&other.record(&[("a", 0)]), &mut Vec::new()).unwrap_err();
    assert!(error.to_string().starts_with("queues.I2: "), "{error}");
}

#[test]
fn a_message_stamped_with_another_position_or_with_a_wild_topic_is_refused() {
    let queues = empty(&disk());
    let mut maker = Maker::default();
    let error = queues.apply(&maker.record(&[("../x", 0)]), &mut Vec::new()).unwrap_err();
    assert!(error.to_string().contains("name of a directory"), "{error}");
    let record = maker.record(&[("a", 0)]);
    let moved = Draft::with_payload(RecordKind::Messages, record.messages());
    let moved = moved.seal(EntryId { term: 1, index: 2 }, 1, 0).unwrap();
    let error = queues.apply(&moved, &mut Vec::new()).unwrap_err();
    assert!(error.to_string().contains("another position"), "{error}");
}

#[test]
fn search_finds_the_first_that_is_not_less() {
    let queues = empty(&disk());
    let mut maker = Maker::default();
    for _ in 0..300 {
        apply(&queues, &maker.record(&[("a", 0)]));
    }
    let units = all(&queues, "a", 0);
    for (offset, unit) in units.iter().enumerate() {
        let found = queues.search("a", 0, |one| one.position.cmp(&unit.position)).unwrap();
        assert_eq!(found, Some(offset as u64));
    }
    assert_eq!(queues.search("a", 0, |_| Ordering::Less).unwrap(), Some(300));
    assert_eq!(queues.search("a", 0, |_| Ordering::Greater).unwrap(), Some(0));
    assert_eq!(queues.search("none", 0, |_| Ordering::Equal).unwrap(), None);
}

#[test]
fn opening_cuts_to_the_checkpoint_and_removes_what_it_does_not_know() {
    let disk = disk();
    let queues = empty(&disk);
    let mut maker = Maker::default();
    apply(&queues, &maker.record(&[("a", 0), ("a", 0), ("b", 1)]));
    let (at, checkpoint) = (maker.counters.clone(), maker.clone());
    apply(&queues, &maker.record(&[("a", 0), ("a", 7), ("c", 0)]));
    queues.sync().unwrap();
    drop(queues);
    let root = dir().join("consumequeue");
    let stray = |name: &str| disk.open(&root.join(name), OpenMode::Create).unwrap();
    drop((stray("file"), stray("a/file"), stray("a/0/file"), stray("b/01")));
    let queues = open(&disk, &at, &QueueCounters::new()).unwrap();
    assert_eq!(queues.counters(), at);
    let left: Vec<_> = disk.dump().into_iter().filter_map(|(path, file)| Some((path, file?.len()))).collect();
    let file = |name: &str, bytes: usize| (root.join(name).join("00000000000000000000"), bytes);
    assert_eq!(left, [file("a/0", 40), file("b/1", 20)]);
    assert!(!disk.exists(&root.join("c")).unwrap());
    let mut again = checkpoint;
    assert_eq!(apply(&queues, &again.record(&[("a", 0), ("a", 7), ("c", 0)])).len(), 3);
}

#[test]
fn files_short_of_the_checkpoint_are_to_be_rebuilt_and_that_always_opens() {
    let disk = disk();
    let queues = empty(&disk);
    let mut maker = Maker::default();
    apply(&queues, &maker.record(&[("a", 0), ("a", 0)]));
    queues.sync().unwrap();
    let path = dir().join("consumequeue/a/0/00000000000000000000");
    let none = QueueCounters::new();
    let short = open(&disk, &counters(&[("a", 0, 3)]), &none).err().unwrap();
    assert!(matches!(&short, QueuesError::Rebuild { path: at, .. } if *at == path), "{short}");
    let missing = open(&disk, &counters(&[("a", 0, 1), ("b", 0, 1)]), &none).err().unwrap();
    assert!(matches!(&missing, QueuesError::Rebuild { .. }), "{missing}");
    // A hole is as good as nothing.
    disk.open(&path, OpenMode::ReadWrite).unwrap().set_len(60).unwrap();
    let hole = open(&disk, &counters(&[("a", 0, 3)]), &none).err().unwrap();
    assert!(hole.to_string().contains("offset 2 is not there"), "{hole}");
    let base = counters(&[("a", 0, 1)]);
    let rebuilt = open(&disk, &base, &base).unwrap();
    assert_eq!((rebuilt.bounds("a", 0), rebuilt.units("a", 0, 1, 9).unwrap()), (Some((1, 1)), vec![]));
}

#[test]
fn a_damaged_unit_is_an_error_and_not_a_message() {
    let disk = disk();
    let queues = empty(&disk);
    let mut maker = Maker::default();
    for _ in 0..500 {
        apply(&queues, &maker.record(&[("a", 0)]));
    }
    queues.sync().unwrap();
    let path = dir().join("consumequeue/a/0/00000000000000000000");
    let file = disk.open(&path, OpenMode::ReadWrite).unwrap();
    file.write_all_at(&[std::io::IoSlice::new(&[0; 20])], 60).unwrap();
    assert_eq!(queues.units("a", 0, 0, 10).unwrap().len(), 3, "those before it are whole");
    let error = queues.units("a", 0, 3, 10).unwrap_err();
    assert!(matches!(error, QueuesError::Damaged { offset: 3, .. }), "queues.I5: {error}");
    assert_eq!(queues.damages(), [UnitPlace { topic: "a".into(), queue: 0, offset: 3 }]);
}

#[test]
fn after_a_reset_the_queues_are_empty_and_begin_at_the_snapshot() {
    let disk = disk();
    let queues = empty(&disk);
    let mut maker = Maker::default();
    apply(&queues, &maker.record(&[("a", 0), ("b", 0)]));
    queues.sync().unwrap();
    let at = counters(&[("a", 0, 100), ("c", 3, 5)]);
    queues.reset(&at).unwrap();
    assert_eq!((queues.counters(), queues.bounds("a", 0)), (at.clone(), Some((100, 100))));
    let mut maker = Maker::at(&at);
    assert_eq!(apply(&queues, &maker.record(&[("a", 0), ("c", 3)])).len(), 2);
    queues.sync().unwrap();
    let queues = open(&disk.crash(&mut LoseAll), &maker.counters, &at).unwrap();
    assert_eq!((all(&queues, "a", 0).len(), queues.bounds("c", 3)), (1, Some((5, 6))));
}

#[test]
fn i4_what_was_synced_survives_a_power_cut_at_every_operation() {
    let names = [("a", 0), ("a", 1), ("b", 0)];
    let mut maker = Maker::default();
    let records: Vec<_> = (0..30).map(|i| maker.record(&[names[i % 3]; 24])).collect();
    let mut cut = 0;
    loop {
        let disk = disk();
        disk.cut_power_at(2 + cut);
        let synced = work(&disk, &records);
        for seed in 0..2 {
            let left = disk.crash(&mut SeededChoice::new(cut as u64 * 2 + seed));
            let (count, at) = &synced;
            let queues = open(&left, at, &QueueCounters::new()).unwrap();
            records[*count..].iter().for_each(|record| drop(apply(&queues, record)));
            assert_eq!(queues.counters(), maker.counters, "cut {cut} seed {seed}");
            assert_eq!(all(&queues, "a", 1).len(), 240);
        }
        if !disk.is_off() {
            assert!(cut > 30, "only {cut} operations");
            return;
        }
        cut += 1;
    }
}

/// Applies with a sync now and then; returns how many records the last successful sync covers, and its counters.
fn work(disk: &SimDisk, records: &[Record]) -> (usize, QueueCounters) {
    let none = QueueCounters::new();
    let mut synced = (0, none.clone());
    let Ok(queues) = open(disk, &none, &none) else { return synced };
    for (done, record) in records.iter().enumerate() {
        if queues.apply(record, &mut Vec::new()).is_err() {
            break;
        }
        if done % 7 == 3 && queues.sync().is_ok() {
            synced = (done + 1, queues.counters());
        }
    }
    synced
}

#[test]
fn i4_no_fault_of_the_disk_makes_a_sync_lie() {
    let names = [("a", 0), ("b", 1)];
    let mut maker = Maker::default();
    let records: Vec<_> = (0..30).map(|i| maker.record(&[names[i % 2]; 24])).collect();
    let whole = disk();
    work(&whole, &records);
    for fault in [Fault::Eio, Fault::Enospc, Fault::ShortWrite, Fault::FailSync] {
        for op in 2..whole.ops() {
            let disk = disk();
            disk.fail_at(op, fault);
            let (count, at) = work(&disk, &records);
            if disk.faults_struck() == 0 {
                continue;
            }
            for left in [disk.crash(&mut LoseAll), disk.kill().crash(&mut SeededChoice::new(op as u64))] {
                let queues = open(&left, &at, &QueueCounters::new()).unwrap();
                records[count..].iter().for_each(|record| drop(apply(&queues, record)));
                assert_eq!(queues.counters(), maker.counters, "{fault:?} at {op}");
                assert_eq!(all(&queues, "b", 1).len(), 360, "{fault:?} at {op}");
            }
        }
    }
}

#[test]
fn a_failed_sync_stops_the_queues() {
    let disk = disk();
    let queues = empty(&disk);
    let mut maker = Maker::default();
    apply(&queues, &maker.record(&[("a", 0)]));
    for op in disk.ops()..disk.ops() + 20 {
        disk.fail_at(op, Fault::FailSync);
    }
    assert!(matches!(queues.sync().unwrap_err(), QueuesError::Io { doing: "sync", .. }));
    assert!(matches!(queues.sync().unwrap_err(), QueuesError::Poisoned(_)));
    let error = queues.apply(&maker.record(&[("a", 0)]), &mut Vec::new()).unwrap_err();
    assert!(error.to_string().contains("cannot sync"), "{error}");
}

#[test]
fn readers_see_every_unit_while_it_is_applied() {
    let home = tempfile::tempdir().unwrap();
    let none = QueueCounters::new();
    let queues = ConsumeQueues::open(Arc::new(RealDisk), home.path(), &none, &none).unwrap();
    let mut maker = Maker::default();
    let records: Vec<_> = (0..300).map(|_| maker.record(&[("a", 0); 20])).collect();
    let done = AtomicBool::new(false);
    std::thread::scope(|scope| {
        let reader = scope.spawn(|| {
            let mut units: Vec<Unit> = Vec::new();
            loop {
                let last = done.load(Relaxed);
                let some = queues.units("a", 0, units.len() as u64, 64).unwrap();
                if last && some.is_empty() {
                    return units;
                }
                units.extend(some);
            }
        });
        for (number, record) in records.iter().enumerate() {
            apply(&queues, record);
            if number % 50 == 0 {
                queues.sync().unwrap();
            }
        }
        done.store(true, Relaxed);
        let units = reader.join().unwrap();
        assert_eq!(units.len(), 6000);
        assert!(units.windows(2).all(|pair| pair[0].position < pair[1].position));
    });
}
