//! Appending, rolling, reading, and opening again.

use super::*;
use crate::record::HEADER_BYTES;

#[test]
fn what_was_appended_is_read_back_after_reopening() {
    let dir = tempfile::tempdir().unwrap();
    let log = open(dir.path());
    let mut frames = Vec::new();
    for index in 1..=40 {
        let draft = match index % 5 {
            0 => command(300),
            1 => transition(&[("a", 0), ("c", 1)]),
            2 => transition(&[]),
            _ => messages(&[("a", 0), ("b", index as u32 % 2)]),
        };
        frames.push(log.append(id(index), draft).unwrap().frame().clone());
    }
    flush(&log);
    let state = log.state();
    assert_eq!((state.first_index, state.last, state.durable), (1, Some(id(40)), Some(id(40))));
    assert_eq!(state.durable_position, state.next_position);
    let counters = log.counters();
    let starts = log.segment_starts();
    assert!(starts.len() > 2, "log.I8: {starts:?}");
    drop(log);

    let log = open(dir.path());
    assert_eq!(log.state(), LogState { ..state });
    assert_eq!(log.counters(), counters);
    assert_eq!(log.segment_starts(), starts);
    let records = log.read(1, 100, usize::MAX).unwrap();
    assert_eq!(records.iter().map(|record| record.frame().clone()).collect::<Vec<_>>(), frames);
    assert_eq!(indexes(&log.read(5, 9, 1).unwrap()), [5]);
    log.append(id(41), command(10)).unwrap();
    flush(&log);
    assert_eq!(indexes(&log.read(39, 50, usize::MAX).unwrap()), [39, 40, 41]);
}

#[test]
fn a_follower_takes_the_leaders_bytes_and_notices_a_divergence() {
    let (one, two) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
    let (leader, follower) = (open(one.path()), open(two.path()));
    for index in 0..30 {
        let make = if index % 2 == 0 { messages } else { transition };
        let record = leader.append(id(index), make(&[("a", 0), ("b", 0), ("a", 1)])).unwrap();
        let copy = Record::parse(Bytes::copy_from_slice(record.frame())).unwrap();
        follower.append_record(copy).unwrap();
    }
    assert_eq!((leader.counters().get("a", 0), leader.counters().get("b", 0)), (30, 30));
    assert_eq!(leader.counters(), follower.counters());
    assert_eq!(leader.state().next_position, follower.state().next_position);
    wait(|done| follower.truncate_after(Some(28), done)).unwrap();
    follower.append(id(29), command(1)).unwrap();
    let record = leader.append(id(30), command(5)).unwrap();
    assert!(matches!(follower.append_record(record), Err(AppendError::Divergence { .. })));
}

#[test]
fn entries_out_of_order_or_too_long_are_refused_and_change_nothing() {
    let dir = tempfile::tempdir().unwrap();
    let log = open(dir.path());
    log.append(EntryId { term: 5, index: 7 }, command(1)).unwrap();
    let before = log.state();
    for (term, index) in [(5, 7), (5, 9), (4, 8)] {
        let refused = log.append(EntryId { term, index }, command(1));
        assert!(matches!(refused, Err(AppendError::OutOfOrder { .. })), "{refused:?}");
    }
    let next = EntryId { term: 5, index: 8 };
    assert!(matches!(log.append(next, command(4096)), Err(AppendError::TooLarge { max: 4096, .. })));
    let malformed = Draft::with_payload(RecordKind::Messages, b"not a message");
    assert!(matches!(log.append(next, malformed), Err(AppendError::Malformed(_))));
    let unlaid = Draft::with_payload(RecordKind::Transition, b"no transition");
    assert!(matches!(log.append(next, unlaid), Err(AppendError::Transition(_))));
    let mut miscounted = transition(&[("a", 0)]);
    miscounted.messages = 2;
    assert!(matches!(log.append(next, miscounted), Err(AppendError::Malformed(_))));
    assert_eq!(log.counters().get("a", 0), 0, "stamp.I1");
    assert_eq!(log.state().next_position, before.next_position);
    log.append(next, command(4096 - HEADER_BYTES)).unwrap();
    assert_eq!(log.state().next_position, 2 * SEGMENT_BYTES);
}

#[test]
fn truncated_entries_are_gone_and_their_offsets_are_given_again() {
    let dir = tempfile::tempdir().unwrap();
    let log = open(dir.path());
    for index in 1..=60 {
        let make = if index % 2 == 0 { messages } else { transition };
        log.append(id(index), make(&[("a", 0)])).unwrap();
    }
    flush(&log);
    let long = log.segment_starts().len();
    wait(|done| log.truncate_after(Some(3), done)).unwrap();
    assert!(long > 2 && log.segment_starts().len() == 1);
    assert_eq!((log.state().last, log.state().durable), (Some(id(3)), Some(id(3))));
    assert_eq!(log.counters().get("a", 0), 3);
    for index in 4..=20 {
        log.append(EntryId { term: 2, index }, command(500)).unwrap();
    }
    flush(&log);
    let state = log.state();
    drop(log);
    let log = open(dir.path());
    assert_eq!(log.state(), state);
    wait(|done| log.truncate_after(None, done)).unwrap();
    assert_eq!((log.state().last, log.state().next_position), (None, 0));
    drop(log);
    assert_eq!(open(dir.path()).state().last, None);
}

/// The log of a node that went back to an older build ended before the first record of a kind that this build did not know, where
/// the durable mark was not behind it yet.
#[test]
fn log_i5_a_record_of_a_newer_build_was_cut_off_as_a_torn_tail() {
    let dir = tempfile::tempdir().unwrap();
    let log = open(dir.path());
    log.append(id(1), messages(&[("a", 0)])).unwrap();
    flush(&log);
    let mark = dir.path().join("durable");
    let earlier = std::fs::read(&mark).unwrap();
    let newer = log.append(id(2), command(9)).unwrap();
    flush(&log);
    drop(log);
    let path = dir.path().join("commitlog/00000000000000000000");
    let mut bytes = std::fs::read(&path).unwrap();
    let at = newer.position() as usize;
    bytes[at + 5] = 9;
    let crc = crc32c::crc32c(&bytes[at..at + 60]);
    bytes[at + 60..at + HEADER_BYTES].copy_from_slice(&crc.to_le_bytes());
    std::fs::write(&path, &bytes).unwrap();
    // As if it had not been acknowledged yet; then as if the mark were lost, which is refused as such before the log is read.
    for (marked, on_rot, says) in [
        (true, OnRot::Refuse, "newer build"),
        (true, OnRot::Cut, "newer build"),
        (false, OnRot::Refuse, "durable"),
        (false, OnRot::Cut, "newer build"),
    ] {
        if marked {
            std::fs::write(&mark, &earlier).unwrap();
        } else if mark.exists() {
            std::fs::remove_file(&mark).unwrap();
        }
        let workers = Arc::new(Threads::default());
        let base = StampBase::default();
        let opened = CommitLog::open_on(Arc::new(RealDisk), workers, dir.path(), config(), base, on_rot);
        let error = opened.err().unwrap();
        let text = format!("{error}");
        assert!(text.contains(says), "{on_rot:?}, marked: {marked}: {text}");
        assert_eq!(std::fs::read(&path).unwrap(), bytes, "{on_rot:?} changes nothing");
    }
}
