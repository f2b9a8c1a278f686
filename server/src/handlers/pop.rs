//! POP: 200050 gives messages, 200052 shows them, 200054 says whether there are any, 200055 how many requests wait for some.
//!
//! | what came of a pop | code |
//! |---|---|
//! | messages | 0 |
//! | nothing, after waiting | 210 |
//! | nothing, and too many wait | 209 |
//!
//! Only the leader pops. A request waits at the node that its client is connected to, which asks the leader, itself where it leads, again when a
//! message comes: a forwarded request is answered at once.

use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use folio_broker::clock::now_ms;
use folio_broker::error::BrokerError;
use folio_broker::pop::{Given, ToPop};
use folio_protocol::Name;
use folio_protocol::code::ResponseCode;
use folio_protocol::frame::Frame;
use folio_protocol::header::{
    Header, NotificationHeader, NotificationResponseHeader, PeekMessageHeader, PollingInfoHeader,
    PollingInfoResponseHeader, PopMessageHeader, PopMessageResponseHeader,
};
use folio_protocol::popped::ORDERED;
use folio_raft::proposal::ProposeError;
use tokio::time::{Instant, sleep, timeout};

use super::creating::create_and_serve;
use crate::answer::Answer;
use crate::forward;
use crate::remoting::Remoting;
use crate::reply::Reply;
use crate::request::Request;

/// A request is held at most this long, whatever it asks for.
const HOLD_MAX: Duration = Duration::from_secs(120);
/// One that is held looks again after so long: an offset may have been reset, which wakes nobody.
const LOOK_INTERVAL: Duration = Duration::from_secs(5);
/// The same once a message woke it in vain: the leader may see that message a moment after this node.
const LOOK_INTERVAL_WOKEN: Duration = Duration::from_millis(100);
/// The same of a group that consumes in order, woken or not: its queue may be free again.
const LOOK_INTERVAL_ORDERED: Duration = Duration::from_millis(100);
/// How long a request waits for a leader at least, and the pause before one is looked for again.
const LEADER_TIMEOUT: Duration = Duration::from_secs(3);
const RETRY_PAUSE: Duration = Duration::from_millis(20);
/// A request that came so long after its time was over is not served.
const LATE: Duration = Duration::from_millis(500);
/// The value of `initMode` for a group that begins behind the last message.
const AT_END: i32 = 1;

/// Who waits, for what, and how long.
struct Hold {
    group: Name,
    topic: Name,
    queue_id: i32,
    is_ordered: bool,
    deadline: Instant,
}

impl Hold {
    /// `None`: its time was over before it came.
    fn new(
        (group, topic, queue_id): (&Name, &Name, i32),
        is_ordered: bool,
        (born, poll): (i64, i64),
    ) -> Option<Hold> {
        let ms = |ms: i64| Duration::from_millis(u64::try_from(ms).unwrap_or(0));
        let age = if born > 0 {
            ms(i64::try_from(now_ms()).unwrap_or(i64::MAX).saturating_sub(born))
        } else {
            ms(0)
        };
        if age > ms(poll) + LATE && poll > 0 {
            return None;
        }
        let deadline = Instant::now() + ms(poll).saturating_sub(age).min(HOLD_MAX);
        Some(Hold { group: group.clone(), topic: topic.clone(), queue_id, is_ordered, deadline })
    }

    /// How long to wait for a message before the next look.
    fn wait(&self, was_woken: bool) -> Duration {
        let interval = match (self.is_ordered, was_woken) {
            (true, _) => LOOK_INTERVAL_ORDERED,
            (false, true) => LOOK_INTERVAL_WOKEN,
            (false, false) => LOOK_INTERVAL,
        };
        self.deadline.saturating_duration_since(Instant::now()).min(interval)
    }

    fn goes_on(&self, request: &Request) -> bool {
        Instant::now() < self.deadline && !has_ended(request)
    }
}

