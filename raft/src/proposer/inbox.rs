//! Proposals that wait, as the feeder and its parts see them.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use tokio::sync::mpsc;

use crate::driver::term_fence::SettledTerm;
use crate::proposal::{Proposal, ProposeError, Receipt};

/// A proposal that waits; its bytes count as waiting until it is answered or in a record.
pub(crate) struct Waiting {
    pub(crate) proposal: Proposal,
    /// The term that it may be proposed in, where only one will do.
    pub(super) term: Option<SettledTerm>,
    /// Whether it is a client's second attempt, once that was found out.
    pub(super) is_retry: Option<bool>,
    pub(super) bytes: usize,
}

impl Waiting {
    /// Whether it may go into a record of this term (`driver.I1`).
    pub(super) fn fits(&self, term: SettledTerm) -> bool {
        self.term.is_none_or(|its| its == term)
    }
}

/// The proposer as its own task sees it: what comes out must be counted, and may go back in.
#[derive(Clone)]
pub(super) struct Inbox {
    pub(super) queue: mpsc::WeakSender<Waiting>,
    pub(super) bytes: Arc<AtomicUsize>,
}

impl Inbox {
    pub(super) fn waiting_bytes(&self) -> usize {
        self.bytes.load(Ordering::Relaxed)
    }

    pub(super) fn take(&self, waiting: Waiting) -> Proposal {
        self.bytes.fetch_sub(waiting.bytes, Ordering::Relaxed);
        waiting.proposal
    }

    pub(super) fn answer(&self, waiting: Waiting, outcome: Result<Receipt, ProposeError>) {
        (self.take(waiting).reply)(outcome);
    }

    /// Queues a proposal once more.
    pub(super) fn again(&self, waiting: Waiting) {
        let Some(queue) = self.queue.upgrade() else {
            return self.answer(waiting, Err(ProposeError::Stopped("the proposer has ended".into())));
        };
        if let Err(refused) = queue.try_send(waiting) {
            self.answer(refused.into_inner(), Err(ProposeError::Busy));
        }
    }
}
