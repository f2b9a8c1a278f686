//! A consumer group that cannot handle some messages, and sends them back. A message's fate is fixed by its key:
//!
//! | fate | messages of 16 |
//! |---|---|
//! | handled | 10 |
//! | handled at its first retry, at its second one | 2, 1 |
//! | never handled: a dead letter after the last retry | 2 |
//! | a dead letter at once | 1 |
//!
//! A consumer that does not know what became of a send-back repeats it at another node until it does; sometimes it repeats
//! one that was acknowledged. The group's offsets never go back, so a message is moved once.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use tokio::task::JoinHandle;
use tokio::time::{Instant, sleep};

use super::delays::LEVELS_MS;
use super::shape::{DEAD_LETTERS, RETRIES};
use super::{Shape, Site};
use crate::client::{Client, SendBackRequest};
use crate::history::{Moved, Recorder, SendBack};
use crate::nemesis::Dice;
use crate::payload::mix;
use crate::reader::{PollOf, new_session};
use crate::reading::{Found, QueueKey};

/// Retries of a message before it is a dead letter.
const TIMES_MAX: u32 = 3;
/// The delay level of a first retry, where the consumer names none.
const FIRST_LEVEL: u32 = 3;
/// Pause after a pull that gave nothing, or a request that failed.
const IDLE: Duration = Duration::from_millis(20);
const AGAIN_AFTER: Duration = Duration::from_millis(40);
/// How often a message is sent back before the outcome stays unknown: longer than any fault lasts.
const TRIES_MAX: u32 = 400;

/// The consumers, running: one for each queue.
pub(super) struct SendBacks {
    stop: Arc<AtomicBool>,
    consumers: Vec<JoinHandle<()>>,
    recorder: Arc<Recorder>,
}

impl SendBacks {
    pub(super) fn start(site: &Site, shape: &Shape, recorder: &Arc<Recorder>) -> Self {
        let stop = Arc::new(AtomicBool::new(false));
        let mut consumers = Vec::new();
        for (queue, number) in shape.places().into_iter().zip(0..) {
            let group = shape.retries_of.clone().unwrap_or_default();
            let consumer = Consumer {
                client: Client::new(site.name_servers.clone(), group.clone())
                    .with_member(format!("{group}-{number}@jepsen")),
                brokers: site.brokers.clone(),
                turn: number,
                dice: Dice::new(site.seed ^ mix(number as u64)),
                queue,
                poll: PollOf {
                    consumer: group,
                    session: new_session(),
                    shape: shape.clone(),
                    recorder: Arc::clone(recorder),
                },
            };
            consumers.push(tokio::spawn(consumer.run(Arc::clone(&stop))));
        }
        Self { stop, consumers, recorder: Arc::clone(recorder) }
    }

    /// Waits until all that was sent back has come again, and nothing more is sent back, or for `limit`.
    pub(super) async fn drain(self, limit: Duration) {
        let until = Instant::now() + limit;
        let (mut since, mut seen) = (Instant::now(), 0);
        // What is about to be sent back is not in the history yet.
        while Instant::now() < until && since.elapsed() < Duration::from_secs(2) {
            sleep(AGAIN_AFTER * 5).await;
            let look = |history: &crate::history::History| (history.polls.len(), history.moved_came());
            let (polls, came) = self.recorder.look(look);
            if polls != seen || !came {
                (since, seen) = (Instant::now(), polls);
            }
        }
        self.stop.store(true, Ordering::Relaxed);
        for consumer in self.consumers {
            if let Err(error) = consumer.await {
                tracing::error!(%error, "a consumer ended badly");
            }
        }
    }
}

/// How often a message cannot be handled; `None`: it is a dead letter at once.
fn failures(run: u64, found: &Found) -> Option<u32> {
    let key = found.key?;
    match mix(run ^ mix(key.seq ^ u64::from(key.queue) << 40)) % 16 {
        0..10 => Some(0),
        10 | 11 => Some(1),
        12 => Some(2),
        13 | 14 => Some(TIMES_MAX + 1),
        _ => None,
    }
}

