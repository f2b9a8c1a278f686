//! Pulls that are held until a message comes, or their time is over.
//!
//! Only pulls of this node's own clients are held: a forwarded one is answered at once, and the node that
//! forwarded it holds its successor.

use std::sync::atomic::Ordering;
use std::sync::{Arc, Weak};
use std::time::{Duration, Instant};

use folio_protocol::Name;

use super::respond::{Pull, Puller};
use crate::broker::Broker;
use crate::connection::{Connection, Reader};
use crate::polls::{Arrivals, Held, Poll, Ticket};

/// How exact deadlines of held pulls are.
const TICK: Duration = Duration::from_millis(100);
/// Held pulls that are taken and answered together; between them other tasks run.
const TOGETHER_MAX: usize = 64;

/// What each tag of a held pull has in the index.
const INDEX_BYTES: usize = 256;

/// A pull that waits for a message.
struct Parked<P> {
    broker: Arc<Broker>,
    pull: Pull,
    puller: P,
    release: Release<P>,
}

/// How a held pull goes on.
type Release<P> = fn(&Arc<Broker>, Pull, P);

/// Holds a pull; `release` goes on with it.
pub(super) fn park<P: Puller>(
    broker: &Arc<Broker>,
    pull: Pull,
    mut puller: P,
    wait: Duration,
    release: Release<P>,
) {
    puller.hold();
    let (topic, queue): (Name, u32) = (pull.topic.clone(), pull.subject.queue);
    let offset = u64::try_from(pull.offset).unwrap_or(0);
    let filter = pull.subject.filter.clone();
    let now = Instant::now();
    let connection = puller.connection().cloned();
    let poll = Poll {
        topic: topic.clone(),
        queue,
        offset,
        bytes: filter.bytes() + filter.codes().len() * INDEX_BYTES + puller.held_bytes(),
        filter,
        deadline: now + wait,
        connection: connection.as_ref().map_or(0, Connection::id),
        payload: Box::new(Parked { broker: broker.clone(), pull, puller, release }) as Box<dyn Held>,
    };
    start_task(broker);
    let (ticket, left) = broker.polls.park(poll, now);
    left.into_iter().for_each(|poll| poll.payload.release());
    let takes_requests = connection.is_none_or(|connection| connection.takes_requests());
    // polls.I1: what arrived before it was parked woke nobody. A node that stops has answered all it held by now.
    let arrived = broker.group.queues().bounds(&topic, queue).is_some_and(|(_, max)| max > offset);
    if arrived || !takes_requests {
        broker.polls.take(ticket).into_iter().for_each(|poll| poll.payload.release());
    }
}

impl<P: Puller> Held for Parked<P> {
    fn release(self: Box<Self>) {
        let Parked { broker, pull, puller, release } = *self;
        if puller.connection().is_some_and(|connection| !connection.is_open()) {
            return puller.gone();
        }
        release(&broker, pull, puller);
    }

    fn gone(self: Box<Self>) {
        self.puller.gone();
    }
}

/// Starts the task that answers held pulls, with the first one. It runs where clients are served: a pull is held there, and
/// never on the group's thread, which holds none for other nodes.
fn start_task(broker: &Arc<Broker>) {
    if !broker.poll_task_runs.swap(true, Ordering::Relaxed) {
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
        drop(tokio::spawn(async move { polls.into_iter().for_each(|poll| poll.payload.release()) }));
        tokio::task::yield_now().await;
    }
}
