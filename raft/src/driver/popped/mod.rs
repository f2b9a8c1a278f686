//! POP: gives messages to consumer groups, takes their acknowledgements, gives again what nobody acknowledged in time ([`revive`]), and stores
//! messages in flight further on before retention drops their segment ([`carry`]).
//!
//! What is in flight is replicated state (`folio_state::sections::popped`). Pops of one queue are moves with one key, so they follow each other:
//! each is decided on the state that the one before has left, and who waited for another one's pop looks anew. All that ends a message's
//! flight has one key too: of an acknowledgement and a revival that come at the same time the first counts, the second waits for it, and then
//! finds the message gone. `Ok` means no more than that the move is over; who asked looks at the state ([`folio_state::sections::popped::Popped`]).
//!
//! A message comes again in the retry topic of its group and topic, one attempt older. After the group's last attempt it becomes a dead letter.
//! An ordered batch stays in its queue, and only becomes dead letters here.

mod carry;
mod requests;
mod revive;

use super::{Parts, Requests};

pub use requests::{AGAIN_BEFORE_MS, Counted, is_given_up};
pub(crate) use requests::{Popped, Request};

/// Starts the driver, what revives, and what carries forward.
pub(crate) fn start(parts: Parts) -> Requests<Popped> {
    let requests = super::start(Popped(parts.shared.clone()), parts.clone());
    revive::start(parts.clone(), requests.clone());
    carry::start(parts, requests.clone());
    requests
}
