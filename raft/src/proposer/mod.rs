//! Many messages, one record: drains what waits into drafts, a few of them in flight.
//!
//! Batching adapts by itself: while some records ([`feeder`]) are on their way to disk, messages gather in the bounded
//! queue, and the next free slot takes all of them, up to a record's limits. A body is copied once, from the socket's
//! buffer into the draft that becomes the log record. Each record's outcome goes to whom it concerns ([`batch`]).
//!
//! Here: the entrance, which never blocks. What a client repeats is found by the feeder ([`repeat`]): see [`crate::dedup`].
//!
//! An answer is read off the record that was stored:
//!
//! - `proposer.I1`: a record of messages is applied as one;
//! - `proposer.I2`: each message that was written parses back;
//! - `proposer.I3`: a message that passed its check encodes.

mod batch;
mod feeder;
mod inbox;
pub(crate) mod overdue;
mod repeat;
mod replies;

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use folio_engine::record::HEADER_BYTES;
use folio_protocol::message;
use tokio::sync::mpsc;

use crate::driver::term_fence::{SettledTerm, TermFence};
use crate::driver::transition::unstorable;
use crate::group::tasks;
use crate::host::Host;
use crate::proposal::{Proposal, ProposeError};
use crate::shared::Shared;

pub(crate) use batch::rejected;
use inbox::Inbox;
pub(crate) use inbox::Waiting;

/// Proposals that may wait.
const WAITING_MAX: usize = 32_768;
/// Message bytes that may wait.
const WAITING_BYTES_MAX: usize = 64 << 20;

/// The entrance to a group's log for messages.
#[derive(Clone)]
pub(crate) struct Proposer {
    queue: mpsc::Sender<Waiting>,
    bytes: Arc<AtomicUsize>,
    payload_bytes_max: usize,
}

impl Proposer {
    /// Starts the task that feeds the group.
    pub(crate) fn start(fence: TermFence, host: Host, shared: Arc<Shared>) -> Proposer {
        let (queue, waiting) = mpsc::channel(WAITING_MAX);
        let bytes = Arc::new(AtomicUsize::new(0));
        let payload_bytes_max = shared.log.record_bytes_max().saturating_sub(HEADER_BYTES);
        let inbox = Inbox { queue: queue.downgrade(), bytes: bytes.clone() };
        let feeder = feeder::Feeder::new(fence, host, shared.clone(), inbox);
        tasks::spawn(&shared, "the feeder", feeder.run(waiting));
        Proposer { queue, bytes, payload_bytes_max }
    }

    /// Queues a proposal, or hands it back at once.
    pub(crate) fn propose(&self, proposal: Proposal) -> Result<(), (Proposal, ProposeError)> {
        self.propose_in(None, proposal)
    }

    /// The same for one that is proposed in that term or not at all (`driver.I1`): what was decided in it may be decided anew in
    /// the next one while the proposal waits.
    pub(crate) fn propose_in(
        &self,
        term: impl Into<Option<SettledTerm>>,
        proposal: Proposal,
    ) -> Result<(), (Proposal, ProposeError)> {
        if let Some(reason) = refusal(&proposal) {
            return Err((proposal, ProposeError::Refused(reason)));
        }
        let bytes: usize = proposal.messages.iter().map(message::NewMessage::encoded_len).sum();
        let limit = self.payload_bytes_max;
        if bytes > limit {
            return Err((proposal, ProposeError::TooLarge { bytes, limit }));
        }
        if self.bytes.fetch_add(bytes, Ordering::Relaxed) > WAITING_BYTES_MAX {
            self.bytes.fetch_sub(bytes, Ordering::Relaxed);
            return Err((proposal, ProposeError::Busy));
        }
        self.queue.try_send(Waiting { proposal, term: term.into(), is_retry: None, bytes }).map_err(
            |refused| {
                self.bytes.fetch_sub(bytes, Ordering::Relaxed);
                match refused {
                    mpsc::error::TrySendError::Full(waiting) => (waiting.proposal, ProposeError::Busy),
                    mpsc::error::TrySendError::Closed(waiting) => {
                        (waiting.proposal, ProposeError::Stopped("the proposer has ended".into()))
                    }
                }
            },
        )
    }
}

/// Why the log would refuse a proposal: found here, where only its sender suffers.
fn refusal(proposal: &Proposal) -> Option<String> {
    if proposal.messages.is_empty() {
        return Some("a proposal without messages".into());
    }
    unstorable(&proposal.messages)
}
