//! Transactions: ends them, each once, with the message that a commit makes; notes how often producers were asked; resumes what was
//! given up; and stores half messages again before retention drops their segment ([`carry`]).
//!
//! Which transactions are open is replicated state (`folio_state::sections::transactions`): a half message opens its transaction
//! where it is applied. All that may end one here is a move with one key, the transaction's id: of a commit and a rollback that come
//! at the same time the first is under way, the second waits for it, and its sender then looks what became of the transaction
//! ([`folio_state::sections::transactions::Transactions::ending`]). So `Ok` means: it has ended. A leader that has not applied the half
//! message says nothing of the kind.
//!
//! A half message that is stored again may find its transaction ended when it is applied. It opens nothing then.

mod carry;
mod ends;

use super::{Parts, Requests};

pub use ends::End;
pub(crate) use ends::{Request, Transactions};

/// Starts the driver, and what carries forward.
pub(crate) fn start(parts: Parts) -> Requests<Transactions> {
    let requests = super::start(Transactions::new(parts.shared.clone()), parts.clone());
    carry::start(parts, requests.clone());
    requests
}
