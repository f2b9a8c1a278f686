//! The segmented commit log: the only copy of every message, and the Raft log at the same time.
//!
//! It is not a replicated log: it knows no peers, and what is committed is told to it. Raft's core task is the one
//! appender; replication, apply and pulls read from any thread; one writer thread owns the files.
//!
//! ```text
//!   start (purged)        durable        written        end (appended)
//!     |                      |              |              |
//!     v                      v              v              v
//! ----[======== segments ====|==============|==== cache ===]........
//!     <----- acknowledged --->
//! ```
//!
//! Invariants; each is asserted where it is kept and has a test of that name:
//! - `log.I1`: completions are called in the order of submission, and only after all that was appended before is
//!   durable; `durable <= written <= end` (with `sync: false`: after it is written).
//! - `log.I2`: a segment file and its name are durable before a record in it is acknowledged.
//! - `log.I3`: after a failed write or sync nothing is written or acknowledged any more.
//! - `log.I4`: a vote is durable only after all that was appended before it.
//! - `log.I5`: a damaged record below the durable mark is rot: opening refuses and changes nothing.
//! - `log.I6`: a truncation is durable before a later append is acknowledged; a crash inside it leaves the old tail, the
//!   new one, or one in between.
//! - `log.I7`: bytes of a cut or truncated tail never become part of the log again: they are zeroed, and the chain
//!   (position, index, term, previous crc) does not continue with them.
//! - `log.I8`: positions and stamps are a function of the records before and the segment size alone.

mod cache;
mod error;
mod index;
mod mark;
mod prepare;
mod queue;
mod recovery;
mod segment;
mod slots;
mod truncate;
mod view;
mod writer;

#[cfg(test)]
mod tests;

use std::path::{Path, PathBuf};
use std::sync::{Arc, OnceLock};
use std::thread::JoinHandle;
use std::time::Instant;

use bytes::Bytes;
use parking_lot::Mutex;

pub use error::{AppendError, OpenError, ReadError, WriteError};

use crate::counters::QueueCounters;
use crate::disk::Disk;
use crate::record::{Draft, EntryId, RECORD_BYTES_MAX, Record, RecordKind};
use crate::stamp::{StampError, Stamper};
use error::IoContext;
use mark::{Mark, Start};
use prepare::Preparer;
use queue::{Append, Change, Job, Queue};
use recovery::Recovery;
use slots::Slots;
use view::View;
use writer::Writer;

/// The smallest segment: some records must fit.
const SEGMENT_BYTES_MIN: u64 = 1024;
const VOTE_MAGIC: [u8; 4] = *b"FoVo";

/// How a log stores.
#[derive(Debug, Clone, Copy)]
pub struct LogConfig {
    /// Length of a segment file; fixed when a group is created, equal on all replicas.
    pub segment_bytes: u64,
    /// Recent records kept in memory; more while they are not written yet.
    pub cache_bytes: usize,
    /// Whether completions wait for `fdatasync`. `false` is RocketMQ's ASYNC_FLUSH: what was acknowledged in the last
    /// half second is lost when the machine (not only the process) stops.
    pub sync: bool,
}

impl Default for LogConfig {
    fn default() -> LogConfig {
        LogConfig { segment_bytes: 1 << 30, cache_bytes: 32 << 20, sync: true }
    }
}

/// The state of the log after some record, from which stamping can go on.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct StampBase {
    /// The record's entry; `None` before the first.
    pub id: Option<EntryId>,
    /// The position after the record.
    pub position: u64,
    /// The record's header crc.
    pub prev_crc: u32,
    /// The next offset of every queue.
    pub counters: QueueCounters,
}

impl StampBase {
    fn start(&self, epoch: u64) -> Start {
        Start { epoch, id: self.id, position: self.position, prev_crc: self.prev_crc }
    }
}

/// Called by the writer thread, in the order of submission.
pub type Completion = Box<dyn FnOnce(Result<(), WriteError>) + Send>;

