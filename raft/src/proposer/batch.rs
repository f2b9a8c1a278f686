//! The proposals in one record, until its outcome is known.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use folio_engine::record::{HEADER_BYTES, Record};
use folio_protocol::message::{self, Messages};
use openraft::errors::ClientWriteError;
use openraft::raft::ClientWriteResult;
use parking_lot::Mutex;

use super::Inbox;
use super::replies::{Replies, Waiters};
use crate::dedup::flights::{Flights, Parked};
use crate::dedup::{self, Dedup};
use crate::proposal::{PerMessage, ProposeError, Receipt};
use crate::shared::Shared;
use crate::types::{Applied, Taken, TypeConfig};

/// See the module.
pub(super) struct Batch {
    pub(super) replies: Waiters,
    pub(super) taken: Taken,
    pub(super) flight: u64,
    pub(super) prints: Vec<u64>,
    pub(super) flights: Arc<Mutex<Flights>>,
    pub(super) shared: Arc<Shared>,
    pub(super) inbox: Inbox,
}

impl Batch {
    pub(super) fn complete(mut self, result: ClientWriteResult<TypeConfig>) {
        let replies = std::mem::take(&mut *self.replies.lock());
        let parked = self.land(result.is_ok());
        match result {
            Ok(response) => match response.data {
                Applied::Messages(record) => {
                    answer(replies, &record);
                    parked.into_iter().for_each(|parked| self.answer_repeat(parked, &record));
                }
                other => panic!("proposer.I1: a record of messages was applied as {other}"),
            },
            Err(error) => {
                let error = refusal(&self.taken, rejected(&error), &error.to_string());
                self.refuse(replies, parked, &error);
            }
        }
    }

    fn land(&mut self, stored: bool) -> Vec<Parked> {
        self.flights.lock().land(self.flight, &std::mem::take(&mut self.prints), stored)
    }

    /// Answers a retry of messages of this record with their place; if it is none after all, it is proposed.
    fn answer_repeat(&self, parked: Parked, record: &Record) {
        let Parked { place, waiting } = parked;
        let payload = record.payload();
        let messages = Messages::new(&payload).filter_map(|message| Some(message.ok()?.1));
        let stored = messages.skip(place.ordinal as usize).take(waiting.proposal.messages.len());
        match dedup::receipt(&waiting.proposal.messages, stored) {
            Some(receipt) => {
                self.shared.dedup.iter().for_each(Dedup::count);
                self.inbox.answer(waiting, Ok(receipt));
            }
            None => self.inbox.again(waiting),
        }
    }

    /// Tells every proposer of the record, and who repeated one of its proposals.
    fn refuse(&self, replies: Replies, parked: Vec<Parked>, error: &ProposeError) {
        replies.refuse(error);
        for Parked { waiting, .. } in parked {
            self.inbox.answer(waiting, Err(error.clone()));
        }
    }
}

impl Drop for Batch {
    /// openraft dropped the responder: its core has stopped.
    fn drop(&mut self) {
        let replies = std::mem::take(&mut *self.replies.lock());
        let parked = self.land(false);
        if !replies.is_empty() || !parked.is_empty() {
            self.refuse(replies, parked, &refusal(&self.taken, None, "the group stopped on this node"));
        }
    }
}

/// The leader to go to, where openraft rejected a proposal before it was appended.
pub(crate) fn rejected(error: &ClientWriteError<TypeConfig>) -> Option<Option<u64>> {
    match error {
        ClientWriteError::ForwardToLeader(forward) => Some(forward.leader_id),
        _ => None,
    }
}

/// Why messages were not stored, or that this node cannot know.
///
/// Once the leader's log has taken the record, another node may commit it whatever openraft says here.
fn refusal(taken: &AtomicBool, rejected: Option<Option<u64>>, why: &str) -> ProposeError {
    if taken.load(Ordering::Acquire) {
        ProposeError::Unknown(why.to_owned())
    } else if let Some(leader) = rejected {
        ProposeError::NotLeader { leader }
    } else {
        ProposeError::Stopped(why.to_owned())
    }
}

/// Reads the stamped offsets off the record and tells every proposer its own.
pub(super) fn answer(replies: Replies, record: &Record) {
    let payload = record.payload();
    let mut rest = &payload[..];
    let mut position = record.position() + HEADER_BYTES as u64;
    for (count, reply) in replies.0 {
        let mut receipt = Receipt {
            queue_id: 0,
            queue_offsets: PerMessage::with_capacity(count),
            positions: PerMessage::with_capacity(count),
            store_host: None,
        };
        for _ in 0..count {
            let route = match message::peek(rest) {
                Ok(route) => route,
                Err(error) => panic!("proposer.I2: a message we encoded does not parse back: {error}"),
            };
            if receipt.positions.is_empty() {
                receipt.queue_id = route.queue_id;
            }
            receipt.queue_offsets.push(route.queue_offset);
            receipt.positions.push(position);
            position += route.total_size as u64;
            rest = &rest[route.total_size as usize..];
        }
        reply(Ok(receipt));
    }
}
