//! Requests that only the leader may answer, on their way there from the node the client knows.
//!
//! Called by the dispatcher for a request that came to a follower, and by [`Reply::refuse`] when the
//! leadership was lost between dispatch and proposal.
//!
//! What goes over `Group::call`, all numbers big-endian (see also `peer.rs` for the kind byte):
//!
//! | part | bytes | meaning |
//! |---|---|---|
//! | order | 24 | the commit's place among others (`turns.rs`), kind 4 only |
//! | family | 1 | 4 or 6 |
//! | address | 4 or 16 | the client's |
//! | port | 2 | the client's |
//! | frame | rest | the request as the client sent it |
//!
//! and back:
//!
//! | part | bytes | meaning |
//! |---|---|---|
//! | kind | 1 | 0 a frame follows, 1 this node does not lead, 2 a oneway request was taken |
//! | frame | rest | the answer |
//!
//! Invariants: forward.I1: a forwarded request is never forwarded again. forward.I2: a request is
//! handed out again only if it certainly was not proposed, or changes nothing; an unknown outcome is told,
//! not retried. forward.I3: a question for a group's offset hears no error while its client waits.
//! `turns.I1`: nor if it is a commit and a later one has come for its queue.

mod codes;

use std::io;
use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;
use std::time::Duration;

use bytes::{Buf, BufMut, Bytes, BytesMut};
use folio_protocol::code::{RequestCode, ResponseCode};
use folio_protocol::frame::Frame;
use folio_raft::group::CallError;
use folio_raft::status::{Role, Status};
use tokio::sync::{Semaphore, oneshot, watch};
use tokio::time::Instant;

use self::codes::changes_nothing;
pub(crate) use self::codes::{asks_for_state, may_need_leader, needs_leader};
use crate::broker::Broker;
use crate::dispatch;
use crate::error::ServerError;
use crate::peer;
use crate::reply::Reply;
use crate::request::Request;
use crate::turns::{Order, Turn, Turns};

/// How long a request waits for a leader: several elections.
const LEADER_PATIENCE: Duration = Duration::from_secs(3);
/// The same for a group's offset. RocketMQ 4, its C++ client and its Go client take every error for "this group has no
/// offset" and go to a queue's start or end; so an error comes only after they have stopped waiting (5 s).
pub(crate) const OFFSET_PATIENCE: Duration = Duration::from_secs(6);
/// How long the leader may take to answer: what clients wait, and then some.
const ANSWER_PATIENCE: Duration = Duration::from_secs(5);
/// The same on a node that stops: it has to answer before it closes its connections.
const STOPPING_PATIENCE: Duration = Duration::from_secs(3);
/// Pause before the leader is asked again, even if this node hears of a change at once.
const RETRY_PAUSE: Duration = Duration::from_millis(20);
/// The leader is asked again after this long without a change here: it may know of its election a moment
/// later than this node does.
const RETRY_AFTER: Duration = Duration::from_millis(100);
/// Forwarded requests under way at a time.
const FORWARDS_MAX: usize = 4_096;

/// Bounds what is under way to the leader.
pub struct Forwards {
    under_way: Arc<Semaphore>,
    turns: Arc<Turns>,
}

impl Forwards {
    /// Of one node; nothing is under way.
    pub(crate) fn new(node_id: u64) -> Self {
        Self { under_way: Arc::new(Semaphore::new(FORWARDS_MAX)), turns: Turns::new(node_id) }
    }
}

/// What is needed to hand a request out again.
pub(crate) struct Retry {
    broker: Arc<Broker>,
    frame: Arc<Frame>,
    remote: SocketAddr,
    deadline: Instant,
    /// This node believed it leads, and was told better: it may believe so for another moment.
    tried_here: bool,
    turn: Option<Turn>,
}

/// What came of a forwarded request at the leader.
pub(crate) enum Answer {
    /// Answered.
    Frame(Box<Frame>),
    /// Not proposed: that node does not lead.
    NotLeader,
    /// Taken; a oneway request has no answer.
    Silence,
}

/// Whether a client takes a refusal of it for an answer.
pub(crate) fn is_offset_query(frame: &Frame) -> bool {
    frame.request_code() == Some(RequestCode::QueryConsumerOffset)
}

/// When a request that came now is told that there is no leader.
fn deadline(frame: &Frame) -> Instant {
    Instant::now() + if is_offset_query(frame) { OFFSET_PATIENCE } else { LEADER_PATIENCE }
}

