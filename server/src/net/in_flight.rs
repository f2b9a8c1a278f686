//! The requests of one connection that are being served: when there are too many, no more are read.
//!
//! The client is not refused: its next requests stay in the sockets' buffers until some have been answered. Requests that wait
//! for something which may never come, as held pulls do, are not counted (`Unanswered::hold`): a connection full of them would
//! wait for ever.
//!
//! What is counted: units, one for a send and [`QUERY_UNITS`] for every other request, as a query is a task of its own and
//! a send is not; and bytes. The node's shares of both have to cover it beyond [`BASE_BYTES`].
//!
//! - `net.I5`: a connection with more requests in flight than its limit, or than the node's share covers, is not read.
//! - `net.I6`: no connection waits for another one's requests: with [`BASE_BYTES`] or less in flight it is read.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, AtomicUsize, Ordering};

use folio_protocol::code::RequestCode;
use folio_protocol::frame::Frame;
use tokio::sync::Notify;

use super::budget::{Budget, Share};

/// Bytes that the requests of each connection may have without a share.
pub(super) const BASE_BYTES: u64 = 16 * 1024;
/// The share is taken in steps, so that most requests change no counter of the node.
const STEP_BYTES: usize = 64 * 1024;
/// What a request costs besides its bytes: its frame, its task, its place in a queue.
const REQUEST_BYTES: u64 = 2 * 1024;
/// Units of a request that is no send.
const QUERY_UNITS: u64 = 16;
const STEP_UNITS: usize = 256;
/// Units are in the bits above these, bytes in these.
const BYTES_BITS: u32 = 40;
const BYTES_MASK: u64 = (1 << BYTES_BITS) - 1;

/// What one request counts for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Cost(u64);

impl Cost {
    /// Of a request that came in this frame.
    pub(crate) fn of(frame: &Frame) -> Self {
        use RequestCode::{SendBatchMessage, SendMessage, SendMessageV2};
        let is_send = matches!(frame.request_code(), Some(SendMessage | SendMessageV2 | SendBatchMessage));
        let bytes = frame.body.len() as u64 + frame.ext.memory_bytes() as u64 + REQUEST_BYTES;
        Self(units(if is_send { 1 } else { QUERY_UNITS }) | bytes)
    }

    pub(crate) const NONE: Self = Self(0);
}

const fn units(count: u64) -> u64 {
    count << BYTES_BITS
}

/// What one connection has in flight.
#[derive(Debug)]
pub(super) struct InFlight {
    load: AtomicU64,
    units_max: u64,
    bytes: Part,
    units: Part,
    budget: Arc<Budget>,
    /// The reader waits until the load is at most this.
    waits_for: AtomicU64,
    waits: AtomicBool,
    resume: Notify,
}

impl InFlight {
    pub(super) fn new(requests_max: usize, budget: Arc<Budget>) -> Self {
        Self {
            load: AtomicU64::new(0),
            units_max: (requests_max as u64).clamp(1, u64::from(u16::MAX)),
            bytes: Part::new(Share::Requests, STEP_BYTES),
            units: Part::new(Share::RequestUnits, STEP_UNITS),
            budget,
            waits_for: AtomicU64::new(0),
            waits: AtomicBool::new(false),
            resume: Notify::new(),
        }
    }

    /// A request was taken.
    pub(super) fn begin(&self, cost: Cost) {
        self.load.fetch_add(cost.0, Ordering::SeqCst);
    }

    /// It was answered, or is held.
    pub(super) fn end(&self, cost: Cost) {
        if cost == Cost::NONE {
            return;
        }
        let left = self.load.fetch_sub(cost.0, Ordering::SeqCst) - cost.0;
        if left == 0 {
            self.give_back();
        }
        if self.waits.load(Ordering::SeqCst) && self.may_resume(left) {
            self.resume.notify_one();
        }
    }

    /// Whether there are as many requests as the connection may have.
    pub(super) fn is_full(&self) -> bool {
        self.load.load(Ordering::SeqCst) >> BYTES_BITS >= self.units_max
    }

    /// Takes what is in flight of the node's shares; says whether it is covered (net.I6). Called by the reader alone.
    pub(super) fn cover(&self) -> bool {
        let load = self.load.load(Ordering::SeqCst);
        let (units, bytes) = (load >> BYTES_BITS, load & BYTES_MASK);
        if bytes <= BASE_BYTES {
            return true;
        }
        let is_covered =
            self.bytes.cover(&self.budget, bytes as usize) && self.units.cover(&self.budget, units as usize);
        // The last request may have ended in between.
        if self.load.load(Ordering::SeqCst) == 0 {
            self.give_back();
        }
        is_covered
    }

    fn give_back(&self) {
        self.bytes.give_back(&self.budget);
        self.units.give_back(&self.budget);
    }

    /// Waits until half of it has been answered.
    pub(super) async fn settle(&self) {
        let half = |all: u64| all / 2;
        let bytes = half(self.load.load(Ordering::SeqCst) & BYTES_MASK).max(BASE_BYTES);
        self.waits_for.store(units(half(self.units_max)) | bytes, Ordering::SeqCst);
        self.waits.store(true, Ordering::SeqCst);
        if !self.may_resume(self.load.load(Ordering::SeqCst)) {
            self.resume.notified().await;
        }
        self.waits.store(false, Ordering::SeqCst);
    }

    fn may_resume(&self, load: u64) -> bool {
        let limit = self.waits_for.load(Ordering::SeqCst);
        load >> BYTES_BITS <= limit >> BYTES_BITS && load & BYTES_MASK <= limit & BYTES_MASK
    }
}

/// What a connection has taken of a share of the node.
#[derive(Debug)]
struct Part {
    share: Share,
    step: usize,
    taken: AtomicUsize,
}

