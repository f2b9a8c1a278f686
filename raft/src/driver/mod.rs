//! Moves: messages that are stored and state that changes, both or neither, once, through any change of the leader.
//!
//! A retry, a dead letter, a timer that fires, a transaction that commits: each appends messages *and* changes state. A
//! transition (`folio_engine::transition`) is the record that carries both. Its messages get queue offsets when it is appended, so
//! `apply` cannot refuse it any more. Whether it is right has to be known before: that is for a driver.
//!
//! A driver is one file with an `impl` [`Driver`]. It says what two requests have in common if they mean the same move
//! ([`Driver::key`]), and decides on the applied state what a request comes to ([`Driver::decide`]): it was done before, it is
//! refused, or it is this change with these messages. It may find by itself what is due ([`Driver::due`]). All else is here:
//! [`requests`] is its entrance, [`runner`] its task, [`in_flight`] the view of what it has proposed, [`term_fence`] the term that it proposes in,
//! [`transition`] the payload of many moves, [`record`] their way until the outcome is known. `send_back` is the first driver.
//!
//! [`timers`] is a driver of another kind: its moves are not apart from each other, and so it has a task of its own.
//!
//! To add one: a file here, and its start in `group/start.rs`. What its moves change in the state says that it was done, and
//! the command that changes it has a precondition that fails where it was (`transitions.I2`). The requests of clients are
//! idempotent so: who repeats one after an unknown outcome finds it done, at any leader.
//!
//! The window by which a client's retries are recognised ([`crate::dedup`]) shares the fence. It does not share the view: it looks for
//! fingerprints that may collide, of messages by their place in a record, and a send that was stored leaves no state; the view of
//! a driver would cost each send an allocation and a lock.
//!
//! Invariants
//! - `driver.I1` A driver decides after its node has applied every entry of earlier terms, on what is applied and what it has under
//!   way itself. What it decided enters the log in that very term or not at all.
//! - `driver.I2` A move under way leaves the view once its effect is applied here, or once it is certain that no log took it; else
//!   with the term. The view is asked before the applied state: what leaves the one is in the other by then.
//! - `driver.I3` Requests that wait, their bytes, moves under way, who waits for each, and records are bounded. A full one answers
//!   `Busy`.

mod carrier;
pub(crate) mod in_flight;
pub(crate) mod popped;
mod record;
mod requests;
mod runner;
pub(crate) mod send_back;
pub(crate) mod term_fence;
pub(crate) mod timers;
pub(crate) mod transactions;
pub(crate) mod transition;

use std::hash::Hash;
use std::time::Duration;

use folio_protocol::message::NewMessage;
use folio_state::State;
use tokio::sync::oneshot;

use crate::proposal::ProposeError;

pub use in_flight::Reply;
pub use popped::{AGAIN_BEFORE_MS, Counted, is_given_up};
pub(crate) use requests::Requests;
pub(crate) use runner::{Parts, start};
pub use send_back::SendBack;
pub use timers::Recall;
pub use transactions::End;
pub(crate) use transition::Move;

/// What a driver makes of a request.
#[derive(Debug)]
pub(crate) enum Decision {
    /// The applied state says that it was done before.
    Done,
    /// It is not done, and nothing is changed.
    Refused(ProposeError),
    /// It is this.
    Move(Move),
    /// These messages alone, by way of the proposer: what was done before the group had the level for more. Who repeats it is
    /// recognised by the window of retries, if at all.
    Store(Vec<NewMessage>),
}

/// The planted defects `ended-too-soon`, `recalled-too-soon` and `popped-ack-lost`: success is told before anything is proposed.
pub(crate) fn answered(reply: Reply) -> Reply {
    reply(Ok(()));
    Box::new(drop)
}

/// Asks a driver for something, and waits until it is done or has failed. `ask` hands in the reply.
pub async fn outcome(ask: impl FnOnce(Reply)) -> Result<(), ProposeError> {
    let (tell, told) = oneshot::channel();
    ask(Box::new(move |outcome| drop(tell.send(outcome))));
    told.await.unwrap_or_else(|_| Err(ProposeError::Unknown("the group stopped".to_owned())))
}

/// One kind of moves. See the module.
pub(crate) trait Driver: Send + Sync + 'static {
    /// What its task is called.
    const NAME: &'static str;
    /// How often [`Driver::due`] is asked.
    const LOOK_INTERVAL: Duration;
    /// Whether its records are proposed on a full disk, too, where they have a place: they make room (`room.I2`).
    const MAKES_ROOM: bool = false;
    /// What it is asked for.
    type Request: Send + 'static;
    /// Equal for requests that mean the same move.
    type Key: Eq + Hash + Clone + Send + 'static;

    /// See [`Driver::Key`].
    fn key(&self, request: &Self::Request) -> Self::Key;

    /// Bytes that a request keeps in memory while it waits.
    fn bytes(&self, request: &Self::Request) -> usize;

    /// What a request comes to, by the applied state. No request with its key is under way. Called on a task of the group, under
    /// a lock that `apply` waits for: it must be quick.
    fn decide(&self, request: Self::Request, state: &State) -> Decision;

    /// What is to be done now without being asked for. Called while this node leads; what is under way may be named again.
    fn due(&self) -> Vec<Self::Request> {
        Vec::new()
    }

    /// Whether it can decide yet, besides that earlier terms are applied. It is asked again when there is progress
    /// ([`crate::progress`]).
    fn is_ready(&self) -> bool {
        true
    }
}
