//! The task that makes records of what waits, and hands them to openraft.

use std::convert::Infallible;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use folio_engine::planted;
use folio_engine::record::{Draft, HEADER_BYTES, RecordKind};
use folio_protocol::message::{self, NewMessage};
use parking_lot::Mutex;
use tokio::sync::{Notify, mpsc};
use tokio::time::Instant;

use super::batch::{Batch, answer};
use super::overdue::{LOOK_INTERVAL, Overdue};
use super::repeat::{Repeats, attempt_of};
use super::replies::Replies;
use super::{Inbox, Waiting};
use crate::dedup::Dedup;
use crate::dedup::flights::{Flights, Place};
use crate::driver::term_fence::{SettledTerm, TermFence};
use crate::host::Host;
use crate::proposal::{ProposeError, Repeat};
use crate::shared::Shared;
use crate::types::{Body, Callback};

/// Records on their way at once. Two keep the disk busy; more only spread the same messages over more
/// records.
const RECORDS_IN_FLIGHT: usize = 3;
/// A record smaller than this, and of fewer proposals, waits until it is alone on its way: by itself it costs as much as
/// some hundred messages in it.
const WORTHWHILE_BYTES: usize = 128 << 10;
const WORTHWHILE_PROPOSALS: usize = 128;
/// Bytes at which a record is closed.
const RECORD_BYTES: usize = 1 << 20;
/// Proposals at which a record is closed.
const RECORD_PROPOSALS: usize = 2000;

/// See the module.
pub(super) struct Feeder {
    fence: TermFence,
    host: Host,
    shared: Arc<Shared>,
    slots: Arc<Slots>,
    inbox: Inbox,
    flights: Arc<Mutex<Flights>>,
    repeats: Repeats,
    overdue: Overdue,
}

impl Feeder {
    pub(super) fn new(fence: TermFence, host: Host, shared: Arc<Shared>, inbox: Inbox) -> Feeder {
        let flights = Arc::<Mutex<Flights>>::default();
        let repeats = Repeats::new(shared.clone(), flights.clone(), inbox.clone());
        let (slots, overdue) = Default::default();
        Feeder { fence, host, shared, slots, inbox, flights, repeats, overdue }
    }

    /// Feeds the group until it stops; what waits then was certainly not proposed.
    pub(super) async fn run(self, mut waiting: mpsc::Receiver<Waiting>) {
        let carried = tokio::select! {
            carried = self.feed(&mut waiting) => carried,
            never = self.answer_overdue() => match never {},
        };
        waiting.close();
        let left = carried.into_iter().chain(std::iter::from_fn(|| waiting.try_recv().ok()));
        for waiting in left {
            let error = ProposeError::Stopped("nothing is proposed any more".into());
            self.inbox.answer(waiting, Err(error));
        }
    }

    /// Part of this task, so that a panic is the group's end (`tasks.I1`).
    async fn answer_overdue(&self) -> Infallible {
        self.overdue.run(&self.shared, &self.flights, &self.inbox).await;
        std::future::pending().await
    }

    async fn feed(&self, waiting: &mut mpsc::Receiver<Waiting>) -> Option<Waiting> {
        let mut carried: Option<Waiting> = None;
        let mut term_before = None;
        loop {
            let first = match carried.take() {
                Some(first) => first,
                None => waiting.recv().await?,
            };
            let term = match self.ready().await {
                Ok(term) => term,
                Err(error) => {
                    self.inbox.answer(first, Err(error));
                    continue;
                }
            };
            if term_before.replace(term) != Some(term) {
                self.repeats.begin_term();
            }
            let mut filled = self.begin(term, &first);
            let slot = match self.fill(&mut filled, first, waiting).await {
                Ok((slot, next)) => {
                    carried = next;
                    slot
                }
                Err(next) => {
                    carried = next;
                    self.refuse(filled);
                    continue;
                }
            };
            if filled.replies.is_empty() {
                continue;
            }
            let mut body = Body::new(filled.draft);
            if planted::is("ack-before-majority") {
                let replies = std::mem::take(&mut filled.replies);
                body.early = Some(Mutex::new(Box::new(move |record| answer(replies, record))));
            }
            let batch = Batch {
                replies: self.overdue.begin(filled.replies, filled.flight),
                taken: body.taken.clone(),
                flight: filled.flight,
                prints: filled.prints,
                flights: self.flights.clone(),
                shared: self.shared.clone(),
                inbox: self.inbox.clone(),
            };
            let responder = Callback::new(move |result| {
                batch.complete(result);
                drop(slot);
            });
            if self.fence.propose(term, body, responder).await.is_err() {
                // The core has stopped; the responder was dropped and has answered.
                return carried;
            }
        }
    }

    /// The term to propose in: every entry of earlier terms is applied here, so a repeat of anything stored before would be noticed
    /// (`dedup.I2`), and the due floor is known (`timers.I2`).
    async fn ready(&self) -> Result<SettledTerm, ProposeError> {
        let knows_repeats = || self.shared.dedup.as_ref().is_none_or(Dedup::is_complete);
        self.fence.settled(knows_repeats).await
    }

    fn begin(&self, term: SettledTerm, first: &Waiting) -> Filled {
        Filled {
            term,
            draft: Draft::new(
                RecordKind::Messages,
                self.inbox.waiting_bytes().min(RECORD_BYTES).max(first.bytes),
            ),
            replies: Replies::default(),
            flight: self.flights.lock().begin(),
            prints: Vec::new(),
            store_timestamp: self.host.now_ms(),
        }
    }

