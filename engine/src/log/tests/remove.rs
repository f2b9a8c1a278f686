//! Segments that a purge let go of are removed apart from the writer (log.I10).

use std::io;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use parking_lot::Condvar;

use super::front::{eventually, reopen, segment_files};
use super::steps::Steps;
use super::*;
use crate::disk::sim::{KeepAll, LoseAll, SimDisk};
use crate::disk::{DiskFile, DiskLock, OpenMode};

/// Nothing here takes longer, on however busy a machine.
const PATIENCE: Duration = Duration::from_secs(60);

/// How a [`Guarded`] disk removes files.
#[derive(Clone, Copy, PartialEq)]
enum Removals {
    Pass,
    Wait,
    Fail,
}

/// The real disk, but for what it does with removals; the number of those that failed.
struct Guarded(Mutex<Removals>, Condvar, AtomicUsize);

impl Guarded {
    fn new() -> Arc<Guarded> {
        Arc::new(Guarded(Mutex::new(Removals::Pass), Condvar::new(), AtomicUsize::new(0)))
    }

    fn set(&self, removals: Removals) {
        *self.0.lock() = removals;
        self.1.notify_all();
    }
}

impl Disk for Guarded {
    fn create_dir_all(&self, path: &Path) -> io::Result<()> {
        RealDisk.create_dir_all(path)
    }
    fn open(&self, path: &Path, mode: OpenMode) -> io::Result<Arc<dyn DiskFile>> {
        RealDisk.open(path, mode)
    }
    fn list(&self, dir: &Path) -> io::Result<Vec<PathBuf>> {
        RealDisk.list(dir)
    }
    fn remove(&self, path: &Path) -> io::Result<()> {
        let mut removals = self.0.lock();
        // Bounded, for a failing test to end.
        self.1.wait_while_for(&mut removals, |removals| *removals == Removals::Wait, 2 * PATIENCE);
        match *removals {
            Removals::Fail => {
                self.2.fetch_add(1, Ordering::Relaxed);
                Err(io::Error::other("not today"))
            }
            _ => RealDisk.remove(path),
        }
    }
    fn remove_dir_all(&self, path: &Path) -> io::Result<()> {
        RealDisk.remove_dir_all(path)
    }
    fn rename(&self, from: &Path, to: &Path) -> io::Result<()> {
        RealDisk.rename(from, to)
    }
    fn sync_dir(&self, dir: &Path) -> io::Result<()> {
        RealDisk.sync_dir(dir)
    }
    fn exists(&self, path: &Path) -> io::Result<bool> {
        RealDisk.exists(path)
    }
    fn lock(&self, path: &Path) -> io::Result<DiskLock> {
        RealDisk.lock(path)
    }
}

/// A log of a hundred records in several segments.
fn filled(disk: Arc<Guarded>, dir: &Path) -> CommitLog {
    let log = CommitLog::open(disk, dir, config(), StampBase::default()).unwrap();
    for index in 0..100 {
        log.append(id(index), command(200)).unwrap();
    }
    flush(&log);
    log
}

/// Retention removed 23 segments of 256 MiB in 2.7 s on the writer's thread of all nodes at once; each time a new leader
/// was elected.
#[test]
fn the_log_stood_while_purged_segments_were_removed() {
    let (dir, disk) = (tempfile::tempdir().unwrap(), Guarded::new());
    let log = filled(disk.clone(), dir.path());
    let files = segment_files(dir.path());
    disk.set(Removals::Wait);
    let (sender, durable) = mpsc::channel();
    let acknowledged = sender.clone();
    log.purge(id(60), Box::new(move |outcome| sender.send(outcome).unwrap()));
    log.append(id(100), command(200)).unwrap();
    log.submit(Box::new(move |outcome| acknowledged.send(outcome).unwrap()));
    for _ in 0..2 {
        durable.recv_timeout(PATIENCE).unwrap().unwrap();
    }
    assert_eq!(log.state().durable, Some(id(100)));
    assert!(segment_files(dir.path()) >= files);
    disk.set(Removals::Pass);
    eventually(|| segment_files(dir.path()) < files - 2);
}

#[test]
fn a_segment_that_cannot_be_removed_stops_nothing_and_goes_at_the_next_start() {
    let (dir, disk) = (tempfile::tempdir().unwrap(), Guarded::new());
    let log = filled(disk.clone(), dir.path());
    let files = segment_files(dir.path());
    let listed = || RealDisk.list(&dir.path().join("commitlog")).unwrap();
    let before = listed();
    disk.set(Removals::Fail);
    wait(|done| log.purge(id(60), done)).unwrap();
    log.append(id(100), command(200)).unwrap();
    flush(&log);
    assert_eq!(log.state().poisoned, None);
    // Each file is still there; the next segment's may have come meanwhile.
    let now = listed();
    assert!(before.iter().all(|path| now.contains(path)), "{before:?} {now:?}");
    drop(log);
    let log = reopen(dir.path());
    eventually(|| segment_files(dir.path()) < files - 2);
    assert_eq!(indexes(&log.read(61, 200, usize::MAX).unwrap()), (61..=100).collect::<Vec<_>>());
}

