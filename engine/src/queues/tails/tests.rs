//! Tails are what a sync did not write elsewhere, at every place where power may fail.

use std::sync::Arc;

use proptest::prelude::*;

use super::super::applier::count_written;
use super::super::queue::Queue;
use super::super::tests::{Maker, all, apply, counters, dir, disk};
use super::super::{ConsumeQueues, Unit};
use super::*;
use crate::counters::QueueCounters;
use crate::disk::sim::{Fault, LoseAll, SeededChoice, SimDisk};
use crate::record::Record;

/// So few that a handful of queues has tails.
const WRITTEN: usize = 2;
const QUEUES: u32 = 7;

fn open(disk: &SimDisk, at: &QueueCounters, min: &QueueCounters) -> Result<ConsumeQueues, QueuesError> {
    ConsumeQueues::open_with(Arc::new(disk.clone()), dir(), at, min, WRITTEN)
}

fn none() -> QueueCounters {
    QueueCounters::new()
}

fn path() -> std::path::PathBuf {
    dir().join("consumequeue.tails")
}

fn file(queue: u32) -> std::path::PathBuf {
    dir().join(format!("consumequeue/t/{queue}/00000000000000000000"))
}

/// Records that reach queues at different rates: some fill pages, some rest.
fn records(maker: &mut Maker, count: u32) -> Vec<Record> {
    let queue = |at: u32| if at.is_multiple_of(3) { 0 } else { at * at % QUEUES };
    (0..count).map(|at| maker.record(&[("t", queue(at)); 40])).collect()
}

/// A message for each queue.
fn one_each() -> Vec<(&'static str, u32)> {
    (0..QUEUES).map(|queue| ("t", queue)).collect()
}

/// Every unit of every queue.
fn units(queues: &ConsumeQueues) -> Vec<Vec<Unit>> {
    (0..QUEUES)
        .filter(|queue| queues.bounds("t", *queue).is_some())
        .map(|queue| all(queues, "t", queue))
        .collect()
}

fn syncs(disk: &SimDisk) -> usize {
    disk.history().iter().filter(|op| format!("{op:?}").starts_with("Sync")).count()
}

#[test]
fn golden_bytes() {
    let mut tails = Tails::new();
    tails.add("ab", 1, 258, &[7; 2 * UNIT_BYTES]);
    let disk = disk();
    tails.save(&disk, &path()).unwrap();
    let mut golden = vec![b'F', b'o', b'Q', b'T', 1, 0, 0, 0, 60, 0, 0, 0, 0, 0, 0, 0];
    golden.extend([0; 8]);
    golden.extend([2, 0, b'a', b'b', 1, 0, 0, 0, 2, 1, 0, 0, 0, 0, 0, 0, 2, 0, 0, 0]);
    golden.extend([7; 40]);
    let saved = disk.dump().into_iter().find_map(|(at, file)| file.filter(|_| at == path())).unwrap();
    golden[16..24].copy_from_slice(&[0x9a, 0xa6, 0x43, 0xc5, 0x92, 0x6a, 0x1c, 0x5b]);
    assert_eq!(saved[..], golden, "{saved:02x?}");
    let found = Found::load(&disk, &path());
    assert_eq!(found, Found([(("ab".to_owned(), 1), (258, vec![7; 40]))].into()));
}

proptest! {
    #[test]
    fn arbitrary_bodies_are_read_without_panic(body: Vec<u8>, topic in "[a-c]{0,3}", count in 0u32..4) {
        let mut tails = Tails::new();
        tails.add(&topic, 3, u64::MAX, &vec![1; count as usize * UNIT_BYTES]);
        tails.file.extend(&body);
        ENVELOPE.seal(&mut tails.file);
        if let Ok(mut found) = Found::decode(&tails.file) {
            found.take(&topic, 3, 0, u64::MAX);
        }
        tails.file.splice(ENVELOPE_BYTES.., body);
        ENVELOPE.seal(&mut tails.file);
        drop(Found::decode(&tails.file));
    }
}

#[test]
fn every_sync_wrote_each_of_a_thousand_queues() {
    let disk = disk();
    let queues = super::super::tests::empty(&disk);
    let mut maker = Maker::default();
    let wide: Vec<(&str, u32)> = (0..1000).map(|queue| ("t", queue)).collect();
    // Their names are made durable once.
    for _ in 0..5 {
        apply(&queues, &maker.record(&wide));
        queues.sync().unwrap();
    }
    apply(&queues, &maker.record(&wide));
    let before = syncs(&disk);
    queues.sync().unwrap();
    let synced = syncs(&disk) - before;
    // The tails' file and its directory besides.
    assert!(synced <= QUEUES_WRITTEN + 2, "{synced} syncs");
    let left = disk.crash(&mut LoseAll);
    let queues = super::super::tests::open(&left, &maker.counters, &none()).unwrap();
    assert!((0..1000).all(|queue| all(&queues, "t", queue).len() == 6));
}

