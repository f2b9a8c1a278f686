//! Reads queues through one node's own port: to the end when all is over, or all the time.

use std::collections::{BTreeMap, HashSet};
use std::sync::Arc;
use std::sync::atomic::{AtomicU8, AtomicU64, Ordering};
use std::time::Duration;

use anyhow::{Context, Result, ensure};
use tokio::task::{JoinHandle, JoinSet};
use tokio::time::{Instant, sleep, timeout};

use crate::client::{Client, Pulled};
use crate::history::{Poll, Recorder};
use crate::nemesis::Dice;
use crate::reading::{Found, QueueKey, Reading};
use crate::workload::Shape;

/// Pause of a live reader when no queue had anything new, or the node is down.
const IDLE: Duration = Duration::from_millis(20);
/// Pause of a reader of old messages after each pull of every queue: what it is given is kept in the history.
const EASE: Duration = Duration::from_millis(100);
/// How often a reader of old messages starts over.
const OVER_EVERY: Duration = Duration::from_secs(4);
/// How often a pull of the final reading is tried again; the nodes are up and at rest by then.
const TRIES_MAX: u32 = 20;

/// Reads every queue from its beginning to its end at one broker.
///
/// # Errors
/// When the broker does not answer, or a queue makes no progress before its end.
pub async fn read_to_end(client: &Arc<Client>, broker: &str, reader: &str, shape: &Shape) -> Result<Reading> {
    client.subscribe(broker, &shape.topic_names()).await?;
    let mut tasks = JoinSet::new();
    for place in shape.places() {
        let (client, broker, shape) = (Arc::clone(client), broker.to_owned(), shape.clone());
        tasks.spawn(async move { (place, read_queue(&client, &broker, &shape, place).await) });
    }
    let mut reading = Reading { reader: reader.to_owned(), ..Reading::default() };
    while let Some(ended) = tasks.join_next().await {
        let (place, read) = ended.context("a reader ended badly")?;
        let (start, found) = read.with_context(|| format!("{reader}: {place}"))?;
        reading.queues.insert(place, found);
        if shape.expire {
            reading.starts.insert(place, start);
        }
    }
    Ok(reading)
}

/// The first offset the broker still has, and every message from there.
async fn read_queue(
    client: &Client,
    broker: &str,
    shape: &Shape,
    place: QueueKey,
) -> Result<(u64, Vec<Found>)> {
    let topic = shape.topic(place.topic);
    let mut found = Vec::new();
    let mut at = 0;
    let mut start = 0;
    loop {
        let pulled = pull_patiently(client, broker, &topic, place.queue, at).await?;
        if found.is_empty() {
            start = pulled.min;
        }
        found.extend(pulled.messages.iter().map(|message| Found::judge(shape, place, message)));
        if pulled.next >= pulled.max {
            return Ok((start, found));
        }
        ensure!(pulled.next > at, "stuck at offset {at} of {}", pulled.max);
        at = pulled.next;
    }
}

async fn pull_patiently(client: &Client, broker: &str, topic: &str, queue: u32, at: u64) -> Result<Pulled> {
    let mut tries = 0;
    loop {
        match client.pull(broker, topic, queue, at).await {
            Ok(pulled) => return Ok(pulled),
            Err(error) if tries >= TRIES_MAX => return Err(error),
            Err(error) => tracing::debug!(%error, "pull failed"),
        }
        tries += 1;
        sleep(IDLE * tries).await;
    }
}

/// Readers' sessions are told apart by number: a reader that is started again starts over.
static SESSIONS: AtomicU64 = AtomicU64::new(1);

/// The number of a new session.
pub(crate) fn new_session() -> u64 {
    SESSIONS.fetch_add(1, Ordering::Relaxed)
}

const RUN: u8 = 0;
const TO_THE_END: u8 = 1;
const STOP: u8 = 2;

/// A reader that follows every queue while the cluster breaks, from where each answer tells it to.
///
/// With one broker it reads there and nowhere else; with several it asks another one each time, as
/// a client does that finds its broker gone.
pub struct LiveReader {
    until: Arc<AtomicU8>,
    task: JoinHandle<()>,
}

impl LiveReader {
    /// Starts reading at these brokers.
    #[must_use]
    pub fn start(brokers: Vec<String>, consumer: String, shape: Shape, recorder: Arc<Recorder>) -> Self {
        Self::start_every(brokers, consumer, shape, recorder, None)
    }

    /// Starts reading at these brokers, every few seconds from the beginning again, or from somewhere; at its ease.
    #[must_use]
    pub fn start_over(brokers: Vec<String>, consumer: String, shape: Shape, recorder: Arc<Recorder>) -> Self {
        Self::start_every(brokers, consumer, shape, recorder, Some(new_session()))
    }

