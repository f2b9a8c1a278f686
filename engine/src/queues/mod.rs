//! Consume queues: for every queue of every topic, where its messages lie in the commit log, in order.
//!
//! They are derived: built by `apply` from committed records, on every replica alike, and rebuilt from the log when
//! they are lost or damaged. They hold no message, know no consumer, and decide nothing. One thread applies; any
//! number read meanwhile. A clone is another handle to the same queues.
//!
//! Files: `<dir>/consumequeue/<topic>/<queue>/<20 digits>`, 300,000 units of 20 bytes each, every unit with a check of
//! its own; see [`Unit`]. Where there are many queues, the newest units of most of them are in one file: see `tails`.
//!
//! Invariants
//! - `queues.I1` A message's stamped queue offset is the next offset of its queue: the queues and the log's stamps
//!   agree, and no offset is ever skipped.
//! - `queues.I2` What was applied once is applied the same again: a unit never changes.
//! - `queues.I3` Offsets from `min` to `next` can all be read, at any time, from memory or a file.
//! - `queues.I4` After a sync everything applied before it survives a power cut; so a checkpoint is published only
//!   after one.
//! - `queues.I6` A full disk loses no unit and ends nothing: units wait in memory, and once that holds as many as it may, a
//!   record is refused, to be applied again when there is room.
//! - `queues.I5` A unit that is not the one of its message is never handed out; it is found again in the log.

mod applier;
mod arrival;
mod damage;
mod derived;
mod error;
mod files;
mod mend;
mod queue;
mod recover;
mod scrub;
#[cfg(test)]
mod sectors;
mod tails;
#[cfg(test)]
mod tests;
mod trim;
mod unit;

use std::cmp::Ordering;
use std::collections::HashMap;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering::Relaxed};

use folio_protocol::message::{MessageView, Messages};
use parking_lot::{Mutex, RwLock};

use crate::counters::{QueueCounters, topic_is_storable};
use crate::disk::{Disk, is_full, open_reserved};
use crate::record::Record;
use applier::{Applier, QUEUES_PER_TURN, count_written};
use files::Files;
use queue::{Found, Pushed, Queue};
use tails::Tails;

pub use arrival::Arrival;
pub use derived::DerivedQueues;
pub use error::QueuesError;
pub use files::UNITS_PER_FILE;
pub use mend::{MendError, Mending};
pub use queue::UNITS_PER_READ_MAX;
pub use scrub::UnitsScrubbed;
pub use trim::Trimmed;
pub use unit::{UNIT_BYTES, Unit, UnitPlace};

/// See the module.
#[derive(Clone)]
pub struct ConsumeQueues {
    inner: Arc<Inner>,
}

struct Inner {
    root: PathBuf,
    /// The file of tails.
    tails: PathBuf,
    /// Queues that a sync writes to their files at least.
    written_per_sync: usize,
    files: Files,
    topics: RwLock<Topics>,
    applier: Mutex<Applier>,
    /// Held for the whole of a sync, so that one who finds nothing to sync does not return before the bytes that
    /// another is syncing are durable.
    syncing: Mutex<()>,
    poisoned: RwLock<Option<Arc<str>>>,
    serials: AtomicU64,
    damages: damage::Damages,
}

/// The queues of each topic, by number ascending.
type Topics = HashMap<Arc<str>, Vec<Arc<Queue>>>;

impl ConsumeQueues {
    /// Opens the queues below `dir` as of a checkpoint: `at` holds the next offsets then, `min` those of the first
    /// retained record. What queues' files hold behind `at`, below `min`, or for no queue of `at` is removed.
    ///
    /// [`QueuesError::Rebuild`] says that files and tails do not reach the checkpoint. With the same counters as `at` and
    /// `min` nothing is needed of the files, so that always opens, with empty queues, to replay the log from there.
    pub fn open(
        disk: Arc<dyn Disk>,
        dir: &Path,
        at: &QueueCounters,
        min: &QueueCounters,
    ) -> Result<ConsumeQueues, QueuesError> {
        ConsumeQueues::open_with(disk, dir, at, min, tails::QUEUES_WRITTEN)
    }

