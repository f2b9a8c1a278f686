//! What becomes of a send that repeats a stored message, or one under way: see [`crate::dedup`].
//!
//! A retry is answered with the first one's place, or waits for its outcome. A new message is stored. Where this node
//! cannot tell by itself, the proposal leaves the feeder until the other nodes have answered, and is queued again with
//! what they said; what repeats it meanwhile waits behind it. The feeder never waits.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use bytes::Bytes;
use folio_engine::planted;
use folio_protocol::Name;
use folio_protocol::half;
use folio_protocol::message::{self, NewMessage};
use folio_protocol::parked;
use folio_protocol::properties::{self, PRODUCER_GROUP, UNIQUE_KEY};
use folio_state::Ending;
use openraft::base::BoxFuture;
use parking_lot::Mutex;
use tokio::time::Instant;

use super::{Inbox, Waiting};
use crate::dedup::attempts::Earlier;
use crate::dedup::flights::{Flights, Place};
use crate::dedup::{Dedup, Stored};
use crate::proposal::{Attempt, Known, Knows, PROMPT, ProposeError, Question, Receipt, Repeat};
use crate::shared::Shared;

const PROMPT_MS: i64 = PROMPT.as_millis() as i64;

/// What a send repeats.
struct First {
    /// The attempt that is known to be the last one.
    earlier: Earlier,
    /// Where its message is stored, if that is all that is known of it.
    position: Option<u64>,
    /// Whether its application has sent the same object before.
    many: bool,
    outcome: Outcome,
}

/// What its client hears, or heard.
enum Outcome {
    UnderWay(Place),
    Stored(Receipt),
}

/// What is known of a repeat.
enum Verdict {
    New,
    Retry,
    Later(BoxFuture<'static, Knows>),
}

/// Looks for what a proposal repeats.
pub(super) struct Repeats {
    shared: Arc<Shared>,
    flights: Arc<Mutex<Flights>>,
    inbox: Inbox,
    /// What is stored from here on was proposed by this node, in the term that it leads.
    led_from: AtomicU64,
}

/// The attempt that a proposal is.
pub(super) fn attempt_of(messages: &[NewMessage], repeat: Repeat, now: Instant) -> Option<Earlier> {
    let first = messages.first()?;
    let (number, came) = match repeat {
        Repeat::Send(attempt) => (Some(attempt.number), attempt.arrived),
        Repeat::Same | Repeat::Store => (None, now),
    };
    let (client, born_ms) = (first.born_host, first.born_timestamp);
    let late = now.saturating_duration_since(came) >= PROMPT;
    Some(Earlier { client, number, after: Some(came), by: came, late, born_ms })
}

impl Repeats {
    pub(super) fn new(shared: Arc<Shared>, flights: Arc<Mutex<Flights>>, inbox: Inbox) -> Repeats {
        Repeats { shared, flights, inbox, led_from: AtomicU64::new(u64::MAX) }
    }

    /// This node leads in a new term. Other leaders may have stored what it does not know the attempts of.
    pub(super) fn begin_term(&self) {
        self.flights.lock().attempts.clear();
        self.led_from.store(self.shared.applied_position.load(Ordering::Acquire), Ordering::Relaxed);
    }

    /// Answers a retry, or lets it wait for what it repeats; gives back what is new.
    pub(super) fn look(&self, dedup: &Dedup, mut waiting: Waiting, prints: &[u64]) -> Option<Waiting> {
        let Some(print) = prints.first().copied() else { return Some(waiting) };
        if waiting.is_retry == Some(false) || planted::is("retry-stores-again") {
            return Some(waiting);
        }
        if waiting.is_retry.is_none() {
            waiting = self.wait_for_question(print, waiting)?;
        }
        let Some(first) = self.first(dedup, &waiting, prints) else { return Some(waiting) };
        match self.verdict(&waiting, &first, print) {
            Verdict::New => Some(waiting),
            Verdict::Retry => {
                self.share(dedup, first, waiting, print);
                None
            }
            Verdict::Later(answer) => {
                self.ask(print, answer, first.many, waiting);
                None
            }
        }
    }