impl Part {
    fn new(share: Share, step: usize) -> Self {
        Self { share, step, taken: AtomicUsize::new(0) }
    }

    /// Takes so much at least, if it is left.
    fn cover(&self, budget: &Budget, wanted: usize) -> bool {
        let taken = self.taken.load(Ordering::SeqCst);
        if taken >= wanted {
            self.shrink(budget, taken, wanted);
            return true;
        }
        let more = (wanted - taken).next_multiple_of(self.step);
        let is_left = budget.grab(self.share, more);
        if is_left {
            self.taken.fetch_add(more, Ordering::SeqCst);
        }
        is_left
    }

    /// Gives back what a burst has left.
    fn shrink(&self, budget: &Budget, taken: usize, wanted: usize) {
        let keep = wanted.next_multiple_of(self.step) + self.step;
        if taken > 2 * keep
            && self.taken.compare_exchange(taken, keep, Ordering::SeqCst, Ordering::SeqCst).is_ok()
        {
            budget.give(self.share, taken - keep);
        }
    }

    fn give_back(&self, budget: &Budget) {
        if self.taken.load(Ordering::SeqCst) > 0 {
            budget.give(self.share, self.taken.swap(0, Ordering::SeqCst));
        }
    }
}

impl Drop for InFlight {
    fn drop(&mut self) {
        self.give_back();
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use bytes::Bytes;

    use super::super::budget::MEMORY_BYTES_MIN;
    use super::*;

    fn send(body: usize) -> Cost {
        let frame = Frame { code: RequestCode::SendMessageV2.code(), ..Frame::default() };
        Cost::of(&frame.with_body(Bytes::from(vec![0; body])))
    }

    fn query() -> Cost {
        Cost::of(&Frame { code: RequestCode::QueryConsumerOffset.code(), ..Frame::default() })
    }

    #[tokio::test(start_paused = true)]
    async fn i5_a_connection_with_too_many_requests_waits_until_half_of_them_are_answered() {
        let in_flight = Arc::new(InFlight::new(4_096, Budget::new(1 << 30)));
        (0..4_095).for_each(|_| in_flight.begin(send(0)));
        assert!(!in_flight.is_full() && in_flight.cover());
        in_flight.begin(send(0));
        assert!(in_flight.is_full());
        let other = in_flight.clone();
        let waiting = tokio::spawn(async move { other.settle().await });
        tokio::task::yield_now().await;
        (0..2_047).for_each(|_| in_flight.end(send(0)));
        tokio::time::sleep(Duration::from_secs(1)).await;
        assert!(!waiting.is_finished(), "more than half is in flight");
        in_flight.end(send(0));
        waiting.await.expect("no panic");
        assert!(!in_flight.is_full());
    }

    #[test]
    fn queries_fill_a_connection_sooner_than_sends() {
        let in_flight = InFlight::new(8_192, Budget::new(1 << 30));
        let taken = (0..60_000).take_while(|_| {
            in_flight.begin(query());
            !in_flight.is_full()
        });
        assert_eq!(taken.count(), 511);
    }

    #[test]
    fn i6_what_the_node_cannot_cover_waits_and_the_little_of_each_connection_does_not() {
        let budget = Budget::new(MEMORY_BYTES_MIN);
        let (busy, other) = (InFlight::new(8_192, budget.clone()), InFlight::new(8_192, budget.clone()));
        busy.begin(send(1 << 20));
        assert!(busy.cover());
        let left = budget.limit(Share::Requests) - budget.used(Share::Requests);
        let rest = budget.take(Share::Requests, left).expect("it is left");
        busy.begin(send(1 << 20));
        assert!(!busy.cover(), "the share is used up");
        other.begin(send(1_000));
        assert!(other.cover(), "it has its base");
        other.begin(send(100_000));
        assert!(!other.cover());
        drop(rest);
        assert!(other.cover());
        (0..2).for_each(|_| busy.end(send(1 << 20)));
        drop(other);
        assert_eq!(budget.used(Share::Requests), 0);
    }

    #[test]
    fn i6_many_connections_together_have_so_many_requests_and_no_more() {
        let budget = Budget::new(1 << 30);
        let connections: Vec<InFlight> = (0..20).map(|_| InFlight::new(8_192, budget.clone())).collect();
        let covered = connections.iter().filter(|connection| {
            (0..256).for_each(|_| connection.begin(query()));
            connection.cover()
        });
        assert_eq!(covered.count(), 16, "256 queries are 4,096 units");
        drop(connections);
        assert_eq!((budget.used(Share::Requests), budget.used(Share::RequestUnits)), (0, 0));
    }

    #[test]
    fn a_burst_gives_back_what_it_does_not_need_any_more() {
        let budget = Budget::new(MEMORY_BYTES_MIN);
        let in_flight = InFlight::new(8_192, budget.clone());
        in_flight.begin(send(4 << 20));
        assert!(in_flight.cover());
        in_flight.begin(send(100_000));
        in_flight.end(send(4 << 20));
        assert!(in_flight.cover());
        assert!(budget.used(Share::Requests) < 500_000, "{}", budget.used(Share::Requests));
    }

    #[tokio::test(start_paused = true)]
    async fn a_request_that_ends_while_the_reader_begins_to_wait_wakes_it() {
        for ended_first in [true, false] {
            let in_flight = Arc::new(InFlight::new(1, Budget::new(1 << 30)));
            in_flight.begin(query());
            if ended_first {
                in_flight.end(query());
            }
            let other = in_flight.clone();
            let waiting = tokio::spawn(async move { other.settle().await });
            tokio::task::yield_now().await;
            if !ended_first {
                in_flight.end(query());
            }
            tokio::time::timeout(Duration::from_secs(5), waiting).await.expect("woken").expect("no panic");
        }
    }
}
