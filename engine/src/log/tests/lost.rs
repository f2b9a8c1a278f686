//! Sectors that the device has lost, below a log that is being read (reads.I1, damage.I1 to damage.I3).

use std::collections::BTreeMap;

use super::*;
use crate::disk::sim::{Fault, SimDisk};
use crate::log::mark::Start;

/// A way to read a record.
type Look = fn(&CommitLog, &Record) -> Result<bool, ReadError>;

const DIR: &str = "/";

fn start(disk: &SimDisk) -> CommitLog {
    start_at(disk, StampBase::default())
}

fn start_at(disk: &SimDisk, base: StampBase) -> CommitLog {
    let config = LogConfig { cache_bytes: 0, ..config() };
    CommitLog::open(Arc::new(disk.clone()), Path::new(DIR), config, base).unwrap()
}

/// A log that has none of its records in memory.
fn filled(count: u64, bytes: usize) -> (SimDisk, CommitLog, Vec<Record>) {
    let disk = SimDisk::new();
    let log = start(&disk);
    let records: Vec<Record> =
        (1..=count).map(|index| log.append(id(index), command(bytes)).unwrap()).collect();
    flush(&log);
    drop(log);
    let log = start(&disk);
    (disk, log, records)
}

fn file_of(record: &Record) -> PathBuf {
    segment::path_of(Path::new("/commitlog"), segment::base_of(record.position(), SEGMENT_BYTES))
}

fn lose(disk: &SimDisk, record: &Record) {
    let base = segment::base_of(record.position(), SEGMENT_BYTES);
    disk.lose(&file_of(record), record.position() - base..record.end() - base).unwrap();
}

#[test]
fn every_kind_of_read_of_a_lost_record_says_so_and_goes_on_once_it_is_repaired() {
    let kinds: [Look; 4] = [
        |log, record| {
            let index = record.header.index;
            Ok(log.read(index, index + 1, 1)?[0].frame() == record.frame())
        },
        |log, record| {
            let index = record.header.index;
            Ok(log.read(index, 61, usize::MAX)?.len() as u64 == 61 - index)
        },
        |log, record| Ok(log.bytes(record.position() + 70, 20)? == record.frame()[70..90]),
        |log, record| Ok(log.index_at(record.position() + 70)? == record.header.index),
    ];
    for kind in kinds {
        let (disk, log, records) = filled(60, 150);
        let hit = &records[30];
        lose(&disk, hit);
        let found = kind(&log, hit);
        let (position, index) = (hit.position(), hit.header.index);
        assert_eq!(
            found,
            Err(ReadError::Rot { position, index, reason: crate::record::RecordError::Lost }),
            "reads.I1: it is damage, not the end of the process"
        );
        assert_eq!(log.damages().iter().map(|damage| damage.index).collect::<Vec<_>>(), [index]);
        wait(|done| log.mend(hit.clone(), done)).unwrap();
        assert_eq!(kind(&log, hit), Ok(true));
        assert_eq!(log.damages(), []);
    }
}

#[test]
fn records_beside_a_lost_one_are_read_and_what_is_asked_for_together_ends_before_it() {
    let (disk, log, records) = filled(60, 150);
    lose(&disk, &records[30]);
    for record in &records[20..30] {
        let index = record.header.index;
        assert_eq!(log.read(index, index + 1, 1).unwrap()[0].frame(), record.frame());
        assert_eq!(log.bytes(record.position() + 64, 20).unwrap(), record.frame()[64..84]);
    }
    assert_eq!(indexes(&log.read(25, 61, usize::MAX).unwrap()), (25..31).collect::<Vec<_>>());
    assert_eq!(log.damages().iter().map(|damage| damage.index).collect::<Vec<_>>(), [31]);
}

#[test]
fn parts_of_many_records_are_given_in_their_order_and_the_one_that_cannot_be_read_is_named() {
    let (disk, log, records) = filled(60, 150);
    for index in 61..=70 {
        log.append(id(index), command(150)).unwrap();
    }
    let spans_of = |records: &[Record]| -> Vec<Span> {
        records.iter().map(|record| (record.position() + 64, record.frame().len() - 64)).collect()
    };
    let all = log.read(1, 71, usize::MAX).unwrap();
    let each_third: Vec<Record> = all.iter().step_by(3).cloned().collect();
    for some in [&all[..], &each_third[..], &all[62..], &[]] {
        let expected: Vec<u8> = some.iter().flat_map(|record| record.frame()[64..].to_vec()).collect();
        assert_eq!(log.gather(&spans_of(some)).unwrap().concat(), expected);
    }
    lose(&disk, &records[30]);
    log.inner.shared.verified_cache.forget();
    let failed = log.gather(&spans_of(&all)).unwrap_err();
    assert_eq!(failed.span, 30);
    assert!(matches!(failed.error, ReadError::Rot { index: 31, .. }), "damage.I1: {failed:?}");
    let crossing = log.gather(&[(records[2].position() + 64, 10), (records[3].position() + 64, 1000)]);
    let end = records[3].end();
    assert!(matches!(
        crossing,
        Err(Ungathered { span: 1, error: ReadError::Crossing { end: found, .. } }) if found == end
    ));
}

