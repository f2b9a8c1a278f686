//! What can go wrong with the key index.

use std::io;
use std::path::{Path, PathBuf};

use folio_protocol::message::MessageError;
use thiserror::Error;

use crate::derived::DerivedError;
use crate::disk::is_full;
use crate::log::ReadError;

/// Why an operation on the key index did not succeed.
#[derive(Debug, Error)]
pub enum KeysError {
    /// Transient: the disk is full. What is in memory stays there.
    #[error("{path}: the disk is full")]
    DiskFull {
        /// The file that could not grow.
        path: PathBuf,
    },
    /// Transient (`keys.I2`): a block on disk is damaged. It is noted, and about to be repaired.
    #[error("{path}: block {block} is damaged, and about to be repaired")]
    Damaged {
        /// The run's file.
        path: PathBuf,
        /// The block, 0 for the header.
        block: u64,
    },
    /// Transient: runs were merged or dropped meanwhile. Look again.
    #[error("{path} was merged or dropped meanwhile")]
    Moved {
        /// The run's file.
        path: PathBuf,
    },
    /// Transient: the log does not give what a damaged block held, yet.
    #[error("{path}: {found} of {expected} entries from block {block} on are found in the log")]
    Missing {
        /// The run's file.
        path: PathBuf,
        /// The first damaged block.
        block: u64,
        /// Entries found.
        found: usize,
        /// Entries that the blocks had.
        expected: usize,
    },
    /// Transient: the log cannot be read there now; it may be damaged itself, and repaired first.
    #[error(transparent)]
    Log(#[from] ReadError),
    /// Fatal: a committed record holds what is no message.
    #[error("the record at {position} holds no well-formed message")]
    Message {
        /// Where the record starts.
        position: u64,
        /// What is wrong with it.
        source: MessageError,
    },
    /// The disk failed.
    #[error("{path}: cannot {doing}: {source}")]
    Io {
        /// The file or directory.
        path: PathBuf,
        /// What was tried.
        doing: &'static str,
        /// What the disk said.
        source: io::Error,
    },
}

impl KeysError {
    pub(super) fn io(path: &Path, doing: &'static str) -> impl FnOnce(io::Error) -> KeysError {
        let path = path.to_owned();
        move |source| match is_full(&source) {
            true => KeysError::DiskFull { path },
            false => KeysError::Io { path, doing, source },
        }
    }
}

impl From<KeysError> for DerivedError {
    fn from(error: KeysError) -> DerivedError {
        match error {
            KeysError::DiskFull { path } => DerivedError::DiskFull { path },
            KeysError::Damaged { .. }
            | KeysError::Moved { .. }
            | KeysError::Missing { .. }
            | KeysError::Log(_) => DerivedError::NotRepaired(error.into()),
            KeysError::Message { .. } | KeysError::Io { .. } => DerivedError::Failed(error.into()),
        }
    }
}
