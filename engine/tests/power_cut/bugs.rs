//! Faults of the log that the sweeps of this program found, one test each, in as few steps as show them.

use std::io::IoSlice;
use std::path::Path;
use std::sync::Arc;

use folio_engine::disk::sim::{Fault, LoseAll, SimDisk};
use folio_engine::disk::{Disk, OpenMode};
use folio_engine::{CommitLog, Draft, EntryId, RecordKind, StampBase};

use crate::workload::{self, wait};

fn open(disk: &SimDisk) -> CommitLog {
    workload::open(disk, StampBase::default()).expect("the log opens")
}

fn append(log: &CommitLog, index: u64) -> bool {
    let draft = Draft::with_payload(RecordKind::Command, b"payload");
    log.append(EntryId { term: 1, index }, draft).expect("the log takes more");
    wait(log, Box::new(|_| {})).is_ok()
}

fn vote(log: &CommitLog, vote: &[u8]) {
    log.save_vote(vote, Box::new(|_| {}));
    assert!(wait(log, Box::new(|_| {})).is_ok());
}

fn last(log: &CommitLog) -> u64 {
    log.state().last.map_or(0, |last| last.index)
}

/// A restarted node has given its vote by what it read; after a power cut it could have given it again to another.
#[test]
fn t90_a_vote_written_but_not_synced_by_a_killed_process_was_read_and_then_lost() {
    for more in 0..10 {
        let disk = SimDisk::new();
        let log = open(&disk);
        vote(&log, b"one");
        disk.cut_power_at(disk.ops() + more);
        log.save_vote(b"two", Box::new(|_| {}));
        log.close();
        let restarted = disk.kill();
        let log = open(&restarted);
        assert_eq!(open(&restarted.crash(&mut LoseAll)).vote(), log.vote(), "after {more} operations");
    }
}

/// The kernel shows the bytes of a failed sync, holds their pages for clean, and syncs nothing the next time.
#[test]
fn t91_records_whose_sync_failed_were_taken_for_durable_by_the_next_process() {
    let disk = SimDisk::new();
    let log = open(&disk);
    assert!(append(&log, 1));
    for op in disk.ops()..disk.ops() + 10 {
        disk.fail_at(op, Fault::FailSync);
    }
    assert!(!append(&log, 2));
    log.close();
    let restarted = disk.kill();
    let log = open(&restarted);
    assert_eq!(last(&log), 2);
    assert!(append(&log, 3));
    assert_eq!(last(&open(&restarted.crash(&mut LoseAll))), 3);
}

/// Records behind the durable mark, which lags, are acknowledged all the same.
#[test]
fn t92_a_read_that_failed_while_opening_was_taken_for_a_torn_tail() {
    let disk = SimDisk::new();
    let log = open(&disk);
    assert!(append(&log, 1) && append(&log, 2));
    // The mark on disk is that of the first opening.
    let disk = disk.crash(&mut LoseAll);
    log.close();
    let reads = disk.kill();
    drop(open(&reads));
    for read in 0..reads.reads() {
        let disk = disk.kill();
        disk.fail_read_at(read);
        drop(workload::open(&disk, StampBase::default()));
        assert_eq!(last(&open(&disk.kill())), 2, "read {read}");
    }
}

/// The unreadable slot may hold the newer vote.
#[test]
fn t93_a_vote_that_could_not_be_read_was_replaced_by_the_one_before() {
    let disk = SimDisk::new();
    let log = open(&disk);
    vote(&log, b"one");
    vote(&log, b"two");
    log.close();
    for read in 0..disk.reads() {
        let disk = disk.kill();
        disk.fail_read_at(read);
        if let Some(log) = workload::open(&disk, StampBase::default()) {
            assert_eq!(log.vote().as_deref(), Some(b"two".as_slice()), "read {read}");
        }
    }
}

/// A torn slot is another matter: it was never acknowledged.
#[test]
fn t94_a_torn_vote_still_falls_back() {
    let disk = SimDisk::new();
    let log = open(&disk);
    vote(&log, b"one");
    let before = disk.dump().remove(Path::new("/vote")).flatten().expect("the file of the vote");
    vote(&log, b"two");
    log.close();
    let after = disk.dump().remove(Path::new("/vote")).flatten().expect("the file of the vote");
    let at = (0..after.len()).find(|&at| before[at] != after[at]).expect("they differ");
    let shared: Arc<dyn Disk> = Arc::new(disk.clone());
    let file = shared.open(Path::new("/vote"), OpenMode::ReadWrite).expect("it opens");
    // The moment of the crash: one slot torn, the other one not written yet.
    let mut torn = before;
    torn[at] = after[at] ^ 1;
    file.write_all_at(&[IoSlice::new(&torn)], 0).expect("it is written");
    assert_eq!(open(&disk).vote().as_deref(), Some(b"one".as_slice()));
}
