//! Producers that send one object several times on purpose, under one unique key with one body: RocketMQ's clients
//! set the key once per object, so that an application that loops over one object sends it with one key.
//!
//! | how | sends of one object |
//! |---|---|
//! | one after the other | to one queue |
//! | pipelined | to one queue, all under way at once on one connection |
//! | one-way | between two that are answered, on the same connection |
//! | to every queue | in turn, twice |
//! | by every broker | in turn, twice, to one queue |
//!
//! Each is a message of its own. Only what nobody has answered is sent again, as a client does it: that is one message.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use tokio::task::JoinSet;
use tokio::time::sleep;

use super::{Shape, Site};
use crate::client::{AGAIN_PATIENCE, Client};
use crate::history::{How, Outcome, Recorder, Repeat};
use crate::payload::{self, OpKey};

/// Sends of one object to one queue.
const SENDS: usize = 6;
/// One-way sends of one object, besides the two that are answered.
const ONE_WAY: usize = 4;
/// Pause before an unanswered message is sent again.
const AGAIN_AFTER: Duration = Duration::from_millis(40);
/// How often a message is sent again before its outcome stays unknown: longer than any fault lasts.
const RESENDS_MAX: u32 = 100;

/// The workload, running.
pub(super) struct Objects {
    stop: Arc<AtomicBool>,
    tasks: JoinSet<()>,
}

impl Objects {
    pub(super) fn start(site: &Site, shape: &Shape, recorder: &Arc<Recorder>) -> Self {
        let stop = Arc::new(AtomicBool::new(false));
        let mut tasks = JoinSet::new();
        for number in 0..shape.producers {
            let client = Client::new(site.name_servers.clone(), format!("{}-producer-{number}", shape.name));
            let producer = Producer {
                number,
                client: client.with_patience(AGAIN_PATIENCE),
                brokers: site.brokers.clone(),
                shape: shape.clone(),
                recorder: Arc::clone(recorder),
                stop: Arc::clone(&stop),
            };
            tasks.spawn(producer.run());
        }
        Self { stop, tasks }
    }

    /// Stops after the object under way.
    pub(super) async fn stop(mut self) {
        self.stop.store(true, Ordering::Relaxed);
        while let Some(ended) = self.tasks.join_next().await {
            if let Err(error) = ended {
                tracing::error!(%error, "a producer of objects ended badly");
            }
        }
    }
}

struct Producer {
    number: u32,
    client: Client,
    brokers: Vec<String>,
    shape: Shape,
    recorder: Arc<Recorder>,
    stop: Arc<AtomicBool>,
}

impl Producer {
    async fn run(self) {
        for seq in 0.. {
            if self.stop.load(Ordering::Relaxed) {
                return;
            }
            let object = OpKey { topic: 0, queue: 0, producer: self.number, seq };
            let opened = self.client.opened();
            let mut sent = self.object(object).await;
            // A connection that died or was made meanwhile makes any of them a possible retry.
            let lived = self.client.opened() == opened && self.client.all_open();
            for repeat in &mut sent {
                repeat.lived = lived;
                self.recorder.repeat(repeat.clone());
            }
            sleep(self.shape.think).await;
        }
    }

    /// Sends one object in one of the ways.
    async fn object(&self, object: OpKey) -> Vec<Repeat> {
        let queues = self.shape.queues.max(1);
        let queue = (object.seq / 5) as u32 % queues;
        let leader = self.leader().await;
        let mut sent = Vec::new();
        match object.seq % 5 {
            0 => {
                for _ in 0..SENDS {
                    sent.push(self.answered(object, queue, &leader, How::Sync).await);
                }
            }
            1 => {
                let send = || self.answered(object, queue, &leader, How::Pipelined);
                let (a, b, c, d) = tokio::join!(send(), send(), send(), send());
                sent.extend([a, b, c, d]);
            }
            2 => {
                sent.push(self.answered(object, queue, &leader, How::Sync).await);
                for _ in 0..ONE_WAY {
                    sent.push(self.one_way(object, queue, &leader).await);
                }
                sent.push(self.answered(object, queue, &leader, How::Sync).await);
            }
            3 => {
                for queue in (0..queues).chain(0..queues) {
                    sent.push(self.answered(object, queue, &leader, How::Sync).await);
                }
            }
            _ => {
                for broker in self.brokers.iter().chain(&self.brokers) {
                    sent.push(self.answered(object, queue, broker, How::Sync).await);
                }
            }
        }
        sent
    }

    async fn leader(&self) -> String {
        let route = self.client.route(&self.shape.topic(0)).await.unwrap_or_default();
        let any = || self.brokers.first().cloned().unwrap_or_default();
        route.get(&0).cloned().unwrap_or_else(any)
    }

    /// One message, sent until it is answered: at another broker each time, as clients do.
    async fn answered(&self, object: OpKey, queue: u32, broker: &str, how: How) -> Repeat {
        let (topic, body) = (self.shape.topic(object.topic), payload::encode(self.shape.run, object));
        let unique_key = payload::unique_key(self.shape.run, object);
        let invoked_us = self.recorder.now_us();
        let (mut broker, mut resent, mut may_be_there) = (broker.to_owned(), 0, false);
        let outcome = loop {
            let outcome = self.client.send(&broker, &topic, queue, &unique_key, body.clone()).await;
            may_be_there |= matches!(outcome, Outcome::Unknown { .. });
            if matches!(outcome, Outcome::Ok { .. }) || !may_be_there || resent == RESENDS_MAX {
                break if may_be_there && !matches!(outcome, Outcome::Ok { .. }) {
                    Outcome::Unknown { error: "unknown, and so after every further try".to_owned() }
                } else {
                    outcome
                };
            }
            resent += 1;
            sleep(AGAIN_AFTER).await;
            broker = self.after(&broker);
        };
        let completed_us = self.recorder.now_us();
        Repeat { object, to: queue, how, invoked_us, completed_us, resent, lived: false, outcome }
    }

    async fn one_way(&self, object: OpKey, queue: u32, broker: &str) -> Repeat {
        let (topic, body) = (self.shape.topic(object.topic), payload::encode(self.shape.run, object));
        let unique_key = payload::unique_key(self.shape.run, object);
        let invoked_us = self.recorder.now_us();
        let outcome = self.client.send_one_way(broker, &topic, queue, &unique_key, body).await;
        let completed_us = self.recorder.now_us();
        Repeat {
            object,
            to: queue,
            how: How::OneWay,
            invoked_us,
            completed_us,
            resent: 0,
            lived: false,
            outcome,
        }
    }

    /// The broker after this one.
    fn after(&self, broker: &str) -> String {
        let at = self.brokers.iter().position(|known| known == broker).map_or(0, |at| at + 1);
        self.brokers.get(at % self.brokers.len().max(1)).cloned().unwrap_or_default()
    }
}