/// The request with a reply that can be handed out again if the leadership is lost meanwhile.
pub(crate) fn armed(broker: &Arc<Broker>, mut request: Request) -> Request {
    if !request.is_forwarded() {
        let turn = broker.forwards.turns.take(&request.frame);
        request.order = turn.as_ref().map(Turn::order);
        let retry = Retry {
            broker: broker.clone(),
            frame: request.frame.clone(),
            remote: request.remote,
            deadline: deadline(&request.frame),
            tried_here: true,
            turn,
        };
        request.reply = request.reply.with_retry(retry);
    }
    request
}

/// Brings a request of a client of ours to the leader, and the answer back.
pub(crate) fn forward(broker: &Arc<Broker>, request: Request) {
    if request.is_forwarded() {
        // forward.I1: by a node that believed we lead.
        return request.reply.refuse(folio_raft::proposal::ProposeError::NotLeader { leader: None });
    }
    let Request { frame, remote, reply, .. } = request;
    let deadline = deadline(&frame);
    let turn = broker.forwards.turns.take(&frame);
    again(Retry { broker: broker.clone(), frame, remote, deadline, tried_here: false, turn }, reply);
}

/// Hands a request out that was certainly not proposed yet.
pub(crate) fn again(retry: Retry, reply: Reply) {
    let under_way = retry.broker.forwards.under_way.clone();
    let permit = under_way.clone().try_acquire_owned().ok();
    if permit.is_none() && !is_offset_query(&retry.frame) {
        return reply.fail(ServerError::ForwardBusy);
    }
    tokio::spawn(async move {
        let permit = match permit {
            Some(permit) => Some(permit),
            // forward.I3
            None => {
                let acquired = tokio::time::timeout_at(retry.deadline, under_way.acquire_owned()).await;
                acquired.ok().and_then(Result::ok)
            }
        };
        bring(retry, reply).await;
        drop(permit);
    });
}

async fn bring(retry: Retry, reply: Reply) {
    let broker = retry.broker.clone();
    let mut status = broker.group.watch();
    let request = encode_request(retry.turn.as_ref().map(Turn::order), retry.remote, &retry.frame);
    let repeatable = retry.frame.request_code().is_some_and(changes_nothing);
    let mut stops = None;
    broker.forwards.turns.let_pass(&retry.frame, retry.deadline).await;
    if retry.tried_here {
        tokio::time::sleep(RETRY_PAUSE).await;
    }
    loop {
        let (leads, leader) = look(&mut status);
        // turns.I1
        if retry.turn.as_ref().is_some_and(Turn::is_overtaken) {
            return reply.fail(ServerError::Overtaken);
        }
        if leads {
            return serve_here(retry, reply);
        }
        if let Some(leader) = leader.filter(|leader| *leader != broker.node_id()) {
            match ask(&broker, leader, &request).await {
                // It is on its way out, or cannot reach the others: whoever follows it will know.
                Asked::Answered(frame) if repeatable && is_unavailable(&frame) => {}
                Asked::Answered(frame) => return reply.relay(*frame),
                Asked::Silent => return reply.done(),
                Asked::NotProposed => {}
                Asked::Unknown(why) if repeatable => tracing::debug!(leader, "asked again: {why}"),
                Asked::Unknown(why) => return reply.fail(ServerError::OutcomeUnknown(why)),
            }
        }
        if reply.channel().is_some_and(|channel| !channel.takes_requests()) {
            stops.get_or_insert(Instant::now() + STOPPING_PATIENCE);
        }
        let deadline = stops.map_or(retry.deadline, |stops| stops.min(retry.deadline));
        if Instant::now() >= deadline {
            return reply.fail(ServerError::NoLeader);
        }
        tokio::time::sleep(RETRY_PAUSE).await;
        // A timeout is answered above, after one last look.
        let patience = RETRY_AFTER.min(deadline.saturating_duration_since(Instant::now()));
        drop(tokio::time::timeout(patience, status.changed()).await);
    }
}

fn is_unavailable(frame: &Frame) -> bool {
    frame.code == ResponseCode::ServiceNotAvailable.code()
}

/// Whether this node leads, and who does. One look at one status: looking again (`Broker::leads`) while
/// this one is held waits for a change, which waits for this one to end; then nobody gets past it.
fn look(status: &mut watch::Receiver<Status>) -> (bool, Option<u64>) {
    let status = status.borrow_and_update();
    (status.role == Role::Leader && status.leader == Some(status.node_id), status.leader)
}

/// This node became the leader while the request waited.
fn serve_here(mut retry: Retry, reply: Reply) {
    retry.tried_here = true;
    let broker = retry.broker.clone();
    let (frame, remote) = (retry.frame.clone(), retry.remote);
    let order = retry.turn.as_ref().map(Turn::order);
    let reply = if Instant::now() < retry.deadline { reply.with_retry(retry) } else { reply };
    dispatch::route(&broker, Request { frame, remote, reply, order });
}

enum Asked {
    Answered(Box<Frame>),
    Silent,
    NotProposed,
    Unknown(String),
}

