//! Who runs a log's three workers, writer, preparer and remover: a thread for each, or a simulation, step by step.
//!
//! The log asks its [`Workers`] for each when it is opened, and for the time when a worker paces itself. Nothing here is
//! on the way of an append or a read.

use std::io;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::Arc;
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use parking_lot::Mutex;

use super::shared::Shared;

/// A part of the log that works on its own.
pub trait Worker: Send + 'static {
    /// Works, and waits for work, until the log is closed: the body of a thread.
    fn run(&mut self);

    /// Does what there is to do now without waiting for anything but the disk; false once the log is closed.
    fn step(&mut self) -> bool;
}

/// A worker that was started; the log waits for its end when it is closed.
pub trait Running: Send {
    /// Returns when the worker has ended.
    fn join(self: Box<Self>);
}

/// Runs workers.
pub trait Workers: Send + Sync + 'static {
    /// Starts a worker.
    fn start(&self, name: &'static str, worker: Box<dyn Worker>) -> io::Result<Box<dyn Running>>;

    /// Whether one worker may wait for another. Where all are stepped by one thread it may not.
    fn may_wait(&self) -> bool;

    /// Time since some fixed moment.
    fn now(&self) -> Duration;
}

/// A worker of which a panic poisons the log: a log whose writer is gone would take records and store nothing (`log.I3`).
pub(super) struct Guarded<W> {
    worker: W,
    name: &'static str,
    shared: Arc<Shared>,
}

/// A worker that panicked goes on that often, to fail what waits for it: nothing is written to a poisoned log.
const PANICS_MAX: u32 = 16;

impl<W: Worker> Guarded<W> {
    pub(super) fn new(worker: W, name: &'static str, shared: &Arc<Shared>) -> Box<Guarded<W>> {
        Box::new(Guarded { worker, name, shared: shared.clone() })
    }
}

impl<W: Worker> Worker for Guarded<W> {
    fn run(&mut self) {
        for _ in 0..PANICS_MAX {
            if catch_unwind(AssertUnwindSafe(|| self.worker.run())).is_ok() {
                return;
            }
            self.shared.poison(&io::Error::other(format!("the thread {} panicked", self.name)));
        }
    }

    fn step(&mut self) -> bool {
        self.worker.step()
    }
}

/// A thread for each worker, and the machine's clock.
#[derive(Debug)]
pub struct Threads {
    since: Instant,
}

impl Default for Threads {
    fn default() -> Threads {
        Threads { since: Instant::now() }
    }
}

impl Workers for Threads {
    fn start(&self, name: &'static str, mut worker: Box<dyn Worker>) -> io::Result<Box<dyn Running>> {
        let thread = std::thread::Builder::new().name(name.into()).spawn(move || worker.run())?;
        Ok(Box::new(thread))
    }

    fn may_wait(&self) -> bool {
        true
    }

    fn now(&self) -> Duration {
        self.since.elapsed()
    }
}

impl Running for JoinHandle<()> {
    /// The log's last handle may go inside a completion, on the very thread that is to end: it ends by itself then.
    fn join(self: Box<Self>) {
        if self.thread().id() != std::thread::current().id() && JoinHandle::join(*self).is_err() {
            tracing::error!("a thread of the commit log panicked");
        }
    }
}

/// A worker for a simulation: whoever holds a clone may let it take a step.
#[derive(Clone)]
pub struct Stepped(Arc<Mutex<Box<dyn Worker>>>);

impl Stepped {
    /// A worker that waits for its first step.
    pub fn new(worker: Box<dyn Worker>) -> Stepped {
        Stepped(Arc::new(Mutex::new(worker)))
    }

    /// One step; false once the worker has ended. A step inside a step does nothing: a completion may close the log.
    pub fn step(&self) -> bool {
        self.0.try_lock().is_some_and(|mut worker| worker.step())
    }
}

impl Running for Stepped {
    fn join(self: Box<Self>) {
        while self.step() {}
    }
}
