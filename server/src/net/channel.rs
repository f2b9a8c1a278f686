//! One client's connection as the rest of the server holds it: a cheap handle to push frames at.
//!
//! Not here: reading (see `connection`), what requests mean.

use std::collections::HashMap;
use std::fmt;
use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicI32, AtomicU64, AtomicUsize, Ordering};
use std::time::Duration;

use bytes::Bytes;
use folio_broker::reads::{READS_MAX, ReadTurn};
use folio_broker::sends::Sends;
use folio_protocol::fields::Fields;
use folio_protocol::frame::{Frame, FrameError};
use parking_lot::Mutex;
use tokio::sync::{Notify, Semaphore, oneshot};
use tokio::time::Instant;

use super::budget::Budget;
use super::in_flight::{Cost, InFlight};
use super::outgoing::{Outgoing, Overflow};
use super::read_buffer::Kept;
use super::{CloseReason, NetConfig};

/// Calls of this server to one client that may wait for their answers at a time.
const CALLS_MAX: usize = 1_024;
/// Bodies from this size on are queued by reference instead of being copied behind their header.
const BODY_BY_REFERENCE_BYTES: usize = 4 * 1024;

/// A handle to one connection; clones are the same connection.
#[derive(Clone)]
pub struct Channel(Arc<Inner>);

struct Inner {
    id: u64,
    remote: SocketAddr,
    is_operator: bool,
    budget: Arc<Budget>,
    relief: Arc<dyn Relief>,
    outgoing: Outgoing,
    in_flight: InFlight,
    reason: Mutex<Option<CloseReason>>,
    closing: Notify,
    /// Requests of the peer that were taken and are not answered yet.
    unanswered: AtomicUsize,
    /// No request is taken any more: the node stops.
    refuses: AtomicBool,
    /// A request was refused since somebody last looked.
    refused: AtomicBool,
    next_opaque: AtomicI32,
    calls: Mutex<HashMap<i32, oneshot::Sender<Frame>>>,
    sends: Arc<Sends>,
    /// Reads from the disk that are under way for it.
    reads: Arc<Semaphore>,
    /// After its end.
    kept: Mutex<Option<Kept>>,
}

/// Makes room where more waits for all clients than may (net.I3).
pub(super) trait Relief: Send + Sync {
    /// By closing others, or this one.
    fn relieve(self: Arc<Self>, channel: &Channel);
}

/// Why a client did not answer a call of this server.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum CallFailure {
    /// The connection is gone.
    #[error("the client's connection is closed")]
    Closed,
    /// It took too long.
    #[error("the client did not answer in time")]
    TimedOut,
    /// Too many calls wait for this client, or the request does not fit a frame.
    #[error("the request could not be sent to the client")]
    NotSent,
}

impl Channel {
    pub(super) fn new(
        remote: SocketAddr,
        is_operator: bool,
        config: &NetConfig,
        budget: &Arc<Budget>,
        relief: Arc<dyn Relief>,
    ) -> Self {
        static NEXT_ID: AtomicU64 = AtomicU64::new(1);
        let address = budget.address(remote.ip());
        Self(Arc::new(Inner {
            id: NEXT_ID.fetch_add(1, Ordering::Relaxed),
            remote,
            is_operator,
            outgoing: Outgoing::new(config.outgoing_bytes_max, budget, &address),
            in_flight: InFlight::new(config.requests_max, budget, &address),
            budget: budget.clone(),
            relief,
            reason: Mutex::new(None),
            closing: Notify::new(),
            unanswered: AtomicUsize::new(0),
            refuses: AtomicBool::new(false),
            refused: AtomicBool::new(false),
            next_opaque: AtomicI32::new(0),
            calls: Mutex::default(),
            sends: Arc::new(Sends::new()),
            reads: Arc::new(Semaphore::new(READS_MAX)),
            kept: Mutex::default(),
        }))
    }

    /// A channel that leads nowhere: what is pushed is counted and kept, never sent.
    #[cfg(test)]
    pub(crate) fn unconnected() -> Self {
        Self::with_limits(&NetConfig::default())
    }

    /// The same with limits of its own.
    #[cfg(test)]
    pub(super) fn with_limits(config: &NetConfig) -> Self {
        let resources = super::Resources::new(config);
        let remote = SocketAddr::from(([127, 0, 0, 1], 9));
        Self::new(remote, false, config, resources.budget(), resources.clone())
    }