/// Readers of several queues come to a new run each at its own next record.
#[test]
fn stretches_follow_each_other_without_gaps() {
    let (disk, wide) = (SimDisk::new(), LogConfig { cache_bytes: 0, segment_bytes: 1 << 20, ..config() });
    let open = || {
        let disk = Arc::new(disk.clone());
        CommitLog::open(disk, Path::new(DIR), wide, StampBase::default()).unwrap()
    };
    let log = open();
    let records: Vec<Record> =
        (1..=100).map(|index| log.append(id(index), command(20_000)).unwrap()).collect();
    flush(&log);
    drop(log);
    let log = open();
    let runs = &log.inner.shared.verified_cache;
    let found = |record: &Record| runs.get(0, record.position() + 64, 10).is_some();
    let look = |record: &Record| drop(log.bytes(record.position() + 64, 10).unwrap());
    look(&records[3]);
    assert!(records[..3].iter().all(found), "from the segment's start on");
    let next = records.iter().position(|record| !found(record)).unwrap();
    look(&records[next + 4]);
    assert!(records[next..next + 4].iter().all(found), "from the end of the run before");
    let far = next + 35;
    look(&records[far]);
    assert!(found(&records[far]) && !found(&records[far - 1]), "not from further before");
}

/// Records of a page that is lost cannot be written one by one: each write would have to read the rest of the page.
#[test]
fn records_that_share_a_lost_page_are_read_while_they_wait_and_repaired_together() {
    let (disk, log, records) = filled(60, 150);
    let hit: Vec<&Record> = records[22..26].iter().collect();
    let (from, to) = (hit[0].position() + 50 - SEGMENT_BYTES, hit[3].end() - 50 - SEGMENT_BYTES);
    disk.lose(&segment::path_of(Path::new("/commitlog"), SEGMENT_BYTES), from..to).unwrap();
    for (at, record) in hit.iter().enumerate() {
        let index = record.header.index;
        assert!(log.read(index, index + 1, 1).is_err(), "damage.I1");
        let mended = wait(|done| log.mend((*record).clone(), done));
        if at < 3 {
            assert!(matches!(mended, Err(WriteError::Refused(_))), "{mended:?}");
            assert!(log.is_damaged(record.position()) && !log.is_unreadable(record.position()));
            let found = log.read(index, index + 1, 1).unwrap();
            assert_eq!(found[0].frame(), record.frame(), "damage.I3");
            assert_eq!(log.bytes(record.position() + 70, 20).unwrap(), record.frame()[70..90], "damage.I3");
        } else {
            mended.unwrap();
        }
    }
    assert_eq!(log.damages(), []);
    assert_eq!(log.state().poisoned, None);
    assert!(!log.scrub(None, 60, u64::MAX).unwrap().damaged);
    log.close();
    let stored =
        disk.dump().remove(&segment::path_of(Path::new("/commitlog"), SEGMENT_BYTES)).flatten().unwrap();
    assert_eq!(stored[from as usize - 50..][..hit[0].frame().len()], hit[0].frame()[..]);
}

/// The disk takes each repair, and yet none can be read until the last is there: the scrub came to the first record again
/// and again, which was repaired each time.
#[test]
fn records_that_share_a_lost_page_were_each_repaired_without_end() {
    let (disk, log, records) = filled(60, 150);
    disk.bring_back_in_parts();
    let hit = &records[22..26];
    let (from, to) = (hit[0].position() - SEGMENT_BYTES, hit[3].end() - SEGMENT_BYTES);
    disk.lose(&segment::path_of(Path::new("/commitlog"), SEGMENT_BYTES), from..to).unwrap();
    let (mut next, mut repairs) = (None, 0);
    loop {
        let scrubbed = log.scrub(next, 60, u64::MAX).unwrap();
        next = scrubbed.next;
        for damage in log.damages().into_iter().filter(|damage| log.is_unreadable(damage.position)) {
            let record = records[damage.index as usize - 1].clone();
            repairs += 1;
            if let Err(error) = wait(|done| log.mend(record.clone(), done)) {
                assert!(matches!(error, WriteError::Refused(_)), "damage.I3: {error:?}");
                assert_eq!(log.read(damage.index, damage.index + 1, 1).unwrap()[0].frame(), record.frame());
            }
        }
        assert!(repairs <= 60, "damage.I4: a repair is done once it can be read");
        if next.is_none() {
            break;
        }
    }
    assert_eq!(log.damages(), []);
    assert_eq!(disk.lost(), []);
    assert!(!log.scrub(None, 60, u64::MAX).unwrap().damaged);
}

