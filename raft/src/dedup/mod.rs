//! A retry does not store twice, and what an application sends twice is stored twice.
//!
//! RocketMQ's clients give each message a property `UNIQ_KEY` and send it again, with the same one, when they do not
//! know what became of it. An application that sends one `Message` object several times on purpose uses one key, too. So a
//! repeat of a key is a question, not an answer: it is a retry only where the client may be without the first answer.
//!
//! 1. Every replica keeps a bounded window of the messages it applied ([`window`]). The leader's proposer looks there, and
//!    among what it has under way ([`flights`]), before a send goes into the log. The window is derived: it is filled by
//!    `apply`, and after a restart from the log's tail, while the node takes part already.
//! 2. What it finds is compared with the repeat ([`is_same`]): topic, body, flag, the client's IP address and all
//!    properties, but those of tracing agents. The queue does not count: clients choose another one for a second attempt.
//! 3. For the same message the leader asks what its client knows ([`crate::proposer`], `repeat.rs`). The stored message
//!    carries the client's end of the connection that the first attempt came by; the node on its other end knows whether
//!    that connection lives and which of its sends were answered late, or with an unknown outcome, or are not answered yet.
//!    A repeat that comes by the same connection, all of whose sends were answered promptly, needs no question.
//!
//! Not looked for: oneway sends, whose clients never repeat them, and what clients send to retry topics (`%RETRY%`). What
//! the server itself stores there for a consumer that sent a message back (code 36) has a fingerprint of its own: group,
//! first message id and count of retries. Repeated, it is always the same thing ([`crate::proposal::Repeat::Same`]).
//!
//! Invariants
//! - `dedup.I1` A retry is answered only with a message that is committed and applied here: the window is filled by
//!   `apply` alone, and a retry of what is under way waits for its outcome and shares it.
//! - `dedup.I2` When a leader looks, every entry of an earlier term is applied here and every one of its own term is
//!   applied or under way, and the window has been rebuilt; the entry is appended in that very term or not at all. So no
//!   key is in the log unseen.
//! - `dedup.I3` The answer is read off the stored message after all parts were compared with it. Where hashes collide a
//!   second message is stored; never is one message answered with another's place.
//! - `dedup.I4` The window holds at most the configured keys, of at most the configured bytes of the log, and finds nothing
//!   that was applied longer ago than the configured age when it is looked for, whether or not anything was stored since.
//! - `dedup.I5` A repeat whose first attempt was answered promptly, on a connection that still lives, is stored. So is a
//!   repeat of an object that its application has sent again before, where no node can tell: storing it twice is the
//!   lesser error there, dropping an acknowledged message the greater.
//! - `dedup.I6` A retry of a half message is answered with the first attempt's transaction while that is open or once it was
//!   committed, whichever queue the retry names. Of one that ended without a message the retry begins another.

pub(crate) mod attempts;
pub(crate) mod flights;
mod window;

use std::hash::{BuildHasher, Hasher, RandomState};
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use bytes::Bytes;
use folio_engine::log::{CommitLog, ReadError};
use folio_engine::record::{HEADER_BYTES, Record, RecordKind};
use folio_protocol::half;
use folio_protocol::message::{MessageView, Messages, NewMessage};
use folio_protocol::names::{is_dlq_topic, is_retry_topic};
use folio_protocol::properties::{self, ORIGIN_MESSAGE_ID, REAL_QUEUE_ID, UNIQUE_KEY};
use parking_lot::Mutex;
use tokio::time::Instant;

use crate::config::DedupConfig;
use crate::proposal::Receipt;
use attempts::Earlier;
use window::{Found, Place, Window};

/// Bytes read from the log at a time while the window is rebuilt.
const REBUILD_BYTES: usize = 8 << 20;

/// The first record that a window needs.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Start {
    pub(crate) index: u64,
    /// Where it lies, if that is known.
    pub(crate) position: Option<u64>,
}

