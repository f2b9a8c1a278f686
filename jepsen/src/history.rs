//! What was done and what came back: one line of JSON for each operation and each fault.
//!
//! | line | what |
//! |---|---|
//! | `{"topic":..,"seq":..,"outcome":..}` | a send, once its client knows how it ended ([`Op`]) |
//! | `{"poll":{..}}` | a pull that gave messages ([`Poll`]); empty ones are not kept |
//! | `{"end":{..}}` | a queue's length, as a node was sure of it ([`End`]) |
//! | `{"commit":{..}}`, `{"committed":{..}}` | a group's offset, written and read ([`Commit`], [`Committed`]) |
//! | `{"repeat":{..}}` | a send of an object that is sent several times on purpose ([`Repeat`]) |
//! | `{"deletion":{..}}` | a request to delete a topic, or some of its queues ([`Deletion`]) |
//! | `{"delayed":{..}}`, `{"recall":{..}}` | a delayed send, and what became of taking it back ([`Delayed`], [`Recall`]) |
//! | `{"half":{..}}`, `{"ending":{..}}`, `{"check":{..}}` | a half message, an end of its transaction, and a question about it ([`Half`], [`TransactionEnd`], [`Check`]) |
//! | `{"sendback":{..}}` | a message that a consumer sent back ([`SendBack`]) |
//! | `{"pop":{..}}`, `{"popack":{..}}`, `{"popchange":{..}}`, `{"popend":{..}}` | a pop, what became of what it gave, and the time in which all is popped ([`Pop`], [`PopAck`], [`PopChange`], [`PopEnd`]) |
//! | `{"at_us":..,"fault":..}` | what was done to the cluster ([`Fault`]) |
//!
//! Times are microseconds since the run began, from one monotonic clock. The workloads of one run
//! have a recorder each and share the clock.

use std::collections::BTreeMap;
use std::fs::File;
use std::io::{BufWriter, Write};
use std::path::Path;
use std::time::{Instant, SystemTime, UNIX_EPOCH};

use anyhow::{Context, Result};
use parking_lot::Mutex;
use serde::{Deserialize, Serialize};

use crate::payload::OpKey;
use crate::reading::{Found, QueueKey, Reading};

mod delays;
mod op;
mod pops;
mod recorded;
mod recorded_pops;
mod send_backs;
mod transactions;

pub use delays::{Delayed, Recall, Recalled};
pub use op::{Op, Outcome};
pub use pops::{Delivery, Pop, PopAck, PopChange, PopEnd};
pub use send_backs::{Moved, SendBack};
pub use transactions::{Check, End as TransactionEnd, Ended, Half};

/// As many of the last sends of objects are looked at for one that was acknowledged: those of some objects.
const REPEATS_LOOKED_AT: usize = 64;

/// One pull that gave messages.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Poll {
    /// Who consumed: a reader by name, or a group, whose members share the work.
    pub consumer: String,
    /// Polls of one session and queue go on where the one before ended; with a new session a
    /// consumer may start over.
    pub session: u64,
    /// The broker that was asked.
    pub broker: String,
    /// Where.
    #[serde(flatten)]
    pub queue: QueueKey,
    /// The offset that was asked for.
    pub from: u64,
    /// Where the broker said to go on.
    pub next: u64,
    /// When it was asked.
    pub invoked_us: u64,
    /// When it answered.
    pub completed_us: u64,
    /// What it gave, in order.
    pub found: Vec<Found>,
}

/// A queue's length, from an answer that only a node which proved its leadership may give.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct End {
    /// Where.
    #[serde(flatten)]
    pub queue: QueueKey,
    /// When it was asked.
    pub invoked_us: u64,
    /// When it was answered.
    pub completed_us: u64,
    /// The offset after the last message.
    pub end: u64,
}

/// A group's offset, written.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Commit {
    /// Where.
    #[serde(flatten)]
    pub queue: QueueKey,
    /// When it was asked.
    pub invoked_us: u64,
    /// When it was acknowledged; `None` when nobody knows whether it took effect, or will.
    pub acked_us: Option<u64>,
    /// The offset.
    pub offset: u64,
}

