//! One connection of a load of pops.
//!
//! The connection has a fixed number of slots. A slot pops, acknowledges what it got, and pops again once all of that is
//! answered. The requests of a slot have opaques of their own: [`OPAQUES`] times the slot's number, and one more for each
//! acknowledgement.

use std::sync::Arc;
use std::time::{Duration, Instant};

use anyhow::{Context, Result};
use folio_protocol::code::ResponseCode;
use folio_protocol::frame::Frame;
use folio_protocol::limits::POP_MESSAGES_MAX;
use tokio::time::sleep;

use super::exchange::{Popped, Question};
use crate::bench::clock::now_us;
use crate::bench::shared::{LOST, Shared, TIMEOUT};
use crate::bench::tally::Tally;
use crate::bench::target::Target;
use crate::bench::wire::Wire;

/// Longer than a server holds a pop that waits.
const ANSWER_TIMEOUT: Duration = Duration::from_secs(5);
const RECONNECT_PAUSE: Duration = Duration::from_millis(20);
/// After a pop that gave nothing or was refused, so that the server is not flooded.
const PAUSE: Duration = Duration::from_millis(20);
/// What was popped before the end gets this long to be acknowledged: it would come again otherwise.
const ACK_TIMEOUT: Duration = Duration::from_secs(1);
/// A slot that does not follow is done after this many pops in a row that gave nothing. One may find messages of others'
/// pops only, or a queue that another pop holds just then.
const EMPTY_POPS_MAX: u32 = 3;
/// Opaques of a slot: a pop and its acknowledgements.
const OPAQUES: usize = POP_MESSAGES_MAX + 1;

/// What a slot waits for.
#[derive(Debug, Clone, Copy)]
enum Slot {
    /// Its next pop, not before then; that many before gave nothing.
    Idle { until: Instant, empty: u32 },
    /// The answer to its pop.
    Popping { asked: Instant, empty: u32 },
    /// The answers to its acknowledgements: so many, of so many messages each, with so many bytes.
    Acking { asked: Instant, left: usize, messages: u64, bytes: u64 },
    /// Nothing: there are no more messages.
    Done,
}

/// One connection to one broker.
pub(crate) struct Popper {
    broker: String,
    question: Question,
    slots: Vec<Slot>,
}

impl Popper {
    pub(super) fn new(broker: &str, question: Question, slots: usize) -> Self {
        let now = Instant::now();
        Self { broker: broker.to_owned(), question, slots: vec![Slot::Idle { until: now, empty: 0 }; slots] }
    }

    /// Pops until the time is up or there are no more messages: how many slots have a request without an answer then.
    pub(crate) async fn run(mut self, shared: Arc<Shared>) -> usize {
        while Instant::now() < shared.end() {
            let targets = shared.targets();
            if let Some(target) = targets.iter().find(|target| target.broker == self.broker) {
                match self.session(&shared, target).await {
                    Ok(true) => break,
                    Ok(false) => self.fail(&shared, LOST, None),
                    Err(error) => self.fail(&shared, LOST, Some(format!("{error:#}"))),
                }
            }
            shared.refresh();
            sleep(RECONNECT_PAUSE).await;
        }
        self.in_flight()
    }

    fn in_flight(&self) -> usize {
        self.slots.iter().filter(|slot| slot.asked().is_some()).count()
    }

    /// What was in flight comes again when its invisible time is over.
    fn fail(&mut self, shared: &Shared, name: &str, remark: Option<String>) {
        let (now, lost) = (Instant::now(), self.in_flight());
        let mut tally = shared.tally.lock();
        tally.failed(now, name, lost);
        if let Some(remark) = remark {
            tally.note(name, remark);
        }
        for slot in self.slots.iter_mut().filter(|slot| slot.asked().is_some()) {
            *slot = Slot::Idle { until: now, empty: 0 };
        }
    }

    /// Whether it is over; otherwise the leader moved.
    async fn session(&mut self, shared: &Shared, target: &Target) -> Result<bool> {
        let mut wire = Wire::connect(&target.address).await?;
        loop {
            let now = Instant::now();
            // A pop that is in flight at the end may be answered with messages to acknowledge.
            let end = shared.end() + if self.in_flight() > 0 { ACK_TIMEOUT } else { Duration::ZERO };
            if now >= end || self.slots.iter().all(Slot::is_done) {
                return Ok(true);
            }
            if !shared.targets().contains(target) {
                return Ok(false);
            }
            if now < shared.end() {
                self.pop(&mut wire, now)?;
            }
            wire.write()?;
            wire.wait(now + PAUSE).await?;
            wire.read()?;
            self.take_answers(shared, &mut wire)?;
            let silent = |slot: &Slot| slot.asked().is_some_and(|asked| now >= asked + ANSWER_TIMEOUT);
            if self.slots.iter().any(silent) {
                let remark = format!("{} did not answer within {ANSWER_TIMEOUT:?}", target.address);
                self.fail(shared, TIMEOUT, Some(remark));
                return Ok(false);
            }
        }
    }

