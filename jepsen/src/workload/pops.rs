//! Two consumer groups that pop every message of a topic, from any node: one without order, one in order.
//!
//! What a consumer does with a message that it was given:
//!
//! | of 10 | what |
//! |---|---|
//! | 5 | acknowledges it |
//! | 1 | acknowledges it twice, at two nodes |
//! | 2 | asks for another invisible time, shorter or longer, and acknowledges it by the new handle, or lets it come again |
//! | 2 | lets it come again |
//!
//! Sometimes it takes its time before, so that its handles are out of date. A message that was given often is acknowledged. A pop in order
//! whose answer is not known is repeated with the same attempt id at another node. Once nothing is broken any more, consumers acknowledge
//! whatever they are given, until there is nothing left.

use std::sync::Arc;
use std::sync::atomic::{AtomicU8, Ordering};
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use tokio::task::JoinHandle;
use tokio::time::{Instant, sleep};

use super::{Shape, Site};
use crate::client::{Client, Handle, PopRequest, PoppedMessage};
use crate::connection::CallError;
use crate::history::{Delivery, Ended, Pop, PopAck, PopChange, PopEnd, Recorder};
use crate::nemesis::Dice;
use crate::payload::{self, OpKey, mix};

/// Consumers of the group without order, and of the one in order.
const CONSUMERS: [u64; 2] = [3, 2];
/// For how long a consumer wants messages, ms.
const INVISIBLE_MS: std::ops::Range<u64> = 1_000..3_000;
/// To what it changes that, ms: shorter and longer.
const CHANGED_MS: std::ops::Range<u64> = 100..5_000;
/// How long a pop waits at a broker at most, ms.
const POLL_MS: u64 = 1_000;
/// Messages of one pop at most.
const MESSAGES_MAX: u64 = 32;
/// One of so many consumers that were given something takes its time, ms.
const SLOW_ONE_IN: u64 = 10;
const SLOW_MS: std::ops::Range<u64> = 500..3_500;
/// A message that was given so often is acknowledged: none becomes a dead letter, after 16 times.
const ATTEMPTS_MAX: u32 = 8;
/// A node that forwards asks again no sooner, us.
const FORWARDED_TWICE_US: u64 = 90_000;
/// How often anything is asked for before its outcome stays unknown.
const TRIES_MAX: u32 = 4;
/// Pause before anything is asked again, and after a pop that gave nothing.
const AGAIN_AFTER: Duration = Duration::from_millis(40);
/// How long nothing may be left before that counts: longer than any message is in flight.
const SETTLED: Duration = Duration::from_secs(6);

const RUN: u8 = 0;
const TO_THE_END: u8 = 1;
const STOP: u8 = 2;

/// The consumers, running.
pub(super) struct Pops {
    phase: Arc<AtomicU8>,
    consumers: Vec<JoinHandle<()>>,
    groups: Vec<String>,
    recorder: Arc<Recorder>,
}

impl Pops {
    pub(super) fn start(site: &Site, shape: &Shape, recorder: &Arc<Recorder>) -> Self {
        let phase = Arc::new(AtomicU8::new(RUN));
        let groups = vec![format!("{}-group", shape.name), format!("{}-orderly-group", shape.name)];
        let mut consumers = Vec::new();
        for ((group, count), is_ordered) in groups.iter().zip(CONSUMERS).zip([false, true]) {
            for number in 0..count {
                let consumer = Consumer {
                    client: Client::new(site.name_servers.clone(), group.clone()),
                    brokers: site.brokers.clone(),
                    turn: number as usize,
                    dice: Dice::new(site.seed ^ mix(number ^ u64::from(is_ordered) << 32)),
                    name: is_ordered.then(|| format!("{group}-{number}")),
                    group: group.clone(),
                    pops: 0,
                    shape: shape.clone(),
                    recorder: Arc::clone(recorder),
                    phase: Arc::clone(&phase),
                };
                consumers.push(tokio::spawn(consumer.run()));
            }
        }
        Self { phase, consumers, groups, recorder: Arc::clone(recorder) }
    }

