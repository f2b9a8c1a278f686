//! The rules of the contract, one by one.

use parking_lot::Mutex;

use super::*;

fn opened<P: Place>() -> (P, P::Log) {
    let mut place = P::new();
    let log = place.open(&StampBase::default());
    (place, log)
}

fn done(ask: impl FnOnce(Completion)) {
    wait(ask).unwrap();
}

fn refused(ask: impl FnOnce(Completion)) -> WriteError {
    wait(ask).unwrap_err()
}

pub(super) fn entries_are_read_as_they_were_appended<P: Place>() {
    let (_place, log) = opened::<P>();
    assert_eq!((log.state().last, log.state().first_index, log.vote()), (None, 0, None));
    // The first entry may have any index.
    let appended: Vec<_> =
        (7..40).map(|index| log.append(id(index), messages(&[("a", index as u32 % 2)])).unwrap()).collect();
    let found = log.read(7, 40, usize::MAX).unwrap();
    assert_eq!(indexes(&found), (7..40).collect::<Vec<_>>());
    assert!(found.iter().zip(&appended).all(|(found, record)| found.frame() == record.frame()));
    done(|done| log.submit(done));
    let state = log.state();
    assert_eq!((state.first_index, state.last, state.durable), (7, Some(id(39)), Some(id(39))));
    assert_eq!(state.next_position, appended.last().unwrap().end());
    assert_eq!((log.counters().get("a", 0), log.counters().get("a", 1)), (16, 17));
}

pub(super) fn log_i1_completions_come_in_order_and_tell_of_what_is_durable<P: Place>() {
    let (_place, log) = opened::<P>();
    let told = Arc::new(Mutex::new(Vec::new()));
    for round in 0..30u64 {
        fill(&log, 1, round * 3..=round * 3 + 2);
        let (reader, told) = (log.clone(), told.clone());
        let tell: Completion =
            Box::new(move |outcome| told.lock().push((round, reader.state().durable, outcome)));
        match round % 3 {
            0 => log.submit(tell),
            1 => log.save_vote(&[round as u8], tell),
            // It is refused, in its place.
            _ => log.save_vote(&[], tell),
        }
    }
    done(|done| log.submit(done));
    let told = told.lock();
    assert_eq!(told.iter().map(|(round, ..)| *round).collect::<Vec<_>>(), (0..30).collect::<Vec<_>>());
    for (round, durable, outcome) in &*told {
        assert!(durable.is_some_and(|durable| durable.index >= round * 3 + 2), "{round}: {durable:?}");
        assert_eq!(outcome.is_ok(), round % 3 < 2, "{round}: {outcome:?}");
    }
}

pub(super) fn log_i4_a_vote_is_durable_behind_what_was_appended<P: Place>() {
    let (mut place, log) = opened::<P>();
    fill(&log, 1, 1..=9);
    done(|done| log.save_vote(b"term 2", done));
    assert_eq!((log.vote().as_deref(), log.state().durable), (Some(&b"term 2"[..]), Some(id(9))));
    done(|done| log.save_vote(b"term 3", done));
    log.close();
    assert_eq!(place.open(&StampBase::default()).vote().as_deref(), Some(&b"term 3"[..]));
}

pub(super) fn log_i6_what_is_truncated_is_gone_and_what_is_settled_stays<P: Place>() {
    let (mut place, log) = opened::<P>();
    fill(&log, 1, 1..=20);
    log.forget_undo(10);
    assert!(matches!(
        refused(|done| log.truncate_after(Some(9), done)),
        WriteError::Refused(Refusal::Truncate { keep: Some(9), .. })
    ));
    assert_eq!(log.state().last, Some(id(20)), "nothing was changed");
    log.truncate_after(Some(12), Box::new(|outcome| outcome.unwrap()));
    assert_eq!(log.state().last, Some(id(12)), "when it returns");
    done(|done| log.truncate_after(Some(12), done));
    done(|done| log.truncate_after(Some(99), done));
    fill(&log, 2, 13..=14);
    done(|done| log.submit(done));
    let kept = frames(&log);
    log.close();
    let log = place.open(&StampBase::default());
    assert_eq!(frames(&log), kept);
    assert_eq!(log.state().last, Some(EntryId { term: 2, index: 14 }));
}