    /// Unique in this process, never used again.
    pub fn id(&self) -> u64 {
        self.0.id
    }

    /// The peer's address.
    pub fn remote(&self) -> SocketAddr {
        self.0.remote
    }

    /// Whether its requests are an operator's (`admin.I2`).
    pub fn is_operator(&self) -> bool {
        self.0.is_operator
    }

    /// Whether pushes still have a chance to arrive.
    pub fn is_open(&self) -> bool {
        self.0.outgoing.is_open()
    }

    /// What became of the messages that came by it.
    pub(crate) fn sends(&self) -> &Arc<Sends> {
        &self.0.sends
    }

    /// Counts a request of the peer's as unanswered, and in flight, until the guard is dropped. Ask
    /// [`Channel::takes_requests`] afterwards: in this order no request slips between the last look of a stopping node
    /// and the end (net.I4).
    pub fn expect_answer(&self, request: &Frame) -> Unanswered {
        let cost = Cost::of(request);
        self.0.in_flight.begin(cost);
        self.0.unanswered.fetch_add(1, Ordering::SeqCst);
        Unanswered { channel: self.clone(), cost }
    }

    /// Whether it has as many requests in flight, or answers to read, as it may (net.I5).
    pub(super) fn is_busy(&self) -> bool {
        self.0.in_flight.is_full() || self.0.outgoing.is_long()
    }

    /// Whether more requests may be read; takes what is in flight of the node's share. Called by the reader alone.
    pub(super) fn may_read(&self) -> bool {
        !self.is_busy() && self.0.in_flight.cover()
    }

    /// Whether the node's share covers what is in flight; takes it.
    pub(super) fn is_covered(&self) -> bool {
        self.0.in_flight.cover()
    }

    /// Bytes that its requests in flight hold.
    pub(super) fn request_bytes(&self) -> usize {
        self.0.in_flight.bytes()
    }

    /// Keeps what its requests keep of a buffer that is read into no more, until the last of them is answered.
    pub(super) fn keep(&self, kept: Option<Kept>) {
        *self.0.kept.lock() = kept;
    }

    /// Waits until more requests may be read.
    pub(super) async fn ready_to_read(&self) {
        while !self.may_read() {
            if self.0.outgoing.is_long() {
                self.0.outgoing.short().await;
            } else {
                self.0.in_flight.settle().await;
            }
        }
    }

    /// Lets a read from the disk begin for this client, if it need not wait (`disk_reads.I1`).
    pub(crate) fn try_read_turn(&self) -> Option<ReadTurn> {
        let turn = self.0.reads.clone().try_acquire_owned().ok()?;
        (!self.is_behind()).then_some(ReadTurn::new(turn))
    }

    /// Waits until one may begin; `None` if the connection is closed.
    pub(crate) async fn read_turn(&self) -> Option<ReadTurn> {
        let turn = self.0.reads.clone().acquire_owned().await.ok()?;
        self.catch_up().await;
        self.is_open().then_some(ReadTurn::new(turn))
    }

    /// Whether the client has so much to read that no more is begun for it.
    pub(crate) fn is_behind(&self) -> bool {
        self.0.outgoing.is_long()
    }

    /// Waits until it has read some of that, or is closed.
    pub(crate) async fn catch_up(&self) {
        self.0.outgoing.short().await;
    }

    /// What all connections take their memory from.
    pub(super) fn budget(&self) -> &Arc<Budget> {
        &self.0.budget
    }

    /// Whether requests are still served; once they are not, each is refused.
    pub fn takes_requests(&self) -> bool {
        !self.0.refuses.load(Ordering::SeqCst)
    }

    /// Notes that a request was refused: the peer still talks.
    pub fn note_refused(&self) {
        self.0.refused.store(true, Ordering::Relaxed);
    }

    /// From now on requests are refused.
    pub(super) fn refuse(&self) {
        self.0.refuses.store(true, Ordering::SeqCst);
    }

    /// Whether every request that was taken is answered.
    pub(super) fn has_answered(&self) -> bool {
        self.0.unanswered.load(Ordering::SeqCst) == 0
    }

    /// Whether nothing was refused since the last look.
    pub(super) fn is_quiet(&self) -> bool {
        !self.0.refused.swap(false, Ordering::Relaxed)
    }

    /// Queues a frame. Fails only if the frame cannot be one; a closed connection swallows it.
    pub fn push(&self, frame: &Frame) -> Result<(), FrameError> {
        self.push_with(frame, &frame.ext)
    }