/// The window of one group on one node.
pub(crate) struct Dedup {
    /// Differs from process to process, so that no client can choose keys that collide.
    seed: RandomState,
    age: Duration,
    filled: Mutex<Filled>,
    answered: AtomicU64,
}

/// A message that is stored already, as a repeat finds it.
#[derive(Debug)]
pub(crate) struct Stored {
    pub(crate) receipt: Receipt,
    /// The attempt that stored it, as far as the message says.
    pub(crate) earlier: Earlier,
    /// It was applied here then or later.
    pub(crate) applied: Instant,
    /// Whether its application has sent the same object before.
    pub(crate) many: bool,
}

struct Filled {
    window: Window,
    /// Set while records that were applied before the start are read.
    rebuild: Option<Rebuild>,
}

/// A window is being filled with older records.
struct Rebuild {
    from: Start,
    /// What was applied meanwhile: it comes after what is read.
    later: Vec<(Taken, Instant)>,
}

/// A record as the window takes it in.
struct Taken {
    place: Place,
    /// The wall clock of the leader that stored it; nothing if it has no messages.
    stored_ms: Option<i64>,
    prints: Vec<(u64, u64)>,
}

impl Dedup {
    /// An empty window; with `from`, one that is to be filled from there on by [`Dedup::rebuild`].
    pub(crate) fn new(config: &DedupConfig, from: Option<Start>) -> Dedup {
        let rebuild = from.map(|from| Rebuild { from, later: Vec::new() });
        let filled = Mutex::new(Filled { window: Window::new(config), rebuild });
        Dedup { seed: RandomState::new(), age: config.age, filled, answered: AtomicU64::new(0) }
    }

    /// Whether all that was applied is in the window: before that no repeat may be looked for (`dedup.I2`).
    pub(crate) fn is_complete(&self) -> bool {
        self.filled.lock().rebuild.is_none()
    }

    /// For how long a message is remembered.
    pub(crate) fn age(&self) -> Duration {
        self.age
    }

    /// Fills the window with the records up to `upto`, which were applied before the start; what is applied meanwhile
    /// waits behind them. What cannot be read is left out: a repeat of it is stored again. Their age is told by the wall
    /// clock, which is `wall_ms` at `now`: the clock of the process that applied them is gone.
    pub(crate) fn rebuild(&self, log: &CommitLog, upto: u64, now: Instant, wall_ms: i64) {
        let Some(from) = self.filled.lock().rebuild.as_ref().map(|rebuild| rebuild.from) else { return };
        if let Some(position) = from.position {
            log.expect_reads(from.index, position);
        }
        let mut next = from.index.max(log.state().first_index);
        let mut unread = None;
        let applied = |taken: &Taken| {
            let age_ms = taken.stored_ms.map_or(0, |stored_ms| wall_ms.saturating_sub(stored_ms).max(0));
            now.checked_sub(Duration::from_millis(age_ms as u64)).unwrap_or(now)
        };
        while next <= upto && unread.is_none() {
            match log.read(next, upto + 1, REBUILD_BYTES) {
                Ok(records) if records.is_empty() => break,
                Ok(records) => {
                    let taken = records.iter().filter_map(|record| self.take(record));
                    let taken: Vec<_> = taken.map(|taken| (applied(&taken), taken)).collect();
                    next += records.len() as u64;
                    if !self.filled.lock().add_older(&taken) {
                        return;
                    }
                }
                // Meanwhile the log's oldest part was dropped.
                Err(ReadError::Purged { first, .. }) if first > next => next = first,
                Err(error) => unread = Some(error),
            }
        }
        let mut filled = self.filled.lock();
        if let Some(error) = unread.filter(|_| filled.rebuild.is_some()) {
            tracing::warn!(from = next, upto, %error, "retries of older messages are not recognised");
            filled.window.reset();
        }
        filled.complete();
    }

    /// Takes in an applied record (`dedup.I1`).
    pub(crate) fn apply(&self, record: &Record) {
        if let Some(taken) = self.take(record) {
            self.filled.lock().add(taken, Instant::now());
        }
    }

