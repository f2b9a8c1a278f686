//! What every derived structure must pass: [`check`] runs an implementation through the invariants of the trait.
//!
//! An implementation describes itself by a [`Subject`]: how it is opened, and everything that it holds as text. The suite
//! plays the owner: it opens, compares the point with the log as an owner does, and applies what is missing.

mod story;

use std::collections::BTreeSet;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use crate::disk::Disk;
use crate::disk::sim::{SeededChoice, SimDisk};
use crate::log::StampBase;

use super::{Derived, DerivedError, LogPoint, RepairStep, Taken};
pub(crate) use story::{FIRST_STORE_MS, STORE_STEP_MS, Story};

/// An implementation under test.
pub(crate) trait Subject {
    /// The structure.
    type Structure: Derived;

    /// Opens it below [`dir`], as its owner does at a start: `saved` is the place of the last checkpoint, the log begins at
    /// `begin`.
    fn open(&self, disk: Arc<dyn Disk>, saved: &StampBase, begin: &StampBase) -> (Self::Structure, LogPoint);

    /// All that readers can see of records from `begin` on: equal for equal contents, however they came about.
    fn dump(&self, structure: &Self::Structure, story: &Story, begin: &StampBase) -> Vec<String>;

    /// How often the suite syncs: after so many records.
    fn sync_every(&self) -> usize {
        20
    }
}

/// Where the structure's files are.
pub(crate) fn dir() -> &'static Path {
    Path::new("/group")
}

/// Records of the story; enough for several syncs.
const RECORDS: u64 = 130;
/// Moments at which the power is cut, about, spread over all operations; each with other choices of what is lost.
const CUTS: usize = 120;

/// Runs all of the suite.
pub(crate) fn check<S: Subject>(subject: &S) {
    let story = Story::new(RECORDS);
    let suite = Suite { subject, whole: Vec::new(), story: &story };
    let suite = Suite { whole: suite.built_from(&story.bases[0]), ..suite };
    assert!(suite.whole.len() > 10, "the subject tells nothing");
    suite.restarts();
    suite.power_cuts();
    suite.deleted_files();
    suite.trims();
    suite.resets();
    suite.damage();
    suite.full_disk();
    story.log.close();
}

struct Suite<'a, S: Subject> {
    subject: &'a S,
    story: &'a Story,
    /// What a structure holds to which all of the story was applied without a break.
    whole: Vec<String>,
}

/// A structure with how many records were applied to it.
struct Open<D> {
    structure: D,
    next: usize,
}

fn new_disk() -> SimDisk {
    let disk = SimDisk::new();
    disk.create_dir_all(dir()).unwrap();
    disk.sync_dir(Path::new("/")).unwrap();
    disk
}

