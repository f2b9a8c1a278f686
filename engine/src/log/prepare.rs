//! The worker that has the next segment file ready before it is needed, so that going on to it costs nothing.
//!
//! A file is ready when its space is reserved and the file and its name are durable (`log.I2`). A full disk is not an
//! error here: it is tried again each second (by a simulation, at each step), and [`Preparer::is_full`] says so
//! meanwhile.

use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::{Duration, Instant};

use parking_lot::{Condvar, Mutex};

use super::segment;
use super::workers::Worker;
use crate::disk::{Disk, DiskFile, is_full, open_reserved};

const RETRY_AFTER: Duration = Duration::from_secs(1);
/// How long the writer waits for a segment before it looks what else it can do.
const TAKE_PATIENCE: Duration = Duration::from_millis(100);

#[derive(Default)]
struct State {
    wanted: Option<u64>,
    ready: Option<(u64, Arc<dyn DiskFile>)>,
    failed: Option<String>,
    making: Option<u64>,
    full: bool,
    closing: bool,
    stopped: bool,
}

/// Makes one segment file at a time.
pub(super) struct Preparer {
    disk: Arc<dyn Disk>,
    directory: PathBuf,
    segment_bytes: u64,
    /// Whether [`Preparer::take`] may wait for the worker.
    may_wait: bool,
    state: Mutex<State>,
    changed: Condvar,
}

impl Preparer {
    pub(super) fn new(disk: Arc<dyn Disk>, directory: &Path, segment_bytes: u64, may_wait: bool) -> Preparer {
        let (state, changed) = Default::default();
        Preparer { disk, directory: directory.to_owned(), segment_bytes, may_wait, state, changed }
    }

    /// Asks for the segment at `base`.
    pub(super) fn want(&self, base: u64) {
        let mut state = self.state.lock();
        let is_ready = state.ready.as_ref().is_some_and(|ready| ready.0 == base);
        if !is_ready && state.making != Some(base) {
            state.wanted = Some(base);
            self.changed.notify_all();
        }
    }

    /// The segment at `base`. Waits for it a little; where it may not wait it makes it itself. `None`: it is not there yet,
    /// for the disk is slow or full. Fails when it cannot be made, or the log is closed while the disk is full.
    pub(super) fn take(&self, base: u64) -> io::Result<Option<Arc<dyn DiskFile>>> {
        self.want(base);
        let until = Instant::now() + TAKE_PATIENCE;
        let mut state = self.state.lock();
        loop {
            match state.ready.take() {
                Some((ready, file)) if ready == base => return Ok(Some(file)),
                // Of a place the log did not go to: the file is used when the log comes by, or removed at the next open.
                other => drop(other),
            }
            if let Some(reason) = &state.failed {
                return Err(io::Error::other(reason.clone()));
            }
            if state.stopped || (state.closing && state.full) {
                return Err(io::Error::new(io::ErrorKind::StorageFull, "closed while the disk was full"));
            }
            if state.wanted.is_none() && state.making.is_none() {
                state.wanted = Some(base);
                self.changed.notify_all();
            }
            if self.may_wait {
                if self.changed.wait_until(&mut state, until).timed_out() {
                    return Ok(None);
                }
                continue;
            }
            drop(state);
            if !self.make() {
                return Ok(None);
            }
            state = self.state.lock();
        }
    }

    /// Forgets what was asked for and what is ready; when this returns, no file is being made.
    pub(super) fn discard(&self) {
        let mut state = self.state.lock();
        while state.making.is_some() {
            self.changed.wait(&mut state);
        }
        // What was just made, or found no room and was to be tried again, is forgotten as well: it may be removed now.
        (state.wanted, state.ready) = (None, None);
    }

    pub(super) fn is_full(&self) -> bool {
        self.state.lock().full
    }

    /// Whether the disk has no room for the segment at `base`.
    pub(super) fn lacks(&self, base: u64) -> bool {
        let state = self.state.lock();
        state.full && [state.wanted, state.making].into_iter().flatten().any(|wanted| wanted <= base)
    }

    /// From now on nobody waits for a full disk.
    pub(super) fn closing(&self) {
        self.state.lock().closing = true;
        self.changed.notify_all();
    }

    /// Ends the worker.
    pub(super) fn stop(&self) {
        self.state.lock().stopped = true;
        self.changed.notify_all();
    }

    /// Makes the file that is wanted, if any; false when the disk was full.
    fn make(&self) -> bool {
        let Some(base) = self.state.lock().take_wanted() else { return true };
        let made = create(&*self.disk, &self.directory, base, self.segment_bytes);
        let mut state = self.state.lock();
        state.making = None;
        let full = made.as_ref().is_err_and(is_full);
        if full != state.full {
            let directory = self.directory.display();
            match full {
                true => tracing::warn!(base, %directory, "disk full: cannot allocate the next log segment"),
                false => {
                    tracing::info!(base, %directory, "the next log segment is allocated: the disk has room")
                }
            }
            state.full = full;
        }
        match made {
            Ok(file) => state.ready = Some((base, file)),
            Err(_) if full => state.wanted = state.wanted.or(Some(base)),
            Err(error) => state.failed = Some(format!("make segment {base}: {error}")),
        }
        self.changed.notify_all();
        !full
    }
}

impl State {
    fn take_wanted(&mut self) -> Option<u64> {
        self.making = self.wanted.take();
        self.making
    }
}

/// The worker's handle of its [`Preparer`].
pub(super) struct Preparing(pub(super) Arc<Preparer>);

impl Worker for Preparing {
    fn run(&mut self) {
        let preparer = &*self.0;
        loop {
            let has_room = preparer.make();
            let mut state = preparer.state.lock();
            if !has_room && !state.stopped {
                preparer.changed.wait_for(&mut state, RETRY_AFTER);
            }
            while !state.stopped && state.wanted.is_none() {
                preparer.changed.wait(&mut state);
            }
            if state.stopped {
                return;
            }
        }
    }

    fn step(&mut self) -> bool {
        self.0.make();
        !self.0.state.lock().stopped
    }
}

/// Creates a segment file: reserved, zeroed, durable with its name. What a crash left of it is reused; a full disk that has
/// no room for all of it gets back what it gave.
pub(super) fn create(
    disk: &dyn Disk,
    directory: &Path,
    base: u64,
    segment_bytes: u64,
) -> io::Result<Arc<dyn DiskFile>> {
    let file = open_reserved(disk, &segment::path_of(directory, base), segment_bytes)?;
    file.sync_all()?;
    disk.sync_dir(directory)?;
    Ok(file)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::disk::sim::SimDisk;

    /// A segment that found no room while it was to be forgotten was made later, and removed under the hands of the log that
    /// had begun anew there.
    #[test]
    fn what_was_being_made_on_a_full_disk_is_forgotten_with_the_rest() {
        let disk = Arc::new(SimDisk::new());
        let preparer = Arc::new(Preparer::new(disk, Path::new("/"), 4096, true));
        preparer.state.lock().making = Some(8192);
        let forgetting = {
            let preparer = preparer.clone();
            std::thread::spawn(move || preparer.discard())
        };
        // The worker finds no room.
        std::thread::sleep(Duration::from_millis(50));
        let mut state = preparer.state.lock();
        (state.making, state.wanted) = (None, Some(8192));
        preparer.changed.notify_all();
        drop(state);
        forgetting.join().unwrap();
        assert_eq!(preparer.state.lock().wanted, None);
    }
}
