//! A disk that fails or is full, and the order of completions (log.I1, log.I2, log.I3, log.I4).

use std::time::Duration;

use super::*;
use crate::disk::sim::{Fault, LoseAll, Operation, SimDisk};

const DIR: &str = "/";

fn start_with(disk: &SimDisk, sync: bool) -> Result<CommitLog, OpenError> {
    let config = LogConfig { sync, cache_bytes: 0, ..config() };
    CommitLog::open(Arc::new(disk.clone()), Path::new(DIR), config, StampBase::default())
}

fn start(disk: &SimDisk) -> CommitLog {
    start_with(disk, true).unwrap()
}

/// Waits until the disk is quiet, so that operations can be numbered. On a busy machine a worker is silent for a while
/// though it has more to do.
fn settle(disk: &SimDisk) -> usize {
    const QUIET_LOOKS: u32 = 5;
    let (mut before, mut quiet) = (disk.ops(), 0);
    while quiet < QUIET_LOOKS {
        std::thread::sleep(Duration::from_millis(30));
        quiet = if before == disk.ops() { quiet + 1 } else { 0 };
        before = disk.ops();
    }
    before
}

#[test]
fn completions_come_in_order_and_what_they_promise_survives_a_power_cut() {
    let disk = SimDisk::new();
    let log = start(&disk);
    let seen = Arc::new(Mutex::new(Vec::new()));
    for index in 1..=60 {
        log.append(id(index), command(150)).unwrap();
        let (seen, at_done) = (seen.clone(), disk.clone());
        let done = move |outcome: Result<(), WriteError>| {
            outcome.unwrap();
            seen.lock().push((index, at_done.crash(&mut LoseAll)));
        };
        if index % 20 == 0 {
            log.save_vote(&[index as u8], Box::new(done));
        } else {
            log.submit(Box::new(done));
        }
    }
    flush(&log);
    let seen = std::mem::take(&mut *seen.lock());
    assert_eq!(seen.iter().map(|seen| seen.0).collect::<Vec<_>>(), (1..=60).collect::<Vec<_>>(), "log.I1");
    for (index, crashed) in seen {
        let found = start(&crashed);
        assert!(found.state().last >= Some(id(index)), "log.I1, log.I2: {index} is lost");
        if index % 20 == 0 {
            assert_eq!(found.vote().unwrap()[..], [index as u8], "log.I4");
        }
    }
}

#[test]
fn after_a_failed_write_or_sync_nothing_is_acknowledged_any_more() {
    for (after, fault) in
        [(0, Fault::Eio), (0, Fault::ShortWrite), (0, Fault::Enospc), (1, Fault::FailSync), (2, Fault::Eio)]
    {
        let disk = SimDisk::new();
        let log = start(&disk);
        log.append(id(1), command(100)).unwrap();
        flush(&log);
        log.append(id(2), command(100)).unwrap();
        disk.fail_at(settle(&disk) + after, fault);
        log.append(id(3), command(100)).unwrap();
        while wait(|done| log.submit(done)).is_ok() {
            let index = log.state().last.unwrap().index + 1;
            let _ = log.append(id(index), command(100));
        }
        assert_eq!(disk.faults_struck(), 1);
        let operations = settle(&disk);
        let durable = log.state().durable;
        for refused in [
            wait(|done| log.submit(done)),
            wait(|done| log.save_vote(b"vote", done)),
            wait(|done| log.truncate_after(Some(1), done)),
            wait(|done| log.purge(id(1), done)),
        ] {
            assert!(matches!(refused, Err(WriteError::Poisoned(_))), "log.I3: {refused:?}");
        }
        assert!(matches!(log.append(id(9), command(1)), Err(AppendError::Poisoned(_))));
        assert!(log.state().poisoned.unwrap().contains("commitlog"));
        log.close();
        assert_eq!(disk.ops(), operations, "log.I3: nothing is tried again");
        assert!(start(&disk.crash(&mut LoseAll)).state().last >= durable, "{fault:?}");
    }
}

#[test]
fn a_full_disk_holds_completions_back_until_there_is_room() {
    let disk = SimDisk::new();
    let log = start(&disk);
    settle(&disk);
    disk.set_capacity(Some(disk.used()));
    let (sender, completed) = mpsc::channel();
    for index in 1..=40 {
        log.append(id(index), command(500)).unwrap();
        let sender = sender.clone();
        log.submit(Box::new(move |outcome| sender.send((index, outcome)).unwrap()));
    }
    while log.has_room(1) {
        std::thread::sleep(Duration::from_millis(5));
    }
    let state = log.state();
    assert_eq!(state.poisoned, None);
    assert!(state.durable < Some(id(40)));
    assert_eq!(indexes(&log.read(1, 41, usize::MAX).unwrap()).len(), 40, "cache.I2");
    disk.set_capacity(None);
    for index in 1..=40 {
        assert_eq!(completed.recv_timeout(Duration::from_secs(60)).unwrap(), (index, Ok(())));
    }
    assert!(log.has_room(1) && !log.has_room(SEGMENT_BYTES + 1));
}