    /// Waits until everything was popped and acknowledged and nothing came again for a while, or for `limit`.
    pub(super) async fn drain(self, limit: Duration) {
        let (from_us, until) = (self.recorder.now_us(), Instant::now() + limit);
        self.phase.store(TO_THE_END, Ordering::Relaxed);
        let (mut since, mut seen) = (Instant::now(), 0);
        while Instant::now() < until && since.elapsed() < SETTLED {
            sleep(AGAIN_AFTER * 10).await;
            let look =
                |history: &crate::history::History| (history.pops.len(), history.pops_handled(&self.groups));
            let (pops, are_handled) = self.recorder.look(look);
            if pops != seen || !are_handled {
                (since, seen) = (Instant::now(), pops);
            }
        }
        self.phase.store(STOP, Ordering::Relaxed);
        for consumer in self.consumers {
            if let Err(error) = consumer.await {
                tracing::error!(%error, "a consumer that pops ended badly");
            }
        }
        if !limit.is_zero() {
            let to_us = self.recorder.now_us();
            self.recorder.pop_end(PopEnd { groups: self.groups, from_us, to_us });
        }
    }
}

struct Consumer {
    client: Client,
    brokers: Vec<String>,
    turn: usize,
    dice: Dice,
    /// What its attempts are called, if its group consumes in order.
    name: Option<String>,
    group: String,
    pops: u64,
    shape: Shape,
    recorder: Arc<Recorder>,
    phase: Arc<AtomicU8>,
}

/// A message that is in flight with its consumer.
struct InFlight {
    key: OpKey,
    attempts: u32,
    handle: Handle,
}

impl Consumer {
    async fn run(mut self) {
        while self.phase.load(Ordering::Relaxed) != STOP {
            let wish = self.wish();
            let given = self.pop(&wish).await;
            if given.is_empty() {
                sleep(AGAIN_AFTER).await;
                continue;
            }
            if self.dice.one_in(SLOW_ONE_IN) && !self.is_at_the_end() {
                sleep(self.dice.millis(SLOW_MS.start, SLOW_MS.end)).await;
            }
            for message in given {
                self.handle(message).await;
            }
        }
    }

    fn is_at_the_end(&self) -> bool {
        self.phase.load(Ordering::Relaxed) != RUN
    }

    fn broker(&self) -> String {
        self.brokers.get(self.turn % self.brokers.len().max(1)).cloned().unwrap_or_default()
    }

    /// What it asks for next.
    fn wish(&mut self) -> PopRequest {
        self.pops += 1;
        let (is_any, queue) = (self.dice.one_in(2), self.dice.below(u64::from(self.shape.queues)));
        if self.dice.one_in(8) {
            self.turn += 1;
        }
        PopRequest {
            topic: self.shape.topic(0),
            queue: if is_any || self.is_at_the_end() { -1 } else { queue as i32 },
            messages_max: self.dice.between(1, MESSAGES_MAX + 1),
            invisible_ms: self.dice.between(INVISIBLE_MS.start, INVISIBLE_MS.end),
            poll: self.dice.millis(0, POLL_MS),
            attempt: self.name.as_ref().map(|name| format!("{name}-{}", self.pops)),
        }
    }

    /// Pops, and records that; a pop in order until the answer is known.
    async fn pop(&mut self, wish: &PopRequest) -> Vec<InFlight> {
        for _ in 0..TRIES_MAX {
            let (invoked_us, broker) = (self.recorder.now_us(), self.broker());
            let answer = self.client.pop(&broker, wish).await;
            let given = match &answer {
                Ok(given) => Some(given.iter().map(|one| self.delivery(one)).collect()),
                Err(CallError::Unknown(_)) => None,
                Err(CallError::NotSent(_)) => Some(Vec::new()),
            };
            if given.as_ref().is_none_or(|given: &Vec<Delivery>| !given.is_empty()) {
                self.recorder.pop(Pop {
                    group: self.group.clone(),
                    broker,
                    queue: wish.queue,
                    attempt: wish.attempt.clone(),
                    invoked_us,
                    completed_us: self.recorder.now_us(),
                    completed_ms: now_ms(),
                    given,
                });
            }
            if let Ok(given) = answer {
                return given.into_iter().filter_map(|one| self.in_flight(one)).collect();
            }
            self.turn += 1;
            if wish.attempt.is_none() {
                break;
            }
            sleep(AGAIN_AFTER).await;
        }
        Vec::new()
    }

    fn key(&self, message: &PoppedMessage) -> Option<OpKey> {
        let key = payload::decode(self.shape.run, &message.message.body)?;
        (message.message.topic == self.shape.topic(key.topic)).then_some(key)
    }