/// 200050: gives messages.
pub(crate) fn pop(remoting: &Arc<Remoting>, request: Request) {
    let header = match PopMessageHeader::from_ext(&request.frame.ext) {
        Ok(header) => header,
        Err(error) => return request.reply.fail(error),
    };
    let is_ordered = header.order == Some(true);
    let queue = (&header.consumer_group, &header.topic, header.queue_id);
    let Some(hold) = Hold::new(queue, is_ordered, (header.born_time, header.poll_time)) else {
        return request
            .reply
            .error(ResponseCode::PollingTimeout, "the broker pop message is timeout too much");
    };
    if !request.is_forwarded() {
        return held(remoting, request, hold, |frame| frame.code == ResponseCode::PollingTimeout.code());
    }
    if !remoting.broker.leads() {
        return request.reply.fail(not_leader());
    }
    let wish = wish_of(header);
    let remoting = remoting.clone();
    tokio::spawn(async move {
        match remoting.broker.pop(&wish).await {
            Ok(given) => answer(request.reply, wish.attempt.is_some(), given),
            Err(BrokerError::GroupNotExist(group)) if !remoting.broker.has_group(&group) => {
                create_and_serve(&remoting, group, request);
            }
            Err(error) => request.reply.fail(error),
        }
    });
}

fn wish_of(header: PopMessageHeader) -> ToPop {
    let attempt = header.attempt_id.unwrap_or_default();
    ToPop {
        group: header.consumer_group,
        topic: header.topic,
        queue_id: header.queue_id,
        messages_max: header.max_msg_nums,
        invisible_ms: header.invisible_time,
        begins_at_end: header.init_mode == AT_END,
        expression: header.expression,
        expression_kind: header.expression_type,
        attempt: (header.order == Some(true)).then_some(attempt),
    }
}

fn not_leader() -> BrokerError {
    BrokerError::Propose(ProposeError::NotLeader { leader: None })
}

/// A request of a client of this node: asks the leader again and again, until it has something or time is over.
fn held(remoting: &Arc<Remoting>, mut request: Request, hold: Hold, is_nothing: fn(&Frame) -> bool) {
    let remoting = remoting.clone();
    tokio::spawn(async move {
        let (mut is_held, mut was_woken) = (false, false);
        let gives_up = Instant::now() + LEADER_TIMEOUT;
        loop {
            // Before the look: what comes after it wakes.
            let waits = Instant::now() < hold.deadline;
            let waiter = waits.then(|| remoting.broker.wait_for_pop(&hold.group, &hold.topic, hold.queue_id));
            let frame = match forward::by_leader(&remoting, &request).await {
                Answer::Frame(frame) => *frame,
                Answer::NotLeader if Instant::now() < gives_up || hold.goes_on(&request) => {
                    sleep(RETRY_PAUSE).await;
                    continue;
                }
                Answer::NotLeader => return request.reply.fail(BrokerError::NoLeader),
                Answer::Silence => return request.reply.done(),
            };
            if !is_nothing(&frame) {
                return request.reply.relay(frame);
            }
            let waiter = match waiter {
                None => return request.reply.relay(frame),
                Some(Err(_)) => return full(request.reply, frame),
                Some(Ok(waiter)) => waiter,
            };
            // Before the wait: a node that stops has woken by now all that it will.
            if has_ended(&request) {
                return request.reply.relay(frame);
            }
            if !is_held {
                request.reply.hold();
                is_held = true;
            }
            if has_more(&frame) {
                continue;
            }
            was_woken = timeout(hold.wait(was_woken), waiter.woken()).await.is_ok();
            if has_ended(&request) {
                if was_woken {
                    waiter.pass_on();
                }
                return request.reply.relay(frame);
            }
        }
    });
}

/// Whether the leader has not come to the end of what there is: it has found nothing yet that is wanted.
fn has_more(frame: &Frame) -> bool {
    frame.code == ResponseCode::PollingTimeout.code()
        && PopMessageResponseHeader::from_ext(&frame.ext).is_ok_and(|header| header.rest_num > 0)
}

