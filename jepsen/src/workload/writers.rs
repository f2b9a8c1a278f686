//! Writers that never pause while the cluster breaks.
//!
//! A producer is one client with one connection; it has a lane per queue and each lane has one
//! send in flight, numbered from 0. So a connection carries as many sends as there are queues,
//! and the order within a lane is defined. After a send that was not acknowledged a lane goes on
//! with the next number, at another broker if it has to; it never sends the same body twice. Only
//! where the shape says `resend` it does: then it sends a message of unknown outcome again, under
//! the same unique key, until it knows.

use std::ops::Range;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::time::Duration;

use parking_lot::Mutex;
use tokio::task::JoinSet;
use tokio::time::sleep;

use super::Shape;
use crate::client::{AGAIN_PATIENCE, Client, IMPATIENCE, PATIENCE, Route};
use crate::history::{Op, Outcome, Recorder};
use crate::payload::{self, OpKey};

/// First pause after a send that was not acknowledged; doubles up to the last one.
const PAUSE_MIN: Duration = Duration::from_millis(5);
/// Longest pause: it is part of every failover gap that is measured.
const PAUSE_MAX: Duration = Duration::from_millis(40);
/// How often a message is sent again before its outcome stays unknown: longer than any fault lasts.
const RESENDS_MAX: u32 = 100;
/// How often a producer asks for the route though nothing failed.
const ROUTE_EVERY: Duration = Duration::from_secs(1);

/// Where a producer's sends go.
#[derive(Debug, Clone)]
pub enum Target {
    /// To the leader the NameServers name; on failure to the other brokers in turn.
    Route,
    /// To this broker whatever happens: a client with an old route.
    Fixed(String),
}

/// Running writers.
pub struct Writers {
    stop: Arc<AtomicBool>,
    lanes: Arc<AtomicUsize>,
    tasks: JoinSet<()>,
}

impl Writers {
    /// Starts every lane of every producer, against these NameServers.
    #[must_use]
    pub fn start(name_servers: &[String], shape: &Shape, target: &Target, recorder: &Arc<Recorder>) -> Self {
        Self::start_on(name_servers, shape, target, recorder, 0..shape.queues, u64::MAX)
    }

    /// Starts the lanes of these queues, each for so many messages.
    #[must_use]
    pub fn start_on(
        name_servers: &[String],
        shape: &Shape,
        target: &Target,
        recorder: &Arc<Recorder>,
        queues: Range<u32>,
        messages_max: u64,
    ) -> Self {
        let stop = Arc::new(AtomicBool::new(false));
        let lanes = Arc::new(AtomicUsize::new(0));
        let mut tasks = JoinSet::new();
        for number in 0..shape.producers {
            let producer = Arc::new(Producer {
                number,
                client: Client::new(name_servers.to_vec(), format!("{}-producer-{number}", shape.name))
                    .with_patience(patience(number, shape.resend))
                    .closing(shape.resend),
                shape: shape.clone(),
                brokers: Mutex::new(Brokers::new(target)),
                moves: matches!(target, Target::Route),
                refreshing: AtomicBool::new(false),
                recorder: Arc::clone(recorder),
                stop: Arc::clone(&stop),
            });
            if producer.moves {
                tasks.spawn(Arc::clone(&producer).keep_route());
            }
            for topic in 0..shape.topics {
                for queue in queues.clone() {
                    lanes.fetch_add(1, Ordering::Relaxed);
                    let (lane, open) =
                        (Arc::clone(&producer).lane(topic, queue, messages_max), Arc::clone(&lanes));
                    tasks.spawn(async move {
                        lane.await;
                        open.fetch_sub(1, Ordering::Relaxed);
                    });
                }
            }
        }
        Self { stop, lanes, tasks }
    }

    /// Whether every lane has sent all its messages.
    #[must_use]
    pub fn are_done(&self) -> bool {
        self.lanes.load(Ordering::Relaxed) == 0
    }

    /// Stops after the sends in flight, which are all waited for.
    pub async fn stop(mut self) {
        self.stop.store(true, Ordering::Relaxed);
        while let Some(ended) = self.tasks.join_next().await {
            if let Err(error) = ended {
                tracing::error!(%error, "a writer ended badly");
            }
        }
    }
}

/// Producer 0 gives up soon: only so does it notice a leader that is paused and keeps its connections, and late
/// effects of sends nobody waits for any more get tested all the time.
fn patience(producer: u32, resend: bool) -> Duration {
    match (producer, resend) {
        (_, true) => AGAIN_PATIENCE,
        (0, false) => IMPATIENCE,
        _ => PATIENCE,
    }
}

struct Producer {
    number: u32,
    client: Client,
    shape: Shape,
    brokers: Mutex<Brokers>,
    moves: bool,
    refreshing: AtomicBool,
    recorder: Arc<Recorder>,
    stop: Arc<AtomicBool>,
}

/// What a producer knows of brokers, and which one it uses.
struct Brokers {
    known: Vec<String>,
    current: Option<String>,
}