    /// The same with `fields` in place of the frame's own.
    pub fn push_with(&self, frame: &Frame, fields: &impl Fields) -> Result<(), FrameError> {
        if frame.body.len() >= BODY_BY_REFERENCE_BYTES {
            return self.push_parts(frame, fields, vec![frame.body.clone()]);
        }
        let mut encoded = Ok(());
        let pushed = self.0.outgoing.push(|tail| encoded = frame.encode_with(fields, tail));
        self.after_push(pushed);
        encoded
    }

    /// Queues `head` with `fields`, and `parts` as its body, uncopied. The frame's own fields and body are ignored.
    pub fn push_parts(
        &self,
        head: &Frame,
        fields: &impl Fields,
        parts: Vec<Bytes>,
    ) -> Result<(), FrameError> {
        let body_bytes = parts.iter().map(Bytes::len).sum();
        let mut buffer = bytes::BytesMut::new();
        head.encode_head_with(fields, body_bytes, &mut buffer)?;
        let pushed = self.0.outgoing.push_parts(|tail| tail.extend_from_slice(&buffer), parts);
        self.after_push(pushed);
        Ok(())
    }

    fn after_push(&self, pushed: Result<(), Overflow>) {
        match pushed {
            Ok(()) => {}
            Err(Overflow::Client { queued, max }) => self.close(CloseReason::NotReading { queued, max }),
            Err(Overflow::Node) => self.0.relief.clone().relieve(self),
        }
    }

    /// Bytes that wait for the peer.
    pub(super) fn queued(&self) -> usize {
        self.0.outgoing.queued()
    }

    /// Since when some bytes wait for the peer, if these are more than what each may have.
    pub(super) fn unread_since(&self) -> Option<Instant> {
        self.0.outgoing.unread_since()
    }

    /// Whether the node's share covers what waits for the peer; takes it.
    pub(super) fn is_unread_covered(&self) -> bool {
        self.0.outgoing.is_covered()
    }

    /// Sends a request of this server's to the client and waits for its answer.
    pub async fn call(&self, mut request: Frame, timeout: Duration) -> Result<Frame, CallFailure> {
        let opaque = self.0.next_opaque.fetch_add(1, Ordering::Relaxed);
        request.opaque = opaque;
        let (sender, receiver) = oneshot::channel();
        {
            let mut calls = self.0.calls.lock();
            if calls.len() >= CALLS_MAX {
                return Err(CallFailure::NotSent);
            }
            calls.insert(opaque, sender);
        }
        // After the insertion: a connection that closes now clears the table, or is seen here.
        if !self.is_open() || self.push(&request).is_err() {
            self.0.calls.lock().remove(&opaque);
            return Err(if self.is_open() { CallFailure::NotSent } else { CallFailure::Closed });
        }
        let answer = tokio::time::timeout(timeout, receiver).await;
        self.0.calls.lock().remove(&opaque);
        match answer {
            Ok(Ok(frame)) => Ok(frame),
            Ok(Err(_)) => Err(CallFailure::Closed),
            Err(_) => Err(CallFailure::TimedOut),
        }
    }

    /// Sends a request nobody waits for to the client.
    pub fn notify(&self, mut request: Frame) {
        request.opaque = self.0.next_opaque.fetch_add(1, Ordering::Relaxed);
        if let Err(error) = self.push(&request.oneway()) {
            tracing::error!(remote = %self.remote(), "a notification does not fit a frame: {error}");
        }
    }

    /// Gives a response frame to the call that waits for it.
    pub(super) fn answered(&self, frame: Frame) {
        let waiting = self.0.calls.lock().remove(&frame.opaque);
        match waiting {
            // The caller may have given up in this moment.
            Some(call) => drop(call.send(frame)),
            None => {
                tracing::debug!(remote = %self.remote(), opaque = frame.opaque, "an answer nobody waits for")
            }
        }
    }

    /// Closes the connection; the first reason counts (net.I1).
    pub fn close(&self, reason: CloseReason) {
        self.0.reason.lock().get_or_insert(reason);
        self.0.outgoing.close();
        self.0.sends.close();
        self.0.reads.close();
        self.0.calls.lock().clear();
        self.0.closing.notify_one();
    }

    /// Lets what is queued leave, then closes.
    pub(super) fn drain(&self) {
        self.0.outgoing.drain();
    }