/// Whether a request is not to wait any longer: its client has gone, or the node stops.
fn has_ended(request: &Request) -> bool {
    request.channel().is_some_and(|channel| !channel.is_open() || !channel.takes_requests())
}

/// Too many wait (`pop.I6`).
fn full(reply: Reply, frame: Frame) {
    if frame.code == ResponseCode::PollingTimeout.code() {
        return reply.error(ResponseCode::PollingFull, "too many requests wait for messages of this topic");
    }
    reply.ok(&NotificationResponseHeader { has_message: false, polling_full: Some(true) }, Bytes::new());
}

fn answer(reply: Reply, is_ordered: bool, given: Given) {
    let code = if given.batches.is_empty() { ResponseCode::PollingTimeout } else { ResponseCode::Success };
    let header = header_of(&given, is_ordered);
    reply.parts(code, &header, given.messages);
}

/// What a client makes the handles of.
fn header_of(given: &Given, is_ordered: bool) -> PopMessageResponseHeader {
    let (mut starts, mut offsets, mut counts) = (Vec::new(), Vec::new(), Vec::new());
    for batch in &given.batches {
        let (flag, queue) = (batch.retry.flag(), batch.queue);
        starts.push(format!("{flag} {queue} {}", batch.start));
        let of_batch: Vec<String> = batch.offsets.iter().map(u64::to_string).collect();
        offsets.push(format!("{flag} {queue} {}", of_batch.join(",")));
        if is_ordered {
            counts.push(format!("{flag} {queue} {}", batch.attempts));
            let of_offset = |offset| format!("{flag} qo{queue}%{offset} {}", batch.attempts);
            counts.extend(batch.offsets.iter().map(of_offset));
        }
    }
    let joined = |parts: Vec<String>| (!parts.is_empty()).then(|| parts.join(";"));
    PopMessageResponseHeader {
        pop_time: given.popped_ms.cast_signed(),
        invisible_time: given.invisible_ms.cast_signed(),
        revive_queue_id: if is_ordered { ORDERED } else { 0 },
        rest_num: given.rest.cast_signed(),
        start_offset_info: joined(starts),
        msg_offset_info: joined(offsets),
        order_count_info: joined(counts),
    }
}

/// 200052: shows messages.
pub(crate) fn peek(remoting: &Arc<Remoting>, request: Request) {
    let header = match PeekMessageHeader::from_ext(&request.frame.ext) {
        Ok(header) => header,
        Err(error) => return request.reply.fail(error),
    };
    let wish = question(header.consumer_group, header.topic, header.queue_id, header.max_msg_nums);
    let broker = remoting.broker.clone();
    tokio::spawn(async move {
        match broker.peek(&wish).await {
            Ok(given) if given.batches.is_empty() => {
                request.reply.answer(
                    ResponseCode::PullNotFound,
                    None,
                    &header_of(&given, false),
                    Bytes::new(),
                );
            }
            Ok(given) => answer(request.reply, false, given),
            Err(error) => request.reply.fail(error),
        }
    });
}

fn question(group: Name, topic: Name, queue_id: i32, messages_max: i32) -> ToPop {
    ToPop {
        group,
        topic,
        queue_id,
        messages_max,
        invisible_ms: 1,
        begins_at_end: false,
        expression: None,
        expression_kind: None,
        attempt: None,
    }
}

