//! Damage found at opening: a torn tail is cut, rot is refused (log.I5).

use std::fs;

use super::*;

fn segment_file(dir: &Path, base: u64) -> PathBuf {
    segment::path_of(&dir.join("commitlog"), base)
}

/// Fills a log with `count` entries and returns where each starts; a fresh mark is on disk.
fn fill(dir: &Path, count: u64) -> Vec<u64> {
    let log = open(dir);
    let positions = (1..=count).map(|index| log.append(id(index), command(20)).unwrap().position()).collect();
    flush(&log);
    positions
}

/// Makes the durable mark say `position`, as if what follows had never been acknowledged.
fn set_mark(dir: &Path, position: u64) {
    fs::remove_file(dir.join("durable")).unwrap();
    Mark::open(&RealDisk, &dir.join("durable"), &Start::default()).unwrap().put(0, position).unwrap();
}

#[test]
fn a_tail_torn_at_any_byte_is_cut_unless_it_was_acknowledged() {
    let dir = tempfile::tempdir().unwrap();
    let positions = fill(dir.path(), 3);
    let file = segment_file(dir.path(), 0);
    let whole = fs::read(&file).unwrap();
    let (last, end) = (positions[2] as usize, positions[2] as usize + 84);
    for torn in last..end {
        for fill in [0u8, 0xff] {
            let mut bytes = whole.clone();
            bytes[torn..end].fill(fill);
            if bytes == whole {
                continue;
            }
            fs::write(&file, &bytes).unwrap();
            set_mark(dir.path(), end as u64);
            let refused = try_open(dir.path()).err().map(|error| error.to_string()).unwrap_or_default();
            let named =
                refused.contains(&format!("position {last}")) && refused.contains(file.to_str().unwrap());
            assert!(named, "log.I5: torn at {torn}: {refused}");
            assert_eq!(fs::read(&file).unwrap(), bytes, "log.I5: nothing was changed");

            set_mark(dir.path(), last as u64);
            let log = open(dir.path());
            assert_eq!(log.state().last, Some(id(2)), "torn at {torn}");
            drop(log);
            assert!(fs::read(&file).unwrap()[last..].iter().all(|&byte| byte == 0), "log.I7");
        }
    }
}

#[test]
fn a_flipped_byte_below_the_mark_is_rot_wherever_it_is() {
    let dir = tempfile::tempdir().unwrap();
    fill(dir.path(), 120);
    for base in [0, SEGMENT_BYTES] {
        let file = segment_file(dir.path(), base);
        let whole = fs::read(&file).unwrap();
        for at in [0, 70, 1000, 2500] {
            let mut bytes = whole.clone();
            bytes[at] ^= 0x10;
            fs::write(&file, &bytes).unwrap();
            let refused = try_open(dir.path()).err();
            assert!(matches!(refused, Some(OpenError::Rot { .. })), "{base}+{at}: {refused:?}");
        }
        fs::write(&file, &whole).unwrap();
    }
    fs::remove_file(segment_file(dir.path(), SEGMENT_BYTES)).unwrap();
    assert!(matches!(try_open(dir.path()), Err(OpenError::Rot { position, .. }) if position >= 4000));
}

#[test]
fn a_record_behind_a_hole_is_not_taken_up_again() {
    let dir = tempfile::tempdir().unwrap();
    let positions = fill(dir.path(), 60);
    let file = segment_file(dir.path(), 0);
    let mut bytes = fs::read(&file).unwrap();
    bytes[positions[3] as usize..positions[4] as usize].fill(0);
    fs::write(&file, &bytes).unwrap();
    set_mark(dir.path(), 0);
    let log = open(dir.path());
    assert_eq!(log.state().last, Some(id(3)));
    assert_eq!(log.segment_starts().len(), 1);
    // The very record that was lost: with its successors still there, the old log would stand up again.
    log.append(id(4), command(20)).unwrap();
    flush(&log);
    drop(log);
    assert_eq!(open(dir.path()).state().last, Some(id(4)), "log.I7");
}