    /// What the window needs of a record.
    fn take(&self, record: &Record) -> Option<Taken> {
        if record.header.kind != RecordKind::Messages {
            return None;
        }
        let payload = &record.frame()[HEADER_BYTES..];
        let start = record.position() + HEADER_BYTES as u64;
        let mut prints = Vec::with_capacity(record.header.messages as usize);
        let mut stored_ms = None;
        for (at, message) in Messages::new(payload).map_while(Result::ok) {
            stored_ms.get_or_insert(message.store_timestamp());
            let crc = message.body_crc();
            let (topic, properties) = (message.topic(), message.properties());
            let print = self.print(topic, properties, message.reconsume_times(), message.body().len(), crc);
            prints.extend(print.map(|print| (print, start + at as u64)));
        }
        let place = Place { index: record.header.index, position: record.position(), end: record.end() };
        Some(Taken { place, stored_ms, prints })
    }

    /// A snapshot took the log's place: nothing of before can be read here any more.
    pub(crate) fn reset(&self) {
        let mut filled = self.filled.lock();
        filled.window.reset();
        filled.rebuild = None;
    }

    /// The first record that a rebuild needs; `None` while the window is empty.
    pub(crate) fn oldest(&self) -> Option<Start> {
        let filled = self.filled.lock();
        let oldest = || {
            let place = filled.window.oldest()?;
            Some(Start { index: place.index, position: Some(place.position) })
        };
        // What is read at this start is needed at the next one, too.
        filled.rebuild.as_ref().map(|rebuild| rebuild.from).or_else(oldest)
    }

    /// Retries answered since the start.
    pub(crate) fn answered(&self) -> u64 {
        self.answered.load(Ordering::Relaxed)
    }

    /// Counts a retry that is answered.
    pub(crate) fn count(&self) {
        self.answered.fetch_add(1, Ordering::Relaxed);
    }

    /// The fingerprint of a message by which it is looked up; `None` for one that is never a repeat.
    pub(crate) fn print(
        &self,
        topic: &str,
        properties: &[u8],
        reconsume_times: i32,
        body_bytes: usize,
        body_crc: u32,
    ) -> Option<u64> {
        let sent_back = is_retry_topic(topic) || is_dlq_topic(topic);
        let key = properties::first(properties, if sent_back { ORIGIN_MESSAGE_ID } else { UNIQUE_KEY })?;
        let mut hasher = self.seed.build_hasher();
        hasher.write(topic.as_bytes());
        hasher.write_u8(0);
        hasher.write(key);
        if sent_back {
            hasher.write_i32(reconsume_times);
        }
        hasher.write_u64((body_bytes as u64) << 32 | u64::from(body_crc));
        Some(hasher.finish())
    }

    /// What was stored under these fingerprints is deleted: stored once more, it is no second copy.
    pub(crate) fn forget(&self, prints: &[u64]) {
        let mut filled = self.filled.lock();
        prints.iter().for_each(|print| filled.window.forget(*print));
    }

    /// The messages of a proposal, whose fingerprints are `prints`, as they were stored before: all of them, together and
    /// in this order (`dedup.I3`).
    pub(crate) fn stored(&self, log: &CommitLog, messages: &[NewMessage], prints: &[u64]) -> Option<Stored> {
        let now = Instant::now();
        let found: Vec<Found> = {
            let filled = self.filled.lock();
            prints.iter().map(|print| filled.window.find(*print, now)).collect::<Option<_>>()?
        };
        let stored: Vec<Bytes> =
            found.iter().map(|found| read(log, found.position)).collect::<Option<_>>()?;
        let views: Vec<MessageView<'_>> =
            stored.iter().filter_map(|bytes| MessageView::parse(bytes).ok()).collect();
        let receipt = receipt(messages, views.iter().copied())?;
        let (first, view) = (found.first()?, views.first()?);
        let earlier = Earlier {
            client: view.born_host(),
            number: None,
            after: None,
            by: first.applied.1,
            // What is known to have been late is among the attempts.
            late: false,
            born_ms: view.born_timestamp(),
        };
        let many = found.iter().any(|found| found.many);
        Some(Stored { receipt, earlier, applied: first.applied.0, many })
    }
}

