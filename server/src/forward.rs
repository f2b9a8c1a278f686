//! Requests that only the leader may answer, on their way there from the node the client knows.
//!
//! Called by the dispatcher for a request that came to a follower, and by [`Reply::fail`] when the
//! leadership was lost between dispatch and proposal.
//!
//! What goes over `Group::call`, all numbers big-endian (behind the kind byte, see `hooks.rs`):
//!
//! | part | bytes | meaning |
//! |---|---|---|
//! | order | 24 | the commit's place among others (`broker/src/turns.rs`), kind 4 only |
//! | origin | 8 and more | whose request it is, and how it came (`origin.rs`) |
//! | frame | rest | the request as the client sent it |
//!
//! The answer: see `answer.rs`.
//!
//! Invariants: forward.I1: a forwarded request is never forwarded again. forward.I2: a request is
//! handed out again only if it certainly was not proposed, or if asking twice is as good as asking once: it
//! changes nothing, or it is a commit of an offset, which says what is to be and has its place among others.
//! Of any other request, and of a commit in the end, an unknown outcome is told. forward.I3: a question for
//! a group's offset hears no error while its client waits. `turns.I1`: a commit is not handed out again once a
//! later one has come for its queue; until then it is, also where nobody knows what became of it, and a oneway one
//! where the leader could not store it.

mod node;

use std::io;
use std::sync::Arc;
use std::time::Duration;

use bytes::{BufMut, Bytes, BytesMut};
use folio_broker::ask::CLOSE_DELAY;
use folio_broker::error::BrokerError;
use folio_broker::turns::{Key, Order, Turn};
use folio_protocol::code::{RequestCode, ResponseCode};
use folio_protocol::frame::Frame;
use folio_protocol::header::{Header, QueryConsumerOffsetHeader, UpdateConsumerOffsetHeader};
use folio_raft::group::CallError;
use folio_raft::proposal::ProposeError;
use folio_raft::status::{Role, Status};
use tokio::sync::{oneshot, watch};
use tokio::time::Instant;

pub(crate) use self::node::to_node;
use crate::answer::{Answer, Asked, decode_answer, decode_frame, encode_answer, not_leader};
use crate::error::{ServerError, is_outcome_unknown};
use crate::incoming::Incoming;
use crate::origin::Origin;
use crate::pending::{OFFSET_PATIENCE, Pending};
use crate::remoting::Remoting;
use crate::reply::{HandOut, Reply};
use crate::request::Request;

/// Kind byte of a forwarded request.
pub(crate) const FORWARD: u8 = 1;
/// Kind byte of a forwarded commit, which keeps its place among others.
pub(crate) const FORWARD_COMMIT: u8 = 4;

/// How long a request waits for a leader: several elections.
const LEADER_PATIENCE: Duration = Duration::from_secs(3);
/// How long the leader may take to answer: what clients wait, and then some.
const ANSWER_PATIENCE: Duration = Duration::from_secs(5);
/// The same on a node that stops: it has to answer before it closes its connections.
const STOPPING_PATIENCE: Duration = Duration::from_secs(3);
/// Pause before the leader is asked again, even if this node hears of a change at once.
const RETRY_PAUSE: Duration = Duration::from_millis(20);
/// The leader is asked again after this long without a change here: it may know of its election a moment
/// later than this node does.
const RETRY_AFTER: Duration = Duration::from_millis(100);

/// Whether a client takes a refusal of it for an answer.
pub(crate) fn is_offset_query(frame: &Frame) -> bool {
    frame.request_code() == Some(RequestCode::QueryConsumerOffset)
}

fn is_commit(frame: &Frame) -> bool {
    frame.request_code() == Some(RequestCode::UpdateConsumerOffset)
}

/// The queue whose offset a question is about.
fn queue_asked_for(frame: &Frame) -> Option<Key> {
    if !is_offset_query(frame) {
        return None;
    }
    let header = QueryConsumerOffsetHeader::from_ext(&frame.ext).ok()?;
    let queue = u32::try_from(header.queue_id).ok()?;
    Some((header.consumer_group.to_string(), header.topic.to_string(), queue))
}

/// A turn for a request that just came from its client; none if order does not matter to it.
fn turn_of(remoting: &Remoting, frame: &Frame) -> Option<Turn> {
    if !is_commit(frame) {
        return None;
    }
    let header = UpdateConsumerOffsetHeader::from_ext(&frame.ext).ok()?;
    let queue = u32::try_from(header.queue_id).ok()?;
    Some(remoting.forwards.turns.take((header.consumer_group.to_string(), header.topic.to_string(), queue)))
}

/// When a request that came now is told that there is no leader. A question that comes after a oneway commit waits for it: the
/// commit is not given up before the question is.
fn deadline(frame: &Frame) -> Instant {
    let is_oneway_commit = frame.is_oneway() && is_commit(frame);
    let is_patient = is_oneway_commit || is_offset_query(frame);
    Instant::now() + if is_patient { OFFSET_PATIENCE } else { LEADER_PATIENCE }
}