/// The last page of a segment ends in filler, which is part of no record.
#[test]
fn the_last_record_of_a_segment_is_repaired_with_the_filler_behind_it() {
    let (disk, log, records) = filled(60, 150);
    let last = records.iter().rfind(|record| record.end() < 2 * SEGMENT_BYTES).unwrap();
    let file = segment::path_of(Path::new("/commitlog"), SEGMENT_BYTES);
    disk.lose(&file, last.position() - SEGMENT_BYTES + 10..SEGMENT_BYTES).unwrap();
    assert!(log.bytes(last.position() + 64, 10).is_err());
    wait(|done| log.mend(last.clone(), done)).unwrap();
    assert_eq!(log.bytes(last.position() + 64, 10).unwrap(), last.frame()[64..74]);
}

#[test]
fn a_repair_that_the_disk_does_not_take_poisons_nothing_and_its_copy_is_read() {
    for fault in [Fault::Eio, Fault::FailSync] {
        let (disk, log, records) = filled(60, 150);
        let hit = &records[30];
        lose(&disk, hit);
        log.bytes(hit.position() + 64, 10).unwrap_err();
        disk.fail_on(&file_of(hit), 0, fault);
        let refused = wait(|done| log.mend(hit.clone(), done));
        assert!(matches!(refused, Err(WriteError::Refused(_))), "damage.I3: {refused:?}");
        assert_eq!(disk.faults_struck(), 1);
        assert_eq!(log.state().poisoned, None, "damage.I3");
        assert!(log.is_damaged(hit.position()));
        let all = log.read(25, 61, usize::MAX).unwrap();
        assert_eq!(indexes(&all), (25..61).collect::<Vec<_>>(), "damage.I3: the copy stands in for it");
        let scrubbed = log.scrub(None, 60, u64::MAX).unwrap();
        assert_eq!((scrubbed.next, scrubbed.damaged), (None, false), "the scrub goes on behind it");
        // The log goes on, and so does the repair, later.
        log.append(id(61), command(100)).unwrap();
        flush(&log);
        let copy = log.cached_copy(&log.damages()[0]).unwrap();
        wait(|done| log.mend(copy, done)).unwrap();
        assert_eq!(log.damages(), []);
        assert_eq!(log.read(31, 32, 1).unwrap()[0].frame(), hit.frame());
    }
}

#[test]
fn what_a_truncated_log_held_is_not_read_in_the_one_that_takes_its_place() {
    let (_disk, log, records) = filled(60, 150);
    let gone = &records[58];
    log.bytes(gone.position() + 64, 10).unwrap();
    let epoch = log.inner.shared.view.lock().epoch;
    let found = |epoch| log.inner.shared.verified_cache.get(epoch, gone.position() + 64, 10);
    assert!(found(epoch).is_some());
    assert!(found(epoch + 1).is_none(), "stretches.I1");
}

fn cut(disk: &SimDisk) -> CommitLog {
    let (disk, workers) = (Arc::new(disk.clone()), Arc::new(Threads::default()));
    let config = LogConfig { cache_bytes: 0, ..config() };
    CommitLog::open_on(disk, workers, Path::new(DIR), config, StampBase::default(), OnRot::Cut).unwrap()
}