async fn ask(broker: &Broker, leader: u64, request: &Option<Bytes>) -> Asked {
    let Some(request) = request else {
        return Asked::Unknown("the request does not fit a frame".to_owned());
    };
    match broker.group.call(leader, request.clone(), ANSWER_PATIENCE).await {
        Ok(answer) => decode_answer(answer),
        Err(CallError::UnknownNode(_)) => Asked::NotProposed,
        // Nobody listens there: it was not sent. Every other failure may have come after it was.
        Err(CallError::NoAnswer { source, .. }) if source.kind() == io::ErrorKind::ConnectionRefused => {
            Asked::NotProposed
        }
        Err(error) => Asked::Unknown(error.to_string()),
    }
}

/// Answers a request that another node forwarded: the other end of [`ask`].
pub(crate) async fn serve(broker: &Arc<Broker>, kind: u8, bytes: Bytes) -> Bytes {
    let Some((order, remote, frame)) = decode_request(kind, bytes) else {
        tracing::error!("a forwarded request does not decode");
        return encode_answer(Answer::NotLeader);
    };
    let (sender, receiver) = oneshot::channel();
    let reply = Reply::to_node(sender, &frame);
    dispatch::dispatch(broker, Request { frame: Arc::new(frame), remote, reply, order });
    // The reply answers even when it is dropped (reply.I1): the error is for the compiler.
    encode_answer(receiver.await.unwrap_or(Answer::Silence))
}

fn encode_request(order: Option<Order>, remote: SocketAddr, frame: &Frame) -> Option<Bytes> {
    let mut out = BytesMut::with_capacity(frame.body.len() + 1_024);
    match order {
        None => out.put_u8(peer::FORWARD),
        Some(order) => {
            out.put_u8(peer::FORWARD_COMMIT);
            order.encode(&mut out);
        }
    }
    match remote.ip() {
        IpAddr::V4(ip) => {
            out.put_u8(4);
            out.put_slice(&ip.octets());
        }
        IpAddr::V6(ip) => {
            out.put_u8(6);
            out.put_slice(&ip.octets());
        }
    }
    out.put_u16(remote.port());
    frame.encode(&mut out).ok()?;
    Some(out.freeze())
}

/// Everything after the kind byte.
fn decode_request(kind: u8, mut bytes: Bytes) -> Option<(Option<Order>, SocketAddr, Frame)> {
    let order = match kind {
        peer::FORWARD_COMMIT => Some(Order::decode(&mut bytes)?),
        _ => None,
    };
    let ip: IpAddr = match bytes.try_get_u8().ok()? {
        4 => bytes.try_get_u32().ok()?.to_be_bytes().into(),
        6 => bytes.try_get_u128().ok()?.to_be_bytes().into(),
        _ => return None,
    };
    let port = bytes.try_get_u16().ok()?;
    let frame = decode_frame(bytes)?;
    Some((order, SocketAddr::new(ip, port), frame))
}

fn decode_frame(bytes: Bytes) -> Option<Frame> {
    let mut buffer = BytesMut::from(bytes);
    let frame = Frame::decode(&mut buffer).ok()??;
    buffer.is_empty().then_some(frame)
}

/// The answer of a node that cannot serve anything yet.
pub(crate) fn not_leader() -> Bytes {
    encode_answer(Answer::NotLeader)
}

fn encode_answer(answer: Answer) -> Bytes {
    let mut out = BytesMut::new();
    match answer {
        Answer::Frame(frame) => {
            out.put_u8(0);
            if let Err(error) = frame.encode(&mut out) {
                let refused = frame_too_large(&frame, &error.to_string());
                // A remark of two lines fits.
                drop(refused.encode(&mut out));
            }
        }
        Answer::NotLeader => out.put_u8(1),
        Answer::Silence => out.put_u8(2),
    }
    out.freeze()
}

fn frame_too_large(frame: &Frame, why: &str) -> Frame {
    let code = ResponseCode::SystemError;
    Frame::response(frame.opaque, frame.serialization, code)
        .with_remark(format!("the answer does not fit a frame: {why}"))
}

fn decode_answer(mut bytes: Bytes) -> Asked {
    match bytes.try_get_u8() {
        Ok(0) => match decode_frame(bytes) {
            Some(frame) => Asked::Answered(frame.into()),
            None => Asked::Unknown("the leader's answer does not decode".to_owned()),
        },
        Ok(1) => Asked::NotProposed,
        Ok(2) => Asked::Silent,
        _ => Asked::Unknown("the leader's answer does not decode".to_owned()),
    }
}

#[cfg(test)]
mod tests {
    use std::collections::{BTreeMap, BTreeSet};

    use super::*;
    use folio_protocol::frame::Serialization;