/// What such a segment holds must not come back where the log begins anew (log.I7).
#[test]
fn a_reset_removes_what_could_not_be_removed_before() {
    let (dir, disk) = (tempfile::tempdir().unwrap(), Guarded::new());
    let log = filled(disk.clone(), dir.path());
    disk.set(Removals::Fail);
    wait(|done| log.purge(id(60), done)).unwrap();
    eventually(|| disk.2.load(Ordering::Relaxed) > 2);
    disk.set(Removals::Pass);
    let position = 100 * SEGMENT_BYTES;
    let start = StampBase { id: Some(id(500)), position, ..StampBase::default() };
    wait(|done| log.reset(start, done)).unwrap();
    let bases = RealDisk.list(&dir.path().join("commitlog")).unwrap();
    assert!(bases.iter().filter_map(|path| segment::base_of_path(path)).all(|base| base >= position));
}

fn stepped() -> Steps {
    let steps = Steps::open(SimDisk::new());
    for index in 1..=100 {
        steps.log.append(id(index), command(200)).unwrap();
    }
    (0..5).for_each(|_| steps.step());
    steps
}

fn stepped_files(disk: &SimDisk) -> Vec<u64> {
    let paths = disk.list(Path::new("/commitlog")).unwrap();
    paths.iter().filter_map(|path| segment::base_of_path(path)).collect()
}

#[test]
fn log_i10_a_crash_before_or_amid_the_removals_changes_nothing_of_the_log() {
    for removed in 0..4 {
        let steps = stepped();
        let files = stepped_files(&steps.disk).len();
        steps.log.purge(id(60), Box::new(|outcome| outcome.unwrap()));
        // The first step is the purge itself and one removal.
        (0..=removed).for_each(|_| steps.step());
        assert!(stepped_files(&steps.disk).len() < files);
        let (expected, expected_first) = (steps.log.state(), steps.log.segment_starts()[0].0);
        for crashed in [steps.disk.crash(&mut LoseAll), steps.disk.crash(&mut KeepAll), steps.disk.kill()] {
            let start = StartFile::open(&crashed, Path::new("/start")).unwrap().start();
            let base = StampBase {
                id: start.id,
                position: start.position,
                prev_crc: start.prev_crc,
                counters: QueueCounters::default(),
            };
            let again = Steps::open_at(crashed, base);
            assert_eq!(again.log.state(), expected);
            (0..10).for_each(|_| again.step());
            let first = segment::base_of(expected_first, SEGMENT_BYTES);
            assert_eq!(stepped_files(&again.disk).first(), Some(&first));
        }
    }
}

#[test]
fn a_reset_to_where_a_segment_waits_to_be_removed_keeps_what_is_written_there_then() {
    let steps = stepped();
    steps.log.purge(id(90), Box::new(|outcome| outcome.unwrap()));
    let start = StampBase { id: Some(id(500)), position: SEGMENT_BYTES, ..StampBase::default() };
    steps.log.reset(start.clone(), Box::new(|outcome| outcome.unwrap()));
    // The purge and one removal; then the reset.
    steps.step();
    assert!(stepped_files(&steps.disk).len() > 2);
    steps.step();
    steps.log.append(id(501), command(200)).unwrap();
    (0..10).for_each(|_| steps.step());
    assert_eq!(steps.log.state().durable, Some(id(501)));
    let again = Steps::open_at(steps.disk.crash(&mut LoseAll), start);
    assert_eq!(indexes(&again.log.read(501, 600, 1).unwrap()), [501]);
    assert_eq!(stepped_files(&steps.disk)[0], SEGMENT_BYTES);
}

/// The log was cut back to its very start, and went on in a file that was still waiting to be removed. So what was written
/// there, and acknowledged, went with it.
#[test]
fn a_truncation_to_where_a_segment_waits_to_be_removed_lost_what_was_written_there_then() {
    let steps = stepped();
    let mut purged = steps.log.state().last.unwrap().index;
    let mut next = purged + 1;
    // The next record begins a segment, so the one before it is not needed once its records are purged.
    while !steps.log.append(id(next), command(900)).unwrap().position().is_multiple_of(SEGMENT_BYTES) {
        (purged, next) = (next, next + 1);
    }
    (0..20).for_each(|_| steps.step());
    assert_eq!(steps.log.state().durable, Some(id(next)));
    let before = steps.log.read(purged, next, 1).unwrap().remove(0);
    steps.log.purge(id(purged), Box::new(|outcome| outcome.unwrap()));
    steps.log.truncate_after(Some(purged), Box::new(|outcome| outcome.unwrap()));
    let record = steps.log.append(id(next), command(1)).unwrap();
    assert_eq!(record.position(), before.end(), "it fits behind what was purged");
    (0..40).for_each(|_| steps.step());
    assert_eq!(steps.log.state().durable, Some(id(next)));
    let (position, prev_crc) = (before.end(), before.header.crc);
    let start = StampBase { id: Some(id(purged)), position, prev_crc, ..StampBase::default() };
    let again = Steps::open_at(steps.disk.kill(), start);
    assert_eq!(again.log.read(next, next + 1, 1).unwrap()[0].frame(), record.frame(), "log.I10");
}