    fn start_every(
        brokers: Vec<String>,
        consumer: String,
        shape: Shape,
        recorder: Arc<Recorder>,
        over: Option<u64>,
    ) -> Self {
        let until = Arc::new(AtomicU8::new(RUN));
        // One that starts over is not bound to see everything before it expires.
        if over.is_none() {
            recorder.consumer(&consumer);
        }
        // What a group's name may consist of.
        let group = format!("{}-{consumer}", shape.name).replace(|c: char| !c.is_ascii_alphanumeric(), "-");
        let follower = Follower {
            client: Client::new(Vec::new(), group),
            brokers,
            turn: 0,
            subscribed: HashSet::new(),
            poll: PollOf { consumer, session: new_session(), shape, recorder },
            next: BTreeMap::new(),
            over: over.map(|seed| Over {
                last: Instant::now(),
                dice: Dice::new(seed),
                ends: BTreeMap::new(),
            }),
        };
        let task = tokio::spawn(follower.follow(Arc::clone(&until)));
        Self { until, task }
    }

    /// Stops where it is.
    ///
    /// # Errors
    /// When the reader panicked.
    pub async fn stop(self) -> Result<()> {
        self.until.store(STOP, Ordering::Relaxed);
        self.task.await.context("a live reader ended badly")
    }

    /// Stops once it has reached the end of every queue, or after `limit`.
    ///
    /// # Errors
    /// When the reader panicked.
    pub async fn drain(mut self, limit: Duration) -> Result<()> {
        self.until.store(TO_THE_END, Ordering::Relaxed);
        match timeout(limit, &mut self.task).await {
            Ok(ended) => ended.context("a live reader ended badly"),
            // What it did not see by now is for a checker to name.
            Err(_) => self.stop().await,
        }
    }
}

/// Pulls of one consumer in one session, recorded.
pub(crate) struct PollOf {
    pub(crate) consumer: String,
    pub(crate) session: u64,
    pub(crate) shape: Shape,
    pub(crate) recorder: Arc<Recorder>,
}

impl PollOf {
    /// One pull; recorded if it gave messages.
    pub(crate) async fn poll(
        &self,
        client: &Client,
        broker: &str,
        queue: QueueKey,
        from: u64,
    ) -> Result<Pulled> {
        let topic = self.shape.topic(queue.topic);
        let invoked_us = self.recorder.now_us();
        let pulled = client.pull(broker, &topic, queue.queue, from).await?;
        if !pulled.messages.is_empty() {
            let judge = |message| Found::judge(&self.shape, queue, message);
            self.recorder.poll(Poll {
                consumer: self.consumer.clone(),
                session: self.session,
                broker: broker.to_owned(),
                queue,
                from,
                next: pulled.next,
                invoked_us,
                completed_us: self.recorder.now_us(),
                found: pulled.messages.iter().map(judge).collect(),
            });
        }
        Ok(pulled)
    }
}

struct Follower {
    client: Client,
    brokers: Vec<String>,
    turn: usize,
    subscribed: HashSet<String>,
    poll: PollOf,
    next: BTreeMap<QueueKey, u64>,
    over: Option<Over>,
}

/// When and where a reader of old messages starts over.
struct Over {
    last: Instant,
    dice: Dice,
    /// The end of each queue, as far as it is known.
    ends: BTreeMap<QueueKey, u64>,
}

impl Follower {
    /// Starts over, as another session, if it is time; not any more once it is to reach the end.
    fn perhaps_over(&mut self, until: &AtomicU8) {
        let Some(over) = &mut self.over else { return };
        if over.last.elapsed() >= OVER_EVERY && until.load(Ordering::Relaxed) == RUN {
            over.last = Instant::now();
            // From the beginning, or from somewhere.
            let from_start = over.dice.one_in(2);
            let starts = over.ends.iter().map(|(queue, end)| (*queue, over.dice.below(*end)));
            self.next = if from_start { BTreeMap::new() } else { starts.collect() };
            self.poll.session = new_session();
        }
    }

    async fn follow(mut self, until: Arc<AtomicU8>) {
        let places = self.poll.shape.places();
        loop {
            self.perhaps_over(&until);
            let (mut ended, mut news) = (true, false);
            for place in &places {
                match self.one(*place).await {
                    Ok(pulled) => {
                        ended &= pulled.next >= pulled.max;
                        news |= !pulled.messages.is_empty();
                    }
                    Err(error) => {
                        tracing::trace!(%error, "live pull failed");
                        ended = false;
                    }
                }
            }
            match until.load(Ordering::Relaxed) {
                RUN if self.over.is_some() => sleep(EASE).await,
                STOP => return,
                TO_THE_END if ended && !news => return,
                _ if !news => sleep(IDLE).await,
                _ => {}
            }
        }
    }

    async fn one(&mut self, place: QueueKey) -> Result<Pulled> {
        self.turn += 1;
        let broker = self.brokers.get(self.turn % self.brokers.len().max(1)).context("no broker")?.clone();
        if !self.subscribed.contains(&broker) {
            self.client.subscribe(&broker, &self.poll.shape.topic_names()).await?;
            self.subscribed.insert(broker.clone());
        }
        let from = self.next.get(&place).copied().unwrap_or(0);
        let pulled = self.poll.poll(&self.client, &broker, place, from).await;
        match &pulled {
            Ok(pulled) => {
                if let Some(over) = &mut self.over {
                    over.ends.insert(place, pulled.max);
                }
                self.next.insert(place, pulled.next)
            }
            // It may have forgotten this reader.
            Err(_) => self.subscribed.remove(&broker).then_some(0),
        };
        pulled
    }
}
