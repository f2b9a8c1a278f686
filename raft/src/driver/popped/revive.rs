//! Gives again what nobody acknowledged in time, some in each record, and only where this node leads.
//!
//! Looks at all batches every [`LOOK_INTERVAL_MAX`], or when the next one is due: what is due is bounded by what is in flight, and a look copies
//! nothing. A look that takes long is followed by a pause that is longer. However much becomes due at once, [`TOGETHER`] messages of it are read
//! and stored at a time; the next look begins where this one has ended, so what cannot be read keeps nothing else waiting.

use std::sync::Arc;
use std::time::Duration;

use folio_protocol::message::{MessageView, NewMessage};
use folio_protocol::names;
use folio_protocol::popped::{self as message, Retry};
use folio_state::sections::features::POP;
use folio_state::sections::popped::Batch;
use folio_state::{AckPopped, BatchId, PopQueue, RevivePopped, State, Topic};
use tokio::sync::oneshot;
use tokio::time::{Instant, sleep};

use super::super::{Parts, Requests};
use super::requests::{Popped, Request, Revive, is_given_up, retry_max};
use crate::group::tasks;
use crate::log_rate_limiter::LogRateLimiter;
use crate::popped::{self, Unread};
use crate::shared::Shared;

/// A look at all batches is over so soon again, at least and at most.
const LOOK_INTERVAL_MIN: Duration = Duration::from_millis(20);
const LOOK_INTERVAL_MAX: Duration = Duration::from_millis(250);
/// The pause after a look is so many times as long as the look.
const PAUSE_PART: u32 = 10;
/// Messages that one look finds at most.
const FOUND_MAX: usize = 8192;
/// Messages that are read together, and their bytes.
const TOGETHER: usize = 512;
const TOGETHER_BYTES: usize = 2 << 20;
/// Queues of a retry topic and of a dead-letter topic.
const QUEUES: u32 = 1;

pub(super) fn start(parts: Parts, requests: Requests<Popped>) {
    let shared = parts.shared.clone();
    tasks::spawn(&shared, "the revival of popped messages", run(parts, requests));
}

async fn run(parts: Parts, requests: Requests<Popped>) {
    let shared = parts.shared.clone();
    let mut stopping = shared.stopping.subscribe();
    let work = async {
        let (troubles, mut from) = (LogRateLimiter::default(), 0);
        loop {
            let may = parts.fence.leads() && shared.level.get() >= POP && shared.has_room(1);
            let wait =
                if may { look(&parts, &requests, &troubles, &mut from).await } else { LOOK_INTERVAL_MAX };
            sleep(wait).await;
        }
    };
    tokio::select! {
        () = work => {}
        _ = stopping.wait_for(|stopping| *stopping) => {}
    }
}

/// A message whose time is over.
struct Due {
    queue: PopQueue,
    id: BatchId,
    offset: u64,
    retry: Retry,
    /// How often it was given before, in an ordered batch.
    attempts: Option<u32>,
    /// When it became visible.
    seen_ms: u64,
}

/// What one look finds.
#[derive(Default)]
struct Found {
    due: Vec<Due>,
    next_ms: Option<u64>,
    /// Where the next look begins, if this one has not seen all.
    from: Option<usize>,
}

/// Whether a batch is to be given again by itself.
fn comes_again(state: &State, queue: &PopQueue, batch: &Batch) -> bool {
    batch.order.is_none() || is_given_up(state, &queue.group, batch)
}

impl Found {
    /// At the batches from that one on, and then at those before.
    fn look(state: &State, now_ms: u64, from: usize) -> Found {
        let mut found = Found::default();
        let numbered = || state.popped().batches().enumerate();
        for (number, (queue, id, batch)) in numbered().skip(from).chain(numbered().take(from)) {
            if found.due.len() >= FOUND_MAX {
                found.from = Some(number);
                break;
            }
            if batch.visible_ms > now_ms {
                found.next_ms =
                    Some(found.next_ms.map_or(batch.visible_ms, |next| next.min(batch.visible_ms)));
            } else if comes_again(state, queue, batch) {
                let retry = if batch.retry_v2 { Retry::V2 } else { Retry::V1 };
                let attempts = batch.order.as_ref().map(|order| order.attempts);
                let seen_ms = batch.visible_ms;
                let due = |offset| Due { queue: queue.clone(), id, offset, retry, attempts, seen_ms };
                found.due.extend(batch.in_flight(id).map(due));
            }
        }
        found
    }
}

