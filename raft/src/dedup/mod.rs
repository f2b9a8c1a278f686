//! A retry does not store twice: the leader finds the message a client stored before, and answers with its place.
//!
//! RocketMQ's clients give each message a property `UNIQ_KEY` and send it again, with the same one, when they do not
//! know what became of it. Every replica keeps a bounded window of the messages it applied ([`window`]); the leader's
//! proposer looks there, and among what it has under way ([`flights`]), before a send goes into the log. The window is
//! derived: it is filled by `apply`, and after a restart from the log's tail, while the node takes part already.
//!
//! What counts as the same message: topic, body, flag, the client's IP address and all properties, `UNIQ_KEY` among them,
//! but those of tracing agents. The queue does not count: clients choose another one for a second attempt. An application
//! that sends one `Message` object again with anything changed stores another message.
//!
//! It is not asked for retries of consumers and dead letters (`%RETRY%`, `%DLQ%`): a redelivered message keeps its key.
//!
//! Invariants
//! - `dedup.I1` A repeat is answered only with a message that is committed and applied here: the window is filled by
//!   `apply` alone, and a repeat of what is under way waits for its outcome and shares it.
//! - `dedup.I2` When a leader looks, every entry of an earlier term is applied here and every one of its own term is
//!   applied or under way, and the window has been rebuilt; the entry is appended in that very term or not at all. So no
//!   key is in the log unseen.
//! - `dedup.I3` The answer is read off the stored message after all parts were compared with it. Where hashes collide a
//!   second message is stored; never is one message answered with another's place.
//! - `dedup.I4` The window holds at most the configured keys, of at most the configured bytes of the log.

pub(crate) mod flights;
mod window;

use std::hash::{BuildHasher, Hasher, RandomState};
use std::sync::atomic::{AtomicU64, Ordering};

use bytes::Bytes;
use folio_engine::log::{CommitLog, ReadError};
use folio_engine::record::{HEADER_BYTES, Record, RecordKind};
use folio_protocol::message::{MessageView, Messages, NewMessage};
use folio_protocol::names::{is_dlq_topic, is_retry_topic};
use folio_protocol::properties::{self, UNIQUE_KEY};
use parking_lot::Mutex;

use crate::config::DedupConfig;
use crate::proposal::Receipt;
use window::{Place, Window};

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
    filled: Mutex<Filled>,
    answered: AtomicU64,
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
    later: Vec<Taken>,
}

/// A record as the window takes it in.
type Taken = (Place, Vec<(u64, u64)>);

impl Dedup {
    /// An empty window; with `from`, one that is to be filled from there on by [`Dedup::rebuild`].
    pub(crate) fn new(config: &DedupConfig, from: Option<Start>) -> Dedup {
        let rebuild = from.map(|from| Rebuild { from, later: Vec::new() });
        let filled = Mutex::new(Filled { window: Window::new(config), rebuild });
        Dedup { seed: RandomState::new(), filled, answered: AtomicU64::new(0) }
    }

    /// Whether all that was applied is in the window: before that no repeat may be looked for (`dedup.I2`).
    pub(crate) fn is_complete(&self) -> bool {
        self.filled.lock().rebuild.is_none()
    }

