//! Consume queues on a disk that has lost sectors of them: they are found again in the log, and nothing stops (queues.I5).

use super::tests::{Maker, all, apply, dir, disk, empty, open};
use super::*;
use crate::disk::sim::{Fault, LoseAll, SimDisk};
use crate::log::{CommitLog, LogConfig, StampBase};
use crate::record::{Draft, EntryId, RecordKind};
use crate::sample::message;

const PAGE: u64 = 4096;
const COUNT: u64 = 900;

fn file() -> PathBuf {
    dir().join("consumequeue/t/0/00000000000000000000")
}

/// A log of one queue, and that queue with hardly a unit in memory.
fn filled() -> (SimDisk, CommitLog, ConsumeQueues, Vec<Unit>) {
    let disk = disk();
    let config = LogConfig { segment_bytes: 64 << 10, cache_bytes: 0, sync: true };
    let log = CommitLog::open(Arc::new(disk.clone()), dir(), config, StampBase::default()).unwrap();
    let queues = empty(&disk);
    for index in 1..=COUNT {
        let mut draft = Draft::new(RecordKind::Messages, 0);
        draft.payload_mut().extend_from_slice(&message("t", 0, b"hello"));
        draft.messages = 1;
        let record = log.append(EntryId { term: 1, index }, draft).unwrap();
        apply(&queues, &record);
    }
    queues.sync().unwrap();
    let expected = all(&queues, "t", 0);
    // Its workers would take the faults that are meant for the queues.
    log.close();
    let queues = open(&disk, &queues.counters(), &QueueCounters::new()).unwrap();
    (disk, log, queues, expected)
}

fn mend(log: &CommitLog, queues: &ConsumeQueues) -> Result<(), MendError> {
    while let Some(place) = queues.damages().first() {
        let Some(mut mending) = queues.begin_mend(log, place)? else { continue };
        while !mending.step(log, COUNT, 64 << 10)? {}
        queues.mend(mending)?;
    }
    Ok(())
}

#[test]
fn units_of_a_lost_page_are_damaged_those_beside_it_are_given_and_the_log_brings_them_back() {
    for page in [0, 1, 4] {
        let (disk, log, queues, expected) = filled();
        disk.lose(&file(), page * PAGE..(page + 1) * PAGE).unwrap();
        // Of the unit across the edge only zeroes may be lost.
        let first = (page * PAGE).div_ceil(UNIT_BYTES as u64);
        if first > 0 {
            let before = queues.units("t", 0, 0, 2000).unwrap();
            assert!(before == expected[..before.len()] && before.len() as u64 + 1 >= first, "queues.I5");
        }
        let read = queues.units("t", 0, first, 10);
        assert!(matches!(read, Err(QueuesError::Damaged { .. })), "{read:?}");
        mend(&log, &queues).unwrap();
        assert_eq!(all(&queues, "t", 0), expected);
        assert_eq!(queues.damages(), []);
        assert_eq!(queues.scrub(None, u64::MAX).next, None);
        assert_eq!(queues.damages(), [], "page {page}: on the disk, too");
        // Durable when it was mended.
        let again = open(&disk.crash(&mut LoseAll), &queues.counters(), &QueueCounters::new()).unwrap();
        assert_eq!(all(&again, "t", 0), expected);
    }
}

#[test]
fn a_repair_that_the_disk_does_not_take_leaves_the_queues_going() {
    for after in 0..5 {
        let (disk, log, queues, expected) = filled();
        disk.lose(&file(), PAGE..2 * PAGE).unwrap();
        queues.units("t", 0, 300, 10).unwrap_err();
        disk.fail_at(disk.ops() + after, Fault::Eio);
        let mended = mend(&log, &queues);
        assert_eq!(disk.faults_struck(), 1, "{after}");
        assert!(mended.is_err());
        let mut maker = Maker::at(&queues.counters());
        apply(&queues, &maker.record(&[("t", 0)]));
        queues.sync().unwrap();
        mend(&log, &queues).unwrap();
        assert_eq!(all(&queues, "t", 0)[..COUNT as usize], expected);
    }
}

/// The page that the newest units come to is read when it is written in part.
#[test]
fn units_are_added_behind_a_lost_page() {
    let (disk, log, queues, expected) = filled();
    let last = (COUNT * UNIT_BYTES as u64) / PAGE * PAGE;
    disk.lose(&file(), last..last + PAGE).unwrap();
    let mut maker = Maker::at(&queues.counters());
    for _ in 0..600 {
        apply(&queues, &maker.record(&[("t", 0)]));
    }
    queues.sync().unwrap();
    queues.units("t", 0, COUNT - 1, 1).unwrap_err();
    mend(&log, &queues).unwrap();
    let units = all(&queues, "t", 0);
    assert_eq!((units.len() as u64, &units[..COUNT as usize]), (COUNT + 600, &expected[..]));
}

/// What is applied again after a start is compared with what there is.
#[test]
fn a_replay_over_a_lost_page_goes_on() {
    let (disk, log, queues, expected) = filled();
    disk.lose(&file(), 0..PAGE).unwrap();
    for record in log.read(1, COUNT + 1, usize::MAX).unwrap() {
        assert_eq!(apply(&queues, &record), []);
    }
    assert!(!queues.damages().is_empty());
    mend(&log, &queues).unwrap();
    assert_eq!(all(&queues, "t", 0), expected);
}
