//! What a group asks of the machine it runs on, besides tokio's tasks and timers: disk, network, wall clock, threads.
//!
//! [`Host::new`] is the real machine. A simulation hands in parts of its own, and runs the same code in one thread: its
//! tasks and timers are those of a tokio runtime with one thread and paused time.

mod net;
mod under_way;

use std::future::Future;
use std::io;
use std::sync::Arc;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use folio_engine::disk::Disk;
use folio_engine::log::{Threads, Workers};
use tokio::sync::oneshot;

pub use net::{Listener, Net, Socket, Tcp};
pub(crate) use under_way::UnderWay;

/// The wall clock and the threads that may block.
pub trait System: Send + Sync + 'static {
    /// Time since the epoch, for timestamps and retention. It may jump.
    fn wall_clock(&self) -> Duration;

    /// This start of the machine; a page cache does not outlive it.
    fn boot_id(&self) -> String;

    /// Runs work that blocks on the disk, off the tasks' threads. Called on a task.
    fn block(&self, work: Box<dyn FnOnce() + Send>);
}

/// The machine of one node.
#[derive(Clone)]
pub struct Host {
    /// Where the group's files are.
    pub disk: Arc<dyn Disk>,
    /// Runs the log's workers.
    pub workers: Arc<dyn Workers>,
    /// Reaches the peers.
    pub net: Arc<dyn Net>,
    /// Clock and blocking threads.
    pub system: Arc<dyn System>,
}

impl Host {
    /// This machine, with `disk` as its file system.
    pub fn new(disk: Arc<dyn Disk>) -> Host {
        Host { disk, workers: Arc::new(Threads::default()), net: Arc::new(Tcp), system: Arc::new(Os) }
    }

    /// Runs work that blocks on the disk and waits for its result; an error if it panicked.
    pub(crate) fn blocking<T, W>(&self, work: W) -> impl Future<Output = io::Result<T>> + use<T, W>
    where
        T: Send + 'static,
        W: FnOnce() -> T + Send + 'static,
    {
        let (done, result) = oneshot::channel();
        self.system.block(Box::new(move || drop(done.send(work()))));
        async { result.await.map_err(|_| io::Error::other("work on the disk panicked")) }
    }

    /// The wall clock in milliseconds.
    pub(crate) fn now_ms(&self) -> i64 {
        self.system.wall_clock().as_millis() as i64
    }
}

/// The operating system's clock and tokio's blocking threads.
struct Os;

impl System for Os {
    fn wall_clock(&self) -> Duration {
        SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default()
    }

    fn boot_id(&self) -> String {
        std::fs::read_to_string("/proc/sys/kernel/random/boot_id").unwrap_or_default().trim().to_owned()
    }

    fn block(&self, work: Box<dyn FnOnce() + Send>) {
        drop(tokio::task::spawn_blocking(work));
    }
}
