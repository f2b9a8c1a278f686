//! A full disk loses no unit and ends nothing (queues.I6).

use super::*;

#[test]
fn a_full_disk_is_outlived_and_only_syncs_fail_meanwhile() {
    let disk = disk();
    let queues = empty(&disk);
    let mut maker = Maker::default();
    disk.set_capacity(Some(0));
    for _ in 0..500 {
        apply(&queues, &maker.record(&[("a", 0), ("b", 0)]));
    }
    assert!(matches!(queues.sync().unwrap_err(), QueuesError::DiskFull { .. }));
    assert!(queues.disk_full());
    assert_eq!(all(&queues, "a", 0).len(), 500);
    disk.set_capacity(None);
    queues.sync().unwrap();
    assert!(queues.retry().unwrap() && !queues.disk_full());
    let queues = open(&disk.crash(&mut LoseAll), &maker.counters, &QueueCounters::new()).unwrap();
    assert_eq!((all(&queues, "a", 0).len(), all(&queues, "b", 0).len()), (500, 500));
}

/// Nothing but a retry can find out: no record comes while sends are refused.
#[test]
fn i6_a_full_disk_is_noticed_at_once_and_a_retry_finds_the_room() {
    let disk = disk();
    let queues = empty(&disk);
    let mut maker = Maker::default();
    apply(&queues, &maker.record(&[("a", 0)]));
    queues.sync().unwrap();
    disk.set_capacity(Some(disk.used()));
    // The first page of the one queue is there; the other one finds none.
    for _ in 0..204 {
        apply(&queues, &maker.record(&[("a", 0), ("b", 0)]));
    }
    assert!(queues.disk_full() && !queues.retry().unwrap() && queues.disk_full());
    disk.set_capacity(None);
    assert!(queues.retry().unwrap() && !queues.disk_full());
    let left = open(&disk.kill(), &counters(&[("a", 0, 204), ("b", 0, 204)]), &QueueCounters::new()).unwrap();
    assert_eq!(all(&left, "b", 0).len(), 204, "what waited is written");
}

/// A unit that goes to a block that its file has, and tails that replace smaller ones, were taken for room: sends were let in
/// and refused in turn.
#[test]
fn i6_what_needs_no_new_block_is_no_sign_of_room() {
    let disk = disk();
    let queues = empty(&disk);
    let mut maker = Maker::default();
    apply(&queues, &maker.record(&[("a", 0)]));
    queues.sync().unwrap();
    disk.set_capacity(Some(disk.used()));
    while !queues.disk_full() {
        apply(&queues, &maker.record(&[("b", 0)]));
    }
    apply(&queues, &maker.record(&[("a", 0)]));
    for _ in 0..3 {
        let _ = queues.sync();
        assert!(!queues.retry().unwrap() && queues.disk_full());
    }
    disk.set_capacity(Some(disk.used() + (8 << 10)));
    queues.retry().unwrap();
    assert!(queues.disk_full(), "two blocks are no room");
    disk.set_capacity(None);
    assert!(queues.retry().unwrap() && !queues.disk_full());
    assert!(!disk.exists(&dir().join("consumequeue.room")).unwrap());
}

/// The file that is tried stood where the directory of a topic of its name does.
#[test]
fn i6_room_is_found_whatever_topics_are_called() {
    let disk = disk();
    let queues = empty(&disk);
    let mut maker = Maker::default();
    disk.set_capacity(Some(disk.used()));
    while !queues.disk_full() {
        apply(&queues, &maker.record(&[("room", 0)]));
    }
    disk.set_capacity(None);
    assert!(queues.retry().unwrap() && !queues.disk_full());
    assert!(queues.retry().unwrap());
}

/// A part of the record that memory did not hold was visible before it was applied (found by the simulation).
#[test]
fn i6_a_record_that_a_full_disk_refuses_is_applied_whole_with_room() {
    let disk = disk();
    let queues = empty(&disk);
    let mut maker = Maker::default();
    disk.set_capacity(Some(0));
    queues.hold_at_most(60_500 * UNIT_BYTES);
    let (mut arrivals, mut applied) = (Vec::new(), 0);
    let refused = loop {
        let record = maker.record(&[("a", 0); 1000]);
        match queues.apply(&record, &mut arrivals) {
            Ok(()) => applied += 1000,
            Err(QueuesError::DiskFull { .. }) => break record,
            Err(error) => panic!("{error}"),
        }
    };
    assert!((60_000..63_000).contains(&applied), "memory is bounded: {applied}");
    assert_eq!((arrivals.len(), queues.bounds("a", 0)), (applied, Some((0, applied as u64))));
    disk.set_capacity(None);
    assert!(queues.apply(&refused, &mut arrivals).is_err(), "until what waits is written");
    assert!(queues.retry().unwrap());
    queues.apply(&refused, &mut arrivals).unwrap();
    let offsets: Vec<u64> = arrivals.iter().map(|arrival| arrival.offset).collect();
    assert_eq!(offsets, (0..applied as u64 + 1000).collect::<Vec<_>>(), "each is announced once");
}
