//! The timer index: for every parked message that may be pending, when it is due and where it lies in the commit log.
//!
//! It is derived: built by `apply` from committed records, and built again from the log when it is lost or damaged. Which of its
//! entries are pending it does not know. That is replicated state, and whoever asks says so; the index is told what is not
//! pending any more ([`TimerIndex::forget`]), by a state
//! that is saved, so that it need not keep it.
//!
//! New entries are in memory, in the order of their keys. A sync writes them to a file of their own, a *run*, and puts it on the
//! list ([`list`]). Runs are merged so that there are few, and what is not pending any more is left out then. So an entry costs 32 bytes
//! on the disk, written a few times, and none in memory; a message that is delivered early is left out when the runs
//! are merged first. Buckets by due time would cost a sync of many files, one for each bucket that got an entry; a run is one.
//!
//! Invariants
//! - `timer_index.I1` An entry that may be pending is in memory or in a run of the list, at any time, and readers meet it.
//! - `timer_index.I2` After a sync everything applied before it survives a power cut: runs are durable before the list that names them.
//! - `timer_index.I3` Entries in memory are bounded: a record is refused before they are too many.
//! - `timer_index.I4` An entry of a damaged block is never handed out.

mod entry;
mod error;
mod list;
mod merge;
mod point;
mod run;
#[cfg(test)]
mod tests;

use std::collections::BTreeMap;
use std::io;
use std::ops::Bound::{Excluded, Unbounded};
use std::path::{Path, PathBuf};
use std::sync::Arc;

use folio_protocol::message::{MessageView, peek};
use folio_protocol::parked::{self, TimerKey};
use parking_lot::Mutex;

use crate::disk::{Disk, create_dir};
use crate::record::Record;
use list::{INDEX_FILE, List};
use merge::Merged;
use run::{Run, RunFacts, Writer};

pub use entry::{TimerEntry, name_hash, topic_hash};
pub use error::TimersError;
pub use point::{Gone, TimersPoint};

/// Entries in memory at which a sync is wanted: 4 MiB.
pub const SYNC_WANTED: usize = 64 << 10;
/// Entries in memory at most, about: 32 MiB.
const HELD_MAX: usize = 512 << 10;
/// Runs above which some are merged.
const RUNS_MAX: usize = 8;
/// Runs that are merged at least.
const MERGED_MIN: usize = 4;

/// A handle to the index; cheap to clone. One thread applies; any number read meanwhile.
#[derive(Clone)]
pub struct TimerIndex {
    inner: Arc<Inner>,
}

struct Inner {
    disk: Arc<dyn Disk>,
    dir: PathBuf,
    held: Mutex<Held>,
    /// The number of the next run. Held for the whole of a sync.
    syncing: Mutex<u64>,
}

/// What there is, at one moment.
#[derive(Default)]
struct Held {
    /// What no run has yet.
    entries: BTreeMap<TimerKey, TimerEntry>,
    runs: Vec<Arc<Run>>,
    point: TimersPoint,
    gone: Gone,
}

impl TimerIndex {
    /// Opens the index below `dir` as of a checkpoint, which is at `base` and has these as not pending. Says how far it holds the log: what is
    /// behind that, up to `base`, is to be applied to it now. What it holds behind `base` is void. Files that cannot be used count as
    /// deleted, and so do those that lack what is pending at the checkpoint.
    pub fn open(
        disk: Arc<dyn Disk>,
        dir: &Path,
        base: TimersPoint,
        gone: Gone,
    ) -> Result<(TimerIndex, TimersPoint), TimersError> {
        let dir = dir.join("timers");
        create_dir(&*disk, &dir).map_err(TimersError::io(&dir, "create"))?;
        let (list, runs) = found(&*disk, &dir, base, gone).unwrap_or_default();
        remove_all_but(&*disk, &dir, &runs)?;
        let held = Held { runs, point: list.point, gone, ..Held::default() };
        let inner = Inner { disk, dir, held: Mutex::new(held), syncing: Mutex::new(list.next) };
        Ok((TimerIndex { inner: Arc::new(inner) }, list.point))
    }

    /// Adds the parked messages of a committed record. A record may be applied again. Says whether a sync is wanted before long.
    pub fn apply(&self, record: &Record) -> Result<bool, TimersError> {
        let mut held = self.inner.held.lock();
        if record.header.kind.has_messages() {
            if held.entries.len() >= HELD_MAX {
                return Err(TimersError::Busy);
            }
            add(&mut held.entries, record)?;
        }
        held.point = TimersPoint { id: Some(record.id()), position: record.end(), crc: record.header.crc };
        Ok(held.entries.len() >= SYNC_WANTED)
    }

