//! The load of SENDs: each connection keeps its share of the messages in flight, or of the rate.

use std::sync::Arc;
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use anyhow::{Result, anyhow};
use bytes::Buf;
use bytes::BytesMut;
use folio_protocol::code::ResponseCode;
use folio_protocol::frame::{Frame, Serialization};
use folio_protocol::ids::UniqueIds;
use tokio::time::sleep;

use super::backoff::Backoff;
use super::kind::Extras;
use super::shared::{LOST, Shared, TIMEOUT};
use super::slots::Slots;
use super::target::Target;
use super::template::{Subject, Template};
use super::transactions::Transactions;
use super::wire::{Wire, first_answer};

/// How long an answer is waited for, as RocketMQ's own producers do by default.
const ANSWER_TIMEOUT: Duration = Duration::from_secs(3);
/// After this long without an answer the leader may be another one: the route is asked for. A node that hangs
/// closes no connection.
const SUSPECT_AFTER: Duration = Duration::from_millis(200);
/// What a connection to a former leader gets to answer what is in flight.
const LEAVE_TIMEOUT: Duration = Duration::from_millis(500);
/// Between two tries to connect.
const RECONNECT_PAUSE: Duration = Duration::from_millis(20);
/// Longest sleep: how soon timeouts and moves are noticed.
const TICK: Duration = Duration::from_millis(50);
/// Bytes waiting to be written beyond which no more are made.
const OUTBOX_BYTES_MAX: usize = 4 * 1024 * 1024;
/// What a transaction begun before the end gets to be committed: an open one would be checked by the server later.
const COMMIT_TIMEOUT: Duration = Duration::from_secs(1);
/// The group of all messages.
pub(super) const PRODUCER_GROUP: &str = "folio_bench";

/// What all connections of the load send.
pub(super) struct Plan {
    pub(super) topics: Vec<String>,
    pub(super) serialization: Serialization,
    pub(super) body: Vec<u8>,
    pub(super) extras: Extras,
    /// Whether the messages are half messages, to be committed.
    pub(super) commits: bool,
}

/// One connection's share of the load.
pub(super) struct Share {
    /// Which connection.
    pub(super) index: usize,
    /// Messages in flight at most.
    pub(super) outstanding: usize,
    /// Messages a second, in an open loop.
    pub(super) rate: Option<f64>,
    /// How many messages; none: as many as go until the load ends.
    pub(super) messages: Option<u64>,
}

/// One connection's part of the load.
pub(super) struct Sender {
    shared: Arc<Shared>,
    plan: Arc<Plan>,
    index: usize,
    /// Messages that are still to be sent.
    left: u64,
    slots: Slots,
    ids: UniqueIds,
    counter: u16,
    turn: usize,
    /// In an open loop: time between two messages of this connection, and when the next is due.
    interval: Option<Duration>,
    due: Instant,
    backoff: Backoff,
    transactions: Option<Transactions>,
    /// When to look for requests that wait too long.
    look_at: Instant,
}

/// Why a connection is left.
enum Left {
    Over,
    Moved,
    Silent,
}

impl Sender {
    pub(super) fn new(shared: Arc<Shared>, plan: Arc<Plan>, share: Share) -> Self {
        let Share { index, outstanding, rate, messages } = share;
        let now = Instant::now();
        let tag = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default().subsec_nanos();
        let transactions = plan
            .commits
            .then(|| Transactions::new(&plan.topics, PRODUCER_GROUP, plan.serialization, outstanding));
        Self {
            shared,
            plan,
            index,
            left: messages.unwrap_or(u64::MAX),
            slots: Slots::new(outstanding),
            ids: UniqueIds::new([127, 0, 0, 1].into(), std::process::id(), tag.wrapping_add(index as u32)),
            counter: 0,
            turn: index,
            interval: rate.map(|rate| Duration::from_secs_f64(1.0 / rate)),
            due: now,
            backoff: Backoff::new(now),
            transactions,
            look_at: now,
        }
    }

