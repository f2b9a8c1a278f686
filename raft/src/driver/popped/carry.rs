//! Stores messages in flight again, before retention drops the segments that they lie in (`pop.I4`). Paced, some in each record, and only
//! where this node leads.

use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

use folio_protocol::message::{MessageView, NewMessage};
use folio_protocol::popped::{self as message, InFlight};
use folio_state::{BatchId, PopQueue};
use tokio::sync::oneshot;
use tokio::time::sleep;

use super::super::{Parts, Requests};
use super::requests::{Popped, Request};
use crate::group::tasks;
use crate::log_rate_limiter::LogRateLimiter;
use crate::popped;
use crate::shared::Shared;

/// How often is seen whether something is wanted.
const LOOK_INTERVAL: Duration = Duration::from_millis(100);
/// Pause between records: at most 16 MiB a second.
const PAUSE: Duration = Duration::from_millis(32);
/// Messages of one record, and their bytes.
const RECORD_MESSAGES: usize = 1000;
const RECORD_BYTES: usize = 512 << 10;

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

pub(super) fn start(parts: Parts, requests: Requests<Popped>) {
    let shared = parts.shared.clone();
    tasks::spawn(&shared, "the carrier of popped messages", run(parts, requests));
}

async fn run(parts: Parts, requests: Requests<Popped>) {
    let (shared, troubles) = (parts.shared.clone(), LogRateLimiter::default());
    let mut stopping = shared.stopping.subscribe();
    let work = async {
        loop {
            sleep(LOOK_INTERVAL).await;
            while parts.fence.leads() {
                match carry(&parts, &requests).await {
                    Ok(true) => sleep(PAUSE).await,
                    Ok(false) => break,
                    Err(trouble) => {
                        if troubles.admit().is_some() {
                            tracing::warn!(%trouble, "messages in flight are not stored again, trying again");
                        }
                        break;
                    }
                }
            }
        }
    };
    tokio::select! {
        () = work => {}
        _ = stopping.wait_for(|stopping| *stopping) => {}
    }
}

/// Stores some again; whether there were any.
async fn carry(parts: &Parts, requests: &Requests<Popped>) -> Result<bool, Trouble> {
    let shared = &parts.shared;
    let wanted = shared.popped_wanted.load(Ordering::Relaxed);
    if wanted <= shared.log.state().start_position || !shared.has_room(1) {
        return Ok(false);
    }
    let found = next(shared, wanted);
    if found.is_empty() {
        return Ok(false);
    }
    let reading = shared.clone();
    let (messages, lost) = parts.host.blocking(move || read(&reading, found)).await??;
    for lost in lost {
        super::revive::lose(requests, lost).await;
    }
    if messages.is_empty() {
        return Ok(true);
    }
    let (tell, told) = oneshot::channel();
    requests.ask(Request::Carry(wanted, messages), Box::new(move |outcome| drop(tell.send(outcome))));
    match told.await {
        Ok(outcome) => outcome.map(|()| true).map_err(Trouble::from),
        Err(_) => Ok(false),
    }
}

type Found = (PopQueue, BatchId, u64);

/// What may lie before a position, batches of the lowest ones first. Looks at all.
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
    let (mut messages, mut lost, mut sum) = (Vec::new(), Vec::new(), 0);
    for (queue, id, offset) in found {
        let Some(bytes) = popped::read(shared, &queue, offset)? else {
            lost.push((queue, id, offset));
            continue;
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
    Ok((messages, lost))
}
