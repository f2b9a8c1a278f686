//! Producers of transactions. A message's decision is fixed by its key, so that whoever is asked whenever says the same. Its
//! producer ends a transaction in one of these ways, at any node:
//!
//! | way | then |
//! |---|---|
//! | with an answer, until it is known | nothing; the same again at another node; the opposite at another node |
//! | oneway, once | nothing |
//! | not at all | it is asked, says once or more that it does not know, and then what it decided |

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use tokio::sync::mpsc::{UnboundedReceiver, unbounded_channel};
use tokio::task::{JoinHandle, JoinSet};
use tokio::time::{Instant, sleep};

use super::sender::{AGAIN_AFTER, Sender};
use super::{Shape, Site};
use crate::client::{EndTransaction, Message};
use crate::connection::Question;
use crate::history::{Check, Ended, Half, Outcome, Recorder, TransactionEnd};
use crate::nemesis::Dice;
use crate::payload::{self, OpKey, mix};
use crate::stored;

const CHECK_TRANSACTION_STATE: i32 = 39;
/// ILLEGAL_OPERATION: it has ended in another way.
const ILLEGAL_OPERATION: i32 = 604;
/// How often a producer says that it is there: a node that comes back has to know soon.
const BEAT_EVERY: Duration = Duration::from_millis(500);
/// How often an end is tried before its outcome stays unknown: longer than any fault lasts.
const TRIES_MAX: u32 = 200;

/// The workload, running.
pub(super) struct Transactions {
    stop: Arc<AtomicBool>,
    lanes: JoinSet<()>,
    /// They answer and say that they are there until they are dropped.
    helpers: Vec<AbortOnDrop>,
    recorder: Arc<Recorder>,
}

struct AbortOnDrop(JoinHandle<()>);

impl Drop for AbortOnDrop {
    fn drop(&mut self) {
        self.0.abort();
    }
}

/// What the producer of this message decides.
fn commits(run: u64, key: OpKey) -> bool {
    mix(run ^ mix(key.seq ^ u64::from(key.queue) << 40 ^ u64::from(key.producer) << 50)).is_multiple_of(2)
}

impl Transactions {
    pub(super) fn start(site: &Site, shape: &Shape, recorder: &Arc<Recorder>) -> Self {
        let stop = Arc::new(AtomicBool::new(false));
        let (mut lanes, mut helpers) = (JoinSet::new(), Vec::new());
        for number in 0..shape.producers {
            let (asked, questions) = unbounded_channel();
            let sender = Arc::new(Sender::new(site, shape, recorder, number).asked(asked));
            let seed = site.seed ^ mix(u64::from(number));
            helpers.push(AbortOnDrop(tokio::spawn(beat(Arc::clone(&sender)))));
            let answering = answer(Arc::clone(&sender), questions, Dice::new(seed));
            helpers.push(AbortOnDrop(tokio::spawn(answering)));
            for queue in 0..shape.queues {
                let first = OpKey { topic: 0, queue, producer: number, seq: 0 };
                let dice = Dice::new(seed ^ u64::from(queue + 1) << 32);
                let lane = Lane { sender: Arc::clone(&sender), dice };
                lanes.spawn(lane.run(first, Arc::clone(&stop)));
            }
        }
        Self { stop, lanes, helpers, recorder: Arc::clone(recorder) }
    }

    /// Stops after the transactions under way; questions are answered on.
    pub(super) async fn stop(&mut self) {
        self.stop.store(true, Ordering::Relaxed);
        while let Some(ended) = self.lanes.join_next().await {
            if let Err(error) = ended {
                tracing::error!(%error, "a producer of transactions ended badly");
            }
        }
    }

    /// Waits until all that is to be committed was, or for `limit`.
    pub(super) async fn drain(self, limit: Duration) {
        let until = Instant::now() + limit;
        let is_done = || self.recorder.look(|history| history.committed_came());
        while Instant::now() < until && !is_done() {
            sleep(AGAIN_AFTER * 5).await;
        }
        drop(self.helpers);
    }
}

/// Says at every broker again and again that this producer is there.
async fn beat(sender: Arc<Sender>) {
    loop {
        for broker in sender.brokers() {
            // A node that is down is told the next time.
            let _ = sender.client.produce(broker).await;
        }
        sleep(BEAT_EVERY).await;
    }
}