    /// Sends until the time is up: how many requests have no answer then.
    pub(super) async fn run(mut self) -> usize {
        while Instant::now() < self.shared.end() && !self.is_done() {
            let targets = self.shared.targets();
            let target = self.mine(&targets);
            match self.session(&targets, target).await {
                Ok(Left::Over) => return self.slots.used(),
                Ok(Left::Moved) => self.fail(LOST, None),
                Ok(Left::Silent) => {
                    self.fail(
                        TIMEOUT,
                        Some(format!("{} did not answer within {ANSWER_TIMEOUT:?}", target.address)),
                    );
                }
                Err(error) => self.fail(LOST, Some(format!("{error:#}"))),
            }
            self.shared.refresh();
            sleep(RECONNECT_PAUSE).await;
        }
        self.slots.used()
    }

    /// Everything in flight failed; the servers may or may not have it.
    fn fail(&mut self, name: &str, remark: Option<String>) {
        let lost = self.slots.clear();
        let mut tally = self.shared.tally.lock();
        tally.failed(Instant::now(), name, lost);
        if let (Some(remark), true) = (remark, lost > 0) {
            tally.note(name, remark);
        }
    }

    /// The broker of this connection.
    fn mine<'a>(&self, targets: &'a [Target]) -> &'a Target {
        &targets[self.index % targets.len()]
    }

    async fn session(&mut self, heard: &Arc<Vec<Target>>, target: &Target) -> Result<Left> {
        let mut heard = Arc::clone(heard);
        let templates = self.templates(target)?;
        let mut wire = Wire::connect(&target.address).await?;
        let mut leave_by = None;
        loop {
            let now = Instant::now();
            if now >= self.end() || self.is_done() {
                return Ok(Left::Over);
            }
            if leave_by.is_none() && !self.shared.are_current(&heard) {
                heard = self.shared.targets();
                leave_by = (self.mine(&heard) != target).then(|| now + LEAVE_TIMEOUT);
            }
            match leave_by {
                Some(by) if self.slots.used() == 0 || now >= by => return Ok(Left::Moved),
                Some(_) => {}
                None => self.fill(&templates, &mut wire.outbox, now),
            }
            wire.write()?;
            wire.wait(self.wake_at(now)).await?;
            wire.read()?;
            self.take_answers(&mut wire)?;
            if self.is_silent(now) {
                return Ok(Left::Silent);
            }
        }
    }

    fn templates(&self, target: &Target) -> Result<Vec<Template>> {
        let subject = |topic: &str, queue| Subject {
            topic: topic.into(),
            producer_group: PRODUCER_GROUP.into(),
            broker_name: target.broker.as_str().into(),
            queue,
            body_bytes: self.plan.body.len(),
            serialization: self.plan.serialization,
            extras: self.plan.extras.clone(),
        };
        let places =
            (0..target.queues).flat_map(|queue| self.plan.topics.iter().map(move |topic| (topic, queue)));
        places.map(|(topic, queue)| Template::new(&subject(topic, queue))).collect()
    }

    /// Makes all requests that are due and have room.
    fn fill(&mut self, templates: &[Template], outbox: &mut BytesMut, now: Instant) {
        if self.backoff.holds(now) || templates.is_empty() || now >= self.shared.end() {
            return;
        }
        let since_epoch = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
        let born_ms = since_epoch.as_millis() as u64;
        while self.slots.has_room() && outbox.len() < OUTBOX_BYTES_MAX && self.is_due(now) {
            let due = self.interval.map_or(now, |_| self.due);
            let Some(opaque) = self.slots.take(due, now) else { return };
            self.left -= 1;
            self.due = self.interval.map_or(now, |interval| due + interval);
            let key = self.ids.id(born_ms, self.counter);
            self.counter = self.counter.wrapping_add(1);
            if let Some(transactions) = &mut self.transactions {
                transactions.began(opaque, self.turn % templates.len());
            }
            templates[self.turn % templates.len()].put(outbox, opaque, born_ms, &key, &self.plan.body);
            self.turn = self.turn.wrapping_add(1);
        }
    }

    /// When the connection is left: when the load ends, or once the transactions of then are committed.
    fn end(&self) -> Instant {
        let is_open = self.transactions.is_some() && self.slots.used() > 0;
        self.shared.end() + if is_open { COMMIT_TIMEOUT } else { Duration::ZERO }
    }

    /// Whether all messages were sent, and answered or lost.
    fn is_done(&self) -> bool {
        self.left == 0 && self.slots.used() == 0
    }

    fn is_due(&self, now: Instant) -> bool {
        self.left > 0 && (self.interval.is_none() || self.due <= now)
    }

    fn wake_at(&self, now: Instant) -> Instant {
        let mut at = self.end().min(now + TICK);
        if self.backoff.holds(now) {
            at = at.min(self.backoff.until());
        } else if self.interval.is_some() && self.slots.has_room() && self.left > 0 && now < self.shared.end()
        {
            at = at.min(self.due.max(now));
        }
        at
    }

    /// Whether a request waits too long. Looking through all slots costs, so it is done now and then.
    fn is_silent(&mut self, now: Instant) -> bool {
        if now < self.look_at {
            return false;
        }
        self.look_at = now + TICK;
        let Some(sent) = self.slots.oldest() else { return false };
        if now >= sent + SUSPECT_AFTER {
            self.shared.refresh();
        }
        now >= sent + ANSWER_TIMEOUT
    }

    fn take_answers(&mut self, wire: &mut Wire) -> Result<()> {
        let Wire { inbox, outbox, .. } = wire;
        let now = Instant::now();
        let shared = Arc::clone(&self.shared);
        let mut tally = shared.tally.lock();
        let (mut taken, mut refused) = (0, false);
        while let Some(answer) = first_answer(&inbox[taken..])? {
            taken += answer.frame.len();
            let is_success = answer.code == ResponseCode::Success.code();
            if is_success
                && let Some(transactions) = &mut self.transactions
                && self.slots.renew(answer.opaque, now)
                && transactions.commit(answer.opaque, answer.frame, outbox)?
            {
                continue;
            }
            let Some(due) = self.slots.give(answer.opaque) else { continue };
            if is_success {
                tally.acked(now, due, 1, self.plan.body.len() as u64);
            } else {
                tally.refused(now, answer.code, || remark(answer.frame));
                refused = true;
            }
        }
        if refused {
            self.backoff.refused(now);
            shared.refresh();
        } else if taken > 0 {
            self.backoff.accepted();
        }
        inbox.advance(taken);
        Ok(())
    }
}

/// The words of an answer.
fn remark(frame: &[u8]) -> Option<String> {
    Frame::decode(&mut BytesMut::from(frame)).ok().flatten()?.remark
}

/// Spreads requests in flight over connections: each has one, and the first ones the rest.
pub(super) fn share(outstanding: usize, connections: usize, index: usize) -> usize {
    outstanding / connections + usize::from(index < outstanding % connections)
}

/// A body of printable bytes.
pub(super) fn body(size: usize) -> Vec<u8> {
    (b'a'..=b'z').cycle().take(size).collect()
}

/// Fails if nothing was acknowledged.
pub(super) fn check(acked: u64, what: &str) -> Result<()> {
    if acked == 0 { Err(anyhow!("no message was {what}")) } else { Ok(()) }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn shares_add_up_to_what_was_asked_for() {
        for (outstanding, connections) in [(1, 1), (7, 3), (256, 4), (5, 5)] {
            let shares = (0..connections).map(|index| share(outstanding, connections, index));
            assert!(shares.clone().all(|share| share > 0));
            assert_eq!(shares.sum::<usize>(), outstanding);
        }
    }
}
