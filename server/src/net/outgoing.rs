//! The queue of bytes towards one peer: many pushers, one writer task.
//!
//! Small frames are encoded into one growing tail, so that everything pushed while the writer was
//! busy leaves in one vectored write. Bodies that are slices of the log are queued as they are.

use std::io::{self, IoSlice};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use bytes::{Buf, Bytes, BytesMut};
use parking_lot::Mutex;
use tokio::io::{AsyncWrite, AsyncWriteExt};
use tokio::sync::Notify;
use tokio::time::{Instant, timeout};

use super::CloseReason;
use super::addresses::AddressUse;
use super::budget::Budget;
use super::parts::{Cover, Part};
use super::share::Share;

/// Slices handed to one `writev`. Linux takes 1,024; beyond some dozens nothing is gained.
const SLICES_MAX: usize = 64;
/// Bytes handed to one. The system copies what it takes at once, up to megabytes for a client that has read nothing yet, and who else has this
/// thread's turn waits for that.
const WRITE_BYTES_MAX: usize = 128 << 10;
/// A tail larger than this is queued as a part, so that one burst does not pin its memory for ever.
const TAIL_BYTES_MAX: usize = 64 * 1024;
/// Bytes that each client may have waiting without a share.
const BASE_BYTES: usize = 16 * 1024;
/// The share is taken in steps, so that most answers change no counter of the node.
const STEP_BYTES: usize = 64 * 1024;
/// When more than this waits for a client, it has to read first. The socket has its own buffer: more keeps no link busier, and what is
/// read and copied for clients that never take it is time that others wait.
const LONG_BYTES: usize = 2 << 20;
/// No more is read from a client that one of this many parts of the node's share waits for: no single one uses it up.
const CLIENTS_PART: usize = 8;

/// Bytes waiting for the peer, and whether more may come.
pub(super) struct Outgoing {
    queue: Mutex<Queue>,
    work: Notify,
    bytes_max: usize,
    /// When more than this waits, or more than its part of the node's share, no more requests are read.
    long_bytes: usize,
    is_long: AtomicBool,
    progress: Notify,
}

struct Queue {
    parts: Vec<Bytes>,
    tail: BytesMut,
    /// Bytes in `parts`, `tail` and in the writer's hands.
    bytes: usize,
    /// At least so many, beyond the base.
    taken: Part,
    /// Long until no more than this waits.
    short_bytes: usize,
    unread: Option<Unread>,
    /// All that has left.
    sent: u64,
    state: State,
}

/// What waited beyond the base at some time, and has not all left since.
struct Unread {
    since: Instant,
    /// When so much has left.
    until: u64,
}

#[derive(Default, Clone, Copy, PartialEq, Eq)]
enum State {
    #[default]
    Open,
    /// Nothing more is taken; what is queued still leaves.
    Draining,
    /// Nothing more is taken, nothing more leaves.
    Closed,
}

/// More waits than may. What was pushed is in the queue.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Overflow {
    /// For this client.
    Client {
        /// Bytes waiting.
        queued: usize,
        /// The limit.
        max: usize,
    },
    /// For all of them together.
    Node,
}

impl Outgoing {
    pub(super) fn new(bytes_max: usize, budget: &Arc<Budget>, address: &Arc<AddressUse>) -> Self {
        let queue = Queue {
            parts: Vec::new(),
            tail: BytesMut::new(),
            bytes: 0,
            taken: Part::new(budget, address, Share::Answers, STEP_BYTES),
            short_bytes: 0,
            unread: None,
            sent: 0,
            state: State::default(),
        };
        Self {
            queue: Mutex::new(queue),
            work: Notify::new(),
            bytes_max,
            long_bytes: LONG_BYTES.min(bytes_max / 2).min(budget.limit(Share::Answers) / CLIENTS_PART),
            is_long: AtomicBool::new(false),
            progress: Notify::new(),
        }
    }