/// A group's offset, read.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Committed {
    /// Where.
    #[serde(flatten)]
    pub queue: QueueKey,
    /// The broker that was asked.
    pub broker: String,
    /// When it was asked.
    pub invoked_us: u64,
    /// When it was answered.
    pub completed_us: u64,
    /// The offset; 0 when the group had none yet.
    pub offset: u64,
}

/// In which way an object is sent.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum How {
    /// Its answer is waited for before anything else is sent.
    Sync,
    /// Others are under way on the same connection.
    Pipelined,
    /// Nobody answers.
    OneWay,
}

/// One send of an object that is sent several times on purpose: under one unique key, with one body.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Repeat {
    /// Which object; its own queue number means nothing.
    #[serde(flatten)]
    pub object: OpKey,
    /// The queue it was sent to.
    pub to: u32,
    /// In which way.
    pub how: How,
    /// When it was handed to the client.
    pub invoked_us: u64,
    /// When the client said how it ended.
    pub completed_us: u64,
    /// How often its client tried again after no answer came.
    pub resent: u32,
    /// Whether the client's connections were there before the object's first send and after its last one.
    pub lived: bool,
    /// How it ended.
    #[serde(flatten)]
    pub outcome: Outcome,
}

/// A request to delete a topic, or its queues from one on.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct Deletion {
    /// Which topic.
    pub topic: u32,
    /// The first queue that goes; 0 is the whole topic.
    pub from_queue: u32,
    /// When it was asked for.
    pub invoked_us: u64,
    /// When it was acknowledged; `None` when nobody knows whether it took effect, or will.
    pub acked_us: Option<u64>,
}

/// Something the harness did to the cluster.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Fault {
    /// When.
    pub at_us: u64,
    /// What, in words: `kill node 2 (leader)`.
    pub fault: String,
    /// Whether writes are expected to stop at this moment: its failover gap is measured.
    pub stops_writes: bool,
}

/// A finished run, as the checkers see it.
#[derive(Debug, Clone, Default)]
pub struct History {
    /// Everyone who set out to consume all there is, also those who were given nothing.
    pub consumers: Vec<String>,
    /// Every send that was begun, in order of completion.
    pub ops: Vec<Op>,
    /// Every fault in order.
    pub faults: Vec<Fault>,
    /// Every pull that gave messages, in order of completion.
    pub polls: Vec<Poll>,
    /// Every sure answer about a queue's length.
    pub ends: Vec<End>,
    /// Every commit of a group's offset, as far as it may have been taken.
    pub commits: Vec<Commit>,
    /// Every answer about a group's offset.
    pub committed: Vec<Committed>,
    /// Every send of an object that is sent several times.
    pub repeats: Vec<Repeat>,
    /// Every request to delete a topic or queues, as far as it may have been taken.
    pub deletions: Vec<Deletion>,
    /// Every delayed send.
    pub delayed: Vec<Delayed>,
    /// Every wish to take a delayed send back.
    pub recalls: Vec<Recall>,
    /// Every half message.
    pub halves: Vec<Half>,
    /// Every end of a transaction that its producer made.
    pub endings: Vec<TransactionEnd>,
    /// Every question to a producer.
    pub checks: Vec<Check>,
    /// Every message that a consumer sent back.
    pub send_backs: Vec<SendBack>,
    /// Every pop that gave something, or of which nobody knows.
    pub pops: Vec<Pop>,
    /// Every acknowledgement of what was popped.
    pub pop_acks: Vec<PopAck>,
    /// Every change of the invisible time of what was popped.
    pub pop_changes: Vec<PopChange>,
    /// The time in which everything was to be popped, if there was one.
    pub pop_end: Option<PopEnd>,
    /// When the run began, ms since the epoch.
    pub start_ms: u64,
}