/// Answers what brokers ask, to the broker that asked.
async fn answer(sender: Arc<Sender>, mut questions: UnboundedReceiver<Question>, mut dice: Dice) {
    while let Some(question) = questions.recv().await {
        let Some((key, end)) = end_of(&sender, &question) else { continue };
        let at_us = sender.recorder.us_at(question.at);
        sender.recorder.check(Check { key, broker: question.from.clone(), at_us });
        let knows = !dice.one_in(3);
        let commits = knows.then(|| commits(sender.shape.run, key));
        // Where that is lost, the producer is asked again.
        let _ = sender.client.end_one_way(&question.from, &EndTransaction { commits, ..end }).await;
    }
}

/// Which transaction a question is about, and its end without a decision.
fn end_of(sender: &Sender, question: &Question) -> Option<(OpKey, EndTransaction)> {
    let frame = &question.frame;
    if frame.code != CHECK_TRANSACTION_STATE {
        return None;
    }
    let message = stored::parse_all(&frame.body).ok()?.pop()?;
    let key = payload::decode(sender.shape.run, &message.body)?;
    let number = |name| frame.ext.get(name)?.parse().ok();
    let end = EndTransaction {
        topic: message.topic,
        position: number("commitLogOffset")?,
        queue_offset: number("tranStateTableOffset")?,
        unique_key: payload::unique_key(sender.shape.run, key),
        commits: None,
        is_answer: true,
    };
    Some((key, end))
}

struct Lane {
    sender: Arc<Sender>,
    dice: Dice,
}

impl Lane {
    async fn run(mut self, first: OpKey, stop: Arc<AtomicBool>) {
        for seq in 0.. {
            if stop.load(Ordering::Relaxed) {
                return;
            }
            self.one(OpKey { seq, ..first }).await;
            sleep(self.sender.shape.think).await;
        }
    }

    /// One transaction.
    async fn one(&mut self, key: OpKey) {
        let commits = commits(self.sender.shape.run, key);
        let properties =
            vec![("TRAN_MSG", "true".to_owned()), ("PGROUP", self.sender.client.group().to_owned())];
        let message = Message { properties, is_half: true, ..self.sender.message(key) };
        let (op, _) = self.sender.send(key, &message).await;
        let outcome = op.outcome.clone();
        self.sender.recorder.half(Half { op, commits });
        let Outcome::Ok { offset, position: Some(position) } = outcome else { return };
        let end = EndTransaction {
            topic: message.topic,
            position,
            queue_offset: offset,
            unique_key: message.unique_key,
            commits: Some(commits),
            is_answer: false,
        };
        self.end(key, &end).await;
    }

    /// Ends it in one of the ways.
    async fn end(&mut self, key: OpKey, end: &EndTransaction) {
        let opposite = EndTransaction { commits: end.commits.map(|commits| !commits), ..end.clone() };
        match self.dice.below(8) {
            0..3 => drop(self.until_known(key, end).await),
            3 => {
                self.until_known(key, end).await;
                self.until_known(key, end).await;
            }
            4 if self.until_known(key, end).await == Ended::Yes => {
                self.until_known(key, &opposite).await;
            }
            4 => {}
            // It may be lost: the producer is asked then.
            5 | 6 => {
                let broker = self.any_broker();
                drop(self.sender.client.end_one_way(&broker, end).await);
            }
            _ => {}
        }
    }

    fn any_broker(&mut self) -> String {
        self.dice.one_of(self.sender.brokers()).cloned().unwrap_or_default()
    }

    /// Ends it, at any node, until the outcome is known.
    async fn until_known(&mut self, key: OpKey, end: &EndTransaction) -> Ended {
        let (invoked_us, mut ended, mut broker) =
            (self.sender.recorder.now_us(), Ended::Unknown, String::new());
        for _ in 0..TRIES_MAX {
            broker = self.any_broker();
            ended = match self.sender.client.end_transaction(&broker, end).await {
                Ok(answer) if answer.code == 0 => Ended::Yes,
                Ok(answer) if answer.code == ILLEGAL_OPERATION => Ended::Refused,
                Ok(_) | Err(_) => Ended::Unknown,
            };
            if ended != Ended::Unknown {
                break;
            }
            sleep(AGAIN_AFTER).await;
        }
        let (completed_us, commits) = (self.sender.recorder.now_us(), end.commits == Some(true));
        self.sender.recorder.ending(TransactionEnd { key, commits, broker, invoked_us, completed_us, ended });
        ended
    }
}
