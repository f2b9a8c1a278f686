//! The worker that removes the segment files the log does not need any more, apart from its writer: to give back a
//! large file takes the kernel long enough that a follower whose log stands for a few of them misses its leader.
//!
//! A file loses its name first, which is quick. Its blocks are given back by cutting its end off, piece by piece, with rests:
//! file systems that tell the device what is free (`discard`) do it there and then, and a device that takes 0.4 ms for a MiB
//! of it does nothing else meanwhile, so that 256 MiB at once were a pause of 100 ms and more for every sync of the machine.
//!
//! Nothing depends on when a file goes, or on whether a crash brings it back (`log.I10`): it lies wholly below the start,
//! which is durable before the file is given here, and opening the log gives what is left below the start here again. So
//! no removal is synced, and one that fails leaves no more than a file until the next start.

use std::collections::VecDeque;
use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::{Duration, Instant};

use parking_lot::{Condvar, Mutex};

use super::segment;
use super::workers::Worker;
use crate::disk::{Disk, DiskFile};

/// Bytes of a file that are given back at a time.
const PIECE_BYTES: u64 = 4 << 20;
/// The rest after each piece, in times of what it took: three nodes on one disk drop their old segments at the same moment.
const REST: u32 = 4;
/// The longest rest, and how long to wait for readers that have a file open.
const REST_MAX: Duration = Duration::from_millis(500);

/// A segment that the log has let go of.
pub(super) struct Leaving {
    pub(super) base: u64,
    /// Its blocks are given back with the last handle: that shall be the worker's.
    pub(super) file: Option<Arc<dyn DiskFile>>,
}

#[derive(Default)]
struct State {
    leaving: VecDeque<Leaving>,
    /// Have no name any more, and still blocks.
    nameless: VecDeque<Arc<dyn DiskFile>>,
    /// Could not be removed.
    left: Vec<u64>,
    removing: bool,
    stopped: bool,
}

/// What a step of the worker came to.
#[derive(PartialEq)]
enum Step {
    Done,
    /// Readers have the files open that are left.
    InUse,
    Idle,
}

/// Removes one segment file at a time.
pub(super) struct Remover {
    disk: Arc<dyn Disk>,
    directory: PathBuf,
    state: Mutex<State>,
    changed: Condvar,
}

impl Remover {
    pub(super) fn new(disk: Arc<dyn Disk>, directory: &Path) -> Remover {
        Remover { disk, directory: directory.to_owned(), state: Default::default(), changed: Condvar::new() }
    }

    /// Takes over files below the log's durable start.
    pub(super) fn add(&self, leaving: impl IntoIterator<Item = Leaving>) {
        self.state.lock().leaving.extend(leaving);
        self.changed.notify_all();
    }

    /// Takes over files that were removed, for their blocks.
    pub(super) fn empty(&self, files: impl IntoIterator<Item = Arc<dyn DiskFile>>) {
        self.state.lock().nameless.extend(files);
        self.changed.notify_all();
    }

    /// Removes the names of all there is before it returns, or fails: the log is about to make files of these names again, and what they
    /// hold must not come back (`log.I7`).
    pub(super) fn finish(&self) -> io::Result<()> {
        while self.remove_next() {}
        let left = std::mem::take(&mut self.state.lock().left);
        left.into_iter().try_for_each(|base| segment::remove(&*self.disk, &self.directory, base))
    }

    /// Ends the worker; what is still to be removed is left to the next opening.
    pub(super) fn stop(&self) {
        self.state.lock().stopped = true;
        self.changed.notify_all();
    }

    /// False when there was nothing to do.
    fn remove_next(&self) -> bool {
        let next = {
            let mut state = self.state.lock();
            while state.removing {
                self.changed.wait(&mut state);
            }
            let next = state.leaving.pop_front();
            state.removing = next.is_some();
            next
        };
        let Some(Leaving { base, file }) = next else { return false };
        let removed = segment::remove(&*self.disk, &self.directory, base);
        let mut state = self.state.lock();
        match removed {
            Ok(()) => state.nameless.extend(file),
            Err(error) => {
                let directory = self.directory.display();
                tracing::warn!(base, %directory, %error, "log segment not removed, the next start tries again");
                state.left.push(base);
            }
        }
        state.removing = false;
        drop(state);
        self.changed.notify_all();
        true
    }