#[test]
fn a_queue_at_rest_comes_to_its_file_and_then_there_are_no_tails() {
    let disk = disk();
    let queues = open(&disk, &none(), &none()).unwrap();
    let mut maker = Maker::default();
    apply(&queues, &maker.record(&one_each()));
    let mut left = Vec::new();
    for _ in 0..5 {
        queues.sync().unwrap();
        left.push(Found::load(&disk, &path()).0.len());
    }
    assert_eq!(left, [5, 3, 1, 0, 0]);
    assert!(!disk.exists(&path()).unwrap());
}

#[test]
fn what_is_saved_is_bounded_and_the_oldest_are_written_first() {
    let queue = |number: u32, units: u64| {
        let queue = Arc::new(Queue::new("t".into(), number, 0, dir().join("q"), 0, 0));
        queue.restore(vec![0; units as usize * UNIT_BYTES]);
        queue
    };
    let mib = (1 << 20) / UNIT_BYTES as u64;
    let due: Vec<_> = (0..40).map(|number| queue(number, mib)).collect();
    // A MiB each, and what names it: seven of them fit.
    assert_eq!(count_written(&due, 2), 33);
    assert_eq!(count_written(&due[..7], 2), 2);
    assert_eq!(count_written(&due[..1], 2), 1);
    assert_eq!(count_written(&[], 2), 0);
    assert_eq!(count_written(&[queue(0, 40 * mib)], 0), 1);
}

#[test]
fn tails_of_before_and_behind_the_checkpoint_are_told_from_those_that_fit() {
    let found = || Found([(("t".to_owned(), 0), (10, (0..100).collect::<Vec<u8>>()))].into());
    assert_eq!(found().take("t", 0, 0, 13), Some((10, (0..60).collect())));
    assert_eq!(found().take("t", 0, 12, 15), Some((10, (0..100).collect())), "some are gone by retention");
    assert_eq!(found().take("t", 0, 0, 10), Some((10, vec![])));
    for (min, next) in [(0, 16), (0, 9), (13, 13), (0, u64::MAX)] {
        assert_eq!(found().take("t", 0, min, next), None, "{min} to {next}");
    }
    assert_eq!(found().take("t", 1, 0, 13), None);
}

#[test]
fn tails_i1_every_power_cut_and_the_next_leave_all_that_was_synced() {
    let mut maker = Maker::default();
    let records = records(&mut maker, 36);
    let whole = {
        let queues = super::super::tests::empty(&disk());
        records.iter().for_each(|record| drop(apply(&queues, record)));
        units(&queues)
    };
    let mut cut = 0;
    loop {
        let disk = disk();
        disk.cut_power_at(2 + cut);
        let first = live(&disk, &records, start());
        for seed in 0..4 {
            // Power may fail between a sync and the checkpoint that counts on it: then the one before counts.
            let counts = |[before, last]: &Synced| if seed % 2 == 0 { last.clone() } else { before.clone() };
            // Another life, which ends as badly, or well.
            let again = disk.crash(&mut SeededChoice::new(cut as u64 * 3 + seed));
            again.cut_power_at(again.ops() + cut / (1 + seed as usize));
            let second = live(&again, &records, counts(&first));
            let left = again.crash(&mut SeededChoice::new(cut as u64 * 7 + seed));
            let (count, at) = counts(&second);
            let queues = open(&left, &at, &none()).unwrap();
            records[count..].iter().for_each(|record| drop(apply(&queues, record)));
            assert_eq!(units(&queues), whole, "cut {cut} seed {seed}");
        }
        if !disk.is_off() {
            assert!(cut > 60, "only {cut} operations");
            return;
        }
        cut += 1;
    }
}

#[test]
fn tails_i1_no_fault_of_the_disk_makes_a_sync_lie() {
    let mut maker = Maker::default();
    let records = records(&mut maker, 36);
    let sound = disk();
    live(&sound, &records, start());
    for fault in [Fault::Eio, Fault::Enospc, Fault::ShortWrite, Fault::FailSync] {
        for op in 2..sound.ops() {
            let disk = disk();
            disk.fail_at(op, fault);
            let [_, (count, at)] = live(&disk, &records, start());
            for left in [disk.crash(&mut LoseAll), disk.kill().crash(&mut SeededChoice::new(op as u64))] {
                let queues = open(&left, &at, &none()).unwrap();
                records[count..].iter().for_each(|record| drop(apply(&queues, record)));
                assert_eq!(queues.counters(), maker.counters, "{fault:?} at {op}");
            }
        }
    }
}

/// How many records the last sync but one and the last one cover, and the counters then.
type Synced = [(usize, QueueCounters); 2];

fn start() -> (usize, QueueCounters) {
    (0, none())
}

