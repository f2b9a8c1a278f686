//! Many messages, one record: drains what waits into drafts, a few of them in flight.
//!
//! Batching adapts by itself: while [`RECORDS_IN_FLIGHT`] records are on their way to disk, messages gather
//! in the bounded queue, and the next free slot takes all of them, up to a record's limits. A body is copied
//! once, from the socket's buffer into the draft that becomes the log record.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};

use folio_engine::counters::topic_is_storable;
use folio_engine::planted;
use folio_engine::record::{Draft, HEADER_BYTES, RECORD_BYTES_MAX, Record, RecordKind};
use folio_protocol::message;
use openraft::errors::ClientWriteError;
use openraft::raft::ClientWriteResult;
use parking_lot::Mutex;
use tokio::sync::{Semaphore, mpsc};

use crate::host::Host;
use crate::proposal::{Proposal, ProposeError, Receipt, Reply};
use crate::types::{Applied, Body, Callback, Raft, TypeConfig};

/// Records on their way at once. Two keep the disk busy; more only spread the same messages over more
/// records.
const RECORDS_IN_FLIGHT: usize = 3;
/// Payload bytes at which a record is closed.
const RECORD_BYTES: usize = 1 << 20;
/// Messages at which a record is closed.
const RECORD_MESSAGES: usize = 2000;
/// Proposals that may wait.
const WAITING_MAX: usize = 32_768;
/// Message bytes that may wait.
const WAITING_BYTES_MAX: usize = 64 << 20;

struct Waiting {
    proposal: Proposal,
    bytes: usize,
}

/// The entrance to a group's log for messages.
#[derive(Clone)]
pub(crate) struct Proposer {
    queue: mpsc::Sender<Waiting>,
    waiting_bytes: Arc<AtomicUsize>,
}

impl Proposer {
    /// Starts the task that feeds `raft`.
    pub(crate) fn start(raft: Raft, host: Host) -> Proposer {
        let (queue, waiting) = mpsc::channel(WAITING_MAX);
        let waiting_bytes = Arc::new(AtomicUsize::new(0));
        let feeder = Feeder {
            raft,
            host,
            slots: Arc::new(Semaphore::new(RECORDS_IN_FLIGHT)),
            waiting_bytes: waiting_bytes.clone(),
        };
        tokio::spawn(feeder.run(waiting));
        Proposer { queue, waiting_bytes }
    }

    /// Queues a proposal, or hands it back at once.
    pub(crate) fn propose(&self, proposal: Proposal) -> Result<(), (Proposal, ProposeError)> {
        if let Some(reason) = unstorable(&proposal) {
            return Err((proposal, ProposeError::Refused(reason)));
        }
        let bytes: usize = proposal.messages.iter().map(message::NewMessage::encoded_len).sum();
        let limit = RECORD_BYTES_MAX - HEADER_BYTES;
        if bytes > limit {
            return Err((proposal, ProposeError::TooLarge { bytes, limit }));
        }
        if self.waiting_bytes.fetch_add(bytes, Ordering::Relaxed) > WAITING_BYTES_MAX {
            self.waiting_bytes.fetch_sub(bytes, Ordering::Relaxed);
            return Err((proposal, ProposeError::Busy));
        }
        self.queue.try_send(Waiting { proposal, bytes }).map_err(|refused| {
            self.waiting_bytes.fetch_sub(bytes, Ordering::Relaxed);
            match refused {
                mpsc::error::TrySendError::Full(waiting) => (waiting.proposal, ProposeError::Busy),
                mpsc::error::TrySendError::Closed(waiting) => {
                    (waiting.proposal, ProposeError::Stopped("the proposer has ended".into()))
                }
            }
        })
    }
}

/// Why the log would refuse a proposal: found here, where only its sender suffers.
fn unstorable(proposal: &Proposal) -> Option<String> {
    if proposal.messages.is_empty() {
        return Some("a proposal without messages".into());
    }
    proposal.messages.iter().find_map(|message| match message.check() {
        Err(error) => Some(error.to_string()),
        Ok(()) if !topic_is_storable(message.topic.as_bytes()) => {
            Some(format!("illegal topic {:?}", message.topic))
        }
        Ok(()) => None,
    })
}

struct Feeder {
    raft: Raft,
    host: Host,
    slots: Arc<Semaphore>,
    waiting_bytes: Arc<AtomicUsize>,
}

impl Feeder {
    /// Feeds the group until it stops; what waits then was certainly not proposed.
    async fn run(self, mut waiting: mpsc::Receiver<Waiting>) {
        let carried = self.feed(&mut waiting).await;
        waiting.close();
        let left = carried.into_iter().chain(std::iter::from_fn(|| waiting.try_recv().ok()));
        for Waiting { proposal, .. } in left {
            (proposal.reply)(Err(ProposeError::Stopped("nothing is proposed any more".into())));
        }
    }