    /// Queues what `encode` appends. Bytes pushed after the end are dropped: nobody reads them.
    pub(super) fn push(&self, encode: impl FnOnce(&mut BytesMut)) -> Result<(), Overflow> {
        self.change(|queue| {
            let before = queue.tail.len();
            encode(&mut queue.tail);
            queue.bytes += queue.tail.len() - before;
            if queue.tail.len() > TAIL_BYTES_MAX {
                queue.seal_tail();
            }
        })
    }

    /// Queues what `encode` appends and then `parts` as they are.
    pub(super) fn push_parts(
        &self,
        encode: impl FnOnce(&mut BytesMut),
        parts: Vec<Bytes>,
    ) -> Result<(), Overflow> {
        self.change(|queue| {
            let before = queue.tail.len();
            encode(&mut queue.tail);
            queue.bytes += queue.tail.len() - before;
            queue.seal_tail();
            queue.bytes += parts.iter().map(Bytes::len).sum::<usize>();
            queue.parts.extend(parts);
        })
    }

    fn change(&self, add: impl FnOnce(&mut Queue)) -> Result<(), Overflow> {
        let (queued, is_covered) = {
            let mut queue = self.queue.lock();
            if queue.state != State::Open {
                return Ok(());
            }
            add(&mut queue);
            let cover = queue.cover();
            if queue.bytes > self.long_bytes || cover != Cover::Whole {
                queue.short_bytes = queue.bytes.min(self.long_bytes) / 2;
                self.is_long.store(true, Ordering::SeqCst);
            }
            (queue.bytes, cover != Cover::Refused)
        };
        self.work.notify_one();
        if queued > self.bytes_max {
            return Err(Overflow::Client { queued, max: self.bytes_max });
        }
        if is_covered { Ok(()) } else { Err(Overflow::Node) }
    }

    /// Bytes that wait.
    pub(super) fn queued(&self) -> usize {
        self.queue.lock().bytes
    }

    /// Since when the oldest of the bytes waits, about, if these are more than the base.
    pub(super) fn unread_since(&self) -> Option<Instant> {
        self.queue.lock().unread.as_ref().map(|unread| unread.since)
    }

    /// Whether the node's share covers what waits; takes it.
    pub(super) fn is_covered(&self) -> bool {
        self.queue.lock().cover() != Cover::Refused
    }

    /// Whether the client has to read first.
    pub(super) fn is_long(&self) -> bool {
        self.is_long.load(Ordering::SeqCst)
    }

    /// Waits until it has read half of that.
    pub(super) async fn short(&self) {
        loop {
            // Before the look: several wait, and none of them may miss it.
            let progress = self.progress.notified();
            if !self.is_long() {
                return;
            }
            progress.await;
        }
    }

    /// Takes no more; the writer ends when everything queued has left.
    pub(super) fn drain(&self) {
        self.end(State::Draining);
    }

    /// Takes no more and drops what is queued.
    pub(super) fn close(&self) {
        self.end(State::Closed);
    }

    fn end(&self, state: State) {
        let mut queue = self.queue.lock();
        if queue.state != State::Closed {
            queue.state = state;
        }
        if queue.state == State::Closed {
            queue.parts = Vec::new();
            queue.tail = BytesMut::new();
            // What the writer still has in its hands is dropped in a moment.
            queue.bytes = 0;
            queue.unread = None;
            queue.taken.give_back();
            self.is_long.store(false, Ordering::SeqCst);
            self.progress.notify_waiters();
        }
        drop(queue);
        self.work.notify_one();
    }

    pub(super) fn is_open(&self) -> bool {
        self.queue.lock().state == State::Open
    }

    /// Writes until the queue is closed, or drained and empty. A socket that takes nothing for `patience` is an error.
    pub(super) async fn write_all(
        &self,
        mut socket: impl AsyncWrite + Unpin,
        patience: Duration,
    ) -> Result<(), CloseReason> {
        let mut parts = Vec::new();
        loop {
            match self.take(&mut parts) {
                Work::Parts => self.write_parts(&mut socket, &mut parts, patience).await?,
                Work::Nothing => self.work.notified().await,
                Work::End => return Ok(socket.shutdown().await?),
            }
        }
    }