    fn pop(&mut self, wire: &mut Wire, now: Instant) -> Result<()> {
        for (number, slot) in self.slots.iter_mut().enumerate() {
            if let Slot::Idle { until, empty } = *slot
                && until <= now
            {
                put(wire, self.question.pop(now_us() / 1_000), number * OPAQUES)?;
                *slot = Slot::Popping { asked: now, empty };
            }
        }
        Ok(())
    }

    fn take_answers(&mut self, shared: &Shared, wire: &mut Wire) -> Result<()> {
        let now = Instant::now();
        let mut tally = shared.tally.lock();
        while let Some(answer) = Frame::decode(&mut wire.inbox)? {
            let number = usize::try_from(answer.opaque).unwrap_or(usize::MAX);
            match self.slots.get(number / OPAQUES) {
                Some(&Slot::Popping { asked, empty }) if number % OPAQUES == 0 => {
                    let slot = self.popped(answer, (number, asked, empty), (shared, &mut *tally), wire, now);
                    self.slots[number / OPAQUES] =
                        slot.with_context(|| format!("{} gave messages that cannot be read", self.broker))?;
                }
                Some(&Slot::Acking { asked, left, messages, bytes }) if number % OPAQUES > 0 => {
                    if answer.code == ResponseCode::Success.code() {
                        tally.counted(now, messages, bytes);
                    } else {
                        tally.refused(now, answer.code, || answer.remark);
                        shared.refresh();
                    }
                    self.slots[number / OPAQUES] = match left {
                        ..=1 => Slot::Idle { until: now, empty: 0 },
                        _ => Slot::Acking { asked, left: left - 1, messages, bytes },
                    };
                }
                // An answer that nobody waits for.
                Some(_) | None => {}
            }
        }
        Ok(())
    }

    /// Takes the answer to a pop and acknowledges its messages.
    fn popped(
        &self,
        answer: Frame,
        (number, asked, empty): (usize, Instant, u32),
        (shared, tally): (&Shared, &mut Tally),
        wire: &mut Wire,
        now: Instant,
    ) -> Result<Slot> {
        let popped = match ResponseCode::from_code(answer.code) {
            Some(ResponseCode::Success) => Popped::of(&answer, &self.broker)?,
            Some(ResponseCode::PollingTimeout | ResponseCode::PollingFull | ResponseCode::PullNotFound) => {
                Popped::default()
            }
            _ => {
                tally.refused(now, answer.code, || answer.remark);
                shared.refresh();
                return Ok(Slot::Idle { until: now + PAUSE, empty });
            }
        };
        let acks = self.question.acks(&popped.handles, &self.broker)?;
        let Some(first) = acks.first() else {
            let is_done = !self.question.follow && empty + 1 >= EMPTY_POPS_MAX;
            let idle = Slot::Idle { until: now + PAUSE, empty: empty + 1 };
            return Ok(if is_done { Slot::Done } else { idle });
        };
        tally.answered(now, asked);
        let (left, messages) = (acks.len(), first.messages);
        let bytes = popped.bytes / left as u64;
        for (ack, opaque) in acks.into_iter().zip(number + 1..) {
            put(wire, ack.frame, opaque)?;
        }
        Ok(Slot::Acking { asked: now, left, messages, bytes })
    }
}

/// Writes a request.
fn put(wire: &mut Wire, mut request: Frame, opaque: usize) -> Result<()> {
    request.opaque = i32::try_from(opaque)?;
    request.encode(&mut wire.outbox)?;
    Ok(())
}

impl Slot {
    fn is_done(&self) -> bool {
        match self {
            Slot::Done => true,
            Slot::Idle { .. } | Slot::Popping { .. } | Slot::Acking { .. } => false,
        }
    }

    /// When its requests in flight were written.
    fn asked(&self) -> Option<Instant> {
        match self {
            Slot::Popping { asked, .. } | Slot::Acking { asked, .. } => Some(*asked),
            Slot::Idle { .. } | Slot::Done => None,
        }
    }
}
