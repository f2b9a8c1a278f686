//! The filler behind a segment's last record, when the device loses or changes it (damage.I6).

use std::ops::Range;

use super::*;
use crate::disk::sim::{Fault, SimDisk};

const PAGE: u64 = 4096;
const WIDE: u64 = 8 * PAGE;
const DIR: &str = "/";

fn wide() -> LogConfig {
    LogConfig { segment_bytes: WIDE, cache_bytes: 0, sync: true }
}

fn path(base: u64) -> PathBuf {
    segment::path_of(Path::new("/commitlog"), base)
}

fn start(disk: &SimDisk) -> CommitLog {
    CommitLog::open(Arc::new(disk.clone()), Path::new(DIR), wide(), StampBase::default()).unwrap()
}

/// Two records, the second of which did not fit behind the first; and the filler between them.
fn filled() -> (SimDisk, CommitLog, Vec<Record>, Range<u64>) {
    let disk = SimDisk::new();
    let log = start(&disk);
    let records: Vec<Record> = [9000, 30_000, 300]
        .into_iter()
        .zip(1..)
        .map(|(bytes, index)| log.append(id(index), command(bytes)).unwrap())
        .collect();
    flush(&log);
    drop(log);
    assert_eq!(records[1].position(), WIDE);
    let filler = records[0].end()..WIDE;
    (disk.clone(), start(&disk), records, filler)
}

/// Waits for what the scrub has asked the writer for.
fn scrub(log: &CommitLog) {
    let scrubbed = log.scrub(None, 3, u64::MAX).unwrap();
    assert_eq!((scrubbed.next, scrubbed.damaged), (None, false));
    flush(log);
}

/// Found by the simulation, seed 1025: no record was touched, so nobody wrote the sector again.
#[test]
fn damage_i6_a_lost_page_of_filler_was_never_written_again() {
    for in_parts in [false, true] {
        let (disk, log, _, filler) = filled();
        if in_parts {
            disk.bring_back_in_parts();
        }
        let first = filler.start.next_multiple_of(PAGE);
        for page in [first, first + PAGE, first + 3 * PAGE] {
            disk.lose(&path(0), page..page + PAGE).unwrap();
        }
        scrub(&log);
        assert_eq!(disk.lost(), [], "damage.I6");
        assert_eq!((log.damages(), log.state().poisoned), (vec![], None));
        drop(log);
        assert_eq!(indexes(&start(&disk).read(1, 4, usize::MAX).unwrap()), [1, 2, 3]);
    }
}

#[test]
fn damage_i6_filler_that_is_not_zero_is_zeroed_again() {
    let (disk, log, records, filler) = filled();
    for at in [filler.start, filler.start + PAGE, WIDE - 1] {
        disk.flip_bit(&path(0), at, 3).unwrap();
    }
    scrub(&log);
    let stored = disk.dump().remove(&path(0)).flatten().unwrap();
    assert!(stored[filler.start as usize..].iter().all(|byte| *byte == 0), "damage.I6");
    assert_eq!(stored[..filler.start as usize], records[0].frame()[..]);
}

/// The page that a record ends in comes back with the record.
#[test]
fn damage_i6_a_page_that_a_record_has_a_part_in_is_repaired_with_the_record() {
    let (disk, log, records, filler) = filled();
    let shared = filler.start - filler.start % PAGE;
    disk.lose(&path(0), shared..shared + PAGE).unwrap();
    assert!(log.scrub(None, 3, u64::MAX).unwrap().damaged);
    flush(&log);
    assert_eq!(disk.lost().len(), 1, "its record is not known here");
    wait(|done| log.mend(records[0].clone(), done)).unwrap();
    assert_eq!(disk.lost(), []);
    scrub(&log);
}

#[test]
fn damage_i6_a_disk_that_does_not_take_the_filler_poisons_nothing() {
    for fault in [Fault::Eio, Fault::FailSync] {
        let (disk, log, _, filler) = filled();
        let page = filler.start.next_multiple_of(PAGE);
        disk.lose(&path(0), page..page + PAGE).unwrap();
        disk.fail_on(&path(0), 0, fault);
        scrub(&log);
        assert_eq!((disk.faults_struck(), log.state().poisoned.clone()), (1, None), "damage.I3");
        scrub(&log);
        assert_eq!(disk.lost(), []);
    }
}

/// What lay behind the filler was truncated before the writer came to it: a record is there now.
#[test]
fn damage_i6_filler_that_became_a_records_place_is_left_alone() {
    let (disk, log, _, filler) = filled();
    let page = filler.start.next_multiple_of(PAGE);
    disk.flip_bit(&path(0), page, 1).unwrap();
    disk.hang_syncs(true);
    // The writer waits for the disk while the scrub, the truncation and the next record come.
    log.append(id(4), command(100)).unwrap();
    log.submit(Box::new(|_| {}));
    log.scrub(None, 3, u64::MAX).unwrap();
    log.truncate_after(Some(1), Box::new(|_| {}));
    let next = log.append(id(2), command(9000)).unwrap();
    assert_eq!(next.position(), filler.start);
    disk.hang_syncs(false);
    flush(&log);
    assert_eq!(log.read(2, 3, 1).unwrap()[0].frame(), next.frame());
    drop(log);
    let stored = disk.dump().remove(&path(0)).flatten().unwrap();
    assert_eq!(stored[filler.start as usize..][..next.frame().len()], next.frame()[..], "damage.I6");
}

/// The start wrote all again that lies behind the mark, and could not read it.
#[test]
fn damage_i6_a_lost_page_of_filler_kept_a_log_from_opening() {
    let (disk, log, _, filler) = filled();
    drop(log);
    let page = filler.start.next_multiple_of(PAGE);
    disk.lose(&path(0), page..page + PAGE).unwrap();
    disk.remove(Path::new("/durable")).unwrap();
    Mark::open(&disk, Path::new("/durable"), &Start::default()).unwrap().put(0, 0).unwrap();
    let log = start(&disk);
    assert_eq!(indexes(&log.read(1, 4, usize::MAX).unwrap()), [1, 2, 3], "damage.I6");
    scrub(&log);
    assert_eq!(disk.lost(), []);
}