/// Opens as of a sync and applies with a sync now and then.
fn live(disk: &SimDisk, records: &[Record], from: (usize, QueueCounters)) -> Synced {
    let mut synced = [from.clone(), from];
    let Ok(queues) = open(disk, &synced[1].1, &none()) else { return synced };
    for (done, record) in records.iter().enumerate().skip(synced[1].0) {
        if queues.apply(record, &mut Vec::new()).is_err() {
            break;
        }
        if done % 5 == 3 && queues.sync().is_ok() {
            synced = [synced[1].clone(), (done + 1, queues.counters())];
        }
    }
    synced
}

#[test]
fn retention_may_overtake_what_a_file_holds() {
    let disk = disk();
    let queues = open(&disk, &none(), &none()).unwrap();
    let mut maker = Maker::default();
    let wide: Vec<(&str, u32)> = (0..QUEUES).flat_map(|queue| [("t", queue); 5]).collect();
    apply(&queues, &maker.record(&wide));
    queues.sync().unwrap();
    let expected = units(&queues);
    let mut min = none();
    (0..QUEUES).for_each(|queue| min.set("t", queue, 3));
    queues.trim(&min).unwrap();
    drop(queues);
    let queues = open(&disk.crash(&mut LoseAll), &maker.counters, &min).unwrap();
    let left: Vec<Vec<Unit>> = expected.iter().map(|units| units[3..].to_vec()).collect();
    assert_eq!(units(&queues), left);
    apply(&queues, &maker.record(&wide));
    (0..5).for_each(|_| queues.sync().unwrap());
    assert!((0..QUEUES).all(|queue| all(&queues, "t", queue).len() == 7));
}

#[test]
fn damaged_tails_are_none_and_their_queues_are_rebuilt() {
    let disk = disk();
    let queues = open(&disk, &none(), &none()).unwrap();
    let mut maker = Maker::default();
    let record = maker.record(&one_each());
    apply(&queues, &record);
    queues.sync().unwrap();
    drop(queues);
    let length = disk.open(&path(), OpenMode::Read).unwrap().len().unwrap();
    for at in 0..length {
        let disk = disk.kill();
        disk.flip_bit(&path(), at, at as u32 % 8).unwrap();
        let error = open(&disk, &maker.counters, &none()).err().unwrap();
        assert!(matches!(error, QueuesError::Rebuild { .. }), "byte {at}: {error}");
        let queues = open(&disk, &none(), &none()).unwrap();
        assert_eq!(apply(&queues, &record).len(), QUEUES as usize);
    }
}

#[test]
fn tails_that_cannot_be_opened_stopped_every_start() {
    let disk = disk();
    // Somebody's directory in its place: a read of it fails, and so does its removal as a file.
    disk.create_dir_all(&path()).unwrap();
    assert!(
        open(&disk, &counters(&[("t", 0, 1)]), &none())
            .is_err_and(|e| matches!(e, QueuesError::Rebuild { .. }))
    );
    open(&disk, &none(), &none()).unwrap();
}

#[test]
fn tails_of_before_a_snapshot_are_not_taken_for_those_behind_it() {
    let disk = disk();
    let queues = open(&disk, &none(), &none()).unwrap();
    let mut maker = Maker::default();
    apply(&queues, &maker.record(&one_each()));
    queues.sync().unwrap();
    let mut at = none();
    (0..QUEUES).for_each(|queue| at.set("t", queue, 50));
    queues.reset(&at).unwrap();
    assert_eq!(units(&queues), vec![vec![]; QUEUES as usize]);
    let mut maker = Maker::at(&at);
    apply(&queues, &maker.record(&one_each()));
    queues.sync().unwrap();
    let queues = open(&disk.crash(&mut LoseAll), &maker.counters, &at).unwrap();
    assert!((0..QUEUES).all(|queue| queues.bounds("t", queue) == Some((50, 51))));
}

#[test]
fn a_full_disk_that_has_no_room_for_tails_is_said_and_outlived() {
    let disk = disk();
    let queues = open(&disk, &none(), &none()).unwrap();
    let mut maker = Maker::default();
    apply(&queues, &maker.record(&one_each()));
    // Room for the files that are written and their directories, and for no more.
    disk.set_capacity(Some(disk.used() + (2 * WRITTEN as u64 + 1) * 4096));
    let error = queues.sync().unwrap_err();
    assert!(matches!(&error, QueuesError::DiskFull { path: at } if *at == path()), "{error}");
    assert!(queues.disk_full());
    disk.set_capacity(None);
    queues.sync().unwrap();
    assert!(queues.retry().unwrap() && !queues.disk_full());
    let queues = open(&disk.crash(&mut LoseAll), &maker.counters, &none()).unwrap();
    assert!((0..QUEUES).all(|queue| all(&queues, "t", queue).len() == 1));
    assert!(!disk.exists(&file(QUEUES - 1)).unwrap(), "the last one is a tail");
}
