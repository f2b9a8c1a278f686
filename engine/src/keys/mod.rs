//! The key index: under which positions of the log messages with a key lie. Keys are a message's unique key and what its
//! producer has put into `KEYS`, each within the message's topic.
//!
//! At the full send rate two keys a message are too many for an insert each. So entries (hash of topic and key, position)
//! are collected in memory; a sync sorts them and writes them as a run, a file that never grows. Runs are merged: sixteen of
//! about one size into one, and all of a segment of the log once the segment is full. A run is of one segment, and goes
//! with it. A look-up asks memory, and in each run whose store times fit a few blocks: hashes are spread evenly.
//!
//! It is derived, and follows the log at its own pace: see [`crate::derived`]. It decides nothing: two keys may have one
//! hash, and retention and deletion take messages away. Who looks up reads the messages and compares.
//!
//! Files: `<dir>/keyindex/<first entry>-<entry behind the last>`, 20 digits each; tables in `header` and `block`.
//!
//! Invariants
//! - `keys.I1` The runs and memory are one unbroken stretch of the log. A run is there as a whole or not at all.
//! - `keys.I2` A block that is not whole, or not of its place, is never handed out.
//! - `keys.I3` Memory holds at most [`ENTRIES_HELD_MAX`] entries and those of one record more; then records are refused, and
//!   brought later. Beside them a sync has one sorted copy.

mod block;
mod damage;
mod derived;
mod entry;
mod error;
mod files;
mod header;
mod memory;
mod merge;
mod repair;
mod run;

use std::ops::RangeInclusive;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use folio_protocol::message::Messages;
use parking_lot::{Mutex, RwLock};

use crate::derived::LogPoint;
use crate::disk::Disk;
use crate::record::Record;
use damage::Damages;
use entry::{Entry, hashes, key_hash};
use header::Header;
use memory::{LIMITS, Limits, Memory, Part, Times};
use merge::Merge;
use run::{Run, parse_name};

pub use derived::{DerivedKeys, KEY_INDEX};
pub use entry::{KEYS_PER_MESSAGE_MAX, has_key};
pub use error::KeysError;

/// Entries in memory at most.
pub const ENTRIES_HELD_MAX: usize = memory::LIMITS.held;
/// Runs of about one size that are merged.
const FAN_IN: usize = 16;
/// How often a look-up begins anew because runs were merged meanwhile.
const LOOKS_MAX: usize = 8;

/// See the module. A clone is another handle to the same index.
#[derive(Clone)]
pub struct KeyIndex {
    inner: Arc<Inner>,
}

struct Inner {
    disk: Arc<dyn Disk>,
    dir: PathBuf,
    segment_bytes: u64,
    limits: Limits,
    memory: Mutex<Memory>,
    /// The earliest first (`keys.I1`).
    runs: RwLock<Vec<Arc<Run>>>,
    /// Held by whoever writes, merges or removes runs.
    writing: Mutex<()>,
    damages: Damages,
    full: AtomicBool,
}

impl KeyIndex {
    /// Opens the index below `dir`, of a log in segments of so many bytes that begins with entry `begin`. Gives the point of
    /// the log up to which it is built.
    pub fn open(
        disk: Arc<dyn Disk>,
        dir: &Path,
        segment_bytes: u64,
        begin: u64,
    ) -> Result<(KeyIndex, LogPoint), KeysError> {
        KeyIndex::open_with(disk, dir, segment_bytes, begin, LIMITS)
    }

    fn open_with(
        disk: Arc<dyn Disk>,
        dir: &Path,
        segment_bytes: u64,
        begin: u64,
        limits: Limits,
    ) -> Result<(KeyIndex, LogPoint), KeysError> {
        let dir = dir.join("keyindex");
        let runs: Vec<_> = files::open(&*disk, &dir, begin)?.into_iter().map(Arc::new).collect();
        let at = runs.last().map_or_else(LogPoint::default, |last| last.header.to);
        let inner = Inner {
            disk,
            dir,
            segment_bytes: segment_bytes.max(1),
            limits,
            memory: Mutex::new(Memory::at(at)),
            runs: RwLock::new(runs),
            writing: Mutex::default(),
            damages: Damages::default(),
            full: AtomicBool::new(false),
        };
        Ok((KeyIndex { inner: Arc::new(inner) }, at))
    }