#[derive(Serialize)]
#[serde(rename_all = "lowercase")]
enum Line<'a> {
    Poll(&'a Poll),
    End(&'a End),
    Commit(&'a Commit),
    Committed(&'a Committed),
    Repeat(&'a Repeat),
    Deletion(&'a Deletion),
    Delayed(&'a Delayed),
    Recall(&'a Recall),
    Half(&'a Half),
    Ending(&'a TransactionEnd),
    Check(&'a Check),
    SendBack(&'a SendBack),
    Pop(&'a Pop),
    PopAck(&'a PopAck),
    PopChange(&'a PopChange),
    PopEnd(&'a PopEnd),
}

/// Records a run while it happens, in memory and in a file of JSON lines.
pub struct Recorder {
    start: Instant,
    inner: Mutex<Inner>,
}

struct Inner {
    history: History,
    file: BufWriter<File>,
    failed: Option<std::io::Error>,
}

impl Fault {
    /// Recorded when a fault is healed and the cluster has acknowledged something again.
    pub const OVER: &'static str = "serves again";

    /// Whether it is the end of one.
    #[must_use]
    pub fn is_over(&self) -> bool {
        self.fault == Self::OVER
    }
}

impl Deletion {
    /// Whether that queue goes with it.
    #[must_use]
    pub fn takes(&self, queue: QueueKey) -> bool {
        self.topic == queue.topic && queue.queue >= self.from_queue
    }
}

impl History {
    /// Every send, whatever it was for; objects that are sent several times apart.
    pub fn sends(&self) -> impl Iterator<Item = &Op> {
        let delayed = self.delayed.iter().map(|delayed| &delayed.op);
        self.ops.iter().chain(delayed).chain(self.halves.iter().map(|half| &half.op))
    }

    /// The sends that ended then or later.
    fn ended_since(&self, at_us: u64) -> impl Iterator<Item = &Op> {
        let is_late = move |op: &&Op| op.completed_us >= at_us;
        let delayed = self.delayed.iter().rev().map(|delayed| &delayed.op);
        let halves = self.halves.iter().rev().map(|half| &half.op).take_while(is_late);
        self.ops.iter().rev().take_while(is_late).chain(delayed.take_while(is_late)).chain(halves)
    }

    /// The time of day of a moment of the run, ms since the epoch.
    #[must_use]
    pub fn day_ms(&self, at_us: u64) -> u64 {
        self.start_ms + at_us / 1000
    }

    /// Whether a deletion may have taken what was sent to this queue at that time.
    #[must_use]
    pub fn may_be_deleted(&self, queue: QueueKey, invoked_us: u64) -> bool {
        let mut deletions = self.deletions.iter().filter(|deletion| deletion.takes(queue));
        deletions.any(|deletion| deletion.acked_us.is_none_or(|acked_us| invoked_us <= acked_us))
    }

    /// What every consumer was given, in the order it came, all sessions together.
    #[must_use]
    pub fn consumed(&self) -> Vec<Reading> {
        let mut readings: BTreeMap<&str, Reading> = BTreeMap::new();
        for poll in &self.polls {
            let reading = readings
                .entry(&poll.consumer)
                .or_insert_with(|| Reading { reader: poll.consumer.clone(), ..Reading::default() });
            reading.queues.entry(poll.queue).or_default().extend_from_slice(&poll.found);
        }
        readings.into_values().collect()
    }
}

impl Recorder {
    /// Starts the run's clock and its file.
    ///
    /// # Errors
    /// When the file cannot be created.
    pub fn create(path: &Path) -> Result<Self> {
        Self::create_at(path, Instant::now())
    }

    /// The same, on the clock of a run that began then.
    ///
    /// # Errors
    /// When the file cannot be created.
    pub fn create_at(path: &Path, start: Instant) -> Result<Self> {
        let file = File::create(path).with_context(|| format!("create history {}", path.display()))?;
        let now_ms = SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, |since| since.as_millis() as u64);
        let start_ms = now_ms.saturating_sub(start.elapsed().as_millis() as u64);
        let history = History { start_ms, ..History::default() };
        let inner = Inner { history, file: BufWriter::new(file), failed: None };
        Ok(Self { start, inner: Mutex::new(inner) })
    }

    /// Microseconds since the run began.
    #[must_use]
    pub fn now_us(&self) -> u64 {
        u64::try_from(self.start.elapsed().as_micros()).unwrap_or(u64::MAX)
    }

    /// The time of the run at that instant.
    #[must_use]
    pub fn us_at(&self, at: Instant) -> u64 {
        u64::try_from(at.saturating_duration_since(self.start).as_micros()).unwrap_or(u64::MAX)
    }

    /// Records a finished send.
    pub fn op(&self, op: Op) {
        let mut inner = self.inner.lock();
        inner.write(&op);
        inner.history.ops.push(op);
    }

    /// Records who sets out to consume all there is.
    pub fn consumer(&self, name: &str) {
        self.inner.lock().history.consumers.push(name.to_owned());
    }

    /// Records a pull that gave messages.
    pub fn poll(&self, poll: Poll) {
        let mut inner = self.inner.lock();
        inner.write(&Line::Poll(&poll));
        inner.history.polls.push(poll);
    }

    /// Records a queue's length.
    pub fn end(&self, end: End) {
        let mut inner = self.inner.lock();
        inner.write(&Line::End(&end));
        inner.history.ends.push(end);
    }

    /// Records a commit of a group's offset.
    pub fn commit(&self, commit: Commit) {
        let mut inner = self.inner.lock();
        inner.write(&Line::Commit(&commit));
        inner.history.commits.push(commit);
    }

    /// Records what a group's offset was said to be.
    pub fn committed(&self, committed: Committed) {
        let mut inner = self.inner.lock();
        inner.write(&Line::Committed(&committed));
        inner.history.committed.push(committed);
    }

    /// Records a send of an object that is sent several times.
    pub fn repeat(&self, repeat: Repeat) {
        let mut inner = self.inner.lock();
        inner.write(&Line::Repeat(&repeat));
        inner.history.repeats.push(repeat);
    }

    /// Records a request to delete a topic or queues.
    pub fn deletion(&self, deletion: Deletion) {
        let mut inner = self.inner.lock();
        inner.write(&Line::Deletion(&deletion));
        inner.history.deletions.push(deletion);
    }

    /// Records a fault at this moment.
    pub fn fault(&self, fault: impl Into<String>, stops_writes: bool) {
        let fault = Fault { at_us: self.now_us(), fault: fault.into(), stops_writes };
        let mut inner = self.inner.lock();
        inner.write(&fault);
        inner.history.faults.push(fault);
    }

    /// When the first send invoked after `at_us` was acknowledged, if one was yet.
    #[must_use]
    pub fn acked_after(&self, at_us: u64) -> Option<u64> {
        let inner = self.inner.lock();
        let ops = inner.history.ended_since(at_us);
        let ops = ops.map(|op| (op.invoked_us, op.completed_us, &op.outcome));
        // An object's sends are recorded together, after the last one.
        let repeats = inner.history.repeats.iter().rev().take(REPEATS_LOOKED_AT);
        let repeats = repeats.map(|repeat| (repeat.invoked_us, repeat.completed_us, &repeat.outcome));
        ops.chain(repeats)
            .filter(|(invoked_us, _, outcome)| *invoked_us >= at_us && matches!(outcome, Outcome::Ok { .. }))
            .map(|(_, completed_us, _)| completed_us)
            .min()
    }

    /// How many sends have ended so far.
    #[must_use]
    pub fn recorded(&self) -> usize {
        let inner = self.inner.lock();
        inner.history.sends().count() + inner.history.repeats.len()
    }

    /// Ends the run.
    ///
    /// # Errors
    /// When the file could not be written; the checks would still be right, the record not whole.
    pub fn finish(&self) -> Result<History> {
        let mut inner = self.inner.lock();
        if let Some(error) = inner.failed.take() {
            return Err(error).context("write the history");
        }
        inner.file.flush().context("write the history")?;
        Ok(std::mem::take(&mut inner.history))
    }
}

impl Inner {
    fn write(&mut self, line: &impl Serialize) {
        let written = serde_json::to_writer(&mut self.file, line)
            .map_err(std::io::Error::from)
            .and_then(|()| self.file.write_all(b"\n"));
        if let Err(error) = written {
            self.failed.get_or_insert(error);
        }
    }
}

#[cfg(test)]
mod tests;