    fn open_with(
        disk: Arc<dyn Disk>,
        dir: &Path,
        at: &QueueCounters,
        min: &QueueCounters,
        written_per_sync: usize,
    ) -> Result<ConsumeQueues, QueuesError> {
        let inner = Inner {
            root: dir.join("consumequeue"),
            tails: dir.join("consumequeue.tails"),
            written_per_sync,
            files: Files::new(disk),
            topics: RwLock::default(),
            applier: Mutex::default(),
            syncing: Mutex::default(),
            poisoned: RwLock::default(),
            serials: AtomicU64::new(0),
            damages: Default::default(),
        };
        inner.recover(at, min, &mut inner.applier.lock())?;
        Ok(ConsumeQueues { inner: Arc::new(inner) })
    }

    /// Adds a unit for each message of a committed record; other records change nothing. New messages are added to
    /// `arrivals`, in order; they are visible to readers when this returns. A record may be applied again. Where memory holds
    /// as much for a full disk as it may, nothing of the record is applied: [`QueuesError::DiskFull`].
    pub fn apply(&self, record: &Record, arrivals: &mut Vec<Arrival>) -> Result<(), QueuesError> {
        if !record.header.kind.has_messages() {
            return Ok(());
        }
        let mut applier = self.inner.applier.lock();
        self.inner.check_poisoned()?;
        if applier.holds_all_it_may(&self.inner.files) {
            return Err(QueuesError::DiskFull { path: self.inner.root.clone() });
        }
        let applied = self.inner.apply(&mut applier, record, arrivals);
        self.inner.poison_on_io(applied)
    }

    /// At most `max` units of a queue, and at most [`UNITS_PER_READ_MAX`], from `offset` on; none when the queue does
    /// not reach there. [`QueuesError::Trimmed`] below the first offset. Units before a damaged one are given without it;
    /// [`QueuesError::Damaged`] when that is the first.
    pub fn units(&self, topic: &str, queue: u32, offset: u64, max: usize) -> Result<Vec<Unit>, QueuesError> {
        match self.inner.find(topic, queue) {
            Some(queue) => self.inner.read(&queue, offset, max),
            None => Ok(Vec::new()),
        }
    }

    /// The first offset of a queue and the next one; `None` for a queue that never had a message.
    pub fn bounds(&self, topic: &str, queue: u32) -> Option<(u64, u64)> {
        self.inner.find(topic, queue).map(|queue| queue.bounds())
    }

    /// Finds by halving the first offset of a queue for which `order` is not `Less`; the next offset if there is none.
    /// `order` must be monotonic along the queue, as store times are. `None` for a queue that never had a message.
    pub fn search(
        &self,
        topic: &str,
        queue: u32,
        mut order: impl FnMut(Unit) -> Ordering,
    ) -> Result<Option<u64>, QueuesError> {
        let Some(queue) = self.inner.find(topic, queue) else { return Ok(None) };
        let (mut low, mut high) = queue.bounds();
        while low < high {
            let middle = low + (high - low) / 2;
            match self.inner.read(&queue, middle, 1) {
                Ok(units) => match units.first().map(|unit| order(*unit)) {
                    Some(Ordering::Less) => low = middle + 1,
                    Some(_) => high = middle,
                    None => return Ok(Some(middle)),
                },
                // Retention has overtaken the search: what is gone is older than what is wanted, or as good as.
                Err(QueuesError::Trimmed { min, .. }) => (low, high) = (min, high.max(min)),
                Err(error) => return Err(error),
            }
        }
        Ok(Some(low))
    }

    /// Makes everything that was applied before this call durable. Appliers wait for the writing of a few queues at a
    /// time, not for the syncing.
    pub fn sync(&self) -> Result<(), QueuesError> {
        let _alone = self.inner.syncing.lock();
        let mut due = self.inner.applier.lock().take_unwritten();
        let kept = due.split_off(count_written(&due, self.inner.written_per_sync));
        let mut tails = Tails::new();
        for queues in kept.chunks(QUEUES_PER_TURN) {
            self.inner.applier.lock().add_tails(queues, &mut tails);
        }
        // Last, and so with all that was written before the tails were copied (`tails.I1`).
        loop {
            let unsynced = {
                let mut applier = self.inner.applier.lock();
                self.inner.check_poisoned()?;
                let taken = applier.take_unsynced(&mut due, &self.inner.files);
                self.inner.poison_on_io(taken)?
            };
            self.inner.poison_on_io(unsynced.sync(self.inner.files.disk()))?;
            if due.is_empty() {
                break;
            }
        }
        let saved = tails.save(self.inner.files.disk(), &self.inner.tails);
        if let Err(QueuesError::DiskFull { .. }) = &saved {
            self.inner.files.note_full(true);
        }
        self.inner.poison_on_io(saved)
    }