    /// Frees a piece of a file that has no readers, or removes the next file's name.
    fn step(&self) -> Step {
        let (file, others) = {
            let mut state = self.state.lock();
            let unread = state.nameless.iter().position(|file| Arc::strong_count(file) == 1);
            (unread.and_then(|at| state.nameless.remove(at)), state.nameless.len())
        };
        match file {
            Some(file) => {
                // If it cannot be cut, the rest goes with the handle.
                if let Ok(true) = cut_piece(&*file) {
                    self.state.lock().nameless.push_front(file);
                }
                Step::Done
            }
            None if self.remove_next() => Step::Done,
            None if others > 0 => Step::InUse,
            None => Step::Idle,
        }
    }
}

/// Shortens a file by a piece; whether there is more of it.
fn cut_piece(file: &dyn DiskFile) -> io::Result<bool> {
    let left = file.len()?.saturating_sub(PIECE_BYTES);
    file.set_len(left)?;
    Ok(left > 0)
}

/// The worker's handle of its [`Remover`].
pub(super) struct Removing(pub(super) Arc<Remover>);

impl Worker for Removing {
    fn run(&mut self) {
        let remover = &*self.0;
        loop {
            let since = Instant::now();
            let step = remover.step();
            // Most of the time the disk is left to those who write.
            let rest = if step == Step::Done { (since.elapsed() * REST).min(REST_MAX) } else { REST_MAX };
            let mut state = remover.state.lock();
            if step != Step::Idle && !state.stopped {
                remover.changed.wait_for(&mut state, rest);
            }
            while !state.stopped && state.leaving.is_empty() && state.nameless.is_empty() {
                remover.changed.wait(&mut state);
            }
            if state.stopped {
                return;
            }
        }
    }

    fn step(&mut self) -> bool {
        if self.0.state.lock().stopped {
            return false;
        }
        self.0.step();
        true
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::disk::OpenMode;
    use crate::disk::sim::SimDisk;

    const PIECES: u64 = 3;

    fn removing(disk: &Arc<SimDisk>) -> (Remover, Arc<dyn DiskFile>) {
        let file = disk.open(&segment::path_of(Path::new("/"), 0), OpenMode::Create).unwrap();
        file.allocate(PIECES * PIECE_BYTES).unwrap();
        let remover = Remover::new(disk.clone(), Path::new("/"));
        remover.add([Leaving { base: 0, file: Some(file.clone()) }]);
        (remover, file)
    }

    /// All at once held up every sync of the machine by 50 to 220 ms for each file.
    #[test]
    fn a_file_loses_its_name_and_then_its_blocks_piece_by_piece() {
        let disk = Arc::new(SimDisk::new());
        let (remover, file) = removing(&disk);
        drop(file);
        let mut used = vec![disk.used()];
        while remover.step() == Step::Done {
            used.push(disk.used());
        }
        assert!(remover.step() == Step::Idle && disk.list(Path::new("/")).unwrap().is_empty());
        let freed: Vec<u64> = used.windows(2).map(|pair| pair[0] - pair[1]).collect();
        assert_eq!((freed[0], freed.iter().sum()), (0, PIECES * PIECE_BYTES), "{freed:?}");
        assert!(freed.iter().all(|bytes| *bytes <= PIECE_BYTES), "{freed:?}");
    }

    #[test]
    fn whoever_reads_a_file_that_goes_reads_all_of_it() {
        let disk = Arc::new(SimDisk::new());
        let (remover, reader) = removing(&disk);
        while remover.step() == Step::Done {}
        assert!(remover.step() == Step::InUse);
        assert_eq!(reader.len().unwrap(), PIECES * PIECE_BYTES);
        drop(reader);
        while remover.step() == Step::Done {}
        assert!(remover.step() == Step::Idle);
        assert_eq!(disk.used(), 0);
    }
}
