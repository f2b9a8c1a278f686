//! One record of moves: in the making, and on its way until its outcome is known.

use std::hash::Hash;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use openraft::raft::ClientWriteResult;
use parking_lot::Mutex;
use tokio::sync::OwnedSemaphorePermit;

use super::in_flight::{InFlight, Outcome, Ticket, end_all};
use super::term_fence::SettledTerm;
use super::transition::{Part, Transition};
use crate::proposal::ProposeError;
use crate::proposer::rejected;
use crate::types::{Applied, TypeConfig};

/// A request that was decided on in a term; it is under way.
pub(super) struct Decided<K> {
    pub(super) term: SettledTerm,
    pub(super) part: Part,
    pub(super) key: K,
    pub(super) ticket: Ticket,
}

/// A record in the making.
pub(super) struct Filled<K> {
    pub(super) transition: Transition,
    pub(super) moves: Vec<(K, Ticket)>,
}

impl<K> Filled<K> {
    pub(super) fn add(&mut self, decided: Decided<K>) {
        self.transition.add(decided.part);
        self.moves.push((decided.key, decided.ticket));
    }
}

/// A record on its way, with its moves.
pub(super) struct Record<K: Eq + Hash + Clone> {
    pub(super) moves: Vec<(K, Ticket)>,
    /// Whether the leader's log has taken it.
    pub(super) taken: Arc<AtomicBool>,
    pub(super) in_flight: Arc<Mutex<InFlight<K>>>,
    pub(super) _slot: OwnedSemaphorePermit,
}

impl<K: Eq + Hash + Clone> Record<K> {
    pub(super) fn complete(mut self, result: ClientWriteResult<TypeConfig>) {
        let outcome = match result {
            Ok(response) => match response.data {
                Applied::Transition(_) => Outcome::Applied,
                other => panic!("group.I3: a transition was applied as {other}"),
            },
            Err(error) => self.failed(rejected(&error), error.to_string()),
        };
        self.end(&outcome);
    }

    /// Once the leader's log has taken the record, another node may commit it whatever openraft says here.
    fn failed(&self, rejected: Option<Option<u64>>, why: String) -> Outcome {
        if self.taken.load(Ordering::Acquire) {
            Outcome::Unknown(ProposeError::Unknown(why))
        } else if let Some(leader) = rejected {
            Outcome::Not(ProposeError::NotLeader { leader })
        } else {
            Outcome::Not(ProposeError::Stopped(why))
        }
    }

    fn end(&mut self, outcome: &Outcome) {
        end_all(&self.in_flight, &std::mem::take(&mut self.moves), outcome);
    }
}

impl<K: Eq + Hash + Clone> Drop for Record<K> {
    /// openraft dropped the responder: its core has stopped.
    fn drop(&mut self) {
        if !self.moves.is_empty() {
            let outcome = self.failed(None, "the group stopped on this node".into());
            self.end(&outcome);
        }
    }
}
