//! What became of the sends of this node's clients: the account that tells a client's retry from a new message.
//!
//! Each connection keeps its sends that are not answered yet, and the doubts: those whose answer came later than
//! [`PROMPT`], or said that the outcome is unknown. Of a send that was answered promptly nothing is kept, so the account
//! of a healthy connection is a few words. The leader asks for it when a send repeats a stored message; a
//! connection that is closed has no account any more.
//!
//! Oneway sends are not in it: they have no answer, and clients never repeat them.
//!
//! Invariants
//! - `sends.I1` A send is in the account from before it is served until after its answer was queued: one that is answered
//!   late, or never, is found at any time in between.
//! - `sends.I2` A stored message is held against a doubtful send only if it may be that send's: it is the same message, and
//!   lies behind all that this node knew to be stored when the send came.

mod content;
mod table;
#[cfg(test)]
mod tests;

use std::collections::VecDeque;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use folio_raft::proposal::{Knows, PROMPT, Question};
use parking_lot::Mutex;
use tokio::time::{Duration, Instant};

pub use self::content::{Content, Print};
pub use self::table::SendTable;

/// Doubts of one connection; beyond that the oldest are forgotten, and their retries stored again.
const DOUBTS_MAX: usize = 1_024;
/// How long a doubt is kept: as long as retries are recognised if nothing else is configured.
const DOUBT_AGE: Duration = Duration::from_secs(60);

/// The sends of one connection.
#[derive(Debug)]
pub struct Sends {
    connected: Instant,
    /// Whether it is in the table.
    listed: AtomicBool,
    closed: AtomicBool,
    state: Mutex<State>,
}

#[derive(Debug, Default)]
struct State {
    /// The number of the first one in `unanswered`.
    first: u64,
    /// By number; answered ones between others are empty.
    unanswered: VecDeque<Option<Unanswered>>,
    /// In the order of their answers.
    doubts: VecDeque<Doubt>,
}

#[derive(Debug, Clone)]
struct Unanswered {
    arrived: Instant,
    /// What is stored before it was stored before this send came.
    floor: u64,
    content: Arc<dyn Content>,
}

/// A send whose client may not know that it is stored.
#[derive(Debug)]
struct Doubt {
    number: u64,
    arrived: Instant,
    floor: u64,
    /// What it sent; what cannot be read was not stored.
    print: Option<Print>,
    /// Whether it was answered that nobody knows, not just late.
    unknown: bool,
    answered: Instant,
}

/// A send that was taken into the account.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Begun {
    /// Its number among its connection's sends.
    pub number: u64,
    /// Whether an earlier one may have been given up.
    pub doubts: bool,
}

/// What an answer says of the message.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Outcome {
    /// It is stored.
    Stored,
    /// It is not, and will not be.
    NotStored,
    /// Nobody knows.
    Unknown,
}

impl Sends {
    /// Of a connection that was made now.
    #[expect(clippy::new_without_default, reason = "it begins with the time of the call")]
    pub fn new() -> Sends {
        let (listed, closed, state) = Default::default();
        Sends { connected: Instant::now(), listed, closed, state }
    }

    /// The connection is closed: its client may miss any of its answers.
    pub fn close(&self) {
        self.closed.store(true, Ordering::Release);
    }

    fn is_closed(&self) -> bool {
        self.closed.load(Ordering::Acquire)
    }

    /// When the connection was made.
    pub fn connected(&self) -> Instant {
        self.connected
    }

    /// Takes a send in that came at `arrived`, when all before `floor` was known to be stored (`sends.I1`).
    pub fn begin(&self, content: Arc<dyn Content>, arrived: Instant, floor: u64) -> Begun {
        let mut state = self.state.lock();
        state.expire(arrived);
        let oldest = state.unanswered.front().and_then(Option::as_ref);
        let old = oldest.is_some_and(|oldest| is_given_up(oldest.arrived, arrived));
        let number = state.first + state.unanswered.len() as u64;
        let doubts = old || !state.doubts.is_empty();
        state.unanswered.push_back(Some(Unanswered { arrived, floor, content }));
        Begun { number, doubts }
    }