    /// Fills the window with the records up to `upto`, which were applied before the start; what is applied meanwhile
    /// waits behind them. What cannot be read is left out: a repeat of it is stored again.
    pub(crate) fn rebuild(&self, log: &CommitLog, upto: u64) {
        let Some(from) = self.filled.lock().rebuild.as_ref().map(|rebuild| rebuild.from) else { return };
        if let Some(position) = from.position {
            log.expect_reads(from.index, position);
        }
        let mut next = from.index.max(log.state().first_index);
        let mut unread = None;
        while next <= upto && unread.is_none() {
            match log.read(next, upto + 1, REBUILD_BYTES) {
                Ok(records) if records.is_empty() => break,
                Ok(records) => {
                    let taken: Vec<Taken> = records.iter().filter_map(|record| self.take(record)).collect();
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
            self.filled.lock().add(taken);
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
            if let Some(print) = self.print(message.topic(), message.properties(), message.body().len(), crc)
            {
                prints.push((print, start + at as u64));
            }
        }
        let place = Place {
            index: record.header.index,
            position: record.position(),
            end: record.end(),
            stored_ms: stored_ms.unwrap_or(0),
        };
        Some((place, prints))
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

    /// Repeats answered since the start.
    pub(crate) fn answered(&self) -> u64 {
        self.answered.load(Ordering::Relaxed)
    }

    /// The fingerprint of a message by which it is looked up; `None` for one that is never a repeat.
    pub(crate) fn print(
        &self,
        topic: &str,
        properties: &[u8],
        body_bytes: usize,
        body_crc: u32,
    ) -> Option<u64> {
        if is_retry_topic(topic) || is_dlq_topic(topic) {
            return None;
        }
        let key = properties::first(properties, UNIQUE_KEY)?;
        let mut hasher = self.seed.build_hasher();
        hasher.write(topic.as_bytes());
        hasher.write_u8(0);
        hasher.write(key);
        hasher.write_u64((body_bytes as u64) << 32 | u64::from(body_crc));
        Some(hasher.finish())
    }

    /// Where the messages of a proposal, whose fingerprints are `prints`, were stored before: all of them, together and
    /// in this order (`dedup.I3`).
    pub(crate) fn stored(&self, log: &CommitLog, messages: &[NewMessage], prints: &[u64]) -> Option<Receipt> {
        let positions = {
            let filled = self.filled.lock();
            prints.iter().map(|print| filled.window.position(*print)).collect::<Option<Vec<u64>>>()?
        };
        let stored: Vec<Bytes> =
            positions.iter().map(|position| read(log, *position)).collect::<Option<_>>()?;
        self.receipt(messages, stored.iter().filter_map(|bytes| MessageView::parse(bytes).ok()))
    }

    /// The receipt of `stored` if these are the same messages, stored as one proposal is: side by side in one queue.
    pub(crate) fn receipt<'a>(
        &self,
        messages: &[NewMessage],
        stored: impl Iterator<Item = MessageView<'a>>,
    ) -> Option<Receipt> {
        let stored: Vec<MessageView<'a>> = stored.collect();
        let first = stored.first()?;
        let together = stored.iter().zip(first.queue_offset()..).all(|(message, offset)| {
            message.queue_id() == first.queue_id() && message.queue_offset() == offset
        });
        let same = stored.len() == messages.len()
            && messages.iter().zip(&stored).all(|(message, stored)| is_same(message, stored));
        if !together || !same {
            return None;
        }
        self.answered.fetch_add(1, Ordering::Relaxed);
        Some(Receipt {
            queue_id: first.queue_id(),
            queue_offsets: stored.iter().map(MessageView::queue_offset).collect(),
            positions: stored.iter().map(MessageView::physical_offset).collect(),
            store_host: Some(first.store_host()),
        })
    }
}

impl Filled {
    fn add(&mut self, taken: Taken) {
        match &mut self.rebuild {
            Some(rebuild) => rebuild.later.push(taken),
            None => self.window.add(taken.0, &taken.1),
        }
    }

    /// Adds records of before the start; false if they are not wanted any more.
    fn add_older(&mut self, taken: &[Taken]) -> bool {
        if self.rebuild.is_some() {
            taken.iter().for_each(|(place, prints)| self.window.add(*place, prints));
        }
        self.rebuild.is_some()
    }

    fn complete(&mut self) {
        let later = self.rebuild.take().map(|rebuild| rebuild.later);
        later.into_iter().flatten().for_each(|(place, prints)| self.window.add(place, &prints));
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
        && stored.body() == &message.body[..]
        && stored.flag() == message.flag
        && stored.born_host().ip() == message.born_host.ip()
        && said(&message.properties) == said(stored.properties())
}

/// What an application has put into the properties, in whatever order its client writes them.
fn said(properties: &[u8]) -> Vec<(&str, &str)> {
    let is_tracing = |name: &str| {
        TRACING.iter().any(|known| known.eq_ignore_ascii_case(name))
            || name.get(..5).is_some_and(|start| start.eq_ignore_ascii_case("x-b3-"))
    };
    let mut said: Vec<(&str, &str)> =
        properties::iter(properties).filter(|(name, _)| !is_tracing(name)).collect();
    said.sort_unstable();
    said
}

#[cfg(test)]
mod tests;