/// Where the log stands.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct LogState {
    /// Index of the first entry kept, or of the next one when none is.
    pub first_index: u64,
    /// The last entry; the last purged one when none is kept.
    pub last: Option<EntryId>,
    /// The last entry purged.
    pub purged: Option<EntryId>,
    /// The position after the last purged record.
    pub start_position: u64,
    /// The position after the last record.
    pub next_position: u64,
    /// The position after the last record this node may acknowledge.
    pub durable_position: u64,
    /// The last record this node may acknowledge.
    pub durable: Option<EntryId>,
    /// Why the log accepts nothing more.
    pub poisoned: Option<String>,
}

/// What the threads of one log share.
struct Shared {
    disk: Arc<dyn Disk>,
    directory: PathBuf,
    start_path: PathBuf,
    config: LogConfig,
    view: Mutex<View>,
    queue: Queue,
    vote: Mutex<Option<Bytes>>,
    poison: OnceLock<String>,
}

impl Shared {
    fn poisoned(&self) -> Option<String> {
        self.poison.get().cloned()
    }

    fn poison(&self, error: &std::io::Error) -> String {
        let reason = format!("{}: {error}", self.directory.display());
        tracing::error!(reason, "log.I3: the commit log is poisoned by a failed write or sync");
        self.poison.get_or_init(|| reason).clone()
    }

    fn push(&self, job: Job) {
        match self.queue.push(job) {
            Ok(()) | Err(Job::Append(_)) => {}
            Err(Job::Done(done) | Job::Fail(done, _) | Job::Change(_, done)) => done(Err(WriteError::Closed)),
        }
    }
}

/// The end of the log, owned by the one appender.
struct Tail {
    end: u64,
    prev_crc: u32,
    last: Option<EntryId>,
    /// The index the next entry must have; `None` when any will do.
    next_index: Option<u64>,
    stamper: Stamper,
    closed: bool,
}

struct Inner {
    shared: Arc<Shared>,
    preparer: Arc<Preparer>,
    tail: Mutex<Tail>,
    threads: Mutex<Vec<JoinHandle<()>>>,
}

/// A handle to an open commit log; cheap to clone. The log is closed when the last handle goes.
#[derive(Clone)]
pub struct CommitLog {
    inner: Arc<Inner>,
}

impl CommitLog {
    /// Opens the log in `dir` and makes its tail whole. `base` is the state as of some record boundary of the retained
    /// log, from a checkpoint; the default is the start of an empty log. Every record after it is verified.
    ///
    /// The caller holds the directory's lock ([`Disk::lock`]).
    pub fn open(
        disk: Arc<dyn Disk>,
        dir: &Path,
        config: LogConfig,
        base: StampBase,
    ) -> Result<CommitLog, OpenError> {
        if config.segment_bytes < SEGMENT_BYTES_MIN {
            return Err(OpenError::Config(config.segment_bytes));
        }
        let directory = dir.join("commitlog");
        disk.create_dir_all(&directory).context("create", &directory)?;
        disk.sync_dir(dir).context("sync", dir)?;
        let start_path = dir.join("start");
        let start = Start::load(&*disk, &start_path)?;
        let (votes, vote) = Slots::open(&*disk, &dir.join("vote"), VOTE_MAGIC)?;
        let mut mark = Mark::open(&*disk, &dir.join("durable"), &start)?;
        let recovered = Recovery::new(&*disk, &directory, config, start, &mark)?.run(base)?;
        let walk = recovered.walk;
        let durable_path = dir.join("durable");
        mark.raise(walk.end).and_then(|()| mark.sync()).context("write", &durable_path)?;

        let view = View {
            start,
            last: walk.last,
            end: walk.end,
            cache: Default::default(),
            segments: recovered.segments,
            appended: 0,
            written: 0,
            durable_end: walk.end,
            durable: walk.last,
            epoch: 0,
        };
        let tail = Tail {
            end: walk.end,
            prev_crc: walk.prev_crc,
            last: walk.last,
            next_index: walk.last.map(|last| last.index + 1),
            stamper: recovered.stamper,
            closed: false,
        };
        let preparer = Arc::new(Preparer::new(disk.clone(), &directory, config.segment_bytes));
        let shared = Arc::new(Shared {
            disk,
            directory,
            start_path,
            config,
            view: Mutex::new(view),
            queue: Queue::default(),
            vote: Mutex::new(Some(vote).filter(|vote| !vote.is_empty())),
            poison: OnceLock::new(),
        });
        let now = Instant::now();
        let writer = Writer {
            shared: shared.clone(),
            preparer: preparer.clone(),
            files: recovered.files,
            dirty: Default::default(),
            end: walk.end,
            last: walk.last,
            mark,
            votes,
            mark_synced: now,
            data_synced: now,
        };
        let threads = Mutex::new(start_threads(writer, &preparer, dir)?);
        preparer.want(segment::base_of(walk.end, config.segment_bytes) + config.segment_bytes);
        Ok(CommitLog { inner: Arc::new(Inner { shared, preparer, tail: Mutex::new(tail), threads }) })
    }