/// The request with a reply that can be handed out again if the leadership is lost meanwhile.
pub(crate) fn armed(remoting: &Arc<Remoting>, mut request: Request) -> Request {
    if !request.is_forwarded() {
        let pending = pending(remoting, &request, true);
        request.order = pending.turn.as_ref().map(Turn::order);
        request.reply = request.reply.with_retry(remoting.clone(), pending);
    }
    request
}

fn pending(remoting: &Remoting, request: &Request, tried_here: bool) -> Pending {
    Pending {
        frame: request.frame.clone(),
        origin: origin_of(request),
        deadline: deadline(&request.frame),
        tried_here,
        is_repeatable: request.is_repeatable,
        turn: turn_of(remoting, &request.frame),
    }
}

fn origin_of(request: &Request) -> Origin {
    Origin { remote: request.remote, is_operator: request.is_operator, attempt: request.attempt }
}

/// Brings a request of a client of ours to the leader, and the answer back.
pub(crate) fn forward(remoting: &Arc<Remoting>, request: Request) {
    if request.is_forwarded() {
        // forward.I1: by a node that believed we lead.
        return request.reply.fail(BrokerError::Propose(ProposeError::NotLeader { leader: None }));
    }
    let pending = pending(remoting, &request, false);
    remoting.clone().again(pending, request.reply);
}

/// What the leader of a group answers to a copy of a request; this node, where it leads.
pub(crate) async fn by_leader(remoting: &Arc<Remoting>, request: &Request) -> Answer {
    let (sender, receiver) = oneshot::channel();
    let copy = Request {
        frame: request.frame.clone(),
        remote: request.remote,
        is_operator: request.is_operator,
        reply: Reply::to_node(sender, &request.frame),
        order: None,
        attempt: None,
        is_repeatable: request.is_repeatable,
    };
    if remoting.broker.leads() {
        remoting.dispatch(copy);
    } else {
        let pending = pending(remoting, &copy, false);
        remoting.clone().again(pending, copy.reply);
    }
    // The reply answers even when it is dropped (reply.I1): the error is for the compiler.
    receiver.await.unwrap_or(Answer::NotLeader)
}

impl HandOut for Remoting {
    fn again(self: Arc<Self>, pending: Pending, reply: Reply) {
        let under_way = self.forwards.under_way.clone();
        tokio::spawn(async move {
            // In the order they came. How many a client may have waiting is its connection's business (net.I5).
            let permit = tokio::time::timeout_at(pending.deadline, under_way.acquire_owned()).await;
            let permit = permit.ok().and_then(Result::ok);
            // forward.I3
            if permit.is_none() && !is_offset_query(&pending.frame) {
                return reply.fail(ServerError::ForwardBusy);
            }
            bring(&self, pending, reply).await;
            drop(permit);
        });
    }
}

async fn bring(remoting: &Arc<Remoting>, pending: Pending, mut reply: Reply) {
    let broker = &remoting.broker;
    let mut status = broker.group.watch();
    let encode = || encode_request(pending.turn.as_ref().map(Turn::order), &pending.origin, &pending.frame);
    let is_commit = pending.turn.is_some();
    let repeatable = pending.is_repeatable || is_commit;
    // A client that waits for no answer is told of no refusal, and does not know that it had better commit again.
    let outlasts_refusals = pending.is_repeatable || (is_commit && reply.is_oneway());
    let mut stops = None;
    if let Some(queue) = queue_asked_for(&pending.frame) {
        remoting.forwards.turns.let_pass(&queue, pending.deadline).await;
    }
    if pending.origin.attempt.is_some_and(|attempt| attempt.arrived.elapsed() >= CLOSE_DELAY) {
        // This node did not run for a while: its client may have gone meanwhile.
        tokio::time::sleep(CLOSE_DELAY).await;
    }
    if pending.tried_here {
        tokio::time::sleep(RETRY_PAUSE).await;
    }
    loop {
        let (leads, leader) = look(&mut status);
        // turns.I1
        if pending.turn.as_ref().is_some_and(Turn::is_overtaken) {
            return reply.fail(BrokerError::Overtaken);
        }
        if leads {
            return serve_here(remoting, pending, reply);
        }
        if pending.origin.attempt.is_some() && reply.channel().is_some_and(|channel| !channel.is_open()) {
            // Its client has gone and sends it again by another connection.
            return reply.fail(BrokerError::NoLeader);
        }
        if let Some(leader) = leader.filter(|leader| *leader != broker.node_id()) {
            // Once more for each question: it tells how old the request is.
            let answer = ask(remoting, leader, encode(), ANSWER_PATIENCE);
            let asked =
                if repeatable { unless_replaced(leader, &status, answer).await } else { answer.await };
            match asked {
                // It is on its way out, or cannot reach the others: the next leader will know.
                Asked::Answered(frame) if outlasts_refusals && is_unavailable(&frame) => {}
                Asked::Answered(frame) if is_commit && is_outcome_unknown(&frame) => {
                    reply.doubt(frame.remark.unwrap_or_default());
                }
                Asked::Answered(frame) => return reply.relay(*frame),
                // A oneway commit, too, where the leader is of an earlier build: it tells no more.
                Asked::Silent => return reply.done(),
                Asked::NotProposed => {}
                Asked::Unknown(why) if repeatable => {
                    tracing::debug!(leader, "asked again: {why}");
                    if is_commit {
                        reply.doubt(ServerError::OutcomeUnknown(why).to_string());
                    }
                }
                Asked::Unknown(why) => return reply.fail(ServerError::OutcomeUnknown(why)),
            }
        }
        if reply.channel().is_some_and(|channel| !channel.takes_requests()) {
            stops.get_or_insert(Instant::now() + STOPPING_PATIENCE);
        }
        let deadline = stops.map_or(pending.deadline, |stops| stops.min(pending.deadline));
        if Instant::now() >= deadline {
            return reply.fail(BrokerError::NoLeader);
        }
        tokio::time::sleep(RETRY_PAUSE).await;
        // A timeout is answered above, after one last look.
        let patience = RETRY_AFTER.min(deadline.saturating_duration_since(Instant::now()));
        drop(tokio::time::timeout(patience, status.changed()).await);
    }
}