    /// Positions below `before` at which messages with this key may lie, the greatest first, `max` at most. A message whose
    /// store time is outside of `times` (ms) may be among them: a whole run is left out or looked at.
    pub fn positions(
        &self,
        topic: &str,
        key: &str,
        before: u64,
        max: usize,
        times: &RangeInclusive<i64>,
    ) -> Result<Vec<u64>, KeysError> {
        let hash = key_hash(topic, key);
        for _ in 0..LOOKS_MAX {
            match self.inner.positions(hash, before, max, times) {
                Err(KeysError::Moved { .. }) => {}
                found => return found,
            }
        }
        Err(KeysError::Moved { path: self.inner.dir.clone() })
    }

    /// When the last message was stored that is indexed (ms, 0 without one), and up to which position of the log the index is
    /// built.
    pub fn reach(&self) -> (i64, u64) {
        let (position, in_memory) = self.inner.memory.lock().reach();
        let mut times = in_memory;
        self.inner.runs.read().last().iter().for_each(|run| times.add(run.header.times));
        (times.last.max(0), position)
    }

    /// Files of runs, and entries in memory.
    pub fn size(&self) -> (usize, usize) {
        (self.inner.runs.read().len(), self.inner.memory.lock().held())
    }
}

impl Inner {
    fn positions(
        &self,
        hash: u64,
        before: u64,
        max: usize,
        times: &RangeInclusive<i64>,
    ) -> Result<Vec<u64>, KeysError> {
        let meets = |run: &Times| run.meets(*times.start(), *times.end());
        // Memory first: what a sync moves meanwhile is then found twice, and not missed.
        let (mut found, chunks) = self.memory.lock().look(hash, meets);
        chunks.iter().for_each(|chunk| found.extend(memory::of(chunk, hash)));
        found.retain(|position| *position < before);
        found.sort_unstable_by(|a, b| b.cmp(a));
        let runs = self.runs.read().clone();
        for run in runs.iter().rev() {
            found.dedup();
            if found.len() >= max {
                break;
            }
            if meets(&run.header.times) && run.header.from.position < before {
                self.look(run, hash, before, max, &mut found)?;
            }
        }
        found.dedup();
        found.truncate(max);
        Ok(found)
    }

    /// Adds the positions in a run; one that was merged or trimmed meanwhile is no damage.
    fn look(
        &self,
        run: &Arc<Run>,
        hash: u64,
        before: u64,
        max: usize,
        found: &mut Vec<u64>,
    ) -> Result<(), KeysError> {
        let mut in_run = Vec::new();
        let looked = run.reader(&*self.disk).and_then(|reader| reader.look(hash, before, max, &mut in_run));
        if let Err(error) = looked {
            if !self.runs.read().iter().any(|current| current.id() == run.id()) {
                return Err(KeysError::Moved { path: run.path.clone() });
            }
            self.note(&error);
            return Err(error);
        }
        found.extend(in_run);
        Ok(())
    }

    fn note(&self, error: &KeysError) {
        if let KeysError::Damaged { path, block } = error
            && let Some(id) = parse_name(path)
        {
            self.damages.note((id, *block));
        }
    }

    /// Adds a record's entries (`keys.I3`).
    fn add(&self, record: &Record) -> Result<Added, KeysError> {
        let (mut times, mut entries) = (Times::NONE, Vec::new());
        if record.header.kind.has_messages() {
            let start = record.messages_position();
            for message in Messages::new(record.messages()) {
                let (at, message) =
                    message.map_err(|source| KeysError::Message { position: record.position(), source })?;
                let stored = message.store_timestamp();
                times.add(Times { first: stored, last: stored });
                let position = start + at as u64;
                hashes(&message, |hash| entries.push(Entry { hash, position }));
            }
        }
        let mut memory = self.memory.lock();
        if memory.held() >= self.limits.held {
            return Ok(Added::Refused);
        }
        memory.add(record.position() / self.segment_bytes, LogPoint::after(record), times, &entries);
        Ok(if memory.held() >= self.limits.wanted { Added::SyncWanted } else { Added::Held })
    }

    /// Writes what is in memory as runs, and merges.
    fn sync(&self) -> Result<(), KeysError> {
        let _alone = self.writing.lock();
        let parts = self.memory.lock().seal();
        for part in parts {
            let run = self.write(&part)?;
            self.sync_dir()?;
            let to = run.header.to;
            self.runs.write().push(Arc::new(run));
            self.memory.lock().forget(to);
        }
        self.full.store(false, Ordering::Release);
        self.merge()
    }

