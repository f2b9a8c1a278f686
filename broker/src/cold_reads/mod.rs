//! Cold reads: reads of old messages, which are background work while clients write.
//!
//! What a consumer reads that keeps up, or nearly, does not come here. What lies further behind the end of the log than
//! `recent_bytes` does: its reads are bounded in number, and while the log is being written they are paced ([`pace`]), so
//! that they take what the machine has to spare and never less than a floor. A paced pull is answered later, that is all.
//! Nobody writes: nobody waits.
//!
//! Invariants
//! - `old_reads.I1`: at most `at_once` of them are under way.
//! - `old_reads.I2`: none waits longer than [`WAIT_MAX`] for its pace, however many there are.

mod cpu_idle;
mod pace;
mod read_queue;

use std::sync::Arc;
use std::time::Duration;

use folio_protocol::Name;
use folio_raft::group::Group;
use parking_lot::Mutex;
use tokio::sync::{OwnedSemaphorePermit, Semaphore};
use tokio::time::{Instant, sleep, timeout};

use self::cpu_idle::Processors;
use self::pace::{Pace, Sample};
use self::read_queue::ReadQueue;

/// Much less than any client or forwarding node waits for an answer.
const WAIT_MAX: Duration = Duration::from_secs(2);
/// How often a read that waits looks whether the pace has changed.
const LOOK_EVERY: Duration = Duration::from_millis(50);
/// Fewest reads at once: while one waits for the disk another one finds its messages in memory.
const AT_ONCE_MIN: usize = 4;

/// What counts as a cold read, and how much of it is read whatever else happens.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ColdReadsConfig {
    /// Messages this close to the end of the log are not old. A consumer that lost some seconds catches up unpaced.
    pub recent_bytes: u64,
    /// Bytes a second that are read even while the machine has nothing to spare; less where writers do less than eight times as
    /// much, but never less than an eighth.
    pub floor_bytes: u64,
    /// Reads under way at a time.
    pub at_once: usize,
}

impl Default for ColdReadsConfig {
    fn default() -> ColdReadsConfig {
        let cores = std::thread::available_parallelism().map_or(1, usize::from);
        ColdReadsConfig { recent_bytes: 1 << 30, floor_bytes: 32 << 20, at_once: AT_ONCE_MIN.max(2 * cores) }
    }
}

/// The way that reads of old messages of one node take.
pub(crate) struct ColdReads {
    config: ColdReadsConfig,
    queue: Arc<ReadQueue>,
    under_way: Arc<Semaphore>,
    pace: Mutex<Pace>,
    sample: Box<dyn Fn() -> Sample + Send + Sync>,
}

/// A read that waits.
pub(crate) struct ColdRead {
    /// Its consumer group and topic.
    pub consumer: (Name, Name),
    /// Where in the log it begins.
    pub position: u64,
    /// How much it reads.
    pub bytes: usize,
}

/// One read under way; it is over when this is dropped.
pub(crate) struct UnderWay {
    _permit: Option<OwnedSemaphorePermit>,
}

impl ColdReads {
    /// Of the node of a group; nothing is under way.
    pub(crate) fn new(config: ColdReadsConfig, group: Group) -> ColdReads {
        let processors = Processors::default();
        ColdReads::watching(config, move || Sample {
            at: Instant::now().into_std(),
            written: group.log().state().next_position,
            synced_for: group.log().synced_for(),
            processors: processors.read(),
        })
    }

    fn watching(config: ColdReadsConfig, sample: impl Fn() -> Sample + Send + Sync + 'static) -> ColdReads {
        ColdReads {
            queue: Arc::default(),
            under_way: Arc::new(Semaphore::new(config.at_once.max(1))),
            pace: Mutex::new(Pace::new(config.floor_bytes)),
            sample: Box::new(sample),
            config,
        }
    }

    /// Whether a message at `position` of a log that ends at `end` is old.
    pub(crate) fn is_cold(&self, position: u64, end: u64) -> bool {
        end.saturating_sub(position) > self.config.recent_bytes
    }

    /// Lets a read begin if it need not wait.
    pub(crate) fn try_begin(&self, bytes: usize) -> Option<UnderWay> {
        let _turn = self.queue.try_take()?;
        let permit = self.under_way.clone().try_acquire_owned().ok()?;
        self.take(bytes).ok()?;
        Some(UnderWay { _permit: Some(permit) })
    }

    /// Waits until a read may begin.
    pub(crate) async fn begin(&self, read: ColdRead) -> UnderWay {
        // old_reads.I2: when its patience is at an end it goes on, whatever the pace is.
        let permit = match timeout(WAIT_MAX, self.wait(read)).await {
            Ok(permit) => permit,
            Err(_) => self.under_way.clone().acquire_owned().await.ok(),
        };
        UnderWay { _permit: permit }
    }

    /// `None` if nothing bounded the reads any more, which is never so.
    async fn wait(&self, read: ColdRead) -> Option<OwnedSemaphorePermit> {
        let _turn = self.queue.take(read.consumer, read.position).await;
        let permit = self.under_way.clone().acquire_owned().await.ok();
        while let Err(wait) = self.take(read.bytes) {
            sleep(wait.min(LOOK_EVERY)).await;
        }
        permit
    }

    /// Takes `bytes` at the pace of the moment, or says how long to wait.
    fn take(&self, bytes: usize) -> Result<(), Duration> {
        let now = Instant::now().into_std();
        let due = self.pace.lock().is_due(now);
        // What is read of the machine is a file: not under the lock.
        let sample = due.then(|| (self.sample)());
        let mut pace = self.pace.lock();
        if let Some(sample) = sample {
            pace.observe(sample);
        }
        pace.take(now, bytes)
    }
}

#[cfg(test)]
mod tests;
