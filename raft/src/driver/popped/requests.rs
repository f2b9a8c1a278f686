//! What the driver is asked for, and what it decides.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use folio_protocol::message::NewMessage;
use folio_state::sections::popped::{Batch, IN_FLIGHT_MAX};
use folio_state::{
    AckPopped, BatchId, ChangePopped, Command, CreateTopic, PopAgain, PopMessages, PopQueue, RevivePopped,
    State, Topic,
};

use super::super::{Decision, Driver, Move};
use crate::popped;
use crate::proposal::ProposeError;
use crate::shared::Shared;

/// Whether an acknowledgement or a change is the one that ends its message's flight by that handle. The state does not say: a message that has left the last batch of its
/// queue after its time was over may have come again as well.
#[derive(Debug, Clone, Default)]
pub struct Counted(Arc<AtomicBool>);

impl Counted {
    /// Whether it is, once its outcome is told.
    pub fn is_so(&self) -> bool {
        self.0.load(Ordering::Acquire)
    }

    pub(crate) fn set(&self) {
        self.0.store(true, Ordering::Release);
    }
}

/// What this driver does.
#[derive(Debug)]
pub(crate) enum Request {
    /// A pop of one queue.
    Pop(Box<PopMessages>),
    /// An ordered batch is given again.
    Again(Box<PopAgain>),
    /// An acknowledgement.
    Ack(Box<AckPopped>, Counted),
    /// Another time.
    Change(Box<ChangePopped>, Counted),
    /// A message comes again, or becomes a dead letter.
    Revive(Box<Revive>),
    /// A message that is not in the log any more comes never again.
    Lost(Box<AckPopped>),
}

/// A message that nobody acknowledged in time.
#[derive(Debug)]
pub(crate) struct Revive {
    pub(crate) command: RevivePopped,
    /// The topic that it goes to, created if need be.
    pub(crate) topic: Topic,
    pub(crate) message: NewMessage,
    /// When it became visible: its client may have asked for another time meanwhile.
    pub(crate) seen_ms: u64,
}

/// Attempts of a group that nobody created, as of one with defaults.
const RETRY_MAX: u32 = 16;

/// Equal for what must not be under way together.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub(crate) enum Key {
    /// Pops of a queue.
    Queue(PopQueue),
    /// Whatever ends a message's flight.
    Message(PopQueue, BatchId, u64),
}

/// See the module.
pub(crate) struct Popped(pub(super) Arc<Shared>);

fn is_in_flight(state: &State, queue: &PopQueue, id: BatchId, offset: u64) -> bool {
    let batch = state.popped().batch(queue, id);
    batch.is_some_and(|batch| batch.in_flight(id).any(|at| at == offset))
}

/// Whether a pop is what the state allows now (`pop.I3`), and the log (`pop.I4`).
fn may_pop(pop: &PopMessages, state: &State, floor: u64) -> bool {
    let popped = state.popped();
    let in_flight = popped.in_flight(&pop.queue) + pop.diffs.len() as u64;
    popped.ordered(&pop.queue).is_none()
        && state.offset_as_stored(&pop.queue) == pop.from
        && popped.batch(&pop.queue, pop.id).is_none()
        && (pop.diffs.is_empty()
            || (in_flight <= IN_FLIGHT_MAX && popped.has_place(&pop.queue) && pop.position >= floor))
}

/// A last attempt of an ordered batch is repeated while so much of its time is left, ms: more than a move is under way.
pub const AGAIN_BEFORE_MS: u64 = 1000;

/// Whether an ordered batch may be given again. Once its last attempt is over it is for the revival alone, which has other keys.
fn may_pop_again(again: &PopAgain, state: &State) -> bool {
    let batch = state.popped().batch(&again.queue, again.id);
    batch.is_some_and(|batch| {
        let is_last = is_given_up(state, &again.queue.group, batch);
        let is_in_time = !again.counts && again.seen_ms > again.popped_ms + AGAIN_BEFORE_MS;
        batch.visible_ms == again.seen_ms && (!is_last || is_in_time)
    })
}