pub(super) fn log_i8_offsets_are_given_again_after_a_truncation<P: Place>() {
    let (_place, log) = opened::<P>();
    fill(&log, 1, 1..=30);
    let (whole, end, counters) = (frames(&log), log.state().next_position, log.counters());
    done(|done| log.truncate_after(Some(11), done));
    fill(&log, 1, 12..=30);
    assert_eq!(frames(&log), whole);
    done(|done| log.truncate_after(None, done));
    assert_eq!((log.state().last, log.state().next_position, log.counters().is_empty()), (None, 0, true));
    fill(&log, 1, 1..=30);
    assert_eq!((frames(&log), log.state().next_position), (whole, end));
    assert_eq!(log.counters(), counters);
}

pub(super) fn a_follower_takes_the_leaders_bytes_and_no_others<P: Place>() {
    let ((_one, leader), (_two, follower)) = (opened::<P>(), opened::<P>());
    fill(&leader, 1, 1..=30);
    for frame in frames(&leader) {
        follower.append_record(Record::parse(frame).unwrap()).unwrap();
    }
    assert_eq!((frames(&follower), follower.counters()), (frames(&leader), leader.counters()));
    done(|done| follower.truncate_after(Some(29), done));
    follower.append(EntryId { term: 2, index: 30 }, command(1)).unwrap();
    let record = leader.append(EntryId { term: 3, index: 31 }, command(5)).unwrap();
    let (before, refusal) = (frames(&follower), follower.append_record(record));
    assert!(matches!(refusal, Err(AppendError::Divergence { .. })), "{refusal:?}");
    assert_eq!(frames(&follower), before);
}

pub(super) fn a_refused_request_changes_nothing<P: Place>() {
    let (_place, log) = opened::<P>();
    fill(&log, 5, 1..=6);
    done(|done| log.save_vote(b"vote", done));
    let before = (frames(&log), log.state(), log.counters(), log.vote());
    for (term, index) in [(5, 6), (5, 8), (4, 7)] {
        let refusal = log.append(EntryId { term, index }, command(1));
        assert!(matches!(refusal, Err(AppendError::OutOfOrder { .. })), "{refusal:?}");
    }
    let next = EntryId { term: 5, index: 7 };
    let refusal = log.append(next, command(SEGMENT_BYTES as usize));
    assert!(matches!(refusal, Err(AppendError::TooLarge { max: SEGMENT_BYTES, .. })), "{refusal:?}");
    let malformed = Draft::with_payload(RecordKind::Messages, b"not a message");
    assert!(matches!(log.append(next, malformed), Err(AppendError::Malformed(_))));
    for vote in [&b""[..], &[7; 4096]] {
        let refusal = refused(|done| log.save_vote(vote, done));
        assert!(matches!(refusal, WriteError::Refused(Refusal::VoteSize { .. })), "{refusal:?}");
    }
    let refusal = refused(|done| log.purge(EntryId { term: 9, index: 3 }, done));
    assert!(matches!(refusal, WriteError::Refused(Refusal::Purge { .. })), "{refusal:?}");
    assert_eq!((frames(&log), log.state(), log.counters(), log.vote()), before);
    fill(&log, 5, 7..=8);
}

pub(super) fn a_purge_moves_the_front<P: Place>() {
    let (mut place, log) = opened::<P>();
    fill(&log, 1, 0..=60);
    done(|done| log.truncate_after(Some(40), done));
    let base = base_of(&log);
    fill(&log, 1, 41..=60);
    let counters = log.counters();
    done(|done| log.purge(id(40), done));
    let state = log.state();
    assert_eq!((state.first_index, state.purged, state.last), (41, Some(id(40)), Some(id(60))));
    assert_eq!((state.start_position, log.counters()), (base.position, counters.clone()));
    assert!(matches!(log.read(40, 50, 1), Err(ReadError::Purged { asked: 40, first: 41 })));
    assert!(matches!(
        refused(|done| log.truncate_after(Some(39), done)),
        WriteError::Refused(Refusal::Truncate { .. })
    ));
    done(|done| log.purge(id(40), done));
    done(|done| log.purge(id(7), done));
    assert_eq!(log.state(), state, "it was purged before");
    let kept = frames(&log);
    log.close();
    let log = place.open(&base);
    assert_eq!((frames(&log), log.state(), log.counters()), (kept, state, counters));
}

