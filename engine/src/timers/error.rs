//! Why the index of parked messages refused or failed.

use std::io;
use std::path::{Path, PathBuf};

use thiserror::Error;

use crate::disk::is_full;

/// See the module.
#[derive(Debug, Error)]
pub enum TimersError {
    /// Transient: memory holds as many entries as it may. Sync, then apply the record again.
    #[error("the timer index holds as many entries in memory as it may")]
    Busy,
    /// Transient: the disk is full.
    #[error("{0}: the disk is full")]
    DiskFull(PathBuf),
    /// A part is damaged. A start without the directory builds it again.
    #[error("{path}: block {block} is damaged")]
    Damaged {
        /// The run.
        path: PathBuf,
        /// Which block.
        block: u64,
    },
    /// A message of the log does not parse.
    #[error("the parked message at position {0} is malformed")]
    Message(u64),
    /// The disk failed.
    #[error("cannot {action} {path}: {source}")]
    Io {
        /// The file or directory.
        path: PathBuf,
        /// What was tried.
        action: &'static str,
        /// The system's reason.
        source: io::Error,
    },
}

impl TimersError {
    pub(super) fn io(path: &Path, action: &'static str) -> impl FnOnce(io::Error) -> TimersError {
        move |source| {
            let path = path.to_owned();
            if is_full(&source) {
                TimersError::DiskFull(path)
            } else {
                TimersError::Io { path, action, source }
            }
        }
    }
}
