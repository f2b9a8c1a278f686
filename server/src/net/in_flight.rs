//! The requests of one connection that are being served: when there are too many, no more are read.
//!
//! The client is not refused: its next requests stay in the sockets' buffers until some have been answered. Requests that wait
//! for something which may never come, as held pulls do, are not counted (`Unanswered::hold`): a connection full of them would
//! wait for ever.
//!
//! What is counted: units, one for a send and [`QUERY_UNITS`] for every other request, as a query is a task of its own and
//! a send is not; and bytes. The node's shares of both have to cover it beyond [`BASE_BYTES`], and a connection gets its
//! part of them alone (`client_parts.I1`).
//!
//! - `net.I5`: a connection with more requests in flight than its limit, or than its part of the node's share, is not read.
//! - `net.I6`: no connection waits for another one's requests: with [`BASE_BYTES`] or less in flight it is read.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};

use folio_protocol::code::RequestCode;
use folio_protocol::frame::Frame;
use tokio::sync::Notify;

use super::addresses::AddressUse;
use super::budget::Budget;
use super::parts::Part;
use super::share::Share;

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
        let remark = frame.remark.as_ref().map_or(0, String::capacity);
        let bytes = (frame.body.len() + frame.ext.memory_bytes() + remark) as u64 + REQUEST_BYTES;
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
    /// The reader waits until the load is at most this.
    waits_for: AtomicU64,
    waits: AtomicBool,
    resume: Notify,
}

impl InFlight {
    pub(super) fn new(requests_max: usize, budget: &Arc<Budget>, address: &Arc<AddressUse>) -> Self {
        Self {
            load: AtomicU64::new(0),
            units_max: (requests_max as u64).clamp(1, u64::from(u16::MAX)),
            bytes: Part::new(budget, address, Share::Requests, STEP_BYTES),
            units: Part::new(budget, address, Share::RequestUnits, STEP_UNITS),
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

    /// Bytes that its requests hold.
    pub(super) fn bytes(&self) -> usize {
        (self.load.load(Ordering::SeqCst) & BYTES_MASK) as usize
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
        let covers = |part: &Part, wanted: usize| {
            part.shrink(wanted);
            part.cover_fairly(wanted)
        };
        let is_covered = covers(&self.bytes, bytes as usize) && covers(&self.units, units as usize);
        // The last request may have ended in between.
        if self.load.load(Ordering::SeqCst) == 0 {
            self.give_back();
        }
        is_covered
    }

    fn give_back(&self) {
        self.bytes.give_back();
        self.units.give_back();
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

    /// A connection of an address.
    fn of(budget: &Arc<Budget>, address: u8) -> InFlight {
        InFlight::new(8_192, budget, &budget.address([10, 0, 0, address].into()))
    }

    fn alone(requests_max: usize) -> InFlight {
        let budget = Budget::new(1 << 30);
        InFlight::new(requests_max, &budget, &budget.address([10, 0, 0, 1].into()))
    }

    fn query() -> Cost {
        Cost::of(&Frame { code: RequestCode::QueryConsumerOffset.code(), ..Frame::default() })
    }

    #[tokio::test(start_paused = true)]
    async fn i5_a_connection_with_too_many_requests_waits_until_half_of_them_are_answered() {
        let in_flight = Arc::new(alone(4_096));
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
    fn a_remark_is_counted_as_a_body_is() {
        let short = query();
        let long = Cost::of(
            &Frame { code: RequestCode::QueryConsumerOffset.code(), ..Frame::default() }
                .with_remark("x".repeat(10_000)),
        );
        assert!(long.0 - short.0 >= 10_000);
    }

    #[test]
    fn queries_fill_a_connection_sooner_than_sends() {
        let in_flight = alone(8_192);
        let taken = (0..60_000).take_while(|_| {
            in_flight.begin(query());
            !in_flight.is_full()
        });
        assert_eq!(taken.count(), 511);
    }

    #[test]
    fn i6_what_the_node_cannot_cover_waits_and_the_little_of_each_connection_does_not() {
        let budget = Budget::new(MEMORY_BYTES_MIN);
        let (busy, other) = (of(&budget, 1), of(&budget, 1));
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

    /// Eight connections with 512 slow pulls each had all units of the node: any other one was read its base, and no more.
    #[test]
    fn i5_connections_full_of_queries_leave_units_to_others_and_to_other_addresses_more() {
        let budget = Budget::new(1 << 30);
        let fill = |connection: &InFlight| {
            let covered = (0..512).take_while(|_| {
                connection.begin(query());
                connection.cover()
            });
            covered.count()
        };
        let connections: Vec<InFlight> = (0..20).map(|_| of(&budget, 1)).collect();
        let queries: Vec<usize> = connections.iter().map(fill).collect();
        assert_eq!(queries[0], 512, "as many as one connection may have");
        assert!(
            queries.iter().sum::<usize>() <= 2_048 + 20 * 7,
            "half of all, and the base of each: {queries:?}"
        );
        let other = of(&budget, 2);
        assert!(fill(&other) >= 256);
        drop((connections, other));
        assert_eq!((budget.used(Share::Requests), budget.used(Share::RequestUnits)), (0, 0));
    }

    #[test]
    fn a_burst_gives_back_what_it_does_not_need_any_more() {
        let budget = Budget::new(MEMORY_BYTES_MIN);
        let in_flight = of(&budget, 1);
        in_flight.begin(send(1 << 20));
        assert!(in_flight.cover());
        in_flight.begin(send(100_000));
        in_flight.end(send(1 << 20));
        assert!(in_flight.cover());
        assert!(budget.used(Share::Requests) < 500_000, "{}", budget.used(Share::Requests));
    }

    #[tokio::test(start_paused = true)]
    async fn a_request_that_ends_while_the_reader_begins_to_wait_wakes_it() {
        for ended_first in [true, false] {
            let in_flight = Arc::new(alone(1));
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
