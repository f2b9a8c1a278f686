//! What can go wrong with consume queues.

use std::io;
use std::path::PathBuf;
use std::sync::Arc;

use folio_protocol::message::MessageError;
use thiserror::Error;

/// Why an operation on the consume queues did not succeed.
#[derive(Debug, Error)]
pub enum QueuesError {
    /// Fatal for these files, not for the data: what is on disk does not reach the checkpoint. Open again with the
    /// counters of an older snapshot as both `at` and `min` (which empties the queues) and replay the log from there.
    #[error("{path}: {reason}; the consume queues are to be rebuilt from the commit log")]
    Rebuild {
        /// The file or directory at fault.
        path: PathBuf,
        /// What was expected there.
        reason: String,
    },
    /// Refused: units below the first retained one are asked for. Start at `min`.
    #[error("offset {offset} of queue {queue} of topic {topic} is gone, the first one is {min}")]
    Trimmed {
        /// The topic.
        topic: Arc<str>,
        /// The queue.
        queue: u32,
        /// The offset that was asked for.
        offset: u64,
        /// The first offset there is.
        min: u64,
    },
    /// Transient: the disk is full, and as much is held in memory as may be. The message was not applied; apply the
    /// record again when there is room.
    #[error("{path}: the disk is full")]
    DiskFull {
        /// The file that could not grow.
        path: PathBuf,
    },
    /// Fatal (`queues.I1`): a message is stamped with another offset than the next of its queue.
    #[error(
        "queues.I1: topic {topic} queue {queue} is at offset {next}, the message at {position} is stamped {stamped}"
    )]
    Gap {
        /// The topic.
        topic: Arc<str>,
        /// The queue.
        queue: u32,
        /// Where the queue is.
        next: u64,
        /// What the message says.
        stamped: u64,
        /// Where the message lies in the log.
        position: u64,
    },
    /// Fatal (`queues.I2`): a message that was applied before now gives another unit.
    #[error("queues.I2: topic {topic} queue {queue} offset {offset} was applied before from another message")]
    Changed {
        /// The topic.
        topic: Arc<str>,
        /// The queue.
        queue: u32,
        /// The offset.
        offset: u64,
    },
    /// Transient (`queues.I5`): a unit on disk is damaged. It is noted, and about to be mended.
    #[error(
        "topic {topic} queue {queue} offset {offset}: the unit on disk is damaged, and about to be mended"
    )]
    Damaged {
        /// The topic.
        topic: Arc<str>,
        /// The queue.
        queue: u32,
        /// The offset.
        offset: u64,
    },
    /// Fatal: a committed record holds what is no message.
    #[error("the record at {position} holds no well-formed message")]
    Message {
        /// Where the record starts.
        position: u64,
        /// What is wrong with it.
        source: MessageError,
    },
    /// Fatal: a committed message has a topic no directory can have, or a place no unit can hold, or its stamp is not its
    /// position.
    #[error("the message at {position} cannot be queued: {reason}")]
    Unfit {
        /// Where the message lies.
        position: u64,
        /// Why.
        reason: &'static str,
    },
    /// Fatal: the disk failed.
    #[error("{path}: cannot {doing}")]
    Io {
        /// The file or directory.
        path: PathBuf,
        /// What was tried.
        doing: &'static str,
        /// What the disk said.
        source: io::Error,
    },
    /// Fatal: an earlier failure of the disk, after which its files are not believed any more.
    #[error("the consume queues stopped after a failure: {0}")]
    Poisoned(Arc<str>),
}

impl QueuesError {
    pub(super) fn io(path: impl Into<PathBuf>, doing: &'static str) -> impl FnOnce(io::Error) -> QueuesError {
        let path = path.into();
        move |source| QueuesError::Io { path, doing, source }
    }

    pub(super) fn rebuild(path: impl Into<PathBuf>, reason: impl Into<String>) -> QueuesError {
        QueuesError::Rebuild { path: path.into(), reason: reason.into() }
    }
}