    /// First what is under way, then what is stored: a record leaves the first after it is in the second.
    fn first(&self, dedup: &Dedup, waiting: &Waiting, prints: &[u64]) -> Option<First> {
        let (under_way, last) = {
            let flights = self.flights.lock();
            let last = flights.attempts.find(*prints.first()?, dedup.age(), Instant::now());
            (flights.find(prints), last)
        };
        if let Some((place, mut earlier)) = under_way {
            earlier.late = true;
            // Whoever shares its outcome is no better off than its own client until it is known.
            let outcome = Outcome::UnderWay(place);
            return Some(First { earlier, position: None, many: false, outcome });
        }
        let messages = &waiting.proposal.messages;
        let Stored { receipt, mut earlier, applied, many } =
            dedup.stored(&self.shared.log, messages, prints)?;
        if self.is_gone(&messages[0], &receipt) {
            dedup.forget(prints);
            return None;
        }
        let position = receipt.positions.first().copied();
        // What took long here is among the attempts: this one was applied soon after it came.
        earlier.after = position.filter(|at| *at >= self.led_from.load(Ordering::Relaxed)).map(|_| applied);
        let outcome = Outcome::Stored(receipt);
        Some(match last {
            Some(earlier) => First { earlier, position: None, many, outcome },
            None => First { earlier, position, many, outcome },
        })
    }

    /// Whether a stored message comes to nothing any more: its sender must not be told that it is there. It was deleted with its
    /// topic, or it is the half of a transaction that ended without a message (`dedup.I6`).
    fn is_gone(&self, message: &NewMessage, receipt: &Receipt) -> bool {
        let state = self.shared.state.read();
        if *message.topic == *half::TOPIC {
            let group = properties::get(&message.properties, PRODUCER_GROUP).unwrap_or_default();
            let transactions = state.transactions();
            return !receipt.positions.iter().all(|id| {
                transactions.get(group, *id).is_some() || transactions.ending(*id) == Some(Ending::Committed)
            });
        }
        let min = state.min_offsets().get(&message.topic, receipt.queue_id);
        receipt.queue_offsets.iter().any(|offset| *offset < min)
    }

    fn wait_for_question(&self, print: u64, waiting: Waiting) -> Option<Waiting> {
        let waits = self.flights.lock().wait_for_question(print, waiting);
        waits.unwrap_or_else(|waiting| {
            self.inbox.answer(waiting, Err(ProposeError::Busy));
            None
        })
    }

    /// Gives a retry the outcome of what it repeats.
    fn share(&self, dedup: &Dedup, first: First, waiting: Waiting, print: u64) {
        let mut flights = self.flights.lock();
        let attempt = attempt_of(&waiting.proposal.messages, waiting.proposal.repeat, Instant::now());
        if let Some(mut attempt) = attempt {
            // The next retry is compared with this one, and must not forget when what they share came.
            attempt.after = attempt.after.max(first.earlier.after);
            flights.attempts.note(print, attempt);
        }
        let (waiting, answer) = match first.outcome {
            Outcome::Stored(receipt) => (waiting, Ok(receipt)),
            Outcome::UnderWay(place) => match flights.park(place, waiting) {
                Ok(()) => return,
                Err(waiting) => (waiting, Err(ProposeError::Busy)),
            },
        };
        drop(flights);
        if answer.is_ok() {
            dedup.count();
        }
        self.inbox.answer(waiting, answer);
    }

