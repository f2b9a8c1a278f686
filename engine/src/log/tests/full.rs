//! A full disk ends nothing (log.I11, mark.I2).

use super::steps::Steps;
use super::*;
use crate::disk::OpenMode;
use crate::disk::sim::{LoseAll, SimDisk};
use crate::record::HEADER_BYTES;

fn fill(disk: &SimDisk) {
    disk.set_capacity(Some(disk.used()));
}

/// What a job was answered, once it is.
type Answered = Arc<Mutex<Option<Result<(), WriteError>>>>;

fn asked(ask: impl FnOnce(Completion)) -> Answered {
    let answered = Answered::default();
    let at = answered.clone();
    ask(Box::new(move |outcome| *at.lock() = Some(outcome)));
    answered
}

/// Some segments, all durable.
fn stepped() -> Steps {
    let steps = Steps::open(SimDisk::new());
    for index in 1..=40 {
        steps.log.append(id(index), command(900)).unwrap();
    }
    (0..20).for_each(|_| steps.step());
    assert_eq!(steps.log.state().durable, Some(id(40)));
    steps
}

/// Its job waited behind appends that waited for the room that it would have made.
#[test]
fn log_i11_a_purge_makes_the_room_that_appends_wait_for() {
    let steps = stepped();
    fill(&steps.disk);
    for index in 41..=60 {
        steps.log.append(id(index), command(900)).unwrap();
    }
    let appended = asked(|done| steps.log.submit(done));
    let voted = asked(|done| steps.log.save_vote(b"vote", done));
    (0..10).for_each(|_| steps.step());
    assert_eq!((appended.lock().clone(), steps.log.has_room(1)), (None, false));
    let purged = asked(|done| steps.log.purge(id(30), done));
    steps.step();
    assert_eq!(*purged.lock(), Some(Ok(())), "log.I11");
    assert_eq!(*voted.lock(), None, "log.I4");
    (0..20).for_each(|_| steps.step());
    assert_eq!((appended.lock().clone(), voted.lock().clone()), (Some(Ok(())), Some(Ok(()))));
    assert_eq!(steps.log.state().durable, Some(id(60)));
    let start = mark::StartFile::open(&steps.disk.crash(&mut LoseAll), Path::new("/start")).unwrap().start();
    assert_eq!(start.id, Some(id(30)));
}

/// It was answered behind the records that waited, for there was nothing to do: a second purge hung.
#[test]
fn log_i11_a_purge_of_what_is_purged_waits_for_no_room_either() {
    let steps = stepped();
    fill(&steps.disk);
    (41..=60).for_each(|index| drop(steps.log.append(id(index), command(900)).unwrap()));
    let purge = |index| {
        let purged = asked(|done| steps.log.purge(id(index), done));
        (0..10).for_each(|_| steps.step());
        assert_eq!(*purged.lock(), Some(Ok(())), "log.I11: entry {index}");
    };
    let appended = asked(|done| steps.log.submit(done));
    // Nothing goes by the first one, and the room of the others goes to other files.
    purge(1);
    purge(1);
    purge(30);
    fill(&steps.disk);
    (61..=120).for_each(|index| drop(steps.log.append(id(index), command(900)).unwrap()));
    let waits = asked(|done| steps.log.submit(done));
    purge(30);
    purge(2);
    assert_eq!(*waits.lock(), None, "the disk has room after all");
    purge(40);
    (0..40).for_each(|_| steps.step());
    assert_eq!(*appended.lock(), Some(Ok(())));
    assert_eq!(steps.log.state().purged, Some(id(40)));
}

