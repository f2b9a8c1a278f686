//! Topics that are filled, deleted, made again and filled again, and queues that are taken away and added again; a
//! new group reads each generation from its beginning, at every node.
//!
//! A message's producer number is its topic's generation. What a deletion took is never served again: the checker
//! `resurrected` looks for it in what every reader was given after the deletion was acknowledged.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use tokio::task::JoinSet;
use tokio::time::sleep;

use super::{Shape, Site};
use crate::client::{Client, IMPATIENCE};
use crate::connection::CallError;
use crate::history::{Deletion, Op, Outcome, Recorder};
use crate::payload::{self, OpKey};
use crate::reader::{PollOf, new_session};
use crate::reading::QueueKey;

/// Messages of one generation in each queue.
const MESSAGES: u64 = 25;
/// Pause after a request that was not answered with success.
const AGAIN_AFTER: Duration = Duration::from_millis(40);
/// How often a request is made before its turn is given up: longer than any fault lasts.
const TRIES_MAX: u32 = 1500;
/// How often a reader asks one node again that gives nothing.
const EMPTY_MAX: u32 = 3;

/// The workload, running.
pub(super) struct Deletions {
    stop: Arc<AtomicBool>,
    tasks: JoinSet<()>,
}

impl Deletions {
    pub(super) fn start(site: &Site, shape: &Shape, recorder: &Arc<Recorder>) -> Self {
        let stop = Arc::new(AtomicBool::new(false));
        let mut tasks = JoinSet::new();
        for topic in 0..shape.topics {
            let name = format!("{}-owner-{topic}", shape.name);
            let owner = Owner {
                topic,
                client: Client::new(site.name_servers.clone(), name).with_patience(IMPATIENCE),
                turn: topic as usize,
                site: site.clone(),
                shape: shape.clone(),
                recorder: Arc::clone(recorder),
                stop: Arc::clone(&stop),
            };
            tasks.spawn(owner.run());
        }
        Self { stop, tasks }
    }

    /// Stops after the generation under way: every topic is there then, with all its queues.
    pub(super) async fn stop(mut self) {
        self.stop.store(true, Ordering::Relaxed);
        while let Some(ended) = self.tasks.join_next().await {
            if let Err(error) = ended {
                tracing::error!(%error, "an owner of topics ended badly");
            }
        }
    }
}

/// The only client that fills, deletes and makes one topic.
struct Owner {
    topic: u32,
    client: Client,
    turn: usize,
    site: Site,
    shape: Shape,
    recorder: Arc<Recorder>,
    stop: Arc<AtomicBool>,
}

impl Owner {
    async fn run(mut self) {
        for generation in 0.. {
            self.fill(generation).await;
            self.read(generation).await;
            // The last generation stays, for the readers of the end.
            if self.stop.load(Ordering::Relaxed) {
                return;
            }
            // Queues that are taken away and added again are new ones, as a topic is.
            let kept = if generation % 3 == 2 { 1 } else { 0 };
            if !self.delete(kept).await || !self.make().await {
                return;
            }
            if generation % 2 == 1 {
                self.read(generation).await;
            }
        }
    }

    fn broker(&self) -> String {
        let brokers = &self.site.brokers;
        brokers.get(self.turn % brokers.len().max(1)).cloned().unwrap_or_default()
    }

    /// Sends a generation's messages, each once: what is not acknowledged stays unknown or refused.
    async fn fill(&mut self, generation: u32) {
        let name = self.shape.topic(self.topic);
        for seq in 0..MESSAGES {
            for queue in 0..self.shape.queues {
                let key = OpKey { topic: self.topic, queue, producer: generation, seq };
                let (unique_key, body) =
                    (payload::unique_key(self.shape.run, key), payload::encode(self.shape.run, key));
                let invoked_us = self.recorder.now_us();
                let outcome = self.client.send(&self.broker(), &name, queue, &unique_key, body).await;
                let acked = matches!(outcome, Outcome::Ok { .. });
                let completed_us = self.recorder.now_us();
                self.recorder.op(Op { key, invoked_us, completed_us, resent: 0, outcome });
                if !acked {
                    self.turn += 1;
                    sleep(AGAIN_AFTER).await;
                }
            }
            sleep(self.shape.think).await;
        }
    }

    /// Reads all queues as a new group, from offset 0, at every node that answers.
    async fn read(&self, generation: u32) {
        let group = format!("{}-{}-{generation}-{}", self.shape.name, self.topic, self.recorder.now_us());
        let client = Client::new(Vec::new(), group.clone());
        for broker in &self.site.brokers {
            if client.subscribe(broker, &[self.shape.topic(self.topic)]).await.is_err() {
                continue;
            }
            let poll = PollOf {
                consumer: format!("{group} at {broker}"),
                session: new_session(),
                shape: self.shape.clone(),
                recorder: Arc::clone(&self.recorder),
            };
            for queue in 0..self.shape.queues {
                read_queue(&poll, &client, broker, QueueKey { topic: self.topic, queue }).await;
            }
        }
    }

    /// Deletes the topic, or all its queues but the first `kept`; whether that was acknowledged. A request that nobody
    /// answered may take effect whenever it likes.
    async fn delete(&mut self, kept: u32) -> bool {
        let name = self.shape.topic(self.topic);
        for _ in 0..TRIES_MAX {
            let (broker, invoked_us) = (self.broker(), self.recorder.now_us());
            let done = match kept {
                0 => self.client.delete_topic(&broker, &name).await,
                kept => self.client.change_topic(&broker, &name, kept).await,
            };
            let acked_us = done.is_ok().then(|| self.recorder.now_us());
            if !matches!(done, Err(CallError::NotSent(_))) {
                self.recorder.deletion(Deletion {
                    topic: self.topic,
                    from_queue: kept,
                    invoked_us,
                    acked_us,
                });
            }
            if done.is_ok() {
                return true;
            }
            self.turn += 1;
            sleep(AGAIN_AFTER).await;
        }
        false
    }

    /// Makes the topic with all its queues; whether that was acknowledged.
    async fn make(&mut self) -> bool {
        let name = self.shape.topic(self.topic);
        for _ in 0..TRIES_MAX {
            if self.client.change_topic(&self.broker(), &name, self.shape.queues).await.is_ok() {
                return true;
            }
            self.turn += 1;
            sleep(AGAIN_AFTER).await;
        }
        false
    }
}

/// Reads a queue to its end at one node; one that stops answering is left.
async fn read_queue(poll: &PollOf, client: &Client, broker: &str, queue: QueueKey) {
    let (mut from, mut empty) = (0, 0);
    while empty < EMPTY_MAX {
        let Ok(pulled) = poll.poll(client, broker, queue, from).await else { return };
        if pulled.messages.is_empty() && pulled.next >= pulled.max {
            return;
        }
        empty = if pulled.next > from { 0 } else { empty + 1 };
        from = pulled.next;
    }
}