/// What a leader says to a request that may be asked twice; it is not waited for once another node leads.
async fn unless_replaced(
    leader: u64,
    status: &watch::Receiver<Status>,
    answer: impl Future<Output = Asked>,
) -> Asked {
    let mut status = status.clone();
    let replaced = async {
        if status.wait_for(|status| status.leader.is_some_and(|now| now != leader)).await.is_err() {
            std::future::pending::<()>().await;
        }
    };
    tokio::select! {
        biased;
        asked = answer => asked,
        () = replaced => Asked::Unknown(format!("node {leader} does not lead any more")),
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
fn serve_here(remoting: &Arc<Remoting>, mut pending: Pending, reply: Reply) {
    pending.tried_here = true;
    let is_repeatable = pending.is_repeatable;
    let (frame, Origin { remote, is_operator, attempt }) = (pending.frame.clone(), pending.origin);
    let order = pending.turn.as_ref().map(Turn::order);
    let in_time = Instant::now() < pending.deadline;
    let reply = if in_time { reply.with_retry(remoting.clone(), pending) } else { reply };
    remoting.serve(Request { frame, remote, is_operator, reply, order, attempt, is_repeatable });
}

async fn ask(remoting: &Remoting, node: u64, request: Option<Bytes>, patience: Duration) -> Asked {
    let Some(request) = request else {
        return Asked::Unknown("the request does not fit a frame".to_owned());
    };
    match remoting.broker.group.call(node, request, patience).await {
        Ok(answer) => {
            let (position, asked) = decode_answer(answer);
            remoting.broker.learn_position(position);
            asked
        }
        Err(CallError::UnknownNode(_)) => Asked::NotProposed,
        // Nobody listens there, or too many wait to be sent: it was not. Every other failure may have come after it was.
        Err(CallError::NoAnswer { source, .. }) if is_unsent(&source) => Asked::NotProposed,
        Err(error) => Asked::Unknown(error.to_string()),
    }
}

fn is_unsent(error: &io::Error) -> bool {
    matches!(error.kind(), io::ErrorKind::ConnectionRefused | io::ErrorKind::ResourceBusy)
}

/// Answers a request that another node forwarded: the other end of [`ask`].
pub(crate) async fn serve(remoting: &Arc<Remoting>, kind: u8, bytes: Bytes) -> Bytes {
    let received = remoting.broker.node.stalls.arrival(Instant::now());
    let Some((order, origin, frame)) = decode_request(kind, bytes, received) else {
        tracing::error!("a forwarded request does not decode");
        return not_leader();
    };
    let Origin { remote, is_operator, attempt } = origin;
    let (sender, receiver) = oneshot::channel();
    let mut reply = Reply::to_node(sender, &frame);
    if order.is_some() {
        // turns.I1: that node hands it out again if it has to.
        reply.tell_node();
    }
    let frame = Arc::new(Incoming(frame));
    let is_repeatable = false;
    remoting.dispatch(Request { frame, remote, is_operator, reply, order, attempt, is_repeatable });
    // The reply answers even when it is dropped (reply.I1): the error is for the compiler.
    let answer = receiver.await.unwrap_or(Answer::Silence);
    encode_answer(answer, remoting.broker.group.applied_position())
}

fn encode_request(order: Option<Order>, origin: &Origin, frame: &Frame) -> Option<Bytes> {
    let mut out = BytesMut::with_capacity(frame.body.len() + 1_024);
    match order {
        None => out.put_u8(FORWARD),
        Some(order) => {
            out.put_u8(FORWARD_COMMIT);
            order.encode(&mut out);
        }
    }
    origin.put(&mut out);
    frame.encode(&mut out).ok()?;
    Some(out.freeze())
}

/// Everything after the kind byte, of a request that was received then.
fn decode_request(kind: u8, mut bytes: Bytes, received: Instant) -> Option<(Option<Order>, Origin, Frame)> {
    let order = match kind {
        FORWARD_COMMIT => Some(Order::decode(&mut bytes)?),
        _ => None,
    };
    let origin = Origin::take(&mut bytes, received)?;
    Some((order, origin, decode_frame(bytes)?))
}

#[cfg(test)]
mod tests;