    /// The log holds no parked messages up to this point, or none that are pending.
    pub fn skip_to(&self, point: TimersPoint) {
        self.inner.held.lock().point = point;
    }

    /// Is told what is not pending any more by a checkpoint that is saved. A start goes on from there, or from a later one: so none of these
    /// entries will be asked for again.
    pub fn forget(&self, gone: Gone) {
        let mut held = self.inner.held.lock();
        if gone.watermark > held.gone.watermark {
            held.gone.watermark = gone.watermark;
            held.entries = held.entries.split_off(&gone.watermark);
            held.entries.remove(&gone.watermark);
        }
        if gone.start > held.gone.start {
            held.gone.start = gone.start;
            held.entries.retain(|key, _| key.position >= gone.start);
        }
    }

    /// Makes what was applied before this call durable.
    pub fn sync(&self) -> Result<(), TimersError> {
        let Inner { disk, dir, held, syncing } = &*self.inner;
        let mut next = syncing.lock();
        let (entries, point, mut runs, gone) = {
            let held = held.lock();
            let entries: Vec<TimerEntry> = held.entries.values().copied().collect();
            (entries, held.point, held.runs.clone(), held.gone)
        };
        runs.retain(|run| run.facts.last > gone.watermark && run.facts.positions.1 >= gone.start);
        let mut number = *next;
        if !entries.is_empty() {
            let mut writer = Writer::new(&**disk, dir, number)?;
            entries.into_iter().try_for_each(|entry| writer.push(entry))?;
            runs.extend(writer.finish()?.map(Arc::new));
            number += 1;
        }
        if runs.len() > RUNS_MAX {
            let mut writer = Writer::new(&**disk, dir, number)?;
            let merged = take_smallest(&mut runs);
            let mut all = Merged::new(&merged, Vec::new(), gone.watermark)?;
            while let Some(entry) = all.next()? {
                if !gone.has(&entry) {
                    writer.push(entry)?;
                }
            }
            runs.extend(writer.finish()?.map(Arc::new));
            number += 1;
        }
        if number > *next {
            // timer_index.I2
            disk.sync_dir(dir).map_err(TimersError::io(dir, "sync the directory"))?;
        }
        let list = List { point, next: number, gone, runs: runs.iter().map(|run| run.facts).collect() };
        list.save(&**disk, dir)?;
        *next = number;
        {
            let mut held = held.lock();
            held.entries.retain(|key, _| key.position >= point.position);
            held.runs.clone_from(&runs);
        }
        remove_all_but(&**disk, dir, &runs)
    }

    /// A snapshot was installed: the index is emptied, and goes on from `point`, perhaps in another history.
    pub fn reset(&self, point: TimersPoint) -> Result<(), TimersError> {
        let Inner { disk, dir, held, syncing } = &*self.inner;
        let _syncing = syncing.lock();
        // A full disk takes no new list. Without one a start reads the log from its first record, which is the one at `point`.
        let path = dir.join(INDEX_FILE);
        match disk.remove(&path) {
            Err(error) if error.kind() != io::ErrorKind::NotFound => {
                return Err(TimersError::io(&path, "remove")(error));
            }
            _ => disk.sync_dir(dir).map_err(TimersError::io(dir, "sync"))?,
        }
        *held.lock() = Held { point, ..Held::default() };
        remove_all_but(&**disk, dir, &[])
    }

    /// How far it holds the log.
    pub fn point(&self) -> TimersPoint {
        self.inner.held.lock().point
    }

    /// Whether a read may wait for the disk.
    pub fn reads_disk(&self) -> bool {
        !self.inner.held.lock().runs.is_empty()
    }

    /// The lowest key above another one, pending or not. Mostly reads nothing from the disk.
    pub fn next(&self, above: TimerKey) -> Result<Option<TimerKey>, TimersError> {
        let (mut next, runs) = {
            let held = self.inner.held.lock();
            let first = held.entries.range((Excluded(above), Unbounded)).next();
            (first.map(|(key, _)| *key), held.runs.clone())
        };
        for run in runs {
            let head = run.head(above)?.map(|head| head.key);
            next = next.into_iter().chain(head).min();
        }
        Ok(next)
    }

    /// The first `max` entries above a key that are due at a time and that `keep` takes, in order. Reads the disk.
    pub fn due(
        &self,
        above: TimerKey,
        upto_ms: u64,
        max: usize,
        mut keep: impl FnMut(&TimerEntry) -> bool,
    ) -> Result<Vec<TimerEntry>, TimersError> {
        let mut due = Vec::new();
        self.for_each(above, |entry| {
            if entry.key.due_ms > upto_ms || due.len() >= max {
                return false;
            }
            if keep(entry) {
                due.push(*entry);
            }
            true
        })?;
        Ok(due)
    }