/// It waited for room for the records that it takes away, and the node with it.
#[test]
fn log_i13_a_reset_does_not_wait_for_room_for_what_it_makes_void() {
    for later in [false, true] {
        let steps = stepped();
        fill(&steps.disk);
        (41..=60).for_each(|index| drop(steps.log.append(id(index), command(900)).unwrap()));
        let appended = asked(|done| steps.log.submit(done));
        if later {
            (0..10).for_each(|_| steps.step());
            assert_eq!((appended.lock().clone(), steps.log.has_room(1)), (None, false));
        }
        let start = StampBase { id: Some(id(90)), position: 1 << 20, ..StampBase::default() };
        let reset = asked(|done| steps.log.reset(start, done));
        (0..10).for_each(|_| steps.step());
        assert_eq!((reset.lock().clone(), appended.lock().clone()), (Some(Ok(())), Some(Ok(()))), "log.I13");
        let left = steps.disk.crash(&mut LoseAll);
        let start = mark::StartFile::open(&left, Path::new("/start")).unwrap().start();
        assert_eq!(start.id, Some(id(90)), "log.I13");
    }
}

/// Then they have to be stored first: the vote was given with them in the log.
#[test]
fn log_i13_a_reset_behind_a_vote_waits() {
    let steps = stepped();
    fill(&steps.disk);
    (41..=60).for_each(|index| drop(steps.log.append(id(index), command(900)).unwrap()));
    let voted = asked(|done| steps.log.save_vote(b"vote", done));
    let start = StampBase { id: Some(id(90)), position: 1 << 20, ..StampBase::default() };
    let reset = asked(|done| steps.log.reset(start, done));
    (0..10).for_each(|_| steps.step());
    assert_eq!((voted.lock().clone(), reset.lock().clone()), (None, None));
    steps.disk.set_capacity(None);
    (0..20).for_each(|_| steps.step());
    assert_eq!((voted.lock().clone(), reset.lock().clone()), (Some(Ok(())), Some(Ok(()))));
}

/// Whatever the writer took together with what found no room was neither written nor answered, though it had its place.
#[test]
fn what_has_its_place_does_not_wait_for_what_has_none() {
    let steps = stepped();
    fill(&steps.disk);
    let answered: Vec<_> = (41..=60)
        .map(|index| {
            steps.log.append(id(index), command(900)).unwrap();
            asked(|done| steps.log.submit(done))
        })
        .collect();
    let before = steps.log.state();
    let answered_behind = asked(|done| steps.log.submit(done));
    (0..10).for_each(|_| steps.step());
    let durable = steps.log.state().durable.map(|last| last.index - 40).unwrap() as usize;
    assert!(durable > 0 && durable < 20, "{:?} of {:?}", steps.log.state(), before);
    let (stored, waiting) = answered.split_at(durable);
    assert!(stored.iter().all(|answer| *answer.lock() == Some(Ok(()))), "log.I1");
    assert!(waiting.iter().chain([&answered_behind]).all(|answer| answer.lock().is_none()), "log.I1");
    steps.disk.set_capacity(None);
    (0..20).for_each(|_| steps.step());
    assert!(answered.iter().all(|answer| *answer.lock() == Some(Ok(()))));
    assert_eq!((answered_behind.lock().clone(), steps.log.state().durable), (Some(Ok(())), Some(id(60))));
}

#[test]
fn log_i11_a_purge_does_not_overtake_what_changes_the_log() {
    let steps = stepped();
    fill(&steps.disk);
    for index in 41..=60 {
        steps.log.append(id(index), command(900)).unwrap();
    }
    (0..10).for_each(|_| steps.step());
    let truncated = asked(|done| steps.log.truncate_after(Some(45), done));
    let purged = asked(|done| steps.log.purge(id(30), done));
    (0..10).for_each(|_| steps.step());
    assert_eq!((truncated.lock().clone(), purged.lock().clone()), (None, None));
    steps.disk.set_capacity(None);
    (0..20).for_each(|_| steps.step());
    assert_eq!((truncated.lock().clone(), purged.lock().clone()), (Some(Ok(())), Some(Ok(()))));
    assert_eq!((steps.log.state().durable, steps.log.state().purged), (Some(id(45)), Some(id(30))));
}

