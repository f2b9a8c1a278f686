//! Stores the half messages of open transactions again, before retention drops the segments that they lie in
//! (`transactions.I3`). Paced, some in each record, and only where this node leads.

use std::sync::Arc;
use std::sync::atomic::Ordering;

use folio_engine::log::{CommitLog, ReadError};
use folio_protocol::half;
use folio_protocol::message::{MessageView, NewMessage};
use folio_state::sections::transactions::OpenTransaction;

use super::super::carrier::{self, Carries, RECORD_BYTES, RECORD_MESSAGES};
use super::super::{Parts, Requests, outcome};
use super::ends::{Request, Transactions};
use crate::shared::Shared;

/// Why a half message is not stored again now.
#[derive(Debug, thiserror::Error)]
enum Trouble {
    #[error(transparent)]
    Read(#[from] ReadError),
    #[error("no half message of transaction {id} is at position {position}")]
    Other { id: u64, position: u64 },
    #[error(transparent)]
    Host(#[from] std::io::Error),
    #[error(transparent)]
    Propose(#[from] crate::proposal::ProposeError),
}

pub(super) fn start(parts: Parts, requests: Requests<Transactions>) {
    carrier::start(&parts.clone(), Carrying { parts, requests });
}

/// See the module.
struct Carrying {
    parts: Parts,
    requests: Requests<Transactions>,
}

impl Carries for Carrying {
    const NAME: &'static str = "the carrier of half messages";
    const TROUBLE: &'static str = "half messages are not stored again, trying again";
    type Trouble = Trouble;

    async fn carry(&self) -> Result<bool, Trouble> {
        let Carrying { parts, requests } = self;
        let shared = &parts.shared;
        let wanted = shared.halves_wanted.load(Ordering::Relaxed);
        if wanted <= shared.log.state().start_position || !shared.has_place(1) {
            return Ok(false);
        }
        let found = next(shared, wanted);
        if found.is_empty() {
            return Ok(false);
        }
        let reading = shared.clone();
        let messages = parts.host.blocking(move || read(&reading.log, &found)).await??;
        outcome(|reply| requests.ask(Request::Carry(wanted, messages), reply)).await?;
        Ok(true)
    }
}

/// What one record takes of what lies before a position, one at least.
fn next(shared: &Arc<Shared>, wanted: u64) -> Vec<(u64, OpenTransaction)> {
    let transactions = shared.state.read().transactions().clone();
    let lying = transactions.lying_before(wanted, RECORD_MESSAGES);
    let bytes_max = RECORD_BYTES.min(shared.log.record_bytes_max() / 2);
    let mut bytes = 0;
    let fits = lying.into_iter().map(|(_, id, open)| (id, open)).take_while(|(_, open)| {
        let is_first = bytes == 0;
        bytes += open.bytes as usize + half::ADDED_BYTES;
        is_first || bytes <= bytes_max
    });
    fits.collect()
}

/// Blocks on the disk.
fn read(log: &CommitLog, found: &[(u64, OpenTransaction)]) -> Result<Vec<NewMessage>, Trouble> {
    let mut messages = Vec::with_capacity(found.len());
    for (id, open) in found {
        let bytes = log.bytes(open.position, open.bytes as usize)?;
        let message = MessageView::parse(&bytes).ok().filter(|message| {
            message.topic() == half::TOPIC
                && message.physical_offset() == open.position
                && half::transaction(message) == *id
        });
        let message = message.ok_or(Trouble::Other { id: *id, position: open.position })?;
        messages.push(half::again(&message, &bytes));
    }
    Ok(messages)
}
