//! Stores messages in flight again, before retention drops the segments that they lie in (`pop.I4`). Paced, some in each record, and only
//! where this node leads. On a full disk, too: it makes room (`room.I2`).

use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

use folio_protocol::message::{MessageView, NewMessage};
use folio_protocol::popped::{self as message, InFlight};
use folio_state::{BatchId, CarryPopped, PopQueue, State};

use super::super::carrier::{self, Carries, RECORD_BYTES, RECORD_MESSAGES};
use super::super::{Decision, Driver, Move, Parts, Requests, outcome};
use super::requests::Popped;
use crate::popped;
use crate::shared::Shared;

/// Why a message in flight is not stored again now.
#[derive(Debug, thiserror::Error)]
enum Trouble {
    #[error(transparent)]
    Read(#[from] popped::Unread),
    #[error(transparent)]
    Host(#[from] std::io::Error),
    #[error(transparent)]
    Propose(#[from] crate::proposal::ProposeError),
}

/// The driver of what is carried: one record at a time.
struct Carrier;

/// Messages that are stored further on, and up to where they lie.
struct Carry(u64, Vec<NewMessage>);

impl Driver for Carrier {
    const NAME: &'static str = "the driver of carried messages";
    const LOOK_INTERVAL: Duration = Duration::from_secs(1);
    const MAKES_ROOM: bool = true;
    type Request = Carry;
    type Key = ();

    fn key(&self, _: &Carry) {}

    fn bytes(&self, Carry(_, messages): &Carry) -> usize {
        messages.iter().map(NewMessage::encoded_len).sum()
    }

    fn decide(&self, Carry(upto, messages): Carry, _: &State) -> Decision {
        Decision::Move(Move { commands: vec![CarryPopped { upto }.into()], messages })
    }
}

pub(super) fn start(parts: Parts, requests: Requests<Popped>) {
    let carrier = super::super::start(Carrier, parts.clone());
    carrier::start(&parts.clone(), Carrying { parts, carrier, popped: requests });
}

/// See the module.
struct Carrying {
    parts: Parts,
    carrier: Requests<Carrier>,
    popped: Requests<Popped>,
}

impl Carries for Carrying {
    const NAME: &'static str = "the carrier of popped messages";
    const TROUBLE: &'static str = "messages in flight are not stored again, trying again";
    type Trouble = Trouble;

    async fn carry(&self) -> Result<bool, Trouble> {
        let shared = &self.parts.shared;
        let wanted = shared.popped_wanted.load(Ordering::Relaxed);
        if wanted <= shared.log.state().start_position || !shared.has_place(1) {
            return Ok(false);
        }
        let found = next(shared, wanted);
        if found.is_empty() {
            return Ok(false);
        }
        let reading = shared.clone();
        let (messages, lost) = self.parts.host.blocking(move || read(&reading, found)).await??;
        for lost in lost {
            super::revive::lose(&self.popped, lost).await;
        }
        if !messages.is_empty() {
            outcome(|reply| self.carrier.ask(Carry(wanted, messages), reply)).await?;
        }
        Ok(true)
    }
}

type Found = (PopQueue, BatchId, u64);

/// What may lie before a position, as much as one record takes. Looks at all.
fn next(shared: &Arc<Shared>, wanted: u64) -> Vec<Found> {
    let popped = shared.state.read().popped().clone();
    let mut found = Vec::new();
    for (queue, id, batch) in popped.batches() {
        if found.len() >= RECORD_MESSAGES {
            break;
        }
        let lies_before = |offset: &u64| match popped.carried(queue, *offset) {
            Some(at) => at.position < wanted,
            None => batch.position < wanted,
        };
        found.extend(batch.in_flight(id).filter(lies_before).map(|offset| (queue.clone(), id, offset)));
    }
    found
}

/// Reads as many as one record takes, one at least; and what is not there. Blocks on the disk.
fn read(shared: &Shared, found: Vec<Found>) -> Result<(Vec<NewMessage>, Vec<Found>), popped::Unread> {
    let bytes_max = RECORD_BYTES.min(shared.log.record_bytes_max() / 2);
    let (mut messages, mut lost, mut trouble, mut sum) = (Vec::new(), Vec::new(), None, 0);
    for (queue, id, offset) in found {
        let bytes = match popped::read(shared, &queue, offset) {
            Ok(Some(bytes)) => bytes,
            Ok(None) => {
                lost.push((queue, id, offset));
                continue;
            }
            // The others do not wait for its repair.
            Err(unread) => {
                trouble = Some(unread);
                continue;
            }
        };
        sum += bytes.len() + message::ADDED_BYTES;
        if sum > bytes_max && !messages.is_empty() {
            break;
        }
        // It was parsed when it was read.
        let Ok(view) = MessageView::parse(&bytes) else { continue };
        let PopQueue { group, topic, queue } = queue;
        let whose = InFlight { group, topic, queue, start: id.start, popped_ms: id.popped_ms, offset };
        messages.push(message::carried(&view, &bytes, &whose));
    }
    match trouble {
        Some(unread) if messages.is_empty() && lost.is_empty() => Err(unread),
        _ => Ok((messages, lost)),
    }
}