/// The mark lags: what is lost may have been acknowledged wherever it lies.
#[test]
fn a_lost_sector_in_what_a_start_reads_is_rot_wherever_the_mark_is_and_is_cut_when_told_to() {
    for mark in [0, u64::MAX] {
        let (disk, log, records) = filled(60, 150);
        drop(log);
        if mark == 0 {
            disk.remove(Path::new("/durable")).unwrap();
            Mark::open(&disk, Path::new("/durable"), &Start::default()).unwrap().put(0, 0).unwrap();
        }
        let hit = &records[45];
        lose(&disk, hit);
        let before = disk.dump();
        let config = LogConfig { cache_bytes: 0, ..config() };
        let opened = CommitLog::open(Arc::new(disk.clone()), Path::new(DIR), config, StampBase::default());
        let refused = opened.err().unwrap();
        assert!(
            matches!(refused, OpenError::Rot { position, .. } if position == hit.position()),
            "log.I5: {refused:?}"
        );
        let log_files = |dump: BTreeMap<PathBuf, Option<Vec<u8>>>| {
            dump.into_iter().filter(|(path, _)| path.starts_with("/commitlog")).collect::<Vec<_>>()
        };
        assert_eq!(log_files(disk.dump()), log_files(before), "log.I5: nothing was changed");
        let log = cut(&disk);
        assert_eq!(log.state().last, Some(id(45)));
        // The sector takes writes again.
        for record in &records[45..] {
            log.append_record(record.clone()).unwrap();
        }
        flush(&log);
        drop(log);
        assert_eq!(indexes(&start(&disk).read(1, 61, usize::MAX).unwrap()).len(), 60);
    }
}

#[test]
fn a_lost_copy_of_the_vote_is_healed_from_the_other_and_one_of_the_mark_leaves_the_mark_unknown() {
    let (disk, log, _) = filled(5, 150);
    wait(|done| log.save_vote(b"vote", done)).unwrap();
    drop(log);
    for slot in [0, 1] {
        disk.lose(Path::new("/vote"), slot * 4096..(slot + 1) * 4096).unwrap();
        assert_eq!(start(&disk).vote().unwrap()[..], *b"vote", "slots.I2");
        disk.lose(Path::new("/durable"), slot * 4096..(slot + 1) * 4096).unwrap();
        let config = LogConfig { cache_bytes: 0, ..config() };
        let opened = CommitLog::open(Arc::new(disk.clone()), Path::new(DIR), config, StampBase::default());
        assert!(matches!(opened.err(), Some(OpenError::StateFile { file, .. }) if file.ends_with("durable")));
        assert_eq!(cut(&disk).state().last, Some(id(5)));
    }
}

#[test]
fn the_scrub_of_an_earlier_process_goes_on_at_the_segment_it_had_come_to() {
    let (disk, log, records) = filled(60, 150);
    assert_eq!(log.scrub_goes_on(), None);
    let first = records.iter().find(|record| record.position() == 2 * SEGMENT_BYTES).unwrap();
    let at = &records[first.header.index as usize + 5];
    log.note_scrubbed(Some((at.header.index, at.position()))).unwrap();
    drop(log);
    let log = start(&disk);
    let from = log.scrub_goes_on();
    assert_eq!(from, Some((first.header.index, first.position())));
    let rest = &records[first.header.index as usize - 1..];
    let bytes: u64 = rest.iter().map(|record| record.frame().len() as u64).sum();
    assert_eq!(log.scrub(from, 60, u64::MAX).unwrap().bytes, bytes);
    disk.flip_bit(Path::new("/scrubbed"), 26, 1).unwrap();
    assert_eq!(log.scrub_goes_on(), None, "a damaged note is none");
    log.note_scrubbed(None).unwrap();
    assert!(!disk.exists(Path::new("/scrubbed")).unwrap());
}

/// To drop a segment its headers were read, to the last one. A lost page among them held up the group's thread until it was
/// repaired: without end if the peers had dropped theirs.
#[test]
fn a_segment_with_a_lost_header_could_not_be_dropped() {
    for lost in [0, 3] {
        let (disk, log, records) = filled(60, 150);
        let base = |record: &Record| segment::base_of(record.position(), SEGMENT_BYTES);
        let kept = records.iter().position(|record| base(record) == 2 * SEGMENT_BYTES).unwrap();
        let (last, first) = (&records[kept - 1], &records[kept]);
        lose(&disk, &records[lost]);
        // Between the known start of the segment and its last record.
        lose(&disk, &records[kept - 2]);
        wait(|done| log.purge(last.id(), done)).unwrap();
        let state = log.state();
        assert_eq!(log.damages(), [], "damage.I5");
        assert_eq!((state.purged, state.first_index), (Some(last.id()), first.header.index));
        assert_eq!(
            indexes(&log.read(first.header.index, 61, usize::MAX).unwrap()).len(),
            records.len() - kept
        );
        drop(log);
        let log = start_at(
            &disk,
            StampBase {
                id: Some(last.id()),
                position: first.position(),
                prev_crc: first.header.prev_crc,
                ..StampBase::default()
            },
        );
        assert_eq!(log.state().first_index, first.header.index);
        assert_eq!(
            indexes(&log.read(first.header.index, 61, usize::MAX).unwrap()).len(),
            records.len() - kept
        );
    }
}