#[test]
fn a_purge_on_a_full_disk_poisons_nothing_and_frees_segments() {
    let steps = stepped();
    fill(&steps.disk);
    let (used, purged) = (steps.disk.used(), asked(|done| steps.log.purge(id(30), done)));
    (0..10).for_each(|_| steps.step());
    assert_eq!((purged.lock().clone(), steps.log.state().poisoned), (Some(Ok(())), None), "mark.I2");
    assert!(steps.disk.used() < used);
    let planted = crate::planted::with("purge-poisons", || {
        let steps = stepped();
        fill(&steps.disk);
        steps.log.purge(id(30), Box::new(|_| {}));
        (0..10).for_each(|_| steps.step());
        steps.log.state().poisoned
    });
    assert!(planted.is_some(), "the defect is none");
}

/// A directory of an earlier version has no space for its start: a purge is refused before anything was changed.
#[test]
fn a_purge_that_cannot_be_noted_is_refused_and_done_once_there_is_room() {
    let disk = stepped().disk.kill();
    disk.remove(Path::new("/start")).unwrap();
    disk.set_capacity(Some(0));
    let steps = Steps::open(disk);
    let before = steps.log.state();
    for refused in [
        asked(|done| steps.log.purge(id(30), done)),
        asked(|done| {
            steps.log.reset(StampBase { id: Some(id(90)), position: 1 << 20, ..StampBase::default() }, done)
        }),
    ] {
        (0..10).for_each(|_| steps.step());
        assert_eq!(*refused.lock(), Some(Err(WriteError::Full)));
        assert_eq!(steps.log.state(), before, "mark.I2");
    }
    steps.disk.set_capacity(None);
    let purged = asked(|done| steps.log.purge(id(30), done));
    (0..10).for_each(|_| steps.step());
    assert_eq!((purged.lock().clone(), steps.log.state().purged), (Some(Ok(())), Some(id(30))));
}

/// The next segment is removed by an opening, for nothing says that it is none: on a full disk the log opened no more.
#[test]
fn a_log_that_ends_with_its_segment_opens_on_a_full_disk_and_goes_on_with_room() {
    let steps = Steps::open(SimDisk::new());
    steps.log.append(id(1), command(SEGMENT_BYTES as usize - HEADER_BYTES)).unwrap();
    (0..10).for_each(|_| steps.step());
    assert_eq!(steps.log.state().durable_position, SEGMENT_BYTES);
    let next = segment::path_of(Path::new("/commitlog"), SEGMENT_BYTES);
    for left_bytes in [None, Some(0), Some(100)] {
        let disk = steps.disk.kill();
        disk.remove(&next).unwrap();
        if let Some(bytes) = left_bytes {
            // As a reservation leaves it that a stop cut short.
            disk.open(&next, OpenMode::Create).unwrap().set_len(bytes).unwrap();
        }
        fill(&disk);
        let steps = Steps::open(disk);
        steps.step();
        assert!(!steps.log.has_room(1));
        steps.log.append(id(2), command(100)).unwrap();
        let appended = asked(|done| steps.log.submit(done));
        (0..10).for_each(|_| steps.step());
        assert_eq!((appended.lock().clone(), steps.log.state().poisoned), (None, None), "{left_bytes:?}");
        steps.disk.set_capacity(None);
        (0..10).for_each(|_| steps.step());
        assert_eq!((appended.lock().clone(), steps.log.has_room(1)), (Some(Ok(())), true));
        let again = Steps::open(steps.disk.crash(&mut LoseAll));
        assert_eq!(again.log.state().last, Some(id(2)));
    }
}

const PAGE_BYTES: usize = 4096;

fn paged(disk: &SimDisk) -> CommitLog {
    let config = LogConfig { segment_bytes: 4 * PAGE_BYTES as u64, ..config() };
    CommitLog::open(Arc::new(disk.clone()), Path::new("/"), config, StampBase::default()).unwrap()
}

