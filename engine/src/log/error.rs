//! What can go wrong, one type per public operation of the log.

use std::io;
use std::path::PathBuf;

use thiserror::Error;

use crate::record::{EntryId, RecordError};
use crate::stamp::StampError;
use crate::transition::TransitionError;

/// Why the log could not be opened. All are fatal for this replica until somebody acted; nothing was changed.
#[derive(Debug, Error)]
pub enum OpenError {
    /// The file system refused.
    #[error("{operation} {path}: {source}")]
    Io {
        /// What was tried.
        operation: &'static str,
        /// On which file or directory.
        path: PathBuf,
        /// What the system said.
        source: io::Error,
    },
    /// A record this node has acknowledged cannot be read back.
    #[error(
        "{file}: the record at position {position} is damaged ({reason}), and this node has acknowledged everything up \
         to position {durable}; keep the file, and repair this replica from a peer before it votes again"
    )]
    Rot {
        /// The segment.
        file: PathBuf,
        /// Where in the log.
        position: u64,
        /// What was acknowledged.
        durable: u64,
        /// What is wrong with the record.
        reason: String,
    },
    /// A segment's name or length does not fit the configured segment size.
    #[error(
        "{file} is {length} bytes long, which does not fit segments of {expected} bytes (segment size is fixed when a group is created)"
    )]
    SegmentSize {
        /// The segment.
        file: PathBuf,
        /// Its length.
        length: u64,
        /// The configured segment size.
        expected: u64,
    },
    /// A small state file is damaged beyond its redundancy.
    #[error(
        "{file} is damaged ({reason}); keep it, move the data directory away and start with an empty one: the node gets \
         its log from the others, and votes once it has caught up"
    )]
    StateFile {
        /// The file.
        file: PathBuf,
        /// What is wrong with it.
        reason: String,
    },
    /// The checkpoint is ahead of the log.
    #[error("the checkpoint stands at position {base}, but the log ends at {tail}: log files are missing")]
    BaseBeyondTail {
        /// Position of the checkpoint.
        base: u64,
        /// Where the log ends.
        tail: u64,
    },
    /// The checkpoint is older than the log's first record.
    #[error(
        "the checkpoint stands at position {base}, but the log starts at {start}: a newer checkpoint is missing"
    )]
    BaseBelowStart {
        /// Position of the checkpoint.
        base: u64,
        /// Where the log starts.
        start: u64,
    },
    /// The log has another record where the checkpoint was taken.
    #[error("{file}: the checkpoint of position {base} does not belong to this log ({reason})")]
    BaseMismatch {
        /// The segment.
        file: PathBuf,
        /// Position of the checkpoint.
        base: u64,
        /// What differs.
        reason: String,
    },
    /// A whole record has other offsets in it than the log before gives.
    #[error("{file}: the record at position {position} diverges from the log before it: {source}")]
    Divergence {
        /// The segment.
        file: PathBuf,
        /// Where in the log.
        position: u64,
        /// What differs.
        source: StampError,
    },
    /// The configuration cannot work.
    #[error("segment_bytes is {0}, it must be at least 1024")]
    Config(u64),
}

/// Why a record did not enter the log.
#[derive(Debug, Clone, PartialEq, Eq, Error)]
pub enum AppendError {
    /// Refused: the index does not follow the last one, or the term went back.
    #[error("entry {found} cannot follow {last:?}")]
    OutOfOrder {
        /// The last entry of the log.
        last: Option<EntryId>,
        /// The entry to append.
        found: EntryId,
    },
    /// Refused: longer than a record or a segment may be.
    #[error("a record of {length} bytes, at most {max} are possible")]
    TooLarge {
        /// Length of the record.
        length: u64,
        /// The limit.
        max: u64,
    },
    /// Refused: the payload is not what its kind says.
    #[error("the payload cannot be stamped: {0}")]
    Malformed(StampError),
    /// Refused: the payload is not laid out as a transition's.
    #[error("not a transition: {0}")]
    Transition(TransitionError),
    /// Fatal: a leader's record does not continue this replica's log with the same bytes.
    #[error("entry {id} diverges from this replica's log: {reason}")]
    Divergence {
        /// The entry.
        id: EntryId,
        /// What differs.
        reason: String,
    },
    /// Fatal: an earlier write failed, see [`WriteError::Poisoned`].
    #[error("the log is poisoned: {0}")]
    Poisoned(String),
    /// The log was closed.
    #[error("the log is closed")]
    Closed,
}

