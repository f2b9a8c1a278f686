//! What the appender, the readers and the workers of one log share.

use std::path::PathBuf;
use std::sync::atomic::{AtomicBool, AtomicU64};
use std::sync::{Arc, OnceLock};

use bytes::Bytes;
use parking_lot::Mutex;

use super::config::LogConfig;
use super::damage::{Damage, Damages};
use super::error::{ReadError, WriteError};
use super::mark::StartFile;
use super::queue::{Job, Queue};
use super::verified_cache::VerifiedCache;
use super::view::View;
use crate::disk::{Buffers, Disk};
use crate::record::RECORD_BYTES_MAX;

/// See the module.
pub(super) struct Shared {
    pub(super) disk: Arc<dyn Disk>,
    pub(super) directory: PathBuf,
    pub(super) start: Mutex<StartFile>,
    /// Whether `start` has its space. The writer holds the lock for as long as its syncs take.
    pub(super) start_has_space: AtomicBool,
    pub(super) config: LogConfig,
    pub(super) view: Mutex<View>,
    pub(super) queue: Queue,
    pub(super) vote: Mutex<Option<Bytes>>,
    pub(super) poison: OnceLock<String>,
    pub(super) buffers: Buffers,
    pub(super) verified_cache: VerifiedCache,
    /// How long the writer has waited for syncs, microseconds.
    pub(super) synced_us: AtomicU64,
    pub(super) damages: Damages,
}

impl Shared {
    pub(super) fn poisoned(&self) -> Option<String> {
        self.poison.get().cloned()
    }

    pub(super) fn record_bytes_max(&self) -> u64 {
        (RECORD_BYTES_MAX as u64).min(self.config.segment_bytes)
    }

    pub(super) fn poison(&self, error: &std::io::Error) -> String {
        let reason = format!("{}: {error}", self.directory.display());
        tracing::error!(reason, "log.I3: the commit log is poisoned by a failed write or sync");
        self.poison.get_or_init(|| reason).clone()
    }

    pub(super) fn push(&self, job: Job) {
        match self.queue.push(job) {
            Ok(()) | Err(Job::Append(_)) => {}
            Err(Job::Done(done) | Job::Fail(done, _) | Job::Change(_, done)) => done(Err(WriteError::Closed)),
        }
    }

    /// Passes a read's error on, and notes it if it tells of damage. `epoch` is that of the view before the read: what was
    /// truncated meanwhile is not damaged.
    pub(super) fn noted(&self, epoch: u64, error: ReadError) -> ReadError {
        let (position, index) = match &error {
            ReadError::Rot { position, index, .. } | ReadError::Misplaced { position, index } => {
                (*position, *index)
            }
            _ => return error,
        };
        {
            let view = self.view.lock();
            if view.epoch != epoch {
                return ReadError::Changed;
            }
            if !view.holds(index, position, self.config.segment_bytes) {
                // Somebody asked for bytes where no record is: nothing is damaged by that.
                return error;
            }
        }
        self.damages.note(Damage { position, index, reason: error.to_string() });
        error
    }
}