    fn status() -> Status {
        Status {
            node_id: 1,
            role: Role::Leader,
            leader: Some(1),
            term: 1,
            committed: 0,
            applied: 0,
            last: None,
            durable_position: 0,
            applied_position: 0,
            members: BTreeMap::new(),
            voters: BTreeSet::new(),
            lag: BTreeMap::new(),
            disk_full: false,
            damaged: 0,
            mended: 0,
            damaged_units: 0,
            mended_units: 0,
            damaged_snapshots: 0,
            repaired_snapshots: 0,
            start_position: 0,
            repeats: 0,
        }
    }

    /// With two looks at once, each a read lock, a change between them stopped the whole node: the second
    /// waits for the change and the change for the first.
    #[test]
    fn a_look_for_the_leader_and_a_change_of_it_do_not_wait_for_each_other() {
        const ROUNDS: usize = 1_000_000;
        let (sender, receiver) = watch::channel(status());
        let (done, ended) = std::sync::mpsc::channel();
        for _ in 0..2 {
            let (mut receiver, done) = (receiver.clone(), done.clone());
            std::thread::spawn(move || {
                assert!((0..ROUNDS).all(|_| look(&mut receiver) == (true, Some(1))));
                done.send(())
            });
        }
        std::thread::spawn(move || {
            (0..ROUNDS).for_each(|_| sender.send_modify(|status| status.committed += 1));
            done.send(())
        });
        for _ in 0..3 {
            ended.recv_timeout(Duration::from_secs(120)).expect("nobody waits for ever");
        }
    }

    fn request() -> Frame {
        Frame {
            code: RequestCode::SendMessageV2.code(),
            opaque: 7,
            serialization: Serialization::Rocketmq,
            ..Frame::default()
        }
        .with_body("hello")
    }

    #[test]
    fn a_forwarded_request_keeps_the_clients_address_and_every_byte_that_counts() {
        let order = Order { node: 2, started: 3, number: 4 };
        for (remote, order) in [("10.1.2.3:4567", None), ("[2001:db8::1]:99", Some(order))] {
            let remote: SocketAddr = remote.parse().unwrap();
            let mut bytes = encode_request(order, remote, &request()).unwrap();
            let kind = bytes.get_u8();
            assert_eq!(kind == peer::FORWARD_COMMIT, order.is_some());
            assert_eq!(decode_request(kind, bytes), Some((order, remote, request())));
        }
    }

    #[test]
    fn a_forwarded_request_that_is_cut_or_too_long_is_refused() {
        let remote = SocketAddr::from(([127, 0, 0, 1], 1));
        for order in [None, Some(Order { node: 2, started: 3, number: 4 })] {
            let mut whole = encode_request(order, remote, &request()).unwrap();
            let kind = whole.get_u8();
            for cut in 0..whole.len() {
                assert_eq!(decode_request(kind, whole.slice(..cut)), None, "cut at {cut}");
            }
            let mut longer = BytesMut::from(&whole[..]);
            longer.put_u8(0);
            assert_eq!(decode_request(kind, longer.freeze()), None);
        }
    }

    #[test]
    fn answers_come_back_as_what_they_were() {
        let frame = request().response_to(ResponseCode::SystemBusy).with_remark("later");
        let Asked::Answered(back) = decode_answer(encode_answer(Answer::Frame(frame.clone().into()))) else {
            panic!("a frame was answered");
        };
        assert_eq!(*back, frame);
        let kind = |answer| match decode_answer(answer) {
            Asked::Answered(_) => "frame",
            Asked::Silent => "silent",
            Asked::NotProposed => "not proposed",
            Asked::Unknown(_) => "unknown",
        };
        assert_eq!(kind(encode_answer(Answer::NotLeader)), "not proposed");
        assert_eq!(kind(encode_answer(Answer::Silence)), "silent");
        // An answer that cannot be read says nothing about what the leader did.
        for bytes in [&b""[..], b"\x00", b"\x00garbage!", b"\x09"] {
            assert_eq!(kind(Bytes::copy_from_slice(bytes)), "unknown");
        }
    }

    #[tokio::test]
    async fn a_reply_that_is_dropped_answers_an_error_and_a_oneway_one_is_silent() {
        let (sender, receiver) = oneshot::channel();
        drop(Reply::to_node(sender, &request()));
        let Ok(Answer::Frame(frame)) = receiver.await else { panic!("an error is answered") };
        assert_eq!((frame.code, frame.opaque), (ResponseCode::SystemError.code(), 7));
        let (sender, receiver) = oneshot::channel();
        drop(Reply::to_node(sender, &request().oneway()));
        assert!(matches!(receiver.await, Ok(Answer::Silence)), "nobody waits for it");
    }
}