#[test]
fn a_checkpoint_that_is_not_of_this_log_is_refused() {
    let dir = tempfile::tempdir().unwrap();
    let log = open(dir.path());
    let mut records = Vec::new();
    for index in 1..=100 {
        records.push(log.append(id(index), messages(&[("t", 0)])).unwrap());
    }
    drop(log);
    let base = |record: &Record| StampBase {
        id: Some(record.id()),
        position: record.end(),
        prev_crc: record.header.crc,
        counters: [record.header.index].into_iter().fold(QueueCounters::new(), |mut counters, count| {
            counters.set("t", 0, count);
            counters
        }),
    };
    let with = |base| CommitLog::open(Arc::new(RealDisk), dir.path(), config(), base);
    for record in records.iter().step_by(7) {
        let log = with(base(record)).unwrap();
        assert_eq!((log.state().last, log.counters().get("t", 0)), (Some(id(100)), 100));
        assert_eq!(indexes(&log.read(1, 200, usize::MAX).unwrap()), (1..=100).collect::<Vec<_>>());
        wait(|done| log.truncate_after(Some(0), done)).unwrap_err();
    }
    let good = base(&records[49]);
    let wrong = with(StampBase { prev_crc: 1, ..good.clone() });
    assert!(matches!(wrong, Err(OpenError::BaseMismatch { .. })));
    let wrong = with(StampBase { position: good.position + 1, ..good.clone() });
    assert!(matches!(wrong, Err(OpenError::BaseMismatch { .. })));
    let wrong = with(StampBase { counters: QueueCounters::new(), ..good.clone() });
    assert!(matches!(wrong, Err(OpenError::Divergence { .. })));
    let wrong = with(StampBase { position: 1 << 40, ..good });
    assert!(matches!(wrong, Err(OpenError::BaseBeyondTail { base, .. }) if base == 1 << 40));
}

#[test]
fn other_segment_sizes_are_refused_by_name() {
    let dir = tempfile::tempdir().unwrap();
    fill(dir.path(), 60);
    for segment_bytes in [SEGMENT_BYTES / 2, SEGMENT_BYTES * 2, SEGMENT_BYTES + 1] {
        let config = LogConfig { segment_bytes, ..config() };
        let refused = CommitLog::open(Arc::new(RealDisk), dir.path(), config, StampBase::default());
        assert!(matches!(refused, Err(OpenError::SegmentSize { .. })), "{segment_bytes}");
    }
}

fn open_cutting(dir: &Path) -> CommitLog {
    let workers = Arc::new(Threads::default());
    CommitLog::open_on(Arc::new(RealDisk), workers, dir, config(), StampBase::default(), OnRot::Cut).unwrap()
}

#[test]
fn rot_is_cut_when_told_to_and_the_cut_is_no_rot_at_the_next_start() {
    let dir = tempfile::tempdir().unwrap();
    let positions = fill(dir.path(), 120);
    let file = segment_file(dir.path(), 0);
    let mut bytes = fs::read(&file).unwrap();
    bytes[positions[9] as usize + 70] ^= 1;
    fs::write(&file, &bytes).unwrap();
    assert!(matches!(try_open(dir.path()), Err(OpenError::Rot { position, .. }) if position == positions[9]));
    let log = open_cutting(dir.path());
    assert_eq!(log.state().last, Some(id(9)));
    assert_eq!(log.state().durable_position, positions[9]);
    drop(log);
    let log = open(dir.path());
    assert_eq!(log.state().last, Some(id(9)), "log.I7");
    log.append(id(10), command(33)).unwrap();
    flush(&log);
    drop(log);
    assert_eq!(open(dir.path()).state().last, Some(id(10)));
}

#[test]
fn a_damaged_first_record_of_an_old_segment_does_not_stop_a_start_behind_it() {
    let dir = tempfile::tempdir().unwrap();
    let log = open(dir.path());
    let records: Vec<Record> = (1..=200).map(|index| log.append(id(index), command(20)).unwrap()).collect();
    flush(&log);
    drop(log);
    let last = records.last().unwrap();
    let base = StampBase {
        id: Some(last.id()),
        position: last.end(),
        prev_crc: last.header.crc,
        counters: QueueCounters::new(),
    };
    let first = records.iter().find(|record| record.position() == 2 * SEGMENT_BYTES).unwrap();
    let file = segment_file(dir.path(), 2 * SEGMENT_BYTES);
    let mut bytes = fs::read(&file).unwrap();
    bytes[30] ^= 1;
    fs::write(&file, &bytes).unwrap();
    let log = CommitLog::open(Arc::new(RealDisk), dir.path(), config(), base).unwrap();
    assert!(log.segment_starts().contains(&(first.position(), first.header.index)));
    let read = log.read(first.header.index, first.header.index + 1, 1);
    assert!(matches!(read, Err(ReadError::Rot { position, .. }) if position == first.position()), "{read:?}");
    assert_eq!(log.read(200, 201, 1).unwrap()[0].id(), last.id());
}

/// A node whose vote had gone with its directory entry voted again in the same term; without its mark a torn tail hid what it
/// had acknowledged.
#[test]
fn a_vote_or_a_mark_that_was_gone_passed_for_that_of_a_new_log() {
    for lost in ["vote", "durable"] {
        let dir = tempfile::tempdir().unwrap();
        fill(dir.path(), 3);
        let path = dir.path().join(lost);
        fs::remove_file(&path).unwrap();
        match try_open(dir.path()) {
            Err(OpenError::StateFile { file, .. }) => assert_eq!(file, path, "log.I12"),
            other => panic!("log.I12: {lost}: {:?}", other.err()),
        }
        assert!(!path.exists(), "{lost}: it is not made anew behind anybody's back");
    }
}