    /// The answer to a send was queued.
    pub fn end(&self, number: u64, outcome: Outcome) {
        let now = Instant::now();
        let mut state = self.state.lock();
        let Some(send) = state.take(number) else { return };
        let late = outcome == Outcome::Stored && is_given_up(send.arrived, now);
        let unknown = outcome == Outcome::Unknown;
        if !late && !unknown {
            if outcome == Outcome::Stored && !state.doubts.is_empty() {
                // Its client knows now that the message is stored: by this attempt, or by an earlier one.
                let print = send.content.print();
                state.doubts.retain(|doubt| doubt.print != print);
            }
            return;
        }
        // Rare: reading the message again is cheaper than to keep what it is of every one.
        let Unanswered { arrived, floor, content } = send;
        let doubt = Doubt { number, arrived, floor, print: content.print(), unknown, answered: now };
        if state.doubts.len() == DOUBTS_MAX {
            state.doubts.pop_front();
        }
        state.doubts.push_back(doubt);
    }

    /// What the connection's client knows of a send that is asked about.
    pub fn knows(&self, question: &Question) -> Knows {
        if self.connected > question.sent_by || self.is_closed() {
            return Knows::Gone;
        }
        let mut state = self.state.lock();
        state.expire(Instant::now());
        let doubtful = match question.number {
            Some(number) => state.doubts_number(number, question.repeated),
            None => state.doubts_message(question),
        };
        if doubtful { Knows::Doubtful } else { Knows::Settled }
    }
}

impl State {
    fn take(&mut self, number: u64) -> Option<Unanswered> {
        let at = usize::try_from(number.checked_sub(self.first)?).ok()?;
        let taken = self.unanswered.get_mut(at)?.take();
        while self.unanswered.front().is_some_and(Option::is_none) {
            self.unanswered.pop_front();
            self.first += 1;
        }
        taken
    }

    fn expire(&mut self, now: Instant) {
        while self
            .doubts
            .front()
            .is_some_and(|doubt| now.saturating_duration_since(doubt.answered) > DOUBT_AGE)
        {
            self.doubts.pop_front();
        }
    }

    fn doubts_number(&self, number: u64, repeated: Instant) -> bool {
        let at = number.checked_sub(self.first).and_then(|at| usize::try_from(at).ok());
        let unanswered = at.and_then(|at| self.unanswered.get(at)?.as_ref());
        unanswered.is_some_and(|send| is_given_up(send.arrived, repeated))
            || self.doubts.iter().any(|doubt| doubt.number == number && doubt.counts(repeated))
    }

    /// `sends.I2`
    fn doubts_message(&self, question: &Question) -> bool {
        let print_asked = Print::asked(question);
        let may_be = |floor: u64| question.position.is_none_or(|position| position >= floor);
        let given_up =
            self.unanswered.iter().flatten().take_while(|send| is_given_up(send.arrived, question.repeated));
        let mut given_up = given_up.filter(|send| may_be(send.floor));
        given_up.any(|send| send.content.print().is_some_and(|print| print == print_asked))
            || self.doubts.iter().any(|doubt| {
                may_be(doubt.floor)
                    && doubt.counts(question.repeated)
                    && doubt.print.as_ref() == Some(&print_asked)
            })
    }
}

impl Doubt {
    /// Whether its client may have repeated it at that time.
    fn counts(&self, repeated: Instant) -> bool {
        self.unknown || is_given_up(self.arrived, repeated)
    }
}

/// Whether a client may have given up at that time what came then.
fn is_given_up(arrived: Instant, at: Instant) -> bool {
    at.saturating_duration_since(arrived) >= PROMPT
}