/// Whether an ordered batch was given as often as its group wants; `false` for one without order.
pub fn is_given_up(state: &State, group: &str, batch: &Batch) -> bool {
    let max = retry_max(state, group);
    batch.order.as_ref().is_some_and(|order| order.attempts >= max)
}

/// Attempts of a group; that of one with defaults where nobody created it.
pub(super) fn retry_max(state: &State, group: &str) -> u32 {
    state.group(group).map_or(RETRY_MAX, |group| group.retry_max)
}

/// `pop.I3`: a message that has a batch of its own needs no place.
fn has_place(change: &ChangePopped, state: &State) -> bool {
    let popped = state.popped();
    let is_alone = popped.batch(&change.queue, change.id).is_some_and(|batch| batch.count() == 1);
    is_alone || popped.has_place(&change.queue)
}

fn only(command: impl Into<Command>, is_right: bool) -> Decision {
    if !is_right {
        return Decision::Done;
    }
    Decision::Move(Move { commands: vec![command.into()], messages: Vec::new() })
}

fn revive(Revive { command, topic, message, seen_ms }: Revive, state: &State) -> Decision {
    let batch = state.popped().batch(&command.queue, command.id);
    let is_due = batch.is_some_and(|batch| batch.visible_ms == seen_ms);
    if !is_due || !is_in_flight(state, &command.queue, command.id, command.offset) {
        return Decision::Done;
    }
    let creation = state.topic(&topic.name).is_none().then(|| CreateTopic(topic).into());
    let commands = creation.into_iter().chain([command.into()]).collect();
    Decision::Move(Move { commands, messages: vec![message] })
}

impl Driver for Popped {
    const NAME: &'static str = "the driver of what is popped";
    const LOOK_INTERVAL: Duration = Duration::from_secs(1);
    type Request = Request;
    type Key = Key;

    fn key(&self, request: &Request) -> Key {
        match request {
            Request::Pop(pop) => Key::Queue(pop.queue.clone()),
            Request::Again(again) => Key::Queue(again.queue.clone()),
            Request::Ack(ack, _) | Request::Lost(ack) => Key::Message(ack.queue.clone(), ack.id, ack.offset),
            Request::Change(change, _) => Key::Message(change.queue.clone(), change.id, change.offset),
            Request::Revive(revive) => {
                let RevivePopped { queue, id, offset } = &revive.command;
                Key::Message(queue.clone(), *id, *offset)
            }
        }
    }

    fn bytes(&self, request: &Request) -> usize {
        let bytes = |queue: &PopQueue| queue.group.len() + queue.topic.len() + size_of::<PopMessages>();
        match request {
            Request::Pop(pop) => bytes(&pop.queue) + 4 * pop.diffs.len(),
            Request::Again(again) => bytes(&again.queue) + again.attempt.len(),
            Request::Ack(ack, _) | Request::Lost(ack) => bytes(&ack.queue),
            Request::Change(change, _) => bytes(&change.queue),
            Request::Revive(revive) => bytes(&revive.command.queue) + revive.message.encoded_len(),
        }
    }

    fn decide(&self, request: Request, state: &State) -> Decision {
        match request {
            Request::Pop(pop) => {
                let may = may_pop(&pop, state, popped::floor(&self.0));
                only(*pop, may)
            }
            Request::Again(again) => {
                let may = may_pop_again(&again, state);
                only(*again, may)
            }
            Request::Ack(ack, counted) => {
                let is_in_flight = is_in_flight(state, &ack.queue, ack.id, ack.offset);
                if is_in_flight {
                    counted.set();
                }
                only(*ack, is_in_flight)
            }
            Request::Lost(ack) => {
                let is_in_flight = is_in_flight(state, &ack.queue, ack.id, ack.offset);
                only(*ack, is_in_flight)
            }
            Request::Change(change, counted) => {
                let is_in_flight = is_in_flight(state, &change.queue, change.id, change.offset);
                if is_in_flight && !has_place(&change, state) {
                    return Decision::Refused(ProposeError::Busy);
                }
                if is_in_flight {
                    counted.set();
                }
                only(*change, is_in_flight)
            }
            Request::Revive(wish) => revive(*wish, state),
        }
    }
}