/// Leaves the first page of the last segment in place and makes holes of the others, as a copy of a directory may.
fn make_holes(disk: &SimDisk, base: u64) {
    let at = |base| segment::path_of(Path::new("/commitlog"), base);
    let segment_bytes = 4 * PAGE_BYTES as u64;
    let file = disk.open(&at(base), OpenMode::ReadWrite).unwrap();
    let mut page = [0; PAGE_BYTES];
    file.read_at(&mut page, 0).unwrap();
    file.set_len(0).unwrap();
    file.write_all_at(&[std::io::IoSlice::new(&page)], 0).unwrap();
    file.set_len(segment_bytes).unwrap();
    // On a busy machine the log was closed before it had prepared the next one.
    let next = at(base + segment_bytes);
    if disk.exists(&next).unwrap() {
        disk.remove(&next).unwrap();
    }
}

/// Space is reserved again before anything is written there.
#[test]
fn a_segment_with_holes_is_read_at_once_and_written_once_there_is_room() {
    let disk = SimDisk::new();
    let log = paged(&disk);
    log.append(id(1), command(100)).unwrap();
    flush(&log);
    log.close();
    make_holes(&disk, 0);
    fill(&disk);
    let log = paged(&disk);
    assert_eq!(indexes(&log.read(1, 2, 1).unwrap()), [1]);
    log.append(id(2), command(6000)).unwrap();
    let appended = asked(|done| log.submit(done));
    while log.has_room(1) {
        std::thread::yield_now();
    }
    assert_eq!((appended.lock().clone(), log.state().poisoned), (None, None));
    disk.set_capacity(None);
    flush(&log);
    assert_eq!(*appended.lock(), Some(Ok(())));
}

/// The segment behind it was made first and took the room: what was sent next found none.
#[test]
fn room_that_a_purge_makes_goes_to_the_segment_that_is_written_first() {
    let disk = SimDisk::new();
    let log = paged(&disk);
    let segment_bytes = 4 * PAGE_BYTES as u64;
    for index in 1..=2 {
        log.append(id(index), command(segment_bytes as usize - HEADER_BYTES)).unwrap();
        flush(&log);
    }
    log.append(id(3), command(100)).unwrap();
    flush(&log);
    log.close();
    make_holes(&disk, 2 * segment_bytes);
    fill(&disk);
    let log = paged(&disk);
    while log.has_room(1) {
        std::thread::yield_now();
    }
    let purged = asked(|done| log.purge(id(1), done));
    while !log.has_room(1) {
        std::thread::yield_now();
    }
    assert_eq!(*purged.lock(), Some(Ok(())));
    log.append(id(4), command(6000)).unwrap();
    let appended = asked(|done| log.submit(done));
    let until = std::time::Instant::now() + std::time::Duration::from_secs(10);
    while appended.lock().is_none() && std::time::Instant::now() < until {
        std::thread::yield_now();
    }
    assert_eq!(*appended.lock(), Some(Ok(())));
}

/// Found by the simulation: the segments behind were moved away first, and the next start missed them.
#[test]
fn a_cut_for_rot_that_finds_no_room_for_its_copy_leaves_every_record_in_its_place() {
    let disk = stepped().disk.kill();
    // In the middle of the second segment, with others behind it.
    disk.flip_bit(&segment::path_of(Path::new("/commitlog"), SEGMENT_BYTES), 1500, 3).unwrap();
    let files = |disk: &SimDisk| {
        let files = disk.dump().into_iter().filter(|(path, _)| path.starts_with("/commitlog"));
        // Blank ones go.
        files
            .filter(|(_, file)| file.as_ref().is_some_and(|file| file.iter().any(|byte| *byte != 0)))
            .collect::<Vec<_>>()
    };
    let before = files(&disk);
    disk.set_capacity(Some(0));
    let open = |disk: &SimDisk| {
        let on = Arc::new(disk.clone());
        let workers = Arc::new(super::steps::ByHand::default());
        CommitLog::open_on(on, workers, Path::new("/"), config(), StampBase::default(), OnRot::Cut)
    };
    assert!(open(&disk).err().unwrap().to_string().contains("copy the cut tail"));
    assert!(files(&disk) == before, "something was moved");
    disk.set_capacity(None);
    open(&disk).unwrap();
    let kept = files(&disk).into_iter().filter(|(path, _)| path.to_str().unwrap().contains(".cut")).count();
    assert_eq!(kept, before.len() - 1, "log.I9");
}