    /// A snapshot was installed: all queues are emptied, and begin at `at`.
    pub fn reset(&self, at: &QueueCounters) -> Result<(), QueuesError> {
        let _alone = self.inner.syncing.lock();
        let mut applier = self.inner.applier.lock();
        self.inner.check_poisoned()?;
        *applier = applier.emptied();
        let topics = std::mem::take(&mut *self.inner.topics.write());
        topics.into_values().flatten().for_each(|queue| queue.retire());
        self.inner.files.close_all();
        self.inner.recover(at, at, &mut applier)
    }

    /// The next offset of each queue of a topic that ever had a message, by number ascending.
    pub fn next_offsets(&self, topic: &str) -> Vec<(u32, u64)> {
        let topics = self.inner.topics.read();
        let queues = topics.get(topic).into_iter().flatten();
        queues.map(|queue| (queue.number, queue.bounds().1)).collect()
    }

    /// The next offset of every queue, as of the last record that was applied.
    pub fn counters(&self) -> QueueCounters {
        let _applier = self.inner.applier.lock();
        let mut counters = QueueCounters::new();
        for (topic, queues) in self.inner.topics.read().iter() {
            counters.set_topic(topic, queues.iter().map(|queue| (queue.number, queue.bounds().1)));
        }
        counters
    }

    /// Has memory hold at most so many bytes of units, of all queues together, for a disk that is full.
    pub fn hold_at_most(&self, bytes: usize) {
        self.inner.applier.lock().hold_at_most(bytes);
    }

    /// Whether the disk had no room for units, and has shown none since. They are held in memory then, up to a bound at which
    /// [`ConsumeQueues::apply`] fails, and [`ConsumeQueues::sync`] fails until there is room.
    pub fn disk_full(&self) -> bool {
        self.inner.files.is_full()
    }

    /// Tries once more to write what a full disk has kept in memory; whether the disk has room now. To be called now and then
    /// while [`ConsumeQueues::disk_full`] says so: nothing else may find out (`queues.I6`).
    pub fn retry(&self) -> Result<bool, QueuesError> {
        while self.disk_full() {
            let mut applier = self.inner.applier.lock();
            self.inner.check_poisoned()?;
            let retried = applier.retry(&self.inner.files);
            drop(applier);
            match self.inner.poison_on_io(retried) {
                Ok(done) if done && !self.inner.disk_has_room()? => return Ok(false),
                Ok(done) if done => self.inner.files.note_full(false),
                Ok(_) => {}
                Err(QueuesError::DiskFull { .. }) => return Ok(false),
                Err(error) => return Err(error),
            }
        }
        Ok(true)
    }
}

/// Bytes that a disk has room for which is not full any more.
const ROOM_BYTES: u64 = 1 << 20;

/// The file by which is tried whether there is room: beside the directory, where every name may be a topic's.
fn room_path(root: &Path) -> PathBuf {
    root.with_extension("room")
}

impl Inner {
    /// Whether blocks can be had. That a write went well does not say it: units may go to blocks that their file has.
    fn disk_has_room(&self) -> Result<bool, QueuesError> {
        let (disk, path) = (self.files.disk(), room_path(&self.root));
        match open_reserved(disk, &path, ROOM_BYTES) {
            Ok(_) => disk.remove(&path).map(|()| true).map_err(QueuesError::io(&path, "remove")),
            Err(error) if is_full(&error) => Ok(false),
            Err(error) => Err(QueuesError::io(&path, "reserve")(error)),
        }
    }

    fn recover(
        &self,
        at: &QueueCounters,
        min: &QueueCounters,
        applier: &mut Applier,
    ) -> Result<(), QueuesError> {
        let disk = self.files.disk();
        recover::create_root(disk, &self.root)?;
        recover::remove_unknown(disk, &self.root, at)?;
        recover::remove_if_there(disk, &room_path(&self.root))?;
        let mut tails = tails::Found::default();
        if at == min {
            // Nothing is needed of them, and what comes now may be another history.
            tails::remove(disk, &self.tails)?;
        } else {
            tails = tails::Found::load(disk, &self.tails);
        }
        let mut topics = Topics::new();
        for (topic, number, next) in at.iter() {
            let first = min.get(&**topic, number).min(next);
            let (written, units) = tails.take(topic, number, first, next).unwrap_or((next, Vec::new()));
            let dir = recover::recover_queue(disk, &self.root, (topic, number), first, written)?;
            let queue = self.new_queue(topic.clone(), number, dir, first, written);
            if !units.is_empty() {
                queue.restore(units);
                applier.add_unwritten(&queue);
            }
            topics.entry(topic.clone()).or_default().push(queue);
        }
        *self.topics.write() = topics;
        Ok(())
    }