    fn verdict(&self, waiting: &Waiting, first: &First, print: u64) -> Verdict {
        let Repeat::Send(attempt) = waiting.proposal.repeat else { return Verdict::Retry };
        let Some(message) = waiting.proposal.messages.first() else { return Verdict::New };
        if waiting.is_retry == Some(true) || planted::is("repeat-by-key") {
            return Verdict::Retry;
        }
        let earlier = &first.earlier;
        let waited = self.flights.lock().attempts.waited(print, attempt.arrived);
        let later = was_made_later(&attempt, message, earlier, Instant::now());
        if waited || later || is_overtaken(&attempt, message, earlier) {
            return Verdict::Retry;
        }
        let same_connection = earlier.client == message.born_host;
        if same_connection && !attempt.doubts && attempt.connected <= earlier.by {
            return Verdict::New;
        }
        let question = Question {
            client: earlier.client,
            same_connection,
            number: earlier.number,
            position: first.position,
            topic: sent_to(message),
            key: Bytes::copy_from_slice(
                properties::first(&message.properties, UNIQUE_KEY).unwrap_or_default(),
            ),
            body_bytes: message.body.len(),
            body_crc: message::body_crc(&message.body),
            sent_by: earlier.by,
            repeated: attempt.arrived,
            repeat: attempt.here.then_some(message.born_host),
        };
        match self.shared.hooks.knows(question) {
            Known::Now(knows) if is_retry(knows, first.many) => Verdict::Retry,
            Known::Now(_) => Verdict::New,
            Known::Later(answer) => Verdict::Later(answer),
        }
    }

    /// Takes a proposal out of the feeder's way until it is known what the client of the first attempt knows.
    fn ask(&self, print: u64, answer: BoxFuture<'static, Knows>, many: bool, mut waiting: Waiting) {
        if !self.flights.lock().ask(print) {
            return self.inbox.answer(waiting, Err(ProposeError::Busy));
        }
        let (inbox, flights) = (self.inbox.clone(), self.flights.clone());
        tokio::spawn(async move {
            waiting.is_retry = Some(is_retry(answer.await, many));
            inbox.again(waiting);
            let behind = flights.lock().answered(print);
            behind.into_iter().for_each(|waiting| inbox.again(waiting));
        });
    }
}

/// What the answer of the other nodes makes of a repeat (`dedup.I5`).
fn is_retry(knows: Knows, many: bool) -> bool {
    match knows {
        Knows::Settled => false,
        Knows::Doubtful => true,
        Knows::Gone => !many,
    }
}

/// Whether what seems to repeat a message was sent so long before it that the stored one may be its own retry: it waited
/// for a leader, or in the sockets of a node that hung. Its client tells by its own clock, if it has stepped back by no
/// more than that; on one connection the order is known.
fn is_overtaken(attempt: &Attempt, message: &NewMessage, earlier: &Earlier) -> bool {
    let by_client = earlier.born_ms.saturating_sub(message.born_timestamp) >= PROMPT_MS;
    let came_later = earlier.after.is_some_and(|after| after >= attempt.arrived + PROMPT);
    came_later || (by_client && earlier.client != message.born_host)
}

/// Whether an attempt of which it is not known when it came was made so long after the earlier one that its client may have
/// given that one up. Both lay in the sockets of nodes that stood still, and came at the same time for all that these know;
/// the client's clock tells them apart. An attempt that came right now is not looked at: its arrival is known. Nor is an
/// earlier one that was answered in time: its client did not give it up, and what repeats it is a new message.
fn was_made_later(attempt: &Attempt, message: &NewMessage, earlier: &Earlier, now: Instant) -> bool {
    let Some(after) = earlier.after else { return false };
    if !earlier.late || now < attempt.arrived + PROMPT {
        return false;
    }
    let came_ms = attempt.arrived.saturating_duration_since(after).as_millis() as i64;
    message.born_timestamp.saturating_sub(earlier.born_ms).saturating_sub(came_ms) >= PROMPT_MS
}
/// The topic that a client sent a message to: a delayed one is parked in another, and so is one of a transaction.
fn sent_to(message: &NewMessage) -> Name {
    let is_parked = [parked::TOPIC, half::TOPIC].contains(&&*message.topic);
    let real = is_parked.then(|| properties::get(&message.properties, properties::REAL_TOPIC)).flatten();
    real.map_or_else(|| message.topic.clone(), Name::from)
}