/// 200054: says whether there is something to pop.
pub(crate) fn notify(remoting: &Arc<Remoting>, request: Request) {
    let header = match NotificationHeader::from_ext(&request.frame.ext) {
        Ok(header) => header,
        Err(error) => return request.reply.fail(error),
    };
    let is_ordered = header.order == Some(true);
    if !request.is_forwarded() {
        let queue = (&header.consumer_group, &header.topic, header.queue_id);
        let hold = Hold::new(queue, is_ordered, (header.born_time, header.poll_time));
        let hold = hold.or_else(|| Hold::new(queue, is_ordered, (0, 0)));
        let is_nothing = |frame: &Frame| {
            frame.code == ResponseCode::Success.code()
                && NotificationResponseHeader::from_ext(&frame.ext).is_ok_and(|header| !header.has_message)
        };
        return match hold {
            Some(hold) => held(remoting, request, hold, is_nothing),
            None => drop(request),
        };
    }
    if !remoting.broker.leads() {
        return request.reply.fail(not_leader());
    }
    let asked = question(header.consumer_group, header.topic, header.queue_id, 1);
    let attempt = is_ordered.then(|| header.attempt_id.unwrap_or_default());
    match remoting.broker.has_popable(&ToPop { attempt, ..asked }) {
        Ok(has_message) => {
            let header = NotificationResponseHeader { has_message, polling_full: Some(false) };
            request.reply.ok(&header, Bytes::new());
        }
        Err(error) => request.reply.fail(error),
    }
}

/// 200055: how many requests wait at this node.
pub(crate) fn polling_info(remoting: &Arc<Remoting>, request: Request) {
    match PollingInfoHeader::from_ext(&request.frame.ext) {
        Ok(header) => {
            let waiting =
                remoting.broker.waiting_pops(&header.consumer_group, &header.topic, header.queue_id);
            let polling_num = i32::try_from(waiting).unwrap_or(i32::MAX);
            request.reply.ok(&PollingInfoResponseHeader { polling_num }, Bytes::new());
        }
        Err(error) => request.reply.fail(error),
    }
}

#[cfg(test)]
mod tests {
    use folio_broker::pop::GivenBatch;
    use folio_protocol::popped::Retry;

    use super::*;

    #[test]
    fn a_client_is_told_what_it_makes_handles_of() {
        let batch = |retry, queue, start, offsets| GivenBatch { retry, queue, start, offsets, attempts: 2 };
        let batches = vec![batch(Retry::Normal, 3, 4, vec![4, 6]), batch(Retry::V1, 0, 9, vec![9])];
        let given =
            Given { popped_ms: 100, invisible_ms: 60, rest: 5, batches, messages: Vec::new(), memory: None };
        let header = header_of(&given, false);
        assert_eq!(header.start_offset_info.as_deref(), Some("0 3 4;1 0 9"));
        assert_eq!(header.msg_offset_info.as_deref(), Some("0 3 4,6;1 0 9"));
        assert_eq!((header.order_count_info, header.revive_queue_id), (None, 0));
        let header = header_of(&given, true);
        let counts = "0 3 2;0 qo3%4 2;0 qo3%6 2;1 0 2;1 qo0%9 2";
        assert_eq!(header.order_count_info.as_deref(), Some(counts));
        assert_eq!(header.revive_queue_id, ORDERED);
    }

    #[test]
    fn a_request_whose_time_was_over_is_not_held() {
        let name: Name = "n".into();
        let hold = |born, poll| Hold::new((&name, &name, -1), false, (born, poll));
        let now = now_ms().cast_signed();
        assert!(hold(now - 20_000, 15_000).is_none());
        let left =
            |hold: Option<Hold>| hold.expect("held").deadline.saturating_duration_since(Instant::now());
        assert!(left(hold(now, 15_000)) > Duration::from_secs(14));
        assert!(left(hold(0, i64::MAX)) <= HOLD_MAX && left(hold(now, 0)).is_zero());
    }

    #[test]
    fn a_request_that_was_woken_in_vain_looks_again_soon() {
        let name: Name = "n".into();
        let hold = |is_ordered, poll| Hold::new((&name, &name, -1), is_ordered, (0, poll)).expect("held");
        let (whole, in_order) = (hold(false, 60_000), hold(true, 60_000));
        assert_eq!([whole.wait(false), whole.wait(true)], [LOOK_INTERVAL, LOOK_INTERVAL_WOKEN]);
        assert_eq!([in_order.wait(false), in_order.wait(true)], [LOOK_INTERVAL_ORDERED; 2]);
        assert!(hold(false, 1_000).wait(false) <= Duration::from_secs(1));
    }
}