    fn apply(
        &self,
        applier: &mut Applier,
        record: &Record,
        arrivals: &mut Vec<Arrival>,
    ) -> Result<(), QueuesError> {
        let start = record.messages_position();
        for message in Messages::new(record.messages()) {
            let (at, message) =
                message.map_err(|source| QueuesError::Message { position: record.position(), source })?;
            let position = start + at as u64;
            if message.physical_offset() != position {
                return Err(QueuesError::Unfit { position, reason: "it is stamped with another position" });
            }
            self.apply_message(applier, &message, position, arrivals)?;
        }
        Ok(())
    }

    fn apply_message(
        &self,
        applier: &mut Applier,
        message: &MessageView<'_>,
        position: u64,
        arrivals: &mut Vec<Arrival>,
    ) -> Result<(), QueuesError> {
        let (topic, number) = (message.topic(), message.queue_id());
        let queue = match &applier.last {
            Some(last) if last.number == number && *last.topic == *topic => last.clone(),
            _ => self.find_or_create(topic, number, position)?,
        };
        let (offset, tags_code) = (message.queue_offset(), message.tags_code());
        let unit = Unit { position, size: message.total_size() as u32, tags_code };
        if !unit.fits() {
            return Err(QueuesError::Unfit { position, reason: "its position or size does not fit a unit" });
        }
        match applier.push(&queue, offset, unit, &self.files)? {
            Pushed::Added { .. } => {
                arrivals.push(Arrival { topic: queue.topic.clone(), queue: number, offset, tags_code });
            }
            Pushed::Damaged => self.damages.note(&queue, offset, false),
            Pushed::Known => {}
        }
        applier.last = Some(queue);
        Ok(())
    }

    /// `queues.I5`
    fn read(&self, queue: &Queue, offset: u64, max: usize) -> Result<Vec<Unit>, QueuesError> {
        let Found { units, damaged } = queue.read(offset, max, &self.files)?;
        if let Some(damaged) = damaged {
            self.damages.note(queue, damaged, false);
            if units.is_empty() {
                return Err(QueuesError::Damaged { topic: queue.topic.clone(), queue: queue.number, offset });
            }
        }
        Ok(units)
    }

    fn find(&self, topic: &str, number: u32) -> Option<Arc<Queue>> {
        let topics = self.topics.read();
        let queues = topics.get(topic)?;
        let at = queues.binary_search_by_key(&number, |queue| queue.number).ok()?;
        Some(queues[at].clone())
    }

    fn find_or_create(&self, topic: &str, number: u32, position: u64) -> Result<Arc<Queue>, QueuesError> {
        if let Some(queue) = self.find(topic, number) {
            return Ok(queue);
        }
        if !topic_is_storable(topic.as_bytes()) {
            return Err(QueuesError::Unfit {
                position,
                reason: "its topic cannot be the name of a directory",
            });
        }
        let dir = self.root.join(topic).join(number.to_string());
        let mut topics = self.topics.write();
        let topic = topics.get_key_value(topic).map_or_else(|| Arc::from(topic), |(topic, _)| topic.clone());
        let queues = topics.entry(topic.clone()).or_default();
        let queue = self.new_queue(topic, number, dir, 0, 0);
        let at = queues.partition_point(|queue| queue.number < number);
        queues.insert(at, queue.clone());
        Ok(queue)
    }

    fn new_queue(&self, topic: Arc<str>, number: u32, dir: PathBuf, min: u64, next: u64) -> Arc<Queue> {
        Arc::new(Queue::new(topic, number, self.serials.fetch_add(1, Relaxed), dir, min, next))
    }

    fn check_poisoned(&self) -> Result<(), QueuesError> {
        match &*self.poisoned.read() {
            Some(why) => Err(QueuesError::Poisoned(why.clone())),
            None => Ok(()),
        }
    }

    /// A disk that failed once is not believed again: a sync that succeeds later proves nothing.
    fn poison_on_io<T>(&self, result: Result<T, QueuesError>) -> Result<T, QueuesError> {
        if let Err(error @ QueuesError::Io { source, .. }) = &result {
            self.poisoned.write().get_or_insert_with(|| Arc::from(format!("{error}: {source}")));
        }
        result
    }
}