impl<S: Subject> Suite<'_, S> {
    /// Opens as an owner does: a point that is not of this log, or before it, means that the structure begins anew.
    fn open(&self, disk: &SimDisk, saved: usize, begin: usize) -> Open<S::Structure> {
        let (saved, begin) = (&self.story.bases[saved], &self.story.bases[begin]);
        let (structure, at) = self.subject.open(Arc::new(disk.clone()), saved, begin);
        let next = at.next_index() as usize;
        let known = self.story.bases.get(next).is_some_and(|base| at.is_after(base.id, base.prev_crc));
        if known && next as u64 >= LogPoint::from(begin).next_index() {
            return Open { structure, next };
        }
        structure.reset(begin).unwrap();
        Open { structure, next: LogPoint::from(begin).next_index() as usize }
    }

    /// Applies records up to `end`, as an owner does: what is refused is applied again.
    fn feed(&self, open: &mut Open<S::Structure>, end: usize) -> Result<(), DerivedError> {
        while open.next < end {
            match open.structure.apply(&self.story.records[open.next], &mut Vec::new()) {
                Ok(Taken::SyncWanted) => {
                    open.next += 1;
                    open.structure.sync()?;
                }
                Ok(Taken::Held) => open.next += 1,
                Err(DerivedError::Busy(_)) => open.structure.sync()?,
                Err(error) => return Err(error),
            }
        }
        Ok(())
    }

    fn feed_all(&self, open: &mut Open<S::Structure>) {
        self.feed(open, self.story.len()).unwrap();
    }

    fn dump(&self, open: &Open<S::Structure>, begin: usize) -> Vec<String> {
        self.subject.dump(&open.structure, self.story, &self.story.bases[begin])
    }

    /// What a structure holds that is built from there.
    fn built_from(&self, begin: &StampBase) -> Vec<String> {
        let from = LogPoint::from(begin).next_index() as usize;
        let mut open = self.open(&new_disk(), from, from);
        self.feed_all(&mut open);
        self.dump(&open, from)
    }

    /// Applies everything with syncs between; the last sync that succeeded, in records, is noted in `saved`.
    fn work(&self, disk: &SimDisk, saved: &mut usize) -> Result<Open<S::Structure>, DerivedError> {
        let mut open = self.open(disk, 0, 0);
        while open.next < self.story.len() {
            let end = self.story.len().min(open.next + self.subject.sync_every());
            self.feed(&mut open, end)?;
            open.structure.sync()?;
            *saved = open.next;
        }
        Ok(open)
    }

    /// `derived.I1`, `derived.I2` without a power cut.
    fn restarts(&self) {
        for at in [0, 1, 7, 20, 64, self.story.len()] {
            let disk = new_disk();
            let mut open = self.open(&disk, 0, 0);
            self.feed(&mut open, at).unwrap();
            open.structure.sync().unwrap();
            let mut open = self.open(&disk.kill(), at, 0);
            assert_eq!(open.next, at, "what was synced is there");
            self.feed_all(&mut open);
            assert_eq!(self.dump(&open, 0), self.whole, "derived.I1: a restart after {at}");
        }
    }

    /// `derived.I2`
    fn power_cuts(&self) {
        let disk = new_disk();
        let before = disk.ops();
        self.work(&disk, &mut 0).unwrap();
        let operations = disk.ops();
        let every = ((operations - before) / CUTS).max(1);
        for cut in (before..=operations).step_by(every) {
            let (disk, mut saved) = (new_disk(), 0);
            disk.cut_power_at(cut);
            // Opening may meet the cut, too; then nothing was saved.
            let worked = std::panic::catch_unwind(std::panic::AssertUnwindSafe(|| {
                self.work(&disk, &mut saved).map(drop)
            }));
            drop(worked);
            for seed in 0..3 {
                let after = disk.crash(&mut SeededChoice::new(seed + cut as u64 * 3));
                let mut open = self.open(&after, saved, 0);
                assert!(open.next >= saved, "derived.I2: cut at {cut}, {} of {saved} records", open.next);
                self.feed_all(&mut open);
                assert_eq!(self.dump(&open, 0), self.whole, "derived.I2: cut at {cut}, choice {seed}");
                // Once more, with what the one before has made of the files.
                open.structure.sync().unwrap();
                let again = self.open(&after.kill(), self.story.len(), 0);
                assert_eq!(self.dump(&again, 0), self.whole, "derived.I2: after the cut at {cut}");
            }
        }
    }

    fn files(&self, disk: &SimDisk) -> Vec<(PathBuf, usize)> {
        let all = disk.dump().into_iter();
        let below = all.filter(|(path, _)| path.starts_with(dir()));
        below.filter_map(|(path, content)| Some((path, content?.len()))).collect()
    }

    /// `derived.I1` with each file, and all of them, gone.
    fn deleted_files(&self) {
        let disk = new_disk();
        let mut saved = 0;
        drop(self.work(&disk, &mut saved).unwrap());
        let files = self.files(&disk);
        assert!(!files.is_empty());
        let mut sets: Vec<BTreeSet<PathBuf>> = files.iter().map(|(path, _)| [path.clone()].into()).collect();
        sets.push(files.into_iter().map(|(path, _)| path).collect());
        for gone in sets {
            let disk = disk.kill();
            for path in &gone {
                disk.remove(path).unwrap();
            }
            self.check_whole(self.open(&disk, saved, 0), &format!("without {gone:?}"));
        }
        let disk = disk.kill();
        disk.remove_dir_all(dir()).unwrap();
        disk.create_dir_all(dir()).unwrap();
        self.check_whole(self.open(&disk, saved, 0), "without its directory");
    }

    /// Scrubbed, repaired and built up to the end, it holds everything.
    fn check_whole(&self, mut open: Open<S::Structure>, why: &str) {
        self.feed_all(&mut open);
        self.repair(&open, why);
        assert_eq!(self.dump(&open, 0), self.whole, "{why}");
    }

    /// `derived.I4`: a scrub finds what is damaged, and the log brings it back.
    fn repair(&self, open: &Open<S::Structure>, why: &str) {
        let upto = self.story.len() as u64 - 1;
        let scrub = || (0..10_000).any(|_| open.structure.scrub(4096).over);
        assert!(scrub(), "{why}: a pass of the scrub ends");
        for _ in 0..10_000 {
            if open.structure.damaged() == 0 {
                break;
            }
            match open.structure.repair(&self.story.log, upto, 2048) {
                Ok(RepairStep::RoundOver | RepairStep::Searching | RepairStep::Repaired(_)) => {}
                Err(error) => panic!("derived.I4: {why}: {error}"),
            }
        }
        open.structure.sync().unwrap();
        assert!(scrub());
        assert_eq!(open.structure.damaged(), 0, "derived.I4: {why}");
    }

    /// `derived.I3`
    fn trims(&self) {
        for begin in [1, 20, 75, self.story.len()] {
            let expected = self.built_from(&self.story.bases[begin]);
            let (disk, mut saved) = (new_disk(), 0);
            let mut open = self.work(&disk, &mut saved).unwrap();
            open.structure.trim(&self.story.bases[begin]).unwrap();
            assert_eq!(self.dump(&open, begin), expected, "derived.I3: trimmed up to {begin}");
            let again = self.open(&disk.crash(&mut SeededChoice::new(begin as u64)), saved, begin);
            assert_eq!(again.next, saved);
            assert_eq!(self.dump(&again, begin), expected, "derived.I3: and opened again");
            // Trimmed before all is applied.
            let disk = new_disk();
            open = self.open(&disk, 0, 0);
            self.feed(&mut open, begin).unwrap();
            open.structure.trim(&self.story.bases[begin]).unwrap();
            self.feed_all(&mut open);
            assert_eq!(self.dump(&open, begin), expected, "derived.I3: trimmed at {begin}");
        }
    }

    /// A reset, and a power cut at any moment of it.
    fn resets(&self) {
        for begin in [5, 40] {
            let expected = self.built_from(&self.story.bases[begin]);
            let reset = |disk: &SimDisk, cut: Option<usize>| {
                let mut open = self.work(disk, &mut 0)?;
                let before = disk.ops();
                cut.into_iter().for_each(|cut| disk.cut_power_at(before + cut));
                open.structure.reset(&self.story.bases[begin])?;
                open.next = begin;
                Ok::<_, DerivedError>((open, disk.ops() - before))
            };
            let (mut open, operations) = reset(&new_disk(), None).unwrap();
            self.feed_all(&mut open);
            assert_eq!(self.dump(&open, begin), expected, "reset to {begin}");
            for cut in 0..=operations {
                let disk = new_disk();
                drop(reset(&disk, Some(cut)));
                let after = disk.crash(&mut SeededChoice::new(cut as u64));
                let mut open = self.open(&after, begin, begin);
                self.feed_all(&mut open);
                assert_eq!(self.dump(&open, begin), expected, "reset to {begin}, cut at {cut}");
            }
        }
    }

    /// `derived.I4`
    fn damage(&self) {
        let (disk, mut saved) = (new_disk(), 0);
        drop(self.work(&disk, &mut saved).unwrap());
        for (path, bytes) in self.files(&disk) {
            for at in [0, 9, bytes / 3, bytes / 2, bytes.saturating_sub(1)] {
                if at >= bytes {
                    continue;
                }
                let why = format!("bit {at} of {} bytes of {}", bytes, path.display());
                // Found by the start, or by the scrub after it.
                let damaged = disk.kill();
                damaged.flip_bit(&path, at as u64, 3).unwrap();
                self.check_whole(self.open(&damaged, saved, 0), &why);
                // Under an open structure.
                let damaged = disk.kill();
                let open = self.open(&damaged, saved, 0);
                damaged.flip_bit(&path, at as u64, 3).unwrap();
                self.check_whole(open, &format!("{why}, while it was open"));
            }
        }
    }

    /// `derived.I5`
    fn full_disk(&self) {
        for room in [0, 4096, 16 << 10, 64 << 10] {
            let disk = new_disk();
            let mut open = self.open(&disk, 0, 0);
            disk.set_capacity(Some(disk.used() + room));
            for _ in 0..4 {
                let end = self.story.len().min(open.next + self.subject.sync_every());
                match self.feed(&mut open, end).and_then(|()| open.structure.sync()) {
                    Ok(()) | Err(DerivedError::DiskFull { .. } | DerivedError::Busy(_)) => {}
                    Err(error) => panic!("a full disk is no failure: {error}"),
                }
            }
            disk.set_capacity(None);
            assert!(open.structure.retry().unwrap(), "there is room");
            assert!(!open.structure.disk_full());
            self.feed_all(&mut open);
            open.structure.sync().unwrap();
            assert_eq!(self.dump(&open, 0), self.whole, "derived.I5: room for {room} bytes");
            let again = self.open(&disk.kill(), self.story.len(), 0);
            assert_eq!(self.dump(&again, 0), self.whole, "derived.I5: room for {room} bytes, opened again");
        }
    }
}
