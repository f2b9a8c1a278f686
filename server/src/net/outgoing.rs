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
mod tests {
    use super::super::budget::MEMORY_BYTES_MIN;
    use super::*;

    const PATIENCE: Duration = Duration::from_secs(10);

    fn outgoing(bytes_max: usize) -> (Outgoing, Arc<Budget>) {
        let budget = Budget::new(MEMORY_BYTES_MIN);
        (of(bytes_max, &budget), budget)
    }

    fn of(bytes_max: usize, budget: &Arc<Budget>) -> Outgoing {
        Outgoing::new(bytes_max, budget, &budget.address([10, 0, 0, 1].into()))
    }

    #[tokio::test]
    async fn everything_pushed_leaves_in_order_and_the_writer_ends_when_drained() {
        let (outgoing, _) = outgoing(1 << 20);
        for text in ["one ", "two "] {
            outgoing.push(|tail| tail.extend_from_slice(text.as_bytes())).expect("open");
        }
        let parts = (0..200).map(|_| Bytes::from_static(b".")).collect();
        outgoing.push_parts(|tail| tail.extend_from_slice(b"head"), parts).expect("open");
        outgoing.push(|tail| tail.extend_from_slice(b" end")).expect("open");
        outgoing.drain();
        outgoing.push(|tail| tail.extend_from_slice(b"too late")).expect("dropped silently");
        let mut out = Vec::new();
        outgoing.write_all(&mut out, PATIENCE).await.expect("a Vec takes everything");
        assert_eq!(out, format!("one two head{} end", ".".repeat(200)).into_bytes());
        assert_eq!(outgoing.queue.lock().bytes, 0);
    }

    /// A client that had read nothing yet was handed megabytes in one turn, and everybody else waited.
    #[tokio::test]
    async fn much_for_one_client_leaves_in_turns() {
        let (outgoing, _) = outgoing(8 << 20);
        let large = Bytes::from(vec![7; 3 * WRITE_BYTES_MAX + 5]);
        outgoing.push_parts(|tail| tail.extend_from_slice(b"head"), vec![large.clone()]).expect("it fits");
        outgoing.drain();
        let (mut client, socket) = tokio::io::duplex(8 << 20);
        let turns = async {
            let mut turns = 0;
            while !outgoing.queue.lock().parts.is_empty() || outgoing.queued() > 0 {
                turns += 1;
                tokio::task::yield_now().await;
            }
            turns
        };
        let (written, turns) = tokio::join!(outgoing.write_all(socket, PATIENCE), turns);
        written.expect("there is room");
        assert!(turns >= 4, "{turns} turns");
        let mut all = Vec::new();
        tokio::io::AsyncReadExt::read_to_end(&mut client, &mut all).await.expect("readable");
        assert_eq!(all, [&b"head"[..], &large].concat());
    }

    #[test]
    fn i3_a_peer_that_does_not_read_is_found_out_by_bytes() {
        let (outgoing, _) = outgoing(10);
        outgoing.push(|tail| tail.extend_from_slice(b"0123456789")).expect("just fits");
        assert!(outgoing.is_long());
        let overflow = outgoing.push(|tail| tail.extend_from_slice(b"x")).expect_err("one too many");
        assert_eq!(overflow, Overflow::Client { queued: 11, max: 10 });
    }

    /// Twenty clients that did not read had 32 MiB each read and copied for them at once, and every send waited meanwhile.
    #[test]
    fn i5_a_client_has_to_read_first_long_before_the_bound() {
        let outgoing = of(64 << 20, &Budget::new(1 << 30));
        let answer = || vec![Bytes::from(vec![0; LONG_BYTES / 2])];
        let is_long = [(); 3].map(|()| {
            outgoing.push_parts(|_| {}, answer()).expect("it fits");
            outgoing.is_long()
        });
        assert_eq!(is_long, [false, false, true]);
    }

    /// Twenty clients that did not read held 1.1 GB, and kept it as long as they liked.
    #[tokio::test(start_paused = true)]
    async fn i8_a_peer_that_takes_nothing_is_given_up() {
        let (outgoing, budget) = outgoing(1 << 20);
        let (deaf, mut socket) = tokio::io::duplex(1_000);
        outgoing.push(|tail| tail.extend_from_slice(&[0; 500_000])).expect("it fits");
        assert!(budget.used(Share::Answers) >= 500_000);
        let started = tokio::time::Instant::now();
        let reason = outgoing.write_all(&mut socket, PATIENCE).await.expect_err("nobody reads");
        assert!(matches!(reason, CloseReason::Stuck { queued: 499_000, .. }), "{reason}");
        assert!(started.elapsed() >= PATIENCE && started.elapsed() < 2 * PATIENCE, "{:?}", started.elapsed());
        outgoing.close();
        assert_eq!(budget.used(Share::Answers), 0);
        drop(deaf);
    }