    async fn feed(&self, waiting: &mut mpsc::Receiver<Waiting>) -> Option<Waiting> {
        let mut carried = None;
        loop {
            let Ok(slot) = self.slots.clone().acquire_owned().await else { return carried };
            let first = match carried.take() {
                Some(first) => first,
                None => waiting.recv().await?,
            };
            let (draft, mut replies);
            (draft, replies, carried) = self.fill(first, waiting);
            let mut body = Body::new(draft);
            if planted::is("ack-before-majority") {
                let replies = std::mem::take(&mut replies);
                body.early = Some(Mutex::new(Box::new(move |record| answer(replies, record))));
            }
            let batch = Batch { replies, taken: body.taken.clone() };
            let responder = Callback::new(move |result| {
                batch.complete(result);
                drop(slot);
            });
            if self.raft.client_write_ff(body, Some(responder)).await.is_err() {
                // The core has stopped; the responder was dropped and has answered.
                return carried;
            }
        }
    }

    /// Encodes `first` and what waits behind it into one draft, until a limit is reached. A proposal that
    /// does not fit any more is carried over.
    fn fill(
        &self,
        first: Waiting,
        waiting: &mut mpsc::Receiver<Waiting>,
    ) -> (Draft, Replies, Option<Waiting>) {
        let store_timestamp = self.host.now_ms();
        let mut draft = Draft::new(RecordKind::Messages, first.bytes.max(64 << 10));
        let mut replies = Replies::default();
        let (mut bytes, mut next) = (0, Some(first));
        while let Some(Waiting { proposal, bytes: more }) = next.take() {
            self.waiting_bytes.fetch_sub(more, Ordering::Relaxed);
            bytes += more;
            let count = proposal.messages.len();
            for mut message in proposal.messages {
                message.store_timestamp = store_timestamp;
                if let Err(error) = message.encode(draft.payload_mut()) {
                    panic!("proposer.I3: a message that passed its check does not encode: {error}");
                }
            }
            replies.0.push((count, proposal.reply));
            draft.messages += count as u32;
            if bytes >= RECORD_BYTES || replies.0.len() >= RECORD_MESSAGES {
                break;
            }
            match waiting.try_recv() {
                Ok(more) if bytes + more.bytes > RECORD_BYTES_MAX - HEADER_BYTES => {
                    return (draft, replies, Some(more));
                }
                Ok(more) => next = Some(more),
                Err(_) => break,
            }
        }
        (draft, replies, None)
    }
}

/// Who waits for which messages of a record, in order.
#[derive(Default)]
struct Replies(Vec<(usize, Reply)>);

/// The proposals in one record.
struct Batch {
    replies: Replies,
    taken: Arc<AtomicBool>,
}

impl Batch {
    fn complete(mut self, result: ClientWriteResult<TypeConfig>) {
        let replies = std::mem::take(&mut self.replies);
        match result {
            Ok(response) => match response.data {
                Applied::Messages(record) => answer(replies, &record),
                other => panic!("proposer.I1: a record of messages was applied as {other}"),
            },
            Err(error) => refuse(replies, &self.taken, rejected(&error), &error.to_string()),
        }
    }
}

impl Drop for Batch {
    /// openraft dropped the responder: its core has stopped.
    fn drop(&mut self) {
        let replies = std::mem::take(&mut self.replies);
        if !replies.0.is_empty() {
            refuse(replies, &self.taken, None, "the group stopped on this node");
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

/// Tells every proposer that its messages were not stored, or that this node cannot know.
///
/// Once the leader's log has taken the record, another node may commit it whatever openraft says here.
fn refuse(replies: Replies, taken: &AtomicBool, rejected: Option<Option<u64>>, why: &str) {
    let error = if taken.load(Ordering::Acquire) {
        ProposeError::Unknown(why.to_owned())
    } else if let Some(leader) = rejected {
        ProposeError::NotLeader { leader }
    } else {
        ProposeError::Stopped(why.to_owned())
    };
    for (_, reply) in replies.0 {
        reply(Err(error.clone()));
    }
}

/// Reads the stamped offsets off the record and tells every proposer its own.
fn answer(replies: Replies, record: &Record) {
    let payload = record.payload();
    let mut rest = &payload[..];
    let mut position = record.position() + HEADER_BYTES as u64;
    for (count, reply) in replies.0 {
        let mut receipt =
            Receipt { queue_offsets: Vec::with_capacity(count), positions: Vec::with_capacity(count) };
        for _ in 0..count {
            let route = match message::peek(rest) {
                Ok(route) => route,
                Err(error) => panic!("proposer.I2: a message we encoded does not parse back: {error}"),
            };
            receipt.queue_offsets.push(route.queue_offset);
            receipt.positions.push(position);
            position += route.total_size as u64;
            rest = &rest[route.total_size as usize..];
        }
        reply(Ok(receipt));
    }
}
