//! The newest units of queues that a sync leaves out of the queues' own files: all of them in one file.
//!
//! A sync of thousands of queues, each with a few new units, would cost thousands of syncs of files. So it writes only
//! some queues to their files, by and large those whose units have waited longest, and saves the unwritten units of all
//! others here.
//! A queue comes to its own file when its turn comes, or when it has a page of units, whichever is first.
//!
//! The file `<dir>/consumequeue.tails` is an envelope (table in `engine/src/envelope.rs`; magic `FoQT`, version 1) around
//! one entry for each queue, back to back (integers little-endian):
//!
//! | offset | bytes | field |
//! |---|---|---|
//! | 0 | 2 | length of the topic, `n` |
//! | 2 | n | topic, UTF-8 |
//! | 2 + n | 4 | queue |
//! | 6 + n | 8 | offset of the first unit |
//! | 14 + n | 4 | number of units, `u` |
//! | 18 + n | 20 u | the units, see [`super::Unit`] |
//!
//! Invariant `tails.I1`: the file is replaced as a whole, and only once the queues' files are synced. So whichever tails a
//! power cut leaves, those of the last sync or of one under way, what they do not hold below a checkpoint's offsets is
//! durable in the queues' files.

use std::collections::HashMap;
use std::io;
use std::path::Path;

use thiserror::Error;

use super::error::QueuesError;
use super::recover;
use super::unit::UNIT_BYTES;
use crate::disk::{Disk, OpenMode, is_full, write_atomically};
use crate::envelope::{ENVELOPE_BYTES, Envelope, EnvelopeError};

/// Queues that each sync writes to their files; with no more of them there are no tails.
pub(super) const QUEUES_WRITTEN: usize = 256;
/// Bytes of tails at which a sync writes more queues: each sync writes them anew, and memory holds them.
pub(super) const TAILS_BYTES_MAX: usize = 8 << 20;
/// What no file has: memory is taken for all of it.
const FILE_BYTES_MAX: u64 = 1 << 30;

const ENVELOPE: Envelope = Envelope { magic: *b"FoQT", version: 1, what: "tails of consume queues" };
/// An entry without its topic and its units.
const ENTRY_BYTES: usize = 18;

/// Bytes of the file that a queue's units take.
pub(super) fn entry_bytes(topic: &str, unit_bytes: usize) -> usize {
    ENTRY_BYTES + topic.len() + unit_bytes
}

/// Removes the file, or whatever is in its place, durably.
pub(super) fn remove(disk: &dyn Disk, path: &Path) -> Result<(), QueuesError> {
    if !recover::exists(disk, path)? {
        return Ok(());
    }
    recover::remove(disk, path)?;
    let dir = path.parent().unwrap_or(path);
    disk.sync_dir(dir).map_err(QueuesError::io(dir, "sync the directory"))
}

/// Tails on their way to the file.
pub(super) struct Tails {
    file: Vec<u8>,
}

impl Tails {
    pub(super) fn new() -> Tails {
        Tails { file: vec![0; ENVELOPE_BYTES] }
    }

    /// Adds the units of a queue from `first` on.
    pub(super) fn add(&mut self, topic: &str, number: u32, first: u64, units: &[u8]) {
        self.file.extend((topic.len() as u16).to_le_bytes());
        self.file.extend(topic.as_bytes());
        self.file.extend(number.to_le_bytes());
        self.file.extend(first.to_le_bytes());
        self.file.extend(((units.len() / UNIT_BYTES) as u32).to_le_bytes());
        self.file.extend(units);
    }

    /// Replaces the file, durably (`tails.I1`); without any, there is none.
    pub(super) fn save(mut self, disk: &dyn Disk, path: &Path) -> Result<(), QueuesError> {
        if self.file.len() == ENVELOPE_BYTES {
            return remove(disk, path);
        }
        ENVELOPE.seal(&mut self.file);
        write_atomically(disk, path, &self.file).map_err(|error| match is_full(&error) {
            true => QueuesError::DiskFull { path: path.into() },
            false => QueuesError::io(path, "save")(error),
        })
    }
}

/// Tails as they were found when the queues are opened: topic and queue to the first unit's offset, and the units.
#[derive(Debug, Default, PartialEq, Eq)]
pub(super) struct Found(HashMap<(String, u32), (u64, Vec<u8>)>);

/// Why the file holds nothing.
#[derive(Debug, Error)]
enum Unreadable {
    #[error("it cannot be read: {0}")]
    Io(io::Error),
    #[error(transparent)]
    Envelope(#[from] EnvelopeError),
    #[error("an entry reaches past its end")]
    Entry,
}

impl Found {
    /// Reads the file. One that is missing or cannot be read holds nothing: if a queue needs it, all of them are rebuilt, as
    /// with a damaged checkpoint.
    pub(super) fn load(disk: &dyn Disk, path: &Path) -> Found {
        let reason = match read(disk, path) {
            Ok(bytes) => match Found::decode(&bytes) {
                Ok(found) => return found,
                Err(reason) => reason,
            },
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Found::default(),
            // Derived data stops no start.
            Err(error) => Unreadable::Io(error),
        };
        tracing::warn!(file = %path.display(), %reason, "tails of consume queues are damaged");
        Found::default()
    }

    fn decode(file: &[u8]) -> Result<Found, Unreadable> {
        let mut rest = ENVELOPE.open(file)?;
        let mut found = HashMap::new();
        while !rest.is_empty() {
            let (key, tail, behind) = entry(rest).ok_or(Unreadable::Entry)?;
            found.insert(key, tail);
            rest = behind;
        }
        Ok(Found(found))
    }

    /// The units of a queue from some offset on up to `next`, if they are here and any of them is above `min`: then the
    /// queue's files need to reach to that offset only.
    pub(super) fn take(&mut self, topic: &str, number: u32, min: u64, next: u64) -> Option<(u64, Vec<u8>)> {
        let (first, mut units) = self.0.remove(&(topic.to_owned(), number))?;
        let end = first.saturating_add((units.len() / UNIT_BYTES) as u64);
        if min >= next || !(first..=end).contains(&next) {
            return None;
        }
        units.truncate((next - first) as usize * UNIT_BYTES);
        Some((first, units))
    }
}

/// A whole file; of one that is too large as much as shows that it is damaged.
fn read(disk: &dyn Disk, path: &Path) -> io::Result<Vec<u8>> {
    let file = disk.open(path, OpenMode::Read)?;
    let mut bytes = vec![0; file.len()?.min(FILE_BYTES_MAX) as usize];
    let read = file.read_at(&mut bytes, 0)?;
    bytes.truncate(read);
    Ok(bytes)
}

/// The first entry, and what is behind it.
#[expect(clippy::type_complexity, reason = "a key, a value and the rest, taken apart at once")]
fn entry(bytes: &[u8]) -> Option<((String, u32), (u64, Vec<u8>), &[u8])> {
    let (length, rest) = bytes.split_first_chunk()?;
    let (topic, rest) = rest.split_at_checked(usize::from(u16::from_le_bytes(*length)))?;
    let (number, rest) = rest.split_first_chunk()?;
    let (first, rest) = rest.split_first_chunk()?;
    let (count, rest) = rest.split_first_chunk()?;
    let units = (u32::from_le_bytes(*count) as usize).checked_mul(UNIT_BYTES)?;
    let (units, rest) = rest.split_at_checked(units)?;
    let topic = std::str::from_utf8(topic).ok()?.to_owned();
    Some(((topic, u32::from_le_bytes(*number)), (u64::from_le_bytes(*first), units.to_vec()), rest))
}

#[cfg(test)]
mod tests;
