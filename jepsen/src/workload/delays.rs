//! Producers of delayed messages, in each of the ways in which a message says when it is due. Some messages are taken back,
//! soon after they were sent or close to their time. Some are due long after the run: they are taken back at its end, which
//! shows that they were there.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use tokio::task::JoinSet;
use tokio::time::{Instant, sleep};

use super::sender::{AGAIN_AFTER, Sender};
use super::{Shape, Site};
use crate::client::{Message, request};
use crate::connection::CallError;
use crate::history::{Delayed, Outcome, Recall, Recalled, Recorder};
use crate::nemesis::Dice;
use crate::payload::OpKey;

const RECALL_MESSAGE: i32 = 370;
/// ILLEGAL_OPERATION: nothing of that key waits for that time.
const ILLEGAL_OPERATION: i32 = 604;
/// The delays of the levels that are used, from level 1 on: `timers.levels` of the nodes.
pub(crate) const LEVELS_MS: [u64; 4] = [1_000, 2_000, 4_000, 8_000];
/// The shortest and the longest delay of most messages, ms.
const NEAR_MS: std::ops::Range<u64> = 100..8_000;
/// The delay of those that are due after the run.
const FAR_MS: u64 = 3_600_000;
/// One of so many messages is due after the run, and one of so many is taken back.
const FAR_ONE_IN: u64 = 16;
const RECALL_ONE_IN: u64 = 4;
/// How often a recall is asked for before its outcome stays unknown: longer than any fault lasts.
const TRIES_MAX: u32 = 200;

/// The workload, running.
pub(super) struct Delays {
    stop: Arc<AtomicBool>,
    lanes: JoinSet<Vec<Recallable>>,
    far: Vec<Recallable>,
    sender: Arc<Sender>,
}

/// A message that can be taken back.
struct Recallable {
    key: OpKey,
    handle: String,
    at: Instant,
}

impl Delays {
    pub(super) fn start(site: &Site, shape: &Shape, recorder: &Arc<Recorder>) -> Self {
        let stop = Arc::new(AtomicBool::new(false));
        let sender = |number| Arc::new(Sender::new(site, shape, recorder, number));
        let mut lanes = JoinSet::new();
        for number in 0..shape.producers {
            let sender = sender(number);
            for queue in 0..shape.queues {
                let seed = site.seed ^ u64::from(number) << 32 ^ u64::from(queue) << 40;
                let first = OpKey { topic: 0, queue, producer: number, seq: 0 };
                let (sender, stop, dice) = (Arc::clone(&sender), Arc::clone(&stop), Dice::new(seed));
                lanes.spawn(Lane { sender, stop, dice, wishes: Vec::new(), far: Vec::new() }.run(first));
            }
        }
        Self { stop, lanes, far: Vec::new(), sender: sender(shape.producers) }
    }

    /// Stops after the sends and recalls under way.
    pub(super) async fn stop(&mut self) {
        self.stop.store(true, Ordering::Relaxed);
        while let Some(ended) = self.lanes.join_next().await {
            match ended {
                Ok(far) => self.far.extend(far),
                Err(error) => tracing::error!(%error, "a producer of delayed messages ended badly"),
            }
        }
    }

    /// Waits until all that is due was delivered, or for `limit`; then takes back what is due after the run.
    pub(super) async fn drain(self, limit: Duration) {
        let until = Instant::now() + limit;
        let is_done = || self.sender.recorder.look(|history| history.delayed_came());
        while Instant::now() < until && !is_done() {
            sleep(AGAIN_AFTER * 5).await;
        }
        for far in &self.far {
            recall(&self.sender, far).await;
        }
    }
}

struct Lane {
    sender: Arc<Sender>,
    stop: Arc<AtomicBool>,
    dice: Dice,
    wishes: Vec<Recallable>,
    far: Vec<Recallable>,
}

