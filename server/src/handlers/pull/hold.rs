//! Pulls that are held until a message comes, or their time is over.
//!
//! Only pulls of this node's own clients are held: a forwarded one is answered at once, and the node that
//! forwarded it holds its successor.

use std::sync::atomic::Ordering;
use std::sync::{Arc, Weak};
use std::time::{Duration, Instant};

use folio_broker::polls::{Arrivals, Poll, PollTable, Ticket};
use folio_protocol::Name;

use super::{Pass, Pull, answer};
use crate::broker::Broker;
use crate::net::Channel;
use crate::request::Request;

/// How exact deadlines of held pulls are.
const TICK: Duration = Duration::from_millis(100);
/// Held pulls that are taken and answered together; between them other tasks run.
const TOGETHER_MAX: usize = 64;

/// What each tag of a held pull has in the index.
const INDEX_BYTES: usize = 256;

/// A pull that waits for a message.
pub struct Parked {
    broker: Arc<Broker>,
    pull: Pull,
    request: Request,
}

/// Holds a pull.
pub(super) fn park(broker: &Arc<Broker>, pull: Pull, mut request: Request, wait: Duration) {
    request.reply.hold();
    let (topic, queue): (Name, u32) = (pull.header.topic.clone(), pull.subject.queue);
    let offset = u64::try_from(pull.header.queue_offset).unwrap_or(0);
    let channel = request.channel().cloned();
    let filter = pull.subject.filter.clone();
    let now = Instant::now();
    let poll = Poll {
        topic: topic.clone(),
        queue,
        offset,
        bytes: filter.bytes() + filter.codes().len() * INDEX_BYTES + request.frame.header_bytes(),
        filter,
        deadline: now + wait,
        connection: request.channel().map_or(0, Channel::id),
        payload: Parked { broker: broker.clone(), pull, request },
    };
    start_task(broker);
    let (ticket, left) = broker.polls.park(poll, now);
    left.into_iter().for_each(release);
    let takes_requests = channel.is_none_or(|channel| channel.takes_requests());
    // polls.I1: what arrived before it was parked woke nobody. A node that stops has answered all it held by now.
    let arrived = broker.group.queues().bounds(&topic, queue).is_some_and(|(_, max)| max > offset);
    if arrived || !takes_requests {
        broker.polls.take(ticket).into_iter().for_each(release);
    }
}

/// Answers a pull that was held.
fn release(poll: Poll<Parked>) {
    let Parked { broker, pull, request } = poll.payload;
    if request.channel().is_some_and(|channel| !channel.is_open()) {
        return request.reply.done();
    }
    answer(&broker, pull, request, Pass::Held);
}

/// Answers every pull that is held: the node stops.
pub(crate) fn release_all(polls: &PollTable<Parked>) {
    polls.drain().into_iter().for_each(release);
}

/// Forgets the pulls of a connection that has closed.
pub(crate) fn closed(polls: &PollTable<Parked>, connection: u64) {
    // The answers go nowhere; they are given so that no reply is dropped unused.
    polls.close(connection).into_iter().for_each(|poll| poll.payload.request.reply.done());
}

/// Starts the task that answers held pulls, with the first one. It runs where clients are served: a pull is held there, and
/// never on the group's thread, which holds none for other nodes.
fn start_task(broker: &Arc<Broker>) {
    if !broker.state.poll_task_runs.swap(true, Ordering::Relaxed) {
        drop(tokio::spawn(run(Arc::downgrade(broker), broker.polls.arrivals())));
    }
}

/// Wakes the pulls that arrivals answer, and ends those whose time is over.
async fn run(broker: Weak<Broker>, arrivals: Arc<Arrivals>) {
    let mut next_tick = Instant::now() + TICK;
    loop {
        drop(tokio::time::timeout_at(next_tick.into(), arrivals.come()).await);
        let Some(broker) = broker.upgrade() else { return };
        release_together(&broker, &broker.polls.answered_by(&arrivals.take())).await;
        let now = Instant::now();
        if now >= next_tick {
            release_together(&broker, &broker.polls.expired(now)).await;
            next_tick = now + TICK;
        }
    }
}

/// Answers these pulls, some at a time, each some in a task of its own.
async fn release_together(broker: &Broker, tickets: &[Ticket]) {
    for some in tickets.chunks(TOGETHER_MAX) {
        let polls = broker.polls.take_all(some);
        drop(tokio::spawn(async move { polls.into_iter().for_each(release) }));
        tokio::task::yield_now().await;
    }
}