    /// Leader: makes `draft` the entry `id`: stamps its messages, seals it and hands it to the writer. Returns at once;
    /// [`CommitLog::submit`] tells when it is durable.
    pub fn append(&self, id: EntryId, mut draft: Draft) -> Result<Record, AppendError> {
        let mut tail = self.inner.tail.lock();
        self.admit(&tail, id, draft.len() as u64)?;
        let position = segment::place(tail.end, draft.len() as u64, self.config().segment_bytes);
        if draft.kind() == RecordKind::Messages {
            let messages = draft.messages;
            let stamped = tail.stamper.stamp(id.index, position, messages, draft.payload_slice_mut());
            stamped.map_err(AppendError::Malformed)?;
        }
        let length = draft.len() as u64;
        let Some(record) = draft.seal(id, position, tail.prev_crc) else {
            return Err(AppendError::TooLarge { length, max: self.record_bytes_max() });
        };
        self.push(&mut tail, &record);
        Ok(record)
    }

    /// Follower: appends a record as the leader made it, after checking that it is what this replica would have made.
    pub fn append_record(&self, record: Record) -> Result<Record, AppendError> {
        let mut tail = self.inner.tail.lock();
        let (id, header) = (record.id(), record.header);
        self.admit(&tail, id, u64::from(header.length))?;
        let diverged = |reason: String| AppendError::Divergence { id, reason };
        let position = segment::place(tail.end, u64::from(header.length), self.config().segment_bytes);
        if header.position != position {
            return Err(diverged(format!("it lies at position {}, expected {position}", header.position)));
        }
        if header.prev_crc != tail.prev_crc {
            let (found, expected) = (header.prev_crc, tail.prev_crc);
            return Err(diverged(format!("the record before has crc {found:08x}, expected {expected:08x}")));
        }
        if header.kind == RecordKind::Messages {
            let checked = tail.stamper.check(header.index, position, header.messages, &record.payload());
            checked.map_err(|error: StampError| diverged(error.to_string()))?;
        }
        self.push(&mut tail, &record);
        Ok(record)
    }

    /// Calls `done` once everything appended before is durable.
    pub fn submit(&self, done: Completion) {
        self.inner.shared.push(Job::Done(done));
    }

    /// Stores a vote; it is durable, after everything appended before, when `done` is called.
    pub fn save_vote(&self, vote: &[u8], done: Completion) {
        let vote = Bytes::copy_from_slice(vote);
        if vote.is_empty() || vote.len() > slots::VALUE_BYTES_MAX {
            let reason =
                format!("a vote of {} bytes, 1 to {} are possible", vote.len(), slots::VALUE_BYTES_MAX);
            return self.inner.shared.push(Job::Fail(done, WriteError::Refused(reason)));
        }
        self.inner.shared.push(Job::Change(Change::Vote(vote), done));
    }

    /// The last vote that is durable.
    pub fn vote(&self) -> Option<Bytes> {
        self.inner.shared.vote.lock().clone()
    }

    /// Drops the entries above `keep` (`None`: all). In memory at once; `done` is called when it is durable, and every
    /// later completion implies it.
    pub fn truncate_after(&self, keep: Option<u64>, done: Completion) {
        let mut tail = self.inner.tail.lock();
        let job = match self.cut_tail(&mut tail, keep) {
            Ok(Some(change)) => Job::Change(change, done),
            Ok(None) => Job::Done(done),
            Err(error) => Job::Fail(done, WriteError::Refused(format!("truncate after {keep:?}: {error}"))),
        };
        self.inner.shared.push(job);
    }

