//! The worker that removes the segment files the log does not need any more, apart from its writer: to give back a
//! large file takes the kernel long enough that a follower whose log stands for a few of them misses its leader.
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

/// The rest after a file, in times of what its removal took: three nodes on one disk drop their old segments at the same
/// moment, and a follower may miss its leader then. Rest alone does not end that: see `benches/results/profile.md`.
const REST: u32 = 4;
/// The longest rest between two files.
const REST_MAX: Duration = Duration::from_millis(500);

/// A segment that the log has let go of.
pub(super) struct Leaving {
    pub(super) base: u64,
    /// Its pages and blocks are given back with the last handle: that shall be the worker's.
    pub(super) file: Option<Arc<dyn DiskFile>>,
}

#[derive(Default)]
struct State {
    leaving: VecDeque<Leaving>,
    /// Could not be removed.
    left: Vec<u64>,
    removing: bool,
    stopped: bool,
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

    /// Removes all there is before it returns, or fails: the log is about to make files of these names again, and what they
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
        drop(file);
        let mut state = self.state.lock();
        if let Err(error) = removed {
            let directory = self.directory.display();
            tracing::warn!(base, %directory, %error, "log segment not removed, the next start tries again");
            state.left.push(base);
        }
        state.removing = false;
        drop(state);
        self.changed.notify_all();
        true
    }
}

/// The worker's handle of its [`Remover`].
pub(super) struct Removing(pub(super) Arc<Remover>);

impl Worker for Removing {
    fn run(&mut self) {
        let remover = &*self.0;
        loop {
            let since = Instant::now();
            let removed = remover.remove_next();
            let mut state = remover.state.lock();
            // Most of the time the disk is left to those who write.
            if removed && !state.stopped {
                remover.changed.wait_for(&mut state, (since.elapsed() * REST).min(REST_MAX));
            }
            while !state.stopped && state.leaving.is_empty() {
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
        self.0.remove_next();
        true
    }
}
