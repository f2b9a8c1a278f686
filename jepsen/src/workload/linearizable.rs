//! Few operations on each of many queues, through every node: what the linearizability checker can
//! judge to the end.
//!
//! A generation of queues is written and read until each lane has sent its messages; then the next
//! generation begins. So a queue's history stays short however long the run is.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use tokio::task::{JoinHandle, JoinSet};
use tokio::time::sleep;

use super::{Shape, Site, Target, Writers};
use crate::client::Client;
use crate::history::{End, Recorder};
use crate::nemesis::Dice;
use crate::reader::{PollOf, new_session};
use crate::reading::QueueKey;

/// Queues written at a time.
const QUEUES_PER_GENERATION: u32 = 2;
/// Messages of one lane; three lanes a queue.
const MESSAGES_PER_LANE: u64 = 80;
/// A generation takes at least so long: a lane pauses after each message.
const GENERATION_MIN: Duration = Duration::from_millis(1500);
/// Queues a topic may have.
const QUEUES_MAX: u32 = 512;
/// Clients that read; each asks one node at a time.
const READERS: u64 = 2;
/// Pause between a reader's questions.
const READ_PAUSE: Duration = Duration::from_millis(25);
/// How far behind the last known end a read may begin.
const BACK_MAX: u64 = 40;

/// How many queues a run of this length may use up.
pub(super) fn queues_for(length: Duration) -> u32 {
    let generations = length.as_millis() / GENERATION_MIN.as_millis() + 2;
    u32::try_from(generations).unwrap_or(QUEUES_MAX).saturating_mul(QUEUES_PER_GENERATION).min(QUEUES_MAX)
}

/// The workload, running.
pub(super) struct Queues {
    stop: Arc<AtomicBool>,
    task: JoinHandle<()>,
}

impl Queues {
    pub(super) fn start(site: &Site, shape: &Shape, recorder: &Arc<Recorder>) -> Self {
        let stop = Arc::new(AtomicBool::new(false));
        let run = generations(site.clone(), shape.clone(), Arc::clone(recorder), Arc::clone(&stop));
        Self { stop, task: tokio::spawn(run) }
    }

    /// Stops after the operations in flight.
    pub(super) async fn stop(self) {
        self.stop.store(true, Ordering::Relaxed);
        if let Err(error) = self.task.await {
            tracing::error!(%error, "the queues' clients ended badly");
        }
    }
}

async fn generations(site: Site, shape: Shape, recorder: Arc<Recorder>, stop: Arc<AtomicBool>) {
    let mut first = 0;
    while first < shape.queues && !stop.load(Ordering::Relaxed) {
        let queues = first..(first + QUEUES_PER_GENERATION).min(shape.queues);
        let writers = Writers::start_on(
            &site.name_servers,
            &shape,
            &Target::Route,
            &recorder,
            queues.clone(),
            MESSAGES_PER_LANE,
        );
        let over = Arc::new(AtomicBool::new(false));
        let mut readers = JoinSet::new();
        for number in 0..READERS {
            let reader = Reader {
                client: Client::new(site.name_servers.clone(), format!("{}-reader-{number}", shape.name)),
                brokers: site.brokers.clone(),
                dice: Dice::new(site.seed ^ u64::from(first) << 8 ^ number),
                shape: shape.clone(),
                recorder: Arc::clone(&recorder),
            };
            readers.spawn(reader.run(queues.clone().collect(), Arc::clone(&over)));
        }
        while !writers.are_done() && !stop.load(Ordering::Relaxed) {
            sleep(READ_PAUSE).await;
        }
        writers.stop().await;
        over.store(true, Ordering::Relaxed);
        while readers.join_next().await.is_some() {}
        first += QUEUES_PER_GENERATION;
    }
}

struct Reader {
    client: Client,
    brokers: Vec<String>,
    dice: Dice,
    shape: Shape,
    recorder: Arc<Recorder>,
}

impl Reader {
    /// Reads at random places and asks for lengths; each question at a node of its own choice.
    async fn run(mut self, queues: Vec<u32>, over: Arc<AtomicBool>) {
        let mut known = vec![0_u64; queues.len()];
        for broker in &self.brokers {
            // Those that are down hear of this reader from the others.
            let _ = self.client.subscribe(broker, &self.shape.topic_names()).await;
        }
        while !over.load(Ordering::Relaxed) {
            let at = self.dice.below(queues.len() as u64) as usize;
            let (Some(queue), Some(end)) = (queues.get(at), known.get_mut(at)) else { return };
            let queue = QueueKey { topic: 0, queue: *queue };
            let Some(broker) = self.broker().await else { return };
            let from = end.saturating_sub(self.dice.below(BACK_MAX));
            let asked = if self.dice.one_in(2) {
                self.length(&broker, queue).await
            } else {
                self.read(&broker, queue, from).await
            };
            match asked {
                Ok(seen) => *end = seen.max(*end),
                Err(error) => tracing::trace!(error = format!("{error:#}"), "no answer"),
            }
            sleep(READ_PAUSE).await;
        }
    }

    /// Any node, or the one that is said to lead: it answers sooner.
    async fn broker(&mut self) -> Option<String> {
        if self.dice.one_in(2)
            && let Ok(route) = self.client.route(&self.shape.topic(0)).await
            && let Some(leader) = route.get(&0)
        {
            return Some(leader.clone());
        }
        self.dice.one_of(&self.brokers).cloned()
    }

    async fn length(&self, broker: &str, queue: QueueKey) -> anyhow::Result<u64> {
        let invoked_us = self.recorder.now_us();
        let end = self.client.sure_end(broker, &self.shape.topic(queue.topic), queue.queue).await?;
        self.recorder.end(End { queue, invoked_us, completed_us: self.recorder.now_us(), end });
        Ok(end)
    }

    async fn read(&self, broker: &str, queue: QueueKey, from: u64) -> anyhow::Result<u64> {
        let poll = PollOf {
            consumer: "readers of short queues".to_owned(),
            session: new_session(),
            shape: self.shape.clone(),
            recorder: Arc::clone(&self.recorder),
        };
        Ok(poll.poll(&self.client, broker, queue, from).await?.next)
    }
}