impl Brokers {
    fn new(target: &Target) -> Self {
        let current = match target {
            Target::Route => None,
            Target::Fixed(address) => Some(address.clone()),
        };
        Self { known: Vec::new(), current }
    }

    /// A route came; `avoid` just failed, so take its word for a leader only if it is another one.
    fn learn(&mut self, route: &Route, avoid: Option<&str>) {
        self.known = route.values().cloned().collect();
        match route.get(&0) {
            Some(leader) if Some(leader.as_str()) != avoid => self.current = Some(leader.clone()),
            _ if avoid.is_some() || self.current.is_none() => self.turn(),
            _ => {}
        }
    }

    /// Uses the next broker after the current one.
    fn turn(&mut self) {
        let at = self.known.iter().position(|known| Some(known) == self.current.as_ref());
        let next = at.map_or(0, |at| at + 1) % self.known.len().max(1);
        self.current = self.known.get(next).cloned().or(self.current.take());
    }
}

impl Producer {
    async fn lane(self: Arc<Self>, topic: u32, queue: u32, messages_max: u64) {
        let mut pause = PAUSE_MIN;
        let mut seq = 0;
        while !self.stop.load(Ordering::Relaxed) && seq < messages_max {
            let Some(broker) = self.current() else {
                self.refresh(None).await;
                sleep(PAUSE_MIN).await;
                continue;
            };
            let key = OpKey { topic, queue, producer: self.number, seq };
            seq += 1;
            let invoked_us = self.recorder.now_us();
            let (outcome, resent) = self.send(broker, key).await;
            let acked = matches!(outcome, Outcome::Ok { .. });
            self.recorder.op(Op { key, invoked_us, completed_us: self.recorder.now_us(), resent, outcome });
            if acked {
                pause = PAUSE_MIN;
                if !self.shape.think.is_zero() {
                    sleep(self.shape.think).await;
                }
            } else {
                sleep(pause).await;
                pause = (pause * 2).min(PAUSE_MAX);
            }
        }
    }

    /// Sends a message until its outcome is known, or once; says how often it was sent again.
    async fn send(&self, mut broker: String, key: OpKey) -> (Outcome, u32) {
        let (name, unique_key) = (self.shape.topic(key.topic), payload::unique_key(self.shape.run, key));
        let mut resent = 0;
        let mut may_be_there = false;
        loop {
            let body = payload::encode(self.shape.run, key);
            let outcome = self.client.send(&broker, &name, key.queue, &unique_key, body).await;
            if !matches!(outcome, Outcome::Ok { .. }) {
                self.refresh(Some(&broker)).await;
            }
            may_be_there |= matches!(outcome, Outcome::Unknown { .. });
            let known = matches!(outcome, Outcome::Ok { .. }) || !may_be_there;
            if known || !self.shape.resend {
                return (outcome, resent);
            }
            if resent == RESENDS_MAX {
                let error = "unknown, and so after every further try".to_owned();
                return (Outcome::Unknown { error }, resent);
            }
            resent += 1;
            sleep(PAUSE_MAX).await;
            broker = self.current().unwrap_or(broker);
        }
    }

    async fn keep_route(self: Arc<Self>) {
        while !self.stop.load(Ordering::Relaxed) {
            self.refresh(None).await;
            sleep(ROUTE_EVERY).await;
        }
    }

    fn current(&self) -> Option<String> {
        self.brokers.lock().current.clone()
    }

    /// Asks for the route unless another lane does so already or has moved on meanwhile.
    async fn refresh(&self, failed: Option<&str>) {
        let moved = failed.is_some() && self.brokers.lock().current.as_deref() != failed;
        if !self.moves || moved || self.refreshing.swap(true, Ordering::AcqRel) {
            return;
        }
        match self.client.route(&self.shape.topic(0)).await {
            Ok(route) => self.brokers.lock().learn(&route, failed),
            Err(error) => {
                tracing::debug!(%error, "no route");
                if failed.is_some() {
                    self.brokers.lock().turn();
                }
            }
        }
        self.refreshing.store(false, Ordering::Release);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn route(addresses: &[(u64, &str)]) -> Route {
        addresses.iter().map(|(id, address)| (*id, (*address).to_owned())).collect()
    }

    #[test]
    fn a_producer_follows_the_leader_and_leaves_a_dead_one() {
        let mut brokers = Brokers::new(&Target::Route);
        brokers.learn(&route(&[(0, "a"), (1, "b"), (2, "c")]), None);
        assert_eq!(brokers.current.as_deref(), Some("a"));
        brokers.learn(&route(&[(0, "a"), (1, "b"), (2, "c")]), Some("a"));
        assert_eq!(brokers.current.as_deref(), Some("b"), "the route is still the old one");
        brokers.learn(&route(&[(0, "c"), (1, "a"), (2, "b")]), None);
        assert_eq!(brokers.current.as_deref(), Some("c"));
        brokers.learn(&route(&[(1, "a"), (2, "b")]), None);
        assert_eq!(brokers.current.as_deref(), Some("c"), "no leader known: stay while it works");
    }
}
