//! Pulls that are held until a message comes, or their time is over.
//!
//! Only pulls of this node's own clients are held: a forwarded one is answered at once, and the node that
//! forwarded it holds its successor.

use std::sync::atomic::Ordering;
use std::sync::{Arc, Weak};
use std::time::{Duration, Instant};

use folio_engine::queues::Arrival;
use folio_protocol::Name;

use super::{Pass, Pull, answer};
use crate::broker::Broker;
use crate::net::Channel;
use crate::polls::{Poll, PollTable};
use crate::request::Request;

/// How exact deadlines of held pulls are.
const TICK: Duration = Duration::from_millis(100);

/// A pull that waits for a message.
pub struct Parked {
    broker: Arc<Broker>,
    pull: Pull,
    request: Request,
}

/// Holds a pull; answers it at once if there is no room to hold it.
pub(super) fn park(broker: &Arc<Broker>, pull: Pull, request: Request, wait: Duration) {
    let (topic, queue): (Name, u32) = (pull.header.topic.clone(), pull.subject.queue);
    let offset = u64::try_from(pull.header.queue_offset).unwrap_or(0);
    let channel = request.channel().cloned();
    let poll = Poll {
        topic: topic.clone(),
        queue,
        offset,
        filter: pull.subject.filter.clone(),
        deadline: Instant::now() + wait,
        connection: request.channel().map_or(0, Channel::id),
        payload: Parked { broker: broker.clone(), pull, request },
    };
    start_timer(broker);
    let ticket = match broker.polls.park(poll) {
        Ok(ticket) => ticket,
        Err(poll) => return release(poll),
    };
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

impl PollTable<Parked> {
    /// Answers the pulls that wait for these messages. Called where records are applied, which must not
    /// wait for the answers to be made.
    pub fn arrived(&self, arrivals: &[Arrival]) {
        let woken = self.wake(arrivals);
        if !woken.is_empty() {
            drop(tokio::spawn(async move { woken.into_iter().for_each(release) }));
        }
    }

    /// Answers every pull that is held: the node stops.
    pub fn release_all(&self) {
        self.drain().into_iter().for_each(release);
    }

    /// Forgets the pulls of a connection that has closed.
    pub fn closed(&self, connection: u64) {
        // The answers go nowhere; they are given so that no reply is dropped unused.
        self.close(connection).into_iter().for_each(|poll| poll.payload.request.reply.done());
    }
}

/// Starts the task that answers pulls at their deadline, with the first pull that is held.
fn start_timer(broker: &Arc<Broker>) {
    if !broker.state.poll_timer_runs.swap(true, Ordering::Relaxed) {
        drop(tokio::spawn(run_timer(Arc::downgrade(broker))));
    }
}

async fn run_timer(broker: Weak<Broker>) {
    while let Some(broker) = broker.upgrade() {
        broker.polls.expire(Instant::now()).into_iter().for_each(release);
        drop(broker);
        tokio::time::sleep(TICK).await;
    }
}