struct Consumer {
    client: Client,
    brokers: Vec<String>,
    turn: usize,
    dice: Dice,
    queue: QueueKey,
    poll: PollOf,
}

impl Consumer {
    fn broker(&self) -> String {
        self.brokers.get(self.turn % self.brokers.len().max(1)).cloned().unwrap_or_default()
    }

    async fn run(mut self, stop: Arc<AtomicBool>) {
        let (mut next, mut subscribed) = (0, false);
        while !stop.load(Ordering::Relaxed) {
            let broker = self.broker();
            if !subscribed {
                let topic = self.poll.shape.topic(0);
                subscribed = self.client.subscribe(&broker, &[topic]).await.is_ok();
            }
            match self.poll.poll(&self.client, &broker, self.queue, next).await {
                Ok(pulled) if !pulled.messages.is_empty() => {
                    next = pulled.next;
                    for message in &pulled.messages {
                        self.handle(&Found::judge(&self.poll.shape, self.queue, message)).await;
                    }
                }
                Ok(pulled) => {
                    next = pulled.next;
                    sleep(IDLE).await;
                }
                // The node is down, has no leader to ask, or the group's own topic is not there yet.
                Err(error) => {
                    tracing::trace!(error = format!("{error:#}"), "a consumer's pull failed");
                    (self.turn, subscribed) = (self.turn + 1, false);
                    sleep(IDLE).await;
                }
            }
        }
    }

    /// Handles a message, or sends it back.
    async fn handle(&mut self, found: &Found) {
        let (Some(key), Some(marks)) = (found.key, found.marks) else { return };
        if self.queue.topic == DEAD_LETTERS {
            return;
        }
        let failures = failures(self.poll.shape.run, found);
        if failures.is_some_and(|failures| marks.times >= failures) {
            return;
        }
        let is_dead = failures.is_none() || marks.times >= TIMES_MAX;
        let (level, delay_ms) = match failures {
            None => (-1, 0),
            Some(_) if is_dead => (0, 0),
            Some(_) => self.level(marks.times),
        };
        let by = if is_dead { DEAD_LETTERS } else { RETRIES };
        let moved = Moved { key, times: marks.times + 1, by };
        self.send_back(found.position, level, delay_ms, moved).await;
    }

    /// A level of a retry, and its delay.
    fn level(&mut self, times: u32) -> (i32, u64) {
        let by_server = FIRST_LEVEL + times;
        let level = match self.dice.below(3) {
            0 if by_server as usize <= LEVELS_MS.len() => 0,
            other => 1 + (other as u32) % 2,
        };
        let counts = if level == 0 { by_server } else { level };
        (level as i32, LEVELS_MS[counts as usize - 1])
    }

    /// Sends a message back until the outcome is known, and sometimes once more.
    async fn send_back(&mut self, position: u64, level: i32, delay_ms: u64, moved: Moved) {
        let recorder = Arc::clone(&self.poll.recorder);
        let (invoked_us, mut acked_us, mut tries) = (recorder.now_us(), None, 0);
        let topic = self.poll.shape.topic(0);
        let wish = SendBackRequest { topic: &topic, position, level, times_max: TIMES_MAX };
        while tries < TRIES_MAX && acked_us.is_none() {
            tries += 1;
            match self.client.send_back(&self.broker(), &wish).await {
                Ok(()) => acked_us = Some(recorder.now_us()),
                Err(_) => {
                    self.turn += 1;
                    sleep(AGAIN_AFTER).await;
                }
            }
        }
        recorder.send_back(SendBack { moved, delay_ms, invoked_us, acked_us, tries });
        if self.dice.one_in(4) {
            self.turn += 1;
            // Whatever becomes of it, the message is moved already.
            let _ = self.client.send_back(&self.broker(), &wish).await;
        }
    }
}
