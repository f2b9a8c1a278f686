//! Purge and reset: the front of the log.

use std::time::{Duration, Instant};

use super::*;

fn base(log_dir: &Path) -> StampBase {
    let start = StartFile::open(&RealDisk, &log_dir.join("start")).unwrap().start();
    let (id, position, prev_crc) = (start.id, start.position, start.prev_crc);
    StampBase { id, position, prev_crc, counters: QueueCounters::default() }
}

pub(super) fn reopen(dir: &Path) -> CommitLog {
    CommitLog::open(Arc::new(RealDisk), dir, config(), base(dir)).unwrap()
}

pub(super) fn segment_files(dir: &Path) -> usize {
    RealDisk.list(&dir.join("commitlog")).unwrap().len()
}

/// Waits for what the remover does in its own time.
pub(super) fn eventually(is_so: impl Fn() -> bool) {
    let deadline = Instant::now() + Duration::from_secs(60);
    while !is_so() {
        assert!(Instant::now() < deadline, "it is still not so");
        std::thread::sleep(Duration::from_millis(5));
    }
}

#[test]
fn a_purge_moves_the_front_and_unlinks_what_lies_below() {
    let dir = tempfile::tempdir().unwrap();
    let log = open(dir.path());
    for index in 0..100 {
        log.append(id(index), command(200)).unwrap();
    }
    flush(&log);
    let held = log.bytes(0, 200).unwrap();
    let files = segment_files(dir.path());
    wait(|done| log.purge(id(60), done)).unwrap();
    assert_eq!((log.state().first_index, log.state().purged), (61, Some(id(60))));
    eventually(|| segment_files(dir.path()) < files - 2);
    assert!(matches!(log.read(60, 70, 1), Err(ReadError::Purged { first: 61, .. })));
    assert!(matches!(log.bytes(0, 10), Err(ReadError::Purged { .. })));
    assert_eq!(indexes(&log.read(61, 63, usize::MAX).unwrap()), [61, 62]);
    assert_eq!(&held[..4], b"FoLR", "a reader's bytes stay");
    wait(|done| log.purge(id(30), done)).unwrap();
    assert_eq!(log.state().first_index, 61);
    wait(|done| log.purge(EntryId { term: 9, index: 70 }, done)).unwrap_err();
    let (state, starts) = (log.state(), log.segment_starts());
    drop(log);
    assert!(matches!(try_open(dir.path()), Err(OpenError::BaseBelowStart { base: 0, .. })));
    let log = reopen(dir.path());
    assert_eq!((log.state(), log.segment_starts()), (state, starts));
    assert_eq!(indexes(&log.read(61, 200, usize::MAX).unwrap()), (61..100).collect::<Vec<_>>());
}

#[test]
fn every_purge_point_can_be_truncated_to_and_reopened() {
    for upto in 0..40 {
        let dir = tempfile::tempdir().unwrap();
        let log = open(dir.path());
        for index in 0..40 {
            log.append(id(index), command(300)).unwrap();
        }
        wait(|done| log.purge(id(upto), done)).unwrap();
        drop(log);
        let log = reopen(dir.path());
        assert_eq!(log.state().last, Some(id(39)));
        wait(|done| log.truncate_after(Some(upto), done)).unwrap();
        assert_eq!((log.state().last, log.state().first_index), (Some(id(upto)), upto + 1));
        drop(log);
        let log = reopen(dir.path());
        log.append(id(upto + 1), command(10)).unwrap();
        flush(&log);
        drop(log);
        assert_eq!(indexes(&reopen(dir.path()).read(upto + 1, 99, 9999).unwrap()), [upto + 1]);
    }
}