    fn delivery(&self, message: &PoppedMessage) -> Delivery {
        let Handle { popped_ms, invisible_ms, queue, offset, .. } = message.handle;
        let (is_retry, attempts) = (message.handle.is_retry(), message.attempts);
        Delivery { key: self.key(message), is_retry, queue, offset, attempts, popped_ms, invisible_ms }
    }

    fn in_flight(&self, message: PoppedMessage) -> Option<InFlight> {
        let key = self.key(&message)?;
        Some(InFlight { key, attempts: message.attempts, handle: message.handle })
    }

    /// Does with a message what its consumer feels like.
    async fn handle(&mut self, message: InFlight) {
        let way = self.dice.below(10);
        if self.is_at_the_end() || message.attempts >= ATTEMPTS_MAX {
            return self.ack(&message).await;
        }
        match way {
            0..5 => self.ack(&message).await,
            5 => {
                self.ack(&message).await;
                self.turn += 1;
                self.ack(&message).await;
            }
            6 | 7 => {
                if let Some(changed) = self.change(message).await
                    && self.dice.below(4) > 0
                {
                    self.ack(&changed).await;
                }
            }
            _ => {}
        }
    }

    /// Acknowledges a message until the outcome is known, or it has tried often.
    async fn ack(&mut self, message: &InFlight) {
        let topic = self.shape.topic(0);
        for _ in 0..TRIES_MAX {
            let invoked_us = self.recorder.now_us();
            let answer = self.client.ack_popped(&self.broker(), &topic, &message.handle).await;
            if let Some(ended) = ended(&answer, |is_acked| *is_acked) {
                let InFlight { key, attempts, .. } = *message;
                let (group, completed_us) = (self.group.clone(), self.recorder.now_us());
                let ended = certain(ended, completed_us - invoked_us);
                self.recorder.pop_ack(PopAck { group, key, attempts, invoked_us, completed_us, ended });
            }
            if answer.is_ok() {
                return;
            }
            self.turn += 1;
            sleep(AGAIN_AFTER).await;
        }
    }

    /// Asks for another invisible time until the outcome is known, or it has tried often: the message with its new handle.
    async fn change(&mut self, message: InFlight) -> Option<InFlight> {
        let topic = self.shape.topic(0);
        let wish_ms = self.dice.between(CHANGED_MS.start, CHANGED_MS.end);
        for _ in 0..TRIES_MAX {
            let (invoked_us, InFlight { key, attempts, handle }) = (self.recorder.now_us(), &message);
            let answer = self.client.change_popped(&self.broker(), (&topic, handle), wish_ms).await;
            if let Some(ended) = ended(&answer, Option::is_some) {
                let changed = answer.as_ref().ok().and_then(Option::as_ref);
                self.recorder.pop_change(PopChange {
                    group: self.group.clone(),
                    key: *key,
                    attempts: *attempts,
                    queue: handle.queue,
                    popped_ms: handle.popped_ms,
                    invisible_ms: wish_ms,
                    invoked_us,
                    completed_us: self.recorder.now_us(),
                    ended,
                    visible_ms: changed.map(|handle| handle.popped_ms + handle.invisible_ms),
                });
            }
            if let Ok(changed) = answer {
                return changed.map(|handle| InFlight { handle, ..message });
            }
            self.turn += 1;
            sleep(AGAIN_AFTER).await;
        }
        None
    }
}

/// How a request ended, if it was one.
fn ended<T>(answer: &Result<T, CallError>, is_done: impl Fn(&T) -> bool) -> Option<Ended> {
    match answer {
        Ok(answer) if is_done(answer) => Some(Ended::Yes),
        Ok(_) => Some(Ended::Refused),
        Err(CallError::Unknown(_)) => Some(Ended::Unknown),
        Err(CallError::NotSent(_)) => None,
    }
}

fn now_ms() -> u64 {
    SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, |since| since.as_millis() as u64)
}

/// A refusal that took long may be the answer to a second try of the node that forwards: the first one may have counted, and was not heard of.
fn certain(ended: Ended, took_us: u64) -> Ended {
    if ended == Ended::Refused && took_us >= FORWARDED_TWICE_US { Ended::Unknown } else { ended }
}