#[test]
fn closing_while_the_disk_is_full_ends_and_keeps_what_was_acknowledged() {
    let disk = SimDisk::new();
    let log = start(&disk);
    settle(&disk);
    disk.set_capacity(Some(disk.used()));
    log.append(id(1), command(100)).unwrap();
    flush(&log);
    let (sender, completed) = mpsc::channel();
    for index in 2..=40 {
        log.append(id(index), command(500)).unwrap();
    }
    log.submit(Box::new(move |outcome| sender.send(outcome).unwrap()));
    while log.has_room(1) {
        std::thread::sleep(Duration::from_millis(5));
    }
    log.close();
    assert!(completed.recv().unwrap().is_err());
    assert!(matches!(log.append(id(41), command(1)), Err(AppendError::Closed | AppendError::Poisoned(_))));
    assert!(start(&disk.crash(&mut LoseAll)).state().last >= Some(id(1)));
}

#[test]
fn a_damaged_vote_slot_forgets_no_vote_and_two_bad_ones_refuse() {
    let disk = SimDisk::new();
    let log = start(&disk);
    assert_eq!(log.vote(), None);
    for vote in [&b"one"[..], b"two"] {
        wait(|done| log.save_vote(vote, done)).unwrap();
        assert_eq!(log.vote().unwrap(), vote);
    }
    assert!(matches!(wait(|done| log.save_vote(&[0; 5000], done)), Err(WriteError::Refused(_))));
    drop(log);
    assert_eq!(start(&disk).vote().unwrap()[..], *b"two");
    let vote = Path::new("/vote");
    for slot in [0, 1, 0] {
        disk.flip_bit(vote, slot * 4096 + 17, 3).unwrap();
        assert_eq!(start(&disk).vote().unwrap()[..], *b"two", "slots.I2");
    }
    disk.flip_bit(vote, 17, 3).unwrap();
    disk.flip_bit(vote, 4096 + 17, 3).unwrap();
    let refused = start_with(&disk, true).err().unwrap().to_string();
    assert!(refused.contains("vote"), "{refused}");
}

#[test]
fn without_sync_completions_do_not_wait_and_the_disk_follows() {
    let disk = SimDisk::new();
    let log = start_with(&disk, false).unwrap();
    let before = settle(&disk);
    log.append(id(1), command(100)).unwrap();
    let (sender, completed) = mpsc::channel();
    let at_done = disk.clone();
    log.submit(Box::new(move |outcome| sender.send((outcome, at_done.history())).unwrap()));
    let synced = |history: &[Operation]| {
        let sync = Operation::Sync { path: segment::path_of(Path::new("/commitlog"), 0) };
        history[before..].contains(&sync)
    };
    let (outcome, history) = completed.recv().unwrap();
    outcome.unwrap();
    assert!(!synced(&history));
    assert_eq!(log.state().durable, Some(id(1)));
    while !synced(&disk.history()) {
        std::thread::sleep(Duration::from_millis(20));
    }
    log.append(id(2), command(100)).unwrap();
    flush(&log);
    log.close();
    assert_eq!(start(&disk.crash(&mut LoseAll)).state().last, Some(id(2)));
}

/// Found by a review: the scrub fell back to the page cache, and mending looked at the neighbours through the map.
#[test]
fn a_bad_sector_is_found_by_the_scrub_and_mended_and_ends_nothing() {
    let disk = SimDisk::new();
    let log = start(&disk);
    let records: Vec<Record> = (1..=9).map(|index| log.append(id(index), command(300)).unwrap()).collect();
    flush(&log);
    drop(log);
    let log = start(&disk);
    let file = segment::path_of(Path::new("/commitlog"), 0);
    let hit = &records[4];
    disk.lose(&file, hit.position() + 100..hit.position() + 200).unwrap();
    let scrub = || log.scrub(None, 9, u64::MAX).unwrap().damaged;
    assert!(scrub());
    let damages = log.damages();
    assert_eq!(damages.iter().map(|damage| damage.index).collect::<Vec<_>>(), [5]);
    assert!(log.cached_copy(&damages[0]).is_none());
    wait(|done| log.mend(hit.clone(), done)).unwrap();
    assert!(!scrub() && log.damages().is_empty());

    // One that reaches into the next record cannot be written without being read.
    disk.lose(&file, hit.end() - 50..hit.end() + 50).unwrap();
    assert!(scrub());
    wait(|done| log.mend(hit.clone(), done)).unwrap_err();
    assert!(log.state().poisoned.is_none() && log.is_damaged(hit.position()));
    log.append(id(10), command(100)).unwrap();
    flush(&log);
}

/// Before: the thread was gone, the log took records, and nobody heard of any of them again.
#[test]
fn log_i3_a_writer_that_panics_poisons_the_log() {
    let disk = SimDisk::new();
    let log = start(&disk);
    log.append(id(1), command(100)).unwrap();
    flush(&log);
    log.submit(Box::new(|_| panic!("a bug on the writer's thread")));
    let deadline = std::time::Instant::now() + Duration::from_secs(60);
    while log.state().poisoned.is_none() {
        assert!(std::time::Instant::now() < deadline, "the log takes records that nobody writes");
        std::thread::sleep(Duration::from_millis(1));
    }
    wait(|done| log.submit(done)).expect_err("what comes behind it is answered");
    log.append(id(2), command(100)).expect_err("nothing is taken any more");
    log.close();
    assert_eq!(start(&disk).state().last, Some(id(1)));
}