#[test]
fn a_purge_beyond_the_end_leaves_an_empty_log_that_goes_on_after_it() {
    let dir = tempfile::tempdir().unwrap();
    let log = open(dir.path());
    for index in 1..=20 {
        log.append(id(index), command(500)).unwrap();
    }
    wait(|done| log.purge(id(50), done)).unwrap();
    let state = log.state();
    assert_eq!((state.first_index, state.last, state.durable), (51, Some(id(50)), Some(id(50))));
    assert!(matches!(log.append(id(50), command(1)), Err(AppendError::OutOfOrder { .. })));
    log.append(id(51), command(1)).unwrap();
    flush(&log);
    drop(log);
    let log = reopen(dir.path());
    assert_eq!(indexes(&log.read(51, 99, 9999).unwrap()), [51]);
}

#[test]
fn a_reset_starts_over_at_the_given_place() {
    for position in [10 * SEGMENT_BYTES, 3 * SEGMENT_BYTES + 100, 100] {
        let dir = tempfile::tempdir().unwrap();
        let log = open(dir.path());
        for index in 1..=50 {
            log.append(id(index), messages(&[("a", 0)])).unwrap();
        }
        let mut counters = QueueCounters::new();
        counters.set("a", 0, 1000);
        let start = StampBase { id: Some(id(500)), position, prev_crc: 77, counters };
        wait(|done| log.reset(start.clone(), done)).unwrap();
        let record = log.append(id(501), messages(&[("a", 0)])).unwrap();
        assert_eq!((record.position(), record.header.prev_crc), (position, 77));
        flush(&log);
        assert_eq!(log.state().durable_position, record.end());
        log.close();
        let reopened = CommitLog::open(Arc::new(RealDisk), dir.path(), config(), start).unwrap();
        assert_eq!(indexes(&reopened.read(501, 600, 1).unwrap()), [501]);
        assert_eq!(reopened.counters().get("a", 0), 1001);
        // Nothing of the log before is left.
        let first = RealDisk.list(&dir.path().join("commitlog")).unwrap()[0].clone();
        assert_eq!(segment::base_of_path(&first), Some(segment::base_of(position, SEGMENT_BYTES)));
    }
}

/// What `raft` saves when it applies a segment's first record: the state before it, at the segment's start.
#[test]
fn t94_a_snapshot_of_a_segment_start_fits_a_log_whose_earlier_segment_ends_in_filler() {
    let dir = tempfile::tempdir().unwrap();
    let log = open(dir.path());
    let records: Vec<Record> = (0..100).map(|index| log.append(id(index), command(300)).unwrap()).collect();
    flush(&log);
    drop(log);
    let firsts = records
        .windows(2)
        .filter(|pair| pair[1].position() % SEGMENT_BYTES == 0 && pair[0].end() != pair[1].position());
    let mut seen = 0;
    for pair in firsts {
        seen += 1;
        let counters = QueueCounters::default();
        let base = StampBase {
            id: Some(pair[0].id()),
            position: pair[1].position(),
            prev_crc: pair[0].header.crc,
            counters,
        };
        let with = |base| CommitLog::open(Arc::new(RealDisk), dir.path(), config(), base);
        let log = with(base.clone()).unwrap();
        assert_eq!(log.state().last, Some(id(99)));
        drop(log);
        assert!(matches!(with(StampBase { prev_crc: 1, ..base }), Err(OpenError::BaseMismatch { .. })));
    }
    assert!(seen > 3, "no segment ended in filler");
    let middle = records.windows(2).filter(|pair| pair[1].position() % SEGMENT_BYTES == 0).nth(3).unwrap();
    let log = open(dir.path());
    wait(|done| log.purge(middle[0].id(), done)).unwrap();
    drop(log);
    let counters = QueueCounters::default();
    let base = StampBase {
        id: Some(middle[0].id()),
        position: middle[1].position(),
        prev_crc: middle[0].header.crc,
        counters,
    };
    let log = CommitLog::open(Arc::new(RealDisk), dir.path(), config(), base).unwrap();
    assert_eq!(log.state().last, Some(id(99)), "a purged log opens from the snapshot of its first segment");
}