/// Why something is not known to be durable.
#[derive(Debug, Clone, PartialEq, Eq, Error)]
pub enum WriteError {
    /// Fatal: a write or sync failed, now or earlier. What is on disk is unknown; the log accepts nothing more.
    #[error("the log is poisoned: {0}")]
    Poisoned(String),
    /// Refused: the request cannot be met, nothing was changed.
    #[error(transparent)]
    Refused(#[from] Refusal),
    /// Transient: the disk has no room for it, nothing was changed.
    #[error("the disk is full")]
    Full,
    /// The log was closed before this was done.
    #[error("the log is closed")]
    Closed,
}

/// Why a request to change what is stored was refused.
#[derive(Debug, Clone, PartialEq, Eq, Error)]
pub enum Refusal {
    /// A vote is empty or too long.
    #[error("a vote of {bytes} bytes, 1 to {max} are possible")]
    VoteSize {
        /// Bytes of the vote.
        bytes: usize,
        /// Bytes that a vote may have.
        max: usize,
    },
    /// The end of the log cannot go there.
    #[error("truncate after {keep:?}: {reason}")]
    Truncate {
        /// The last entry that was to stay.
        keep: Option<u64>,
        /// Why not.
        reason: NoCut,
    },
    /// The front of the log cannot go there.
    #[error("purge up to {upto}: {reason}")]
    Purge {
        /// The last entry that was to go.
        upto: EntryId,
        /// Why not.
        reason: NoCut,
    },
    /// The record does not belong where it was to be written.
    #[error(transparent)]
    Mend(#[from] NoMend),
    /// The file system refused, in its own words.
    #[error("{0}")]
    Io(String),
}

/// Why the log cannot begin or end at an entry.
#[derive(Debug, Clone, PartialEq, Eq, Error)]
pub enum NoCut {
    /// Committed entries would go.
    #[error("entries below are committed")]
    Committed,
    /// Another term's entry, or none, is at that index.
    #[error("the log has entry {0:?} there")]
    OtherEntry(Option<EntryId>),
    /// The place of the entry could not be read.
    #[error(transparent)]
    Read(#[from] ReadError),
}

/// Why a record is not written over a damaged one (`damage.I2`).
#[derive(Debug, Clone, PartialEq, Eq, Error)]
pub enum NoMend {
    /// Nothing is damaged there.
    #[error("no damage is known of entry {id} at position {position}")]
    NoDamage {
        /// The record's entry.
        id: EntryId,
        /// The record's position.
        position: u64,
    },
    /// It is too long for the rest of its segment; its position.
    #[error("the record at position {0} would cross its segment")]
    CrossesSegment(u64),
    /// It does not follow the record before; its position.
    #[error("the record at position {0} does not continue the one before")]
    AfterOther(u64),
    /// The record after it follows another one; its position.
    #[error("the record at position {0} is not continued by the one after")]
    BeforeOther(u64),
}

/// Why nothing could be read.
#[derive(Debug, Clone, PartialEq, Eq, Error)]
pub enum ReadError {
    /// Refused: below the first entry or position that is kept.
    #[error("{asked} is below {first}, the first one kept")]
    Purged {
        /// What was asked for.
        asked: u64,
        /// What is kept.
        first: u64,
    },
    /// Refused: beyond the log's end.
    #[error("{asked} is beyond the end of the log, {end}")]
    Beyond {
        /// What was asked for.
        asked: u64,
        /// The end.
        end: u64,
    },
    /// Refused: the bytes do not lie inside one record.
    #[error("the bytes asked for at position {position} go beyond the end of their record at {end}")]
    Crossing {
        /// What was asked for.
        position: u64,
        /// Where the record ends.
        end: u64,
    },
    /// Transient: the range was truncated or purged while it was read.
    #[error("the range changed while it was read")]
    Changed,
    /// Fatal: stored bytes are damaged.
    #[error("the record at position {position} is damaged: {reason}")]
    Rot {
        /// Where in the log.
        position: u64,
        /// The entry that should be there.
        index: u64,
        /// What is wrong.
        reason: RecordError,
    },
    /// Fatal: another record lies where this one should.
    #[error("position {position} does not hold entry {index}")]
    Misplaced {
        /// Where in the log.
        position: u64,
        /// The entry looked for.
        index: u64,
    },
    /// Fatal: the file system refused.
    #[error("read at position {position}: {reason}")]
    Io {
        /// Where in the log.
        position: u64,
        /// What the system said.
        reason: String,
    },
}

/// Attaches what was done to which path.
pub(super) trait IoContext<T> {
    fn context(self, operation: &'static str, path: &std::path::Path) -> Result<T, OpenError>;
}

impl<T> IoContext<T> for io::Result<T> {
    fn context(self, operation: &'static str, path: &std::path::Path) -> Result<T, OpenError> {
        self.map_err(|source| OpenError::Io { operation, path: path.to_owned(), source })
    }
}
