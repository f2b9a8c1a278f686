//! The good client beside every attack: it sends at a steady rate, consumes what it sent, commits where it is, and tells
//! what that was like.
//!
//! A send's latency counts from when it was due, not from when it could be made: a pause of the cluster is seen by every
//! message that was due in it.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::{Duration, Instant};

use anyhow::{Context, Result};
use parking_lot::Mutex;
use serde::Serialize;
use tokio::sync::Semaphore;
use tokio::task::JoinSet;
use tokio::time::{MissedTickBehavior, interval, sleep};

use super::meter::{Figures, Meter};
use super::seen::{self, Seen};
use crate::client::Client;
use crate::history::Outcome;

/// Its topic.
pub(crate) const TOPIC: &str = "hostile-good";
/// Its group.
pub(crate) const GROUP: &str = "hostile-good";
/// Queues of its topic, each with a consumer of its own.
pub(crate) const QUEUES: u32 = 4;
/// How it is called in its group.
pub(crate) const MEMBER: &str = "good@jepsen";

/// Messages are sent in small groups, this often.
const TICK: Duration = Duration::from_millis(5);
/// Sends in flight at most: more than the rate needs in a second.
const IN_FLIGHT_MAX: usize = 4096;
/// How long a pull waits at the broker for a message.
const HOLD: Duration = Duration::from_secs(2);
/// How often it says that it lives, and commits its offsets.
const HEARTBEAT: Duration = Duration::from_secs(5);
/// Pause of a consumer whose pull failed.
const AGAIN_AFTER: Duration = Duration::from_millis(20);
/// The leader is looked up again no more often than this.
const LOOK_UP_AGAIN: Duration = Duration::from_millis(200);

/// One stretch as the good client saw it.
#[derive(Debug, Clone, Default, Serialize)]
pub struct Served {
    /// Sends that were acknowledged: from due to acknowledged.
    pub sends: Figures,
    /// Messages that were consumed: from sent to consumed.
    pub deliveries: Figures,
    /// Sends that were refused, or whose outcome is unknown.
    pub failed: u64,
    /// What the last of them was told.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub error: Option<String>,
}

/// A client at work.
pub(crate) struct GoodClient {
    shared: Arc<Shared>,
    tasks: JoinSet<()>,
}

struct Shared {
    client: Client,
    brokers: Vec<String>,
    run: u64,
    leader: Mutex<(String, Instant)>,
    next: AtomicU64,
    seen: Seen,
    sends: Meter,
    deliveries: Meter,
    /// When each message was sent, the latest ones.
    sent: Mutex<Recent>,
    failed: AtomicU64,
    error: Mutex<Option<String>>,
    stopped: AtomicBool,
    offsets: [AtomicU64; QUEUES as usize],
}

/// When the latest messages were sent.
struct Recent(Vec<(u64, Instant)>);

impl Recent {
    fn note(&mut self, seq: u64, at: Instant) {
        let place = seq as usize % self.0.len();
        self.0[place] = (seq, at);
    }

    fn at(&self, seq: u64) -> Option<Instant> {
        let (found, at) = self.0[seq as usize % self.0.len()];
        (found == seq).then_some(at)
    }
}

impl GoodClient {
    /// Begins to send so many messages a second. Its topic is there already.
    ///
    /// # Errors
    /// When it cannot join its group.
    pub(crate) async fn start(
        name_servers: Vec<String>,
        brokers: Vec<String>,
        run: u64,
        rate: u32,
    ) -> Result<Self> {
        let client = Client::new(name_servers, GROUP).with_member(MEMBER);
        let route = client.route(TOPIC).await?;
        let leader = route.get(&0).context("the topic's route has no leader")?.clone();
        client.subscribe(&leader, &[TOPIC.to_owned()]).await.context("join the group")?;
        let now = Instant::now();
        let shared = Arc::new(Shared {
            client,
            brokers,
            run,
            leader: Mutex::new((leader, now)),
            next: AtomicU64::new(0),
            seen: Seen::default(),
            sends: Meter::new(),
            deliveries: Meter::new(),
            sent: Mutex::new(Recent(vec![(u64::MAX, now); 1 << 16])),
            failed: AtomicU64::new(0),
            error: Mutex::new(None),
            stopped: AtomicBool::new(false),
            offsets: Default::default(),
        });
        let mut tasks = JoinSet::new();
        tasks.spawn(produce(Arc::clone(&shared), rate));
        tasks.spawn(keep_alive(Arc::clone(&shared)));
        for queue in 0..QUEUES {
            tasks.spawn(consume(Arc::clone(&shared), queue));
        }
        Ok(Self { shared, tasks })
    }

    /// Ends a stretch: what it was like.
    #[must_use]
    pub(crate) fn take(&self) -> Served {
        Served {
            sends: self.shared.sends.take(),
            deliveries: self.shared.deliveries.take(),
            failed: self.shared.failed.swap(0, Ordering::Relaxed),
            error: self.shared.error.lock().take(),
        }
    }