    fn write(&self, part: &Part) -> Result<Run, KeysError> {
        let Part { segment, from, to, times, .. } = *part;
        let mut entries: Vec<Entry> = Vec::with_capacity(part.chunks.iter().map(|chunk| chunk.len()).sum());
        part.chunks.iter().for_each(|chunk| entries.extend_from_slice(chunk));
        entries.sort_unstable();
        let header = Header { segment, from, to, times, entries: 0 };
        self.note_full(Run::write(&*self.disk, &self.dir, header, entries.into_iter().map(Ok)))
    }

    fn note_full<T>(&self, written: Result<T, KeysError>) -> Result<T, KeysError> {
        if let Err(KeysError::DiskFull { .. }) = &written {
            self.full.store(true, Ordering::Release);
        }
        written
    }

    fn sync_dir(&self) -> Result<(), KeysError> {
        self.disk.sync_dir(&self.dir).map_err(KeysError::io(&self.dir, "sync the directory"))
    }

    /// Merges runs until none are due. Called by whoever holds `writing`.
    fn merge(&self) -> Result<(), KeysError> {
        loop {
            let runs = self.runs.read().clone();
            let Some(due) = due_for_merge(&runs) else { return Ok(()) };
            let merging = &runs[due.clone()];
            match self.merged(merging).inspect_err(|error| self.note(error)) {
                Ok(run) => {
                    self.sync_dir()?;
                    self.runs.write().splice(due, [Arc::new(run)]);
                    for run in merging.iter().rev() {
                        self.forget(run)?;
                    }
                }
                // Nothing depends on it: they are merged once there is room, or the damage is repaired.
                Err(error @ (KeysError::DiskFull { .. } | KeysError::Damaged { .. })) => {
                    tracing::debug!(%error, "runs not merged yet");
                    return Ok(());
                }
                Err(error) => return Err(error),
            }
        }
    }

    fn merged(&self, runs: &[Arc<Run>]) -> Result<Run, KeysError> {
        let (first, last) = (&runs[0].header, &runs[runs.len() - 1].header);
        let mut times = Times::NONE;
        runs.iter().for_each(|run| times.add(run.header.times));
        let header = Header { to: last.to, times, ..*first };
        let mut readers = Vec::with_capacity(runs.len());
        for run in runs {
            readers.push(run.reader(&*self.disk)?);
        }
        let entries = Merge::new(readers.into_iter())?;
        Run::write(&*self.disk, &self.dir, header, entries)
    }

    /// Removes the file of a run that is no more in the list.
    fn forget(&self, run: &Run) -> Result<(), KeysError> {
        self.damages.forget(|(id, _)| *id == run.id());
        files::remove(&*self.disk, &run.path)
    }

    /// Empties the index; it goes on behind `at`.
    fn reset(&self, at: LogPoint) -> Result<(), KeysError> {
        let _alone = self.writing.lock();
        *self.memory.lock() = Memory::at(at);
        let gone = std::mem::take(&mut *self.runs.write());
        // The latest first: what a crash leaves is an unbroken stretch.
        gone.iter().rev().try_for_each(|run| self.forget(run))?;
        self.sync_dir()
    }

    /// Drops the runs before entry `start`.
    fn trim(&self, start: u64) -> Result<(), KeysError> {
        let _alone = self.writing.lock();
        let gone: Vec<_> = {
            let mut runs = self.runs.write();
            let count = runs.iter().take_while(|run| run.id().1 <= start).count();
            runs.drain(..count).collect()
        };
        // The earliest first: see above.
        gone.iter().try_for_each(|run| self.forget(run))
    }
}

/// What became of a record.
enum Added {
    Held,
    SyncWanted,
    Refused,
}

/// About how large a run is: sixteen of one size make at least one of the next.
fn size_class(run: &Run) -> u32 {
    run.header.entries.max(1).ilog2() / FAN_IN.ilog2()
}

/// Runs of a segment that is full, or the latest ones of about one size.
fn due_for_merge(runs: &[Arc<Run>]) -> Option<std::ops::Range<usize>> {
    let last = runs.last()?;
    let same = |at: &usize| runs[*at].header.segment == runs[at - 1].header.segment;
    let full = (1..runs.len()).filter(same).find(|at| runs[*at].header.segment < last.header.segment);
    if let Some(at) = full {
        let segment = runs[at].header.segment;
        let end = at + runs[at..].iter().take_while(|run| run.header.segment == segment).count();
        return Some(at - 1..end);
    }
    let (segment, size) = (last.header.segment, size_class(last));
    let alike = runs.iter().rev().take_while(|run| run.header.segment == segment && size_class(run) <= size);
    let count = alike.count();
    (count >= FAN_IN).then(|| runs.len() - count..runs.len())
}