impl Lane {
    async fn run(mut self, first: OpKey) -> Vec<Recallable> {
        for seq in 0.. {
            if self.stop.load(Ordering::Relaxed) {
                break;
            }
            self.one(OpKey { seq, ..first }).await;
            self.recall_due().await;
            sleep(self.sender.shape.think).await;
        }
        self.far
    }

    /// Sends one message, and decides whether it is to be taken back.
    async fn one(&mut self, key: OpKey) {
        let is_far = self.dice.one_in(FAR_ONE_IN);
        let (message, due_ms) = self.message(key, is_far);
        let (op, answer) = self.sender.send(key, &message).await;
        let was_stored = matches!(op.outcome, Outcome::Ok { .. });
        self.sender.recorder.delayed(Delayed { op, due_ms, is_far });
        let answer = answer.filter(|_| was_stored);
        let handle = answer.and_then(|answer| answer.ext.get("recallHandle").map(str::to_owned));
        let Some(handle) = handle else { return };
        let at = Instant::now();
        if is_far {
            self.far.push(Recallable { key, handle, at });
        } else if self.dice.one_in(RECALL_ONE_IN) {
            let left = Duration::from_millis(due_ms.saturating_sub(now_ms()));
            let wait = left.mul_f64(self.dice.below(101) as f64 / 100.0);
            self.wishes.push(Recallable { key, handle, at: at + wait });
        }
    }

    /// A message, and when it is due at the earliest.
    fn message(&mut self, key: OpKey, is_far: bool) -> (Message, u64) {
        let near_ms = self.dice.between(NEAR_MS.start, NEAR_MS.end);
        let delay_ms = if is_far { FAR_MS } else { near_ms };
        let level = self.dice.below(2) as usize;
        let now_ms = now_ms();
        let (wish, due_ms) = match self.dice.below(3) {
            0 if !is_far => (("DELAY", (level + 1).to_string()), now_ms + LEVELS_MS[level]),
            1 => (("TIMER_DELIVER_MS", (now_ms + delay_ms).to_string()), now_ms + delay_ms),
            _ => (("TIMER_DELAY_MS", delay_ms.to_string()), now_ms + delay_ms),
        };
        (Message { properties: vec![wish], ..self.sender.message(key) }, due_ms)
    }

    /// Takes back what is to be taken back by now.
    async fn recall_due(&mut self) {
        let now = Instant::now();
        let (due, later) = std::mem::take(&mut self.wishes).into_iter().partition(|wish| wish.at <= now);
        self.wishes = later;
        let due: Vec<Recallable> = due;
        for wish in due {
            recall(&self.sender, &wish).await;
        }
    }
}

fn now_ms() -> u64 {
    SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, |since| since.as_millis() as u64)
}

/// Takes a message back: asks until the outcome is known, another broker each time. After a try of unknown outcome a refusal may mean that this
/// try counted.
async fn recall(sender: &Sender, wish: &Recallable) {
    let topic = sender.shape.topic(wish.key.topic);
    let fields = [("topic", topic.as_str()), ("recallHandle", &wish.handle)];
    let (invoked_us, mut recalled, mut may_be_done) = (sender.recorder.now_us(), Recalled::Unknown, false);
    for _ in 0..TRIES_MAX {
        match sender.client.ask_once(&sender.broker(), request(RECALL_MESSAGE, fields)).await {
            Ok(answer) if answer.code == 0 => recalled = Recalled::Yes,
            Ok(answer) if answer.code == ILLEGAL_OPERATION && !may_be_done => recalled = Recalled::Refused,
            Ok(answer) if answer.code == ILLEGAL_OPERATION => break,
            Ok(_) => may_be_done = true,
            Err(error) => may_be_done |= matches!(error, CallError::Unknown(_)),
        }
        if recalled != Recalled::Unknown {
            break;
        }
        sender.turn();
        sleep(AGAIN_AFTER).await;
    }
    let completed_us = sender.recorder.now_us();
    sender.recorder.recall(Recall { key: wish.key, invoked_us, completed_us, recalled });
}