pub(super) fn a_log_goes_on_behind_a_purge_beyond_its_end<P: Place>() {
    let (mut place, log) = opened::<P>();
    fill(&log, 1, 1..=9);
    let (end, counters) = (base_of(&log), log.counters());
    let upto = EntryId { term: 4, index: 99 };
    done(|done| log.purge(upto, done));
    let state = log.state();
    assert_eq!((state.first_index, state.last, state.purged), (100, Some(upto), Some(upto)));
    assert_eq!((state.next_position, log.counters()), (end.position, counters));
    assert!(
        matches!(log.append(id(100), command(1)), Err(AppendError::OutOfOrder { .. })),
        "an earlier term"
    );
    fill(&log, 4, 100..=101);
    done(|done| log.submit(done));
    let kept = frames(&log);
    log.close();
    let log = place.open(&StampBase { id: Some(upto), ..end });
    assert_eq!((frames(&log), log.state().first_index), (kept, 100));
}

pub(super) fn a_log_goes_on_behind_what_it_was_reset_to<P: Place>() {
    let (mut place, log) = opened::<P>();
    fill(&log, 1, 1..=9);
    let mut counters = QueueCounters::new();
    counters.set("a", 0, 500);
    let start = StampBase {
        id: Some(EntryId { term: 3, index: 70 }),
        position: 5 * SEGMENT_BYTES + 100,
        prev_crc: 7,
        counters,
    };
    done(|done| log.reset(start.clone(), done));
    let state = log.state();
    assert_eq!((state.first_index, state.last, state.purged), (71, start.id, start.id));
    assert_eq!((state.start_position, state.next_position), (start.position, start.position));
    assert!(log.read(71, 99, 1).unwrap().is_empty() && log.counters() == start.counters);
    let record = log.append(EntryId { term: 3, index: 71 }, messages(&[("a", 0)])).unwrap();
    assert_eq!((record.position(), record.header.prev_crc), (start.position, 7));
    assert_eq!(log.counters().get("a", 0), 501);
    done(|done| log.submit(done));
    let kept = frames(&log);
    log.close();
    let log = place.open(&start);
    assert_eq!((frames(&log), log.state().purged), (kept, start.id));
}

pub(super) fn a_read_ends_at_its_bounds<P: Place>() {
    let (_place, log) = opened::<P>();
    fill(&log, 1, 5..=25);
    let read = |start, end, max_bytes| indexes(&log.read(start, end, max_bytes).unwrap());
    assert_eq!(read(9, 12, usize::MAX), [9, 10, 11]);
    assert_eq!(read(9, 12, 0), [9], "at least one");
    let one = log.read(9, 10, 1).unwrap()[0].frame().len();
    assert_eq!(read(9, 12, one), [9], "no more once the bytes are reached");
    assert_eq!(read(9, 12, one + 1), [9, 10]);
    assert_eq!(read(25, 99, usize::MAX), [25]);
    assert!(read(26, 99, usize::MAX).is_empty() && read(9, 9, usize::MAX).is_empty());
    assert!(matches!(log.read(4, 9, 1), Err(ReadError::Purged { asked: 4, first: 5 })));
}

pub(super) fn a_closed_log_refuses_and_opens_as_it_was<P: Place>() {
    let (mut place, log) = opened::<P>();
    fill(&log, 1, 1..=30);
    let (told, hears) = mpsc::channel();
    log.submit(Box::new(move |outcome| told.send(outcome).unwrap()));
    fill(&log, 1, 31..=33);
    let (kept, counters) = (frames(&log), log.counters());
    log.close();
    assert_eq!(hears.recv().unwrap(), Ok(()), "what was asked for is done");
    assert!(matches!(log.append(id(34), command(1)), Err(AppendError::Closed)));
    assert_eq!(refused(|done| log.submit(done)), WriteError::Closed);
    assert_eq!(refused(|done| log.save_vote(b"late", done)), WriteError::Closed);
    let log = place.open(&StampBase::default());
    let state = log.state();
    assert_eq!((frames(&log), log.counters(), log.vote()), (kept, counters, None));
    assert_eq!((state.durable, state.durable_position), (state.last, state.next_position));
    fill(&log, 1, 34..=34);
}