    fn take(&self, parts: &mut Vec<Bytes>) -> Work {
        let mut queue = self.queue.lock();
        if queue.state == State::Closed {
            return Work::End;
        }
        queue.seal_tail();
        if queue.parts.is_empty() {
            return if queue.state == State::Draining { Work::End } else { Work::Nothing };
        }
        parts.clear();
        std::mem::swap(parts, &mut queue.parts);
        Work::Parts
    }

    async fn write_parts(
        &self,
        socket: &mut (impl AsyncWrite + Unpin),
        parts: &mut [Bytes],
        patience: Duration,
    ) -> Result<(), CloseReason> {
        let mut first = 0;
        while first < parts.len() {
            let until = parts.len().min(first + SLICES_MAX);
            let mut slices = [IoSlice::new(&[]); SLICES_MAX];
            let count = some_of(&parts[first..until], &mut slices);
            let writing = timeout(patience, socket.write_vectored(&slices[..count]));
            let Ok(written) = writing.await else {
                return Err(CloseReason::Stuck { queued: self.queued(), after: patience });
            };
            let mut written = written?;
            if written == 0 && slices[..count].iter().any(|slice| !slice.is_empty()) {
                return Err(io::Error::from(io::ErrorKind::WriteZero).into());
            }
            self.left(written);
            while first < until && written >= parts[first].len() {
                written -= parts[first].len();
                parts[first] = Bytes::new();
                first += 1;
            }
            if first < until {
                parts[first].advance(written);
            }
            if first < parts.len() {
                // The others' turn.
                tokio::task::yield_now().await;
            }
        }
        Ok(())
    }

    /// So many bytes have left.
    fn left(&self, bytes: usize) {
        let mut queue = self.queue.lock();
        // A queue that was closed meanwhile counts nothing.
        queue.bytes = queue.bytes.saturating_sub(bytes);
        queue.sent += bytes as u64;
        queue.shrink();
        if queue.bytes <= queue.short_bytes && self.is_long() {
            self.is_long.store(false, Ordering::SeqCst);
            self.progress.notify_waiters();
        }
    }
}

/// As many of the parts as one write takes, the last one perhaps not whole; returns how many there are.
fn some_of<'a>(parts: &'a [Bytes], slices: &mut [IoSlice<'a>]) -> usize {
    let (mut left, mut count) = (WRITE_BYTES_MAX, 0);
    for (slice, part) in slices.iter_mut().zip(parts) {
        if left == 0 {
            break;
        }
        let some = part.len().min(left);
        *slice = IoSlice::new(&part[..some]);
        left -= some;
        count += 1;
    }
    count
}

enum Work {
    Parts,
    Nothing,
    End,
}

impl Queue {
    fn seal_tail(&mut self) {
        if !self.tail.is_empty() {
            let sealed = self.tail.split().freeze();
            self.parts.push(sealed);
        }
    }

    /// Takes the bytes of the node's share (net.I3).
    fn cover(&mut self) -> Cover {
        if self.bytes <= BASE_BYTES || self.state == State::Closed {
            return Cover::Whole;
        }
        if self.unread.is_none() {
            self.look_from_now();
        }
        self.taken.cover(self.bytes)
    }

    /// Gives back what is not needed any more.
    fn shrink(&mut self) {
        if self.bytes <= BASE_BYTES {
            self.unread = None;
            self.taken.give_back();
            return;
        }
        self.taken.shrink(self.bytes);
        if self.unread.as_ref().is_some_and(|unread| self.sent >= unread.until) {
            self.look_from_now();
        }
    }

    /// All that waits now has waited since now, or less.
    fn look_from_now(&mut self) {
        self.unread = Some(Unread { since: Instant::now(), until: self.sent + self.bytes as u64 });
    }
}

#[cfg(test)]
mod tests;