    #[tokio::test(start_paused = true)]
    async fn a_peer_that_reads_slowly_is_served() {
        let (outgoing, budget) = outgoing(1 << 20);
        let (mut slow, mut socket) = tokio::io::duplex(1_000);
        outgoing.push(|tail| tail.extend_from_slice(&[0; 20_000])).expect("it fits");
        outgoing.drain();
        let reading = async {
            let mut some = [0; 1_000];
            while tokio::io::AsyncReadExt::read(&mut slow, &mut some).await.expect("readable") > 0 {
                tokio::time::sleep(PATIENCE / 2).await;
            }
        };
        let (written, ()) = tokio::join!(outgoing.write_all(&mut socket, PATIENCE), reading);
        written.expect("each of its reads is progress");
        assert_eq!((outgoing.queued(), budget.used(Share::Answers)), (0, 0));
    }

    #[tokio::test]
    async fn a_client_with_half_of_what_may_wait_has_to_read_half_of_that_first() {
        let (outgoing, _) = outgoing(1_000);
        outgoing.push(|tail| tail.extend_from_slice(&[0; 500])).expect("half of it");
        assert!(!outgoing.is_long());
        outgoing.push(|tail| tail.extend_from_slice(&[0; 1])).expect("more than half");
        assert!(outgoing.is_long());
        outgoing.drain();
        let mut out = Vec::new();
        let (written, ()) = tokio::join!(outgoing.write_all(&mut out, PATIENCE), outgoing.short());
        written.expect("a Vec takes everything");
        assert!(!outgoing.is_long());
    }

    #[test]
    fn i3_all_clients_together_have_no_more_waiting_than_the_nodes_share() {
        let budget = Budget::new(MEMORY_BYTES_MIN);
        let push = |outgoing: &Outgoing| outgoing.push(|tail| tail.extend_from_slice(&[0; 4 << 20]));
        let clients: Vec<Outgoing> = (0..4).map(|_| of(64 << 20, &budget)).collect();
        let pushed: Vec<_> = clients.iter().map(push).collect();
        assert_eq!(pushed, [Ok(()), Ok(()), Ok(()), Err(Overflow::Node)], "twelve MiB are the share");
        clients[0].close();
        assert_eq!(push(&clients[1]), Ok(()));
    }

    /// A client that reads all the time has always something unread, and never the same.
    #[tokio::test(start_paused = true)]
    async fn i3_unread_counts_since_the_oldest_bytes_wait_and_ends_at_the_base() {
        let (outgoing, _) = outgoing(1 << 20);
        let push = |bytes| outgoing.push(|tail| tail.resize(tail.len() + bytes, 0)).expect("it fits");
        push(BASE_BYTES);
        assert_eq!(outgoing.unread_since(), None);
        push(1);
        let first = Instant::now();
        assert_eq!(outgoing.unread_since(), Some(first));
        tokio::time::sleep(PATIENCE).await;
        push(100_000);
        outgoing.left(BASE_BYTES);
        assert_eq!(outgoing.unread_since(), Some(first), "one byte of these is left");
        outgoing.left(1);
        assert_eq!(outgoing.unread_since(), Some(Instant::now()));
        outgoing.left(100_000 - BASE_BYTES);
        assert_eq!(outgoing.unread_since(), None);
    }

    #[test]
    fn client_parts_i1_a_client_with_more_unread_than_its_part_of_what_is_left_has_to_read_first() {
        let (one, budget) = outgoing(64 << 20);
        let push = |outgoing: &Outgoing, bytes: usize| outgoing.push(|tail| tail.resize(bytes, 0));
        let left = budget.limit(Share::Answers) / 16;
        let rest = budget.take(Share::Answers, budget.limit(Share::Answers) - left).expect("it is left");
        assert_eq!(push(&one, left / 8 - STEP_BYTES), Ok(()));
        assert!(!one.is_long());
        let other = of(64 << 20, &budget);
        assert_eq!(push(&other, left / 4), Ok(()));
        assert!(other.is_long());
        other.left(left / 8);
        assert!(!other.is_long());
        drop(rest);
    }
}