/// The receipt of `stored` if these are the same messages, stored as one proposal is: side by side in one queue. The queue of a half
/// message is the one that its commit goes to.
pub(crate) fn receipt<'a>(
    messages: &[NewMessage],
    stored: impl Iterator<Item = MessageView<'a>>,
) -> Option<Receipt> {
    let stored: Vec<MessageView<'a>> = stored.collect();
    let first = stored.first()?;
    let together = stored
        .iter()
        .zip(first.queue_offset()..)
        .all(|(message, offset)| message.queue_id() == first.queue_id() && message.queue_offset() == offset);
    let same = stored.len() == messages.len()
        && messages.iter().zip(&stored).all(|(message, stored)| is_same(message, stored));
    let queue_id = if first.topic() == half::TOPIC { half::real_queue(first)? } else { first.queue_id() };
    (together && same).then(|| Receipt {
        queue_id,
        queue_offsets: stored.iter().map(MessageView::queue_offset).collect(),
        positions: stored.iter().map(MessageView::physical_offset).collect(),
        store_host: Some(first.store_host()),
    })
}

impl Filled {
    fn add(&mut self, taken: Taken, applied: Instant) {
        match &mut self.rebuild {
            Some(rebuild) => rebuild.later.push((taken, applied)),
            None => self.window.add(taken.place, applied, &taken.prints),
        }
    }

    /// Adds records of before the start; false if they are not wanted any more.
    fn add_older(&mut self, taken: &[(Instant, Taken)]) -> bool {
        if self.rebuild.is_some() {
            taken.iter().for_each(|(applied, taken)| self.window.add(taken.place, *applied, &taken.prints));
        }
        self.rebuild.is_some()
    }

    fn complete(&mut self) {
        let later = self.rebuild.take().map(|rebuild| rebuild.later);
        let later = later.into_iter().flatten();
        later.for_each(|(taken, applied)| self.window.add(taken.place, applied, &taken.prints));
    }
}

/// One stored message. It lies in one record, whose first message starts behind a header.
fn read(log: &CommitLog, position: u64) -> Option<Bytes> {
    let size = log.bytes(position, 4).ok()?;
    let size = u32::from_be_bytes(*size.first_chunk()?);
    log.bytes(position, size as usize).ok()
}

/// Properties that tracing agents write anew for each attempt.
const TRACING: [&str; 8] =
    ["traceparent", "tracestate", "baggage", "b3", "uber-trace-id", "sw8", "sw8-correlation", "sw8-x"];

/// Whether a stored message is what a client sends now. Its times, its port and what tracing agents add are allowed to
/// differ between two attempts; whatever an application says is not.
fn is_same(message: &NewMessage, stored: &MessageView<'_>) -> bool {
    *stored.topic() == *message.topic
        && stored.reconsume_times() == message.reconsume_times
        && stored.body() == &message.body[..]
        && stored.flag() == message.flag
        && stored.born_host().ip() == message.born_host.ip()
        && said(&message.topic, &message.properties) == said(stored.topic(), stored.properties())
}

/// What an application has put into the properties, in whatever order its client writes them. In those of a half message is the
/// queue that its client chose for this attempt: it is left out.
fn said<'a>(topic: &str, properties: &'a [u8]) -> Vec<(&'a str, &'a str)> {
    let is_half = topic == half::TOPIC;
    let is_of_attempt = |name: &str| {
        TRACING.iter().any(|known| known.eq_ignore_ascii_case(name))
            || name.get(..5).is_some_and(|start| start.eq_ignore_ascii_case("x-b3-"))
            || (is_half && name == REAL_QUEUE_ID)
    };
    let mut said: Vec<(&str, &str)> =
        properties::iter(properties).filter(|(name, _)| !is_of_attempt(name)).collect();
    said.sort_unstable();
    said
}

#[cfg(test)]
mod tests;