/// Gives again what is due; how long until there may be more.
async fn look(
    parts: &Parts,
    requests: &Requests<Popped>,
    troubles: &LogRateLimiter,
    from: &mut usize,
) -> Duration {
    let now = || u64::try_from(parts.host.now_ms()).unwrap_or(0);
    // A copy costs little, and what is applied meanwhile does not wait.
    let state = parts.shared.state.read().clone();
    let began = Instant::now();
    let Found { due, next_ms, from: next } = Found::look(&state, now(), *from);
    let pause = began.elapsed() * PAUSE_PART;
    drop(state);
    *from = next.unwrap_or(0);
    let mut asked = Vec::new();
    let mut rest = due;
    while !rest.is_empty() && parts.fence.leads() {
        let reading = parts.shared.clone();
        let read = parts.host.blocking(move || read_some(&reading, rest)).await;
        let Ok((made, left, unread)) = read else { return LOOK_INTERVAL_MAX };
        rest = left;
        if let Some(trouble) = unread
            && troubles.admit().is_some()
        {
            tracing::warn!(%trouble, "a popped message does not come again yet, trying again");
        }
        asked.extend(made.into_iter().map(|request| ask(requests, request)));
        settle(&mut asked).await;
    }
    let until = next_ms.map_or(LOOK_INTERVAL_MAX, |next| Duration::from_millis(next.saturating_sub(now())));
    let wait =
        if next.is_some() { LOOK_INTERVAL_MIN } else { until.clamp(LOOK_INTERVAL_MIN, LOOK_INTERVAL_MAX) };
    wait.max(pause)
}

type Told = oneshot::Receiver<Result<(), crate::proposal::ProposeError>>;

fn ask(requests: &Requests<Popped>, request: Request) -> Told {
    let (tell, told) = oneshot::channel();
    requests.ask(request, Box::new(move |outcome| drop(tell.send(outcome))));
    told
}

/// Waits for all; what was not done is found again by the next look.
async fn settle(asked: &mut Vec<Told>) {
    for told in asked.drain(..) {
        drop(told.await);
    }
}

/// The log does not have a message that is in flight: it will never come again.
pub(super) async fn lose(requests: &Requests<Popped>, (queue, id, offset): (PopQueue, BatchId, u64)) {
    drop(ask(requests, lost(queue, id, offset)).await);
}

fn lost(queue: PopQueue, id: BatchId, offset: u64) -> Request {
    tracing::error!(
        ?queue,
        offset,
        "pop.I4: a message in flight is not in the log any more; please report this"
    );
    Request::Lost(Box::new(AckPopped { queue, id, offset }))
}

/// Reads some of what is due, one message at least: what to ask for, what is left, and what could not be read. Blocks on the disk.
fn read_some(shared: &Arc<Shared>, due: Vec<Due>) -> (Vec<Request>, Vec<Due>, Option<Unread>) {
    let (mut made, mut trouble, mut bytes) = (Vec::new(), None, 0);
    let mut due = due.into_iter();
    while made.len() < TOGETHER && bytes < TOGETHER_BYTES {
        let Some(next) = due.next() else { break };
        match revival(shared, next) {
            Ok(request) => {
                if let Request::Revive(revive) = &request {
                    bytes += revive.message.encoded_len();
                }
                made.push(request);
            }
            Err(unread) => trouble = Some(unread),
        }
    }
    (made, due.collect(), trouble)
}

/// What is asked for a message whose time is over.
fn revival(shared: &Shared, due: Due) -> Result<Request, Unread> {
    let bytes = popped::read(shared, &due.queue, due.offset)?;
    let parsed = bytes.as_ref().and_then(|bytes| Some((bytes, MessageView::parse(bytes).ok()?)));
    let Due { queue, id, offset, retry, attempts, seen_ms } = due;
    let Some((bytes, view)) = parsed else {
        return Ok(lost(queue, id, offset));
    };
    let times =
        attempts.map_or(view.reconsume_times(), |attempts| i32::try_from(attempts).unwrap_or(i32::MAX));
    let max = retry_max(&shared.state.read(), &queue.group);
    let topic = match Retry::of_topic(&queue.topic) {
        Retry::Normal => retry.topic(&queue.group, &queue.topic),
        _ => queue.topic.clone(),
    };
    let is_last = i64::from(times) >= i64::from(max);
    let again = if is_last { None } else { message::again(&view, bytes, &topic, id.popped_ms) };
    if again.is_none() && !is_last {
        tracing::warn!(
            ?queue,
            offset,
            "a message becomes a dead letter at once: its properties leave no place for a handle"
        );
    }
    let (topic, message) = match again {
        Some(again) => (topic, again),
        None => {
            let dead =
                message::dead(&view, bytes, &queue.group, message::first_topic(&queue.group, &queue.topic));
            (names::dlq_topic(&queue.group), NewMessage { reconsume_times: times, ..dead })
        }
    };
    let command = RevivePopped { queue, id, offset };
    Ok(Request::Revive(Box::new(Revive { command, topic: Topic::new(topic, QUEUES), message, seen_ms })))
}
