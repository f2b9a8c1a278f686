//! Moves what consumers send back (request 36) to the retry or dead-letter topic of their group, each message once.
//!
//! A consumer repeats what it does not hear the answer to. One transition stores the retry and notes what was moved
//! (`folio_state::sections::sent_back`), so a repeat finds the note, at any leader and however late it comes. The server finds the
//! message and writes its retry anew; here is decided whether that is stored.
//!
//! A message that is to come later is parked (`folio_protocol::parked`), in the same transition, and delivered by the driver of timers
//! ([`super::timers`]). It is due by the clock of this node, the leader, when the driver decides.
//!
//! Below the feature level of transitions the retry is stored by itself, and a repeat is recognised by the window of
//! retries ([`crate::dedup`]). What was moved so has no note: that window is looked at, too, as long as it reaches back. Below the level
//! of timers nothing waits: the message is stored for the group at once.

use std::sync::Arc;
use std::time::Duration;

use folio_engine::planted;
use folio_protocol::message::{self, MessageError, NewMessage};
use folio_protocol::parked;
use folio_state::sections::features::{TIMERS, TRANSITIONS};
use folio_state::{NoteSentBack, QueueRef, RaiseFloor, State};

use super::{Decision, Driver, Move};
use crate::dedup::{Dedup, Stored};
use crate::host::Host;
use crate::proposal::ProposeError;
use crate::shared::Shared;

/// A message that a consumer could not handle.
#[derive(Debug, Clone)]
pub struct SendBack {
    /// The consumer group.
    pub group: String,
    /// The queue that the message was consumed from.
    pub queue: QueueRef,
    /// Its offset there.
    pub offset: u64,
    /// Its place in the log.
    pub position: u64,
    /// What is to be stored for the group. The store timestamp is put when it is proposed.
    pub message: NewMessage,
    /// How long that waits until the group gets it, ms. Below the feature level of timers it does not wait.
    pub delay_ms: u64,
}

/// What this driver does.
#[derive(Debug)]
pub(crate) enum Request {
    /// A consumer's.
    Move(Box<SendBack>),
    /// The log begins here by now, and notes of messages before that are needed no more.
    RaiseFloor(u64),
}

/// A message of a consumer group, or the floor.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub(crate) enum Key {
    Message { group: String, position: u64 },
    Floor,
}

/// See the module.
pub(crate) struct SendBacks {
    host: Host,
    shared: Arc<Shared>,
}

impl SendBacks {
    pub(crate) fn new(host: Host, shared: Arc<Shared>) -> SendBacks {
        SendBacks { host, shared }
    }

    /// Whether it was stored without a note, below the level of transitions, and is not deleted with its topic since. Reads the
    /// message that is there from the log.
    fn is_in_window(&self, message: &NewMessage, state: &State) -> bool {
        let Some(dedup) = &self.shared.dedup else { return false };
        let crc = message::body_crc(&message.body);
        let (topic, times) = (&message.topic, message.reconsume_times);
        let print = dedup.print(topic, &message.properties, times, message.body.len(), crc);
        let messages = std::slice::from_ref(message);
        let stored = print.and_then(|print| dedup.stored(&self.shared.log, messages, &[print]));
        stored.is_some_and(|Stored { receipt, .. }| {
            let min = state.min_offsets().get(topic, receipt.queue_id);
            receipt.queue_offsets.iter().all(|offset| *offset >= min)
        })
    }

    /// What is stored now of a message that is to come later.
    fn later(&self, message: NewMessage, delay_ms: u64, state: &State) -> Result<NewMessage, MessageError> {
        if delay_ms == 0 || state.level() < TIMERS {
            return Ok(message);
        }
        let now_ms = u64::try_from(self.host.now_ms()).unwrap_or(0);
        parked::park(message, now_ms.saturating_add(delay_ms))
    }

    fn decide_move(&self, wish: SendBack, state: &State) -> Decision {
        let SendBack { group, queue, offset, position, message, delay_ms } = wish;
        let notes = state.sent_back();
        if !planted::is("moves-again") {
            // sent_back.I1
            if notes.has(&group, &queue, offset) || self.is_in_window(&message, state) {
                return Decision::Done;
            }
            // After the look at the window: what it named lay behind this message, and may have been dropped with it.
            if position < notes.floor().max(self.shared.log.state().start_position) {
                let why = format!("the message at {position} is not in the log any more");
                return Decision::Refused(ProposeError::Refused(why));
            }
        }
        if state.level() < TRANSITIONS {
            return Decision::Store(vec![message]);
        }
        let message = match self.later(message, delay_ms, state) {
            Ok(message) => message,
            Err(error) => return Decision::Refused(ProposeError::Refused(error.to_string())),
        };
        let note = NoteSentBack { group, queue, offset, position };
        Decision::Move(Move { commands: vec![note.into()], messages: vec![message] })
    }
}

impl Driver for SendBacks {
    const NAME: &'static str = "the driver of what is sent back";
    const LOOK_INTERVAL: Duration = Duration::from_secs(1);
    type Request = Request;
    type Key = Key;

    fn key(&self, request: &Request) -> Key {
        match request {
            Request::Move(wish) => Key::Message { group: wish.group.clone(), position: wish.position },
            Request::RaiseFloor(_) => Key::Floor,
        }
    }

    fn bytes(&self, request: &Request) -> usize {
        match request {
            Request::Move(wish) => wish.message.encoded_len(),
            Request::RaiseFloor(_) => 0,
        }
    }

    fn decide(&self, request: Request, state: &State) -> Decision {
        match request {
            Request::Move(wish) => self.decide_move(*wish, state),
            Request::RaiseFloor(floor) if floor <= state.sent_back().floor() => Decision::Done,
            Request::RaiseFloor(floor) => {
                Decision::Move(Move { commands: vec![RaiseFloor { floor }.into()], messages: Vec::new() })
            }
        }
    }

    /// Notes of what this node's log does not hold any more.
    fn due(&self) -> Vec<Request> {
        let (count, floor) = {
            let state = self.shared.state.read();
            (state.sent_back().count(), state.sent_back().floor())
        };
        let start = self.shared.log.state().start_position;
        if count > 0 && start > floor { vec![Request::RaiseFloor(start)] } else { Vec::new() }
    }

    /// What was stored below the level of transitions is in the window, once that is rebuilt.
    fn is_ready(&self) -> bool {
        self.shared.dedup.as_ref().is_none_or(Dedup::is_complete)
    }
}