    /// Moves the front of the log to after `upto`, which may also lie beyond the last entry: then the log is empty and
    /// goes on after it. Segments wholly below are removed.
    pub fn purge(&self, upto: EntryId, done: Completion) {
        let mut tail = self.inner.tail.lock();
        let job = match self.cut_front(&mut tail, upto) {
            Ok(Some(change)) => Job::Change(change, done),
            Ok(None) => Job::Done(done),
            Err(error) => Job::Fail(done, WriteError::Refused(format!("purge up to {upto}: {error}"))),
        };
        self.inner.shared.push(job);
    }

    /// Empties the log; the next record is the one after `start`. For a snapshot that replaces the log.
    pub fn reset(&self, start: StampBase, done: Completion) {
        let mut tail = self.inner.tail.lock();
        let mut view = self.inner.shared.view.lock();
        let point = start.start(view.start.epoch + 1);
        view.reset(point);
        let change = Change::Reset { start: point, epoch: view.epoch };
        drop(view);
        *tail = Tail {
            end: start.position,
            prev_crc: start.prev_crc,
            last: start.id,
            next_index: point.first_index(),
            stamper: Stamper::new(start.counters, start.id.map(|id| id.index)),
            closed: tail.closed,
        };
        self.inner.shared.push(Job::Change(change, done));
    }

    /// Entries `start` to before `end`, consecutive, at least one if `start` is there, no more once `max_bytes` are
    /// reached. Nothing if `start` is beyond the last entry.
    pub fn read(&self, start: u64, end: u64, max_bytes: usize) -> Result<Vec<Record>, ReadError> {
        view::read(&self.inner.shared.view, start, end, max_bytes)
    }

    /// Stored bytes, shared with the log's memory. They lie inside one record.
    pub fn bytes(&self, position: u64, len: usize) -> Result<Bytes, ReadError> {
        view::bytes(&self.inner.shared.view, self.config().segment_bytes, position, len)
    }

    /// Where the log stands.
    pub fn state(&self) -> LogState {
        let view = self.inner.shared.view.lock();
        LogState {
            first_index: view.first_index(),
            last: view.last,
            purged: view.start.id,
            start_position: view.start.position,
            next_position: view.end,
            durable_position: view.durable_end,
            durable: view.durable,
            poisoned: self.inner.shared.poisoned(),
        }
    }

    /// The next offset of every queue after the last record.
    pub fn counters(&self) -> QueueCounters {
        self.inner.tail.lock().stamper.counters().clone()
    }

    /// Entries up to `committed_index` will not be truncated any more.
    pub fn forget_undo(&self, committed_index: u64) {
        self.inner.tail.lock().stamper.forget(committed_index);
    }

    /// False when `bytes` can not be stored: the disk is full, or no record is that long. A full disk is tried again in
    /// the background.
    pub fn has_room(&self, bytes: u64) -> bool {
        bytes <= self.record_bytes_max() && !self.inner.preparer.is_full()
    }

    /// Position and index of the first entry of every segment.
    pub fn segment_starts(&self) -> Vec<(u64, u64)> {
        let view = self.inner.shared.view.lock();
        view.segments.iter().map(|live| (live.first.1, live.first.0)).collect()
    }

    /// Writes and syncs what is queued and ends the threads. Later appends and completions get an error.
    pub fn close(&self) {
        self.inner.close();
    }

    fn config(&self) -> &LogConfig {
        &self.inner.shared.config
    }

    fn record_bytes_max(&self) -> u64 {
        (RECORD_BYTES_MAX as u64).min(self.config().segment_bytes)
    }

    fn admit(&self, tail: &Tail, id: EntryId, length: u64) -> Result<(), AppendError> {
        if let Some(reason) = self.inner.shared.poisoned() {
            return Err(AppendError::Poisoned(reason));
        }
        if tail.closed {
            return Err(AppendError::Closed);
        }
        let follows = tail.next_index.is_none_or(|next| next == id.index);
        if !follows || tail.last.is_some_and(|last| last.term > id.term) || id.index == u64::MAX {
            return Err(AppendError::OutOfOrder { last: tail.last, found: id });
        }
        let max = self.record_bytes_max();
        if length > max {
            return Err(AppendError::TooLarge { length, max });
        }
        Ok(())
    }