    /// The disk filled before the record was proposed.
    fn refuse(&self, filled: Filled) {
        filled.replies.refuse(&ProposeError::DiskFull);
        let parked = self.flights.lock().land(filled.flight, &filled.prints, false);
        parked.into_iter().for_each(|parked| self.inbox.answer(parked.waiting, Err(ProposeError::DiskFull)));
    }

    /// Encodes `first` and what comes behind it into one draft, until it may go. A proposal that does not fit any more is
    /// carried over. Fails when the disk fills meanwhile: records under way may keep their places until there is room.
    async fn fill(
        &self,
        filled: &mut Filled,
        first: Waiting,
        waiting: &mut mpsc::Receiver<Waiting>,
    ) -> Result<(Slot, Option<Waiting>), Option<Waiting>> {
        let bytes_max = self.shared.log.record_bytes_max();
        let (mut next, mut ended, mut is_closed) = (Some(first), false, false);
        let mut look = std::pin::pin!(tokio::time::sleep(LOOK_INTERVAL));
        loop {
            while let Some(proposal) = next.take_if(|_| !filled.is_full() && !is_closed) {
                if filled.draft.len() + proposal.bytes > bytes_max && !filled.replies.is_empty() {
                    (next, is_closed) = (Some(proposal), true);
                    break;
                }
                self.add(filled, proposal);
                next = waiting.try_recv().ok();
            }
            if let Some(slot) = self.slots.take(is_closed || filled.is_worthwhile()) {
                return Ok((slot, next));
            }
            tokio::select! {
                () = self.slots.freed.notified() => {}
                () = look.as_mut() => {
                    if !self.shared.has_room(1) {
                        return Err(next);
                    }
                    look.as_mut().reset(Instant::now() + LOOK_INTERVAL);
                }
                more = waiting.recv(), if next.is_none() && !ended && !filled.is_full() => {
                    ended = more.is_none();
                    next = more;
                }
            }
        }
    }

    /// Encodes a proposal into the draft; one that repeats what is known is answered, or waits with it.
    fn add(&self, filled: &mut Filled, mut waiting: Waiting) {
        if !waiting.fits(filled.term) {
            return self.inbox.answer(waiting, Err(ProposeError::NotLeader { leader: None }));
        }
        let (start, known) = (filled.draft.len(), filled.prints.len());
        for message in &mut waiting.proposal.messages {
            message.store_timestamp = filled.store_timestamp;
            if let Err(error) = message.encode(filled.draft.payload_mut()) {
                panic!("proposer.I3: a message that passed its check does not encode: {error}");
            }
        }
        let repeat = waiting.proposal.repeat;
        if let Some(dedup) = self.shared.dedup.as_ref().filter(|_| repeat != Repeat::Store) {
            filled.print(dedup, start, &waiting.proposal.messages);
            let Some(fresh) = self.repeats.look(dedup, waiting, &filled.prints[known..]) else {
                return filled.take_back(start, known);
            };
            waiting = fresh;
            if let Some(attempt) = attempt_of(&waiting.proposal.messages, repeat, Instant::now()) {
                let first = Place { flight: filled.flight, ordinal: filled.draft.messages };
                self.flights.lock().add(first, &filled.prints[known..], attempt);
            }
        }
        let proposal = self.inbox.take(waiting);
        filled.draft.messages += proposal.messages.len() as u32;
        filled.replies.push(proposal.messages.len(), proposal.reply);
    }
}

/// Places for records on their way.
#[derive(Default)]
struct Slots {
    taken: AtomicUsize,
    freed: Notify,
}

/// A record's place, until its outcome is known.
struct Slot(Arc<Slots>);

impl Slots {
    /// A place for a record, if it is alone or worth to be one of several.
    fn take(self: &Arc<Slots>, is_worthwhile: bool) -> Option<Slot> {
        let taken = self.taken.load(Ordering::Acquire);
        // Only the feeder adds.
        (taken == 0 || (is_worthwhile && taken < RECORDS_IN_FLIGHT)).then(|| {
            self.taken.fetch_add(1, Ordering::AcqRel);
            Slot(self.clone())
        })
    }
}

impl Drop for Slot {
    fn drop(&mut self) {
        self.0.taken.fetch_sub(1, Ordering::AcqRel);
        self.0.freed.notify_one();
    }
}

/// A record in the making.
struct Filled {
    /// The one that it is proposed in.
    term: SettledTerm,
    draft: Draft,
    replies: Replies,
    flight: u64,
    /// Fingerprints of the messages by which a repeat is noticed.
    prints: Vec<u64>,
    store_timestamp: i64,
}

impl Filled {
    fn is_full(&self) -> bool {
        self.draft.len() >= RECORD_BYTES || self.replies.len() >= RECORD_PROPOSALS
    }

    fn is_worthwhile(&self) -> bool {
        self.draft.len() >= WORTHWHILE_BYTES || self.replies.len() >= WORTHWHILE_PROPOSALS
    }

    /// Adds the fingerprints of the messages that were encoded from byte `start` on; of all of them or of none.
    fn print(&mut self, dedup: &Dedup, start: usize, messages: &[NewMessage]) {
        let (known, mut at) = (self.prints.len(), start - HEADER_BYTES);
        for message in messages {
            let crc = message::stored_body_crc(&self.draft.payload()[at..]).unwrap_or(0);
            let (topic, properties) = (&message.topic, &message.properties);
            match dedup.print(topic, properties, message.reconsume_times, message.body.len(), crc) {
                Some(print) => self.prints.push(print),
                None => return self.prints.truncate(known),
            }
            at += message.encoded_len();
        }
    }

    /// Removes what was added since.
    fn take_back(&mut self, start: usize, known: usize) {
        self.draft.payload_mut().truncate(start);
        self.prints.truncate(known);
    }
}