    pub(super) async fn closing(&self) {
        self.0.closing.notified().await;
    }

    /// Lets what is queued leave, then closes for this reason.
    pub(super) fn drain_for(&self, reason: CloseReason) {
        self.0.reason.lock().get_or_insert(reason);
        self.drain();
    }

    /// Whether the peer has not been given up for not reading.
    pub(super) fn reads(&self) -> bool {
        !self.0.reason.lock().as_ref().is_some_and(CloseReason::is_not_reading)
    }

    pub(super) fn take_reason(&self) -> Option<CloseReason> {
        self.0.reason.lock().take()
    }

    pub(super) fn outgoing(&self) -> &Outgoing {
        &self.0.outgoing
    }
}

/// A request of the peer's that has no answer yet.
pub struct Unanswered {
    channel: Channel,
    cost: Cost,
}

impl Unanswered {
    /// From now on it waits for something that may not come: it is not in flight any more (net.I5), and still unanswered.
    pub fn hold(&mut self) {
        self.channel.0.in_flight.end(std::mem::replace(&mut self.cost, Cost::NONE));
    }
}

impl std::ops::Deref for Unanswered {
    type Target = Channel;

    fn deref(&self) -> &Channel {
        &self.channel
    }
}

impl Drop for Unanswered {
    fn drop(&mut self) {
        self.hold();
        self.channel.0.unanswered.fetch_sub(1, Ordering::SeqCst);
    }
}

impl fmt::Debug for Channel {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(out, "Channel({} {})", self.0.id, self.0.remote)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn a_call_gets_the_answer_with_its_opaque_and_no_other() {
        let channel = Channel::unconnected();
        let other = channel.clone();
        let call = tokio::spawn(async move { other.call(Frame::default(), Duration::from_secs(5)).await });
        while channel.0.calls.lock().is_empty() {
            tokio::task::yield_now().await;
        }
        channel.answered(Frame { opaque: 77, ..Frame::default() });
        channel.answered(Frame { opaque: 0, code: 42, ..Frame::default() });
        assert_eq!(call.await.expect("no panic").map(|frame| frame.code), Ok(42));
    }

    #[tokio::test]
    async fn a_closed_channel_fails_its_calls_at_once() {
        let channel = Channel::unconnected();
        let other = channel.clone();
        let call = tokio::spawn(async move { other.call(Frame::default(), Duration::from_secs(60)).await });
        while channel.0.calls.lock().is_empty() {
            tokio::task::yield_now().await;
        }
        channel.close(CloseReason::PeerClosed);
        assert_eq!(call.await.expect("no panic"), Err(CallFailure::Closed));
        let late = channel.call(Frame::default(), Duration::from_secs(60)).await;
        assert_eq!(late, Err(CallFailure::Closed));
    }

    #[test]
    fn the_first_reason_to_close_is_the_one_told() {
        let channel = Channel::unconnected();
        channel.close(CloseReason::Tls);
        channel.close(CloseReason::PeerClosed);
        assert!(channel.take_reason().is_some_and(|reason| reason.to_string().contains("TLS")));
    }

    #[tokio::test(start_paused = true)]
    async fn disk_reads_i1_a_connection_has_few_reads_at_a_time_and_none_while_it_has_much_to_read() {
        let channel = Channel::with_limits(&NetConfig::with_memory(64 << 20));
        let mut turns: Vec<_> = (0..READS_MAX).map(|_| channel.try_read_turn().expect("a turn")).collect();
        assert!(channel.try_read_turn().is_none());
        let fifth = tokio::time::timeout(Duration::from_millis(10), channel.read_turn()).await;
        assert!(fifth.is_err());
        turns.pop();
        channel.push(&Frame::default().with_body(vec![0; 2 << 20])).expect("a frame");
        assert!(channel.try_read_turn().is_none());
        let (waiting, closed) = (channel.clone(), channel.clone());
        let waiting = tokio::spawn(async move { waiting.read_turn().await.is_some() });
        let last = tokio::spawn(async move { closed.read_turn().await.is_some() });
        tokio::time::sleep(Duration::from_secs(1)).await;
        assert!(!waiting.is_finished());
        channel.close(CloseReason::PeerClosed);
        assert_eq!((waiting.await.expect("no panic"), last.await.expect("no panic")), (false, false));
        assert!(channel.read_turn().await.is_none());
    }
}