    /// The first `max` entries above a key, by position, that lie from `from` to before `to` and that `keep` takes. Reads the disk.
    pub fn lying(
        &self,
        above: TimerKey,
        (from, to): (u64, u64),
        max: usize,
        mut keep: impl FnMut(&TimerEntry) -> bool,
    ) -> Result<Vec<TimerEntry>, TimersError> {
        let mut found: BTreeMap<u64, TimerEntry> = BTreeMap::new();
        self.for_each(above, |entry| {
            if (from..to).contains(&entry.key.position) && keep(entry) {
                found.insert(entry.key.position, *entry);
                if found.len() > max {
                    found.pop_last();
                }
            }
            true
        })?;
        Ok(found.into_values().collect())
    }

    /// Gives all entries above a key, in order, until `take` has enough and says false. Reads the disk.
    pub fn for_each(
        &self,
        above: TimerKey,
        mut take: impl FnMut(&TimerEntry) -> bool,
    ) -> Result<(), TimersError> {
        let (entries, runs) = {
            let held = self.inner.held.lock();
            let entries = held.entries.range((Excluded(above), Unbounded)).map(|(_, entry)| *entry);
            (entries.collect(), held.runs.clone())
        };
        let mut all = Merged::new(&runs, entries, above)?;
        while let Some(entry) = all.next()? {
            if !take(&entry) {
                break;
            }
        }
        Ok(())
    }

    #[cfg(test)]
    fn runs(&self) -> Vec<RunFacts> {
        self.inner.held.lock().runs.iter().map(|run| run.facts).collect()
    }
}

/// Adds the parked messages of a record.
fn add(entries: &mut BTreeMap<TimerKey, TimerEntry>, record: &Record) -> Result<(), TimersError> {
    let (start, messages) = (record.messages_position(), record.messages());
    let mut at = 0;
    while at < messages.len() {
        let position = start + at as u64;
        let malformed = |_| TimersError::Message(position);
        let route = peek(&messages[at..]).map_err(malformed)?;
        if route.topic == parked::TOPIC.as_bytes() {
            let message = MessageView::parse(&messages[at..]).map_err(malformed)?;
            let entry = TimerEntry::of(&message, position);
            entries.insert(entry.key, entry);
        }
        at += route.total_size;
    }
    Ok(())
}

/// What the disk has that can be used; `None`: nothing.
fn found(disk: &dyn Disk, dir: &Path, base: TimersPoint, gone: Gone) -> Option<(List, Vec<Arc<Run>>)> {
    let mut list = List::load(disk, dir).filter(|list| list.gone.is_within(gone))?;
    if list.point.position > base.position {
        // The checkpoint that was to follow was not saved: what comes now may be another history.
        let beyond = list.runs.iter_mut().filter(|run| run.positions.1 >= base.position);
        beyond.for_each(|run| run.limit = run.limit.min(base.position));
        list.point = base;
    } else if list.point.position == base.position && list.point != base {
        return None;
    }
    let open = |facts: &RunFacts| {
        let run = Run::open(disk, dir, *facts)?;
        run.verify().map(|()| Arc::new(run))
    };
    match list.runs.iter().map(open).collect() {
        Ok(runs) => Some((list, runs)),
        Err(error) => {
            tracing::warn!(%error, "the timer index is not usable, building it again from the log");
            None
        }
    }
}

/// Takes the smallest runs: some, and as many more as are no larger than those before together.
fn take_smallest(runs: &mut Vec<Arc<Run>>) -> Vec<Arc<Run>> {
    runs.sort_by_key(|run| run.facts.count);
    let mut sum = 0;
    let mut taken = 0;
    for run in runs.iter() {
        if taken >= MERGED_MIN && run.facts.count > sum {
            break;
        }
        sum += run.facts.count;
        taken += 1;
    }
    runs.drain(..taken).collect()
}

fn remove_all_but(disk: &dyn Disk, dir: &Path, runs: &[Arc<Run>]) -> Result<(), TimersError> {
    let kept: Vec<PathBuf> = runs.iter().map(|run| run::path(dir, run.facts.number)).collect();
    for path in disk.list(dir).map_err(TimersError::io(dir, "list"))? {
        if !kept.contains(&path) && !path.ends_with(INDEX_FILE) {
            disk.remove(&path).map_err(TimersError::io(&path, "remove"))?;
        }
    }
    Ok(())
}