    fn push(&self, tail: &mut Tail, record: &Record) {
        let shared = &self.inner.shared;
        let id = record.id();
        (tail.end, tail.prev_crc) = (record.end(), record.header.crc);
        (tail.last, tail.next_index) = (Some(id), Some(id.index + 1));
        let mut view = shared.view.lock();
        let epoch = view.epoch;
        let (sequence, segment) = view.push(record, shared.config.segment_bytes, shared.config.cache_bytes);
        drop(view);
        shared.push(Job::Append(Append { record: record.clone(), segment, sequence, epoch }));
    }

    /// The place after entry `index`, which is the purge point or an entry of the log.
    fn place_after(&self, index: Option<u64>) -> Result<Start, ReadError> {
        let start = self.inner.shared.view.lock().start;
        let Some(index) = index.filter(|&index| Some(index) != start.id.map(|id| id.index)) else {
            return Ok(start);
        };
        let header = view::header_of(&self.inner.shared.view, index)?;
        Ok(Start { id: Some(header.id()), position: header.end(), prev_crc: header.crc, ..start })
    }

    fn cut_tail(&self, tail: &mut Tail, keep: Option<u64>) -> Result<Option<Change>, String> {
        let last = tail.last.map(|last| last.index);
        if keep >= last {
            return Ok(None);
        }
        let start = self.inner.shared.view.lock().start.id.map(|id| id.index);
        if keep < start || !tail.stamper.can_undo_to(keep) {
            return Err("entries below are committed".into());
        }
        let first = self.inner.shared.view.lock().first_index();
        let keep = keep.filter(|&keep| start.is_some() || keep >= first);
        let place = self.place_after(keep).map_err(|error| error.to_string())?;
        tail.stamper.undo_to(keep);
        (tail.end, tail.prev_crc, tail.last) = (place.position, place.prev_crc, place.id);
        tail.next_index = place.first_index();
        let mut view = self.inner.shared.view.lock();
        view.truncate(place.id, place.position);
        Ok(Some(Change::Truncate { end: place.position, last: place.id, epoch: view.epoch }))
    }

    fn cut_front(&self, tail: &mut Tail, upto: EntryId) -> Result<Option<Change>, String> {
        let start = self.inner.shared.view.lock().start;
        if start.id.is_some_and(|purged| upto.index <= purged.index) {
            return Ok(None);
        }
        let beyond = tail.last.is_none_or(|last| upto.index > last.index);
        let first = self.inner.shared.view.lock().first_index();
        let point = if beyond {
            Start { id: Some(upto), position: tail.end, prev_crc: tail.prev_crc, ..start }
        } else if upto.index < first {
            Start { id: Some(upto), ..start }
        } else {
            self.place_after(Some(upto.index)).map_err(|error| error.to_string())?
        };
        if point.id != Some(upto) {
            return Err(format!("the log has {:?} there", point.id));
        }
        tail.stamper.forget(upto.index);
        if beyond {
            (tail.last, tail.next_index) = (point.id, point.first_index());
        }
        let mut view = self.inner.shared.view.lock();
        view.purge(point);
        let next = segment::base_of(point.position, self.config().segment_bytes);
        let keep = view.segments.first().map_or(next, |live| live.segment.base);
        Ok(Some(Change::Purge { start: point, keep, epoch: view.epoch }))
    }
}

impl Inner {
    fn close(&self) {
        self.tail.lock().closed = true;
        self.preparer.closing();
        self.shared.push(Job::Change(Change::Close, Box::new(|_| {})));
        for thread in self.threads.lock().drain(..) {
            if thread.thread().id() != std::thread::current().id() && thread.join().is_err() {
                tracing::error!("a thread of the commit log panicked");
            }
        }
    }
}

impl Drop for Inner {
    fn drop(&mut self) {
        self.close();
    }
}

fn start_threads(
    writer: Writer,
    preparer: &Arc<Preparer>,
    dir: &Path,
) -> Result<Vec<JoinHandle<()>>, OpenError> {
    let preparer = preparer.clone();
    let spawn = |name: &str, body: Box<dyn FnOnce() + Send>| {
        std::thread::Builder::new().name(name.into()).spawn(body).context("start a thread for", dir)
    };
    Ok(vec![
        spawn("folio-log", Box::new(move || writer.run()))?,
        spawn("folio-segment", Box::new(move || preparer.run()))?,
    ])
}