    /// Waits until everything acknowledged by now was consumed, so long at most; how many were not.
    pub(crate) async fn missing(&self, patience: Duration) -> u64 {
        let (started, end) = (Instant::now(), self.shared.next.load(Ordering::Relaxed));
        loop {
            let missing = self.shared.seen.missing_before(end);
            if missing == 0 || started.elapsed() >= patience {
                return missing;
            }
            sleep(Duration::from_millis(20)).await;
        }
    }

    /// Sends no more, and waits until everything acknowledged was consumed, so long at most; how many were not, and how
    /// many were acknowledged.
    pub(crate) async fn stop(mut self, patience: Duration) -> (u64, u64) {
        self.shared.stopped.store(true, Ordering::Relaxed);
        let missing = self.missing(patience).await;
        self.tasks.shutdown().await;
        (missing, self.shared.seen.acknowledged())
    }
}

async fn produce(shared: Arc<Shared>, rate: u32) {
    let room = Arc::new(Semaphore::new(IN_FLIGHT_MAX));
    let mut ticks = interval(TICK);
    ticks.set_missed_tick_behavior(MissedTickBehavior::Burst);
    let each = TICK.as_secs_f64() * f64::from(rate);
    let mut owed = 0.0;
    while !shared.stopped.load(Ordering::Relaxed) {
        let due = ticks.tick().await.into_std();
        owed += each;
        while owed >= 1.0 {
            owed -= 1.0;
            let Ok(slot) = Arc::clone(&room).acquire_owned().await else { return };
            let shared = Arc::clone(&shared);
            tokio::spawn(async move {
                shared.send(due).await;
                drop(slot);
            });
        }
    }
}

impl Shared {
    async fn send(&self, due: Instant) {
        let seq = self.next.fetch_add(1, Ordering::Relaxed);
        self.sent.lock().note(seq, due);
        let broker = self.leader.lock().0.clone();
        let key = format!("{:016X}{seq:016X}", self.run);
        let queue = (seq % u64::from(QUEUES)) as u32;
        let outcome = self.client.send(&broker, TOPIC, queue, &key, seen::body(self.run, seq)).await;
        match outcome {
            Outcome::Ok { .. } => {
                self.seen.acknowledge(seq);
                self.sends.done(due);
            }
            Outcome::Fail { error } | Outcome::Unknown { error } => {
                self.failed.fetch_add(1, Ordering::Relaxed);
                *self.error.lock() = Some(error);
                self.look_up(&broker).await;
            }
        }
    }

    /// Asks where the leader is, unless somebody just did.
    async fn look_up(&self, failed: &str) {
        {
            let mut leader = self.leader.lock();
            if leader.0 != failed || leader.1.elapsed() < LOOK_UP_AGAIN {
                return;
            }
            leader.1 = Instant::now();
        }
        if let Ok(route) = self.client.route(TOPIC).await
            && let Some(found) = route.get(&0)
        {
            *self.leader.lock() = (found.clone(), Instant::now());
        }
    }

    fn consumed(&self, body: &[u8]) {
        if let Some(seq) = seen::parse(self.run, body)
            && self.seen.consume(seq)
            && let Some(at) = self.sent.lock().at(seq)
        {
            self.deliveries.done(at);
        }
    }
}

async fn consume(shared: Arc<Shared>, queue: u32) {
    let (mut offset, mut failures) = (0, 0usize);
    loop {
        // At the leader first; at another node each time after it failed.
        let broker = match failures {
            0 => shared.leader.lock().0.clone(),
            _ => shared.brokers[failures % shared.brokers.len()].clone(),
        };
        match shared.client.pull_held(&broker, TOPIC, queue, offset, HOLD).await {
            Ok(pulled) => {
                failures = 0;
                for message in &pulled.messages {
                    shared.consumed(&message.body);
                }
                offset = pulled.messages.last().map_or(offset, |message| message.offset + 1);
                shared.offsets[queue as usize].store(offset, Ordering::Relaxed);
                if pulled.messages.is_empty() {
                    // A broker that holds no pull any more answers at once.
                    sleep(TICK).await;
                }
            }
            Err(error) => {
                tracing::debug!(queue, error = format!("{error:#}"), "the good client cannot pull");
                failures += 1;
                sleep(AGAIN_AFTER).await;
            }
        }
    }
}

async fn keep_alive(shared: Arc<Shared>) {
    let mut ticks = interval(HEARTBEAT);
    ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
    loop {
        ticks.tick().await;
        let leader = shared.leader.lock().0.clone();
        if let Err(error) = shared.client.subscribe(&leader, &[TOPIC.to_owned()]).await {
            tracing::debug!(error = format!("{error:#}"), "the good client's heartbeat");
        }
        for queue in 0..QUEUES {
            let offset = shared.offsets[queue as usize].load(Ordering::Relaxed);
            if let Err(error) = shared.client.commit(&leader, TOPIC, queue, offset).await {
                tracing::debug!(%error, "the good client's commit");
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_the_latest_messages_times_are_known() {
        let now = Instant::now();
        let mut recent = Recent(vec![(u64::MAX, now); 4]);
        let later = now + Duration::from_secs(1);
        recent.note(1, now);
        recent.note(5, later);
        assert_eq!((recent.at(1), recent.at(5), recent.at(2)), (None, Some(later), None));
    }
}
