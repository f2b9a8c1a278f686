//! The task of the driver: finds what is due, wanted further on or recalled, and adds it to the chain.

use std::collections::VecDeque;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

use folio_engine::planted;
use folio_engine::timers::{TimerEntry, TimersError, name_hash, topic_hash};
use folio_protocol::message::{MessageView, NewMessage};
use folio_protocol::parked::{self, TimerKey};
use folio_protocol::properties::UNIQUE_KEY;
use folio_state::sections::features::TIMERS;
use folio_state::sections::timers::RECALLED_MAX;
use tokio::sync::mpsc;
use tokio::time::sleep;

use super::chain::{Chain, Draft};
use super::read::{Purpose, Unread, parked_message, read};
use super::recall::{Recall, WaitingRecall};
use crate::driver::requests::stopped;
use crate::driver::runner::Parts;
use crate::driver::term_fence::SettledTerm;
use crate::log_rate_limiter::LogRateLimiter;
use crate::pending_timers;
use crate::proposal::ProposeError;

/// How often is looked whether something is due that was not parked when it was looked last.
const LOOK_INTERVAL: Duration = Duration::from_millis(10);
/// How often a node that does not lead looks whether it does.
const IDLE_INTERVAL: Duration = Duration::from_millis(50);
/// How often is seen whether what the log held is applied.
const APPLIED_POLL: Duration = Duration::from_millis(1);
/// Pause before what could not be read is read again.
const RETRY_PAUSE: Duration = Duration::from_millis(50);
/// Entries that are due and were found together.
const BATCH_MAX: usize = 16_384;
/// Messages of one record, and their bytes.
const RECORD_MESSAGES: usize = 2000;
const RECORD_BYTES: usize = 512 << 10;
/// What a delivered message may be longer than the parked one: by a property.
const ADDED_BYTES: usize = 64;
/// Pause between records of what is carried forward: at most 16 MiB a second.
const CARRY_PAUSE: Duration = Duration::from_millis(32);
/// Messages that may be of the recalled one, by their hashes.
const RECALL_CANDIDATES: usize = 64;

/// See the module.
pub(super) struct Task {
    parts: Parts,
    recalls: mpsc::Receiver<WaitingRecall>,
    /// The term of a chain of which it is not known here what became of it: no other one is begun in it.
    doubtful: Option<SettledTerm>,
    troubles: LogRateLimiter,
}

/// Why a chain is over.
enum Over {
    /// A link failed, or this node does not lead any more.
    Chain,
    /// The group stops.
    Group,
}

/// What is due and not in the chain yet, in order.
type Batch = VecDeque<TimerEntry>;

impl Task {
    pub(super) fn new(parts: Parts, recalls: mpsc::Receiver<WaitingRecall>) -> Task {
        Task { parts, recalls, doubtful: None, troubles: LogRateLimiter::default() }
    }

    /// Runs until the group stops.
    pub(super) async fn run(mut self) {
        let mut stopping = self.parts.shared.stopping.subscribe();
        tokio::select! {
            () = self.work() => {}
            _ = stopping.wait_for(|stopping| *stopping) => {}
        }
        self.recalls.close();
        self.refuse_recalls(&stopped());
    }

    async fn work(&mut self) {
        loop {
            if !self.parts.fence.leads() || self.parts.shared.level.get() < TIMERS {
                self.refuse_recalls(&ProposeError::NotLeader { leader: None });
                sleep(IDLE_INTERVAL).await;
                continue;
            }
            let shared = self.parts.shared.clone();
            match self.parts.fence.settled_with(|| shared.has_place(1), || true).await {
                Ok(term) if self.doubtful != Some(term) => {
                    let mut chain =
                        Chain::begin(self.parts.fence.clone(), term, &self.parts.shared.state.read());
                    if let Over::Group = self.lead(&mut chain).await {
                        return;
                    }
                    if !chain.ends_well().await {
                        self.doubtful = Some(term);
                    }
                    sleep(LOOK_INTERVAL).await;
                }
                // The status is a moment behind, or the disk is full.
                Ok(_) | Err(_) => sleep(LOOK_INTERVAL).await,
            }
        }
    }

    fn refuse_recalls(&mut self, error: &ProposeError) {
        while let Ok(waiting) = self.recalls.try_recv() {
            (waiting.reply)(Err(error.clone()));
        }
    }

    /// Works on one chain until it is over.
    async fn lead(&mut self, chain: &mut Chain) -> Over {
        let mut batch = Batch::default();
        loop {
            let step = match self.step(chain, &mut batch).await {
                Ok(step) => step,
                Err(over) => return over,
            };
            if let Step::Again = step {
                continue;
            }
            let pause = if let Step::Wait(pause) = step { pause } else { LOOK_INTERVAL };
            tokio::select! {
                applied = chain.applied() => if applied.is_err() {
                    return Over::Chain;
                },
                recall = self.recalls.recv() => match recall {
                    Some(waiting) => if self.recall(chain, waiting).await.is_err() {
                        return Over::Chain;
                    },
                    None => return Over::Group,
                },
                () = sleep(pause) => {}
            }
            if !self.parts.fence.leads() {
                return Over::Chain;
            }
        }
    }

    /// Adds a link to the chain, if there is something to do and room for it.
    async fn step(&mut self, chain: &mut Chain, batch: &mut Batch) -> Result<Step, Over> {
        let shared = &self.parts.shared;
        if chain.is_full() || !shared.has_place(1) {
            return Ok(Step::Wait(LOOK_INTERVAL));
        }
        let due = if !shared.has_room(1) {
            // On a full disk none is delivered: what is left of the segment is for what makes room.
            Ok(Step::Wait(LOOK_INTERVAL))
        } else if batch.is_empty() {
            self.refill(chain.watermark, batch).await
        } else {
            Ok(Step::Again)
        };
        let next = match due {
            Ok(Step::Again) => return self.fire(chain, batch).await,
            Ok(next) => next,
            Err(trouble) => return self.wait_out(&trouble),
        };
        let wanted = shared.carry_wanted.load(Ordering::Relaxed);
        if wanted > chain.carried && chain.is_idle() {
            return self.carry(chain, wanted).await;
        }
        Ok(next)
    }

    /// Looks for what is due above the watermark. [`Step::Again`]: something is.
    async fn refill(&self, watermark: TimerKey, batch: &mut Batch) -> Result<Step, Trouble> {
        let shared = &self.parts.shared;
        let next = if shared.timers.reads_disk() {
            let index = shared.timers.clone();
            self.parts.host.blocking(move || index.next(watermark)).await??
        } else {
            shared.timers.next(watermark)?
        };
        // timers.I4
        let now_ms = self.now_ms() + if planted::is("fires-early") { 1_500 } else { 0 };
        match next {
            None => return Ok(Step::Wait(LOOK_INTERVAL)),
            Some(next) if next.due_ms > now_ms => {
                let wait = Duration::from_millis(next.due_ms - now_ms);
                return Ok(Step::Wait(wait.min(LOOK_INTERVAL)));
            }
            Some(_) => {}
        }
        let end = shared.log.raise_due_floor(now_ms);
        while shared.applied_position.load(Ordering::Acquire) < end {
            if !self.parts.fence.leads() {
                return Ok(Step::Wait(LOOK_INTERVAL));
            }
            sleep(APPLIED_POLL).await;
        }
        let index = shared.timers.clone();
        let found = self.parts.host.blocking(move || index.due(watermark, now_ms, BATCH_MAX, |_| true));
        *batch = found.await??.into();
        Ok(if batch.is_empty() { Step::Wait(LOOK_INTERVAL) } else { Step::Again })
    }

    /// Delivers as much of what is due as a record holds.
    async fn fire(&mut self, chain: &mut Chain, batch: &mut Batch) -> Result<Step, Over> {
        let (count, taken) = {
            let state = self.parts.shared.state.read();
            let count = self.part(batch);
            let pending = batch.iter().take(count).filter(|entry| chain.is_pending(entry.key, &state));
            (count, pending.copied().collect())
        };
        let messages = match self.read(taken, Purpose::Deliver).await {
            Ok(messages) => messages,
            Err(trouble) => return self.wait_out(&trouble),
        };
        let Some(last) = batch.drain(..count).next_back() else { return Ok(Step::Wait(LOOK_INTERVAL)) };
        let mut draft = self.draft(messages);
        // The clock may have been set back since.
        draft.now_ms = draft.now_ms.max(i64::try_from(last.key.due_ms).unwrap_or(i64::MAX));
        chain.fire(last.key, draft).await.map_err(|_| Over::Chain)?;
        Ok(Step::Again)
    }

    /// Parks some of what is pending before a position again. It is paced.
    async fn carry(&mut self, chain: &mut Chain, wanted: u64) -> Result<Step, Over> {
        let (index, watermark, from) = (self.parts.shared.timers.clone(), chain.watermark, chain.carried);
        let timers = self.parts.shared.state.read().timers().clone();
        let found = self.parts.host.blocking(move || {
            let pending = |entry: &TimerEntry| !timers.is_recalled(entry.key);
            index.lying(watermark, (from, wanted), BATCH_MAX, pending)
        });
        let found: Result<Batch, Trouble> = async { Ok(found.await??.into()) }.await;
        let mut entries = match found {
            Ok(entries) => entries,
            Err(trouble) => return self.wait_out(&trouble),
        };
        let count = self.part(&entries);
        let to = entries.get(count).map_or(wanted, |following| following.key.position);
        let to = if count == BATCH_MAX { entries[count - 1].key.position + 1 } else { to };
        if entries.is_empty() {
            // Retention sees that by itself, and asks again where it does not.
            pending_timers::is_clear_before(&self.parts.shared, wanted);
            return Ok(Step::Wait(LOOK_INTERVAL));
        }
        entries.truncate(count);
        let bytes: usize = entries.iter().map(|entry| entry.bytes as usize + ADDED_BYTES).sum();
        if !self.parts.shared.has_place(bytes as u64) {
            return Ok(Step::Wait(RETRY_PAUSE));
        }
        let messages = match self.read(entries.into(), Purpose::Carry).await {
            Ok(messages) => messages,
            Err(trouble) => return self.wait_out(&trouble),
        };
        let draft = self.draft(messages);
        chain.carry(to, draft).await.map_err(|_| Over::Chain)?;
        sleep(CARRY_PAUSE).await;
        Ok(Step::Wait(LOOK_INTERVAL))
    }

    /// Recalls a message if it is pending. Fails where the chain is over.
    async fn recall(&self, chain: &mut Chain, waiting: WaitingRecall) -> Result<(), ProposeError> {
        let WaitingRecall { recall, reply } = waiting;
        let shared = self.parts.shared.clone();
        let room = shared.state.read().timers().recalled() < RECALLED_MAX && shared.has_room(1);
        if chain.is_full() && chain.applied().await.is_err() {
            reply(Err(ProposeError::Unknown("the leader of the group changed".into())));
            return Err(ProposeError::NotLeader { leader: None });
        }
        if !room {
            reply(Err(ProposeError::Busy));
            return Ok(());
        }
        let due_ms = recall.due_ms;
        let reading = shared.clone();
        let found = self.parts.host.blocking(move || candidates(&reading, &recall)).await;
        let keys = match found.map_err(Trouble::from).and_then(|found| found) {
            Ok(keys) => keys,
            Err(trouble) => {
                reply(Err(ProposeError::Refused(trouble.to_string())));
                return Ok(());
            }
        };
        let pending = {
            let state = shared.state.read();
            keys.into_iter().find(|key| chain.is_pending(*key, &state))
        };
        match pending {
            Some(key) => chain.recall(key, self.parts.host.now_ms(), reply).await,
            None => {
                let why = format!("no message that is due at {due_ms} with that key waits for its time");
                reply(Err(ProposeError::Refused(why)));
                Ok(())
            }
        }
    }

    async fn read(&self, entries: Vec<TimerEntry>, purpose: Purpose) -> Result<Vec<NewMessage>, Trouble> {
        let log = self.parts.shared.log.clone();
        let read = self.parts.host.blocking(move || read(&log, &entries, purpose)).await;
        Ok(read??)
    }

    /// How many of these fit one record, one at least.
    fn part(&self, entries: &Batch) -> usize {
        let bytes_max = RECORD_BYTES.min(self.parts.shared.log.record_bytes_max() / 2);
        let mut bytes = 0;
        let fits = entries.iter().take(RECORD_MESSAGES).take_while(|entry| {
            let is_first = bytes == 0;
            bytes += entry.bytes as usize + ADDED_BYTES;
            is_first || bytes <= bytes_max
        });
        fits.count()
    }

    fn draft(&self, messages: Vec<NewMessage>) -> Draft {
        let record_bytes_max = self.parts.shared.log.record_bytes_max();
        Draft { messages, now_ms: self.parts.host.now_ms(), record_bytes_max }
    }

    fn now_ms(&self) -> u64 {
        u64::try_from(self.parts.host.now_ms()).unwrap_or(0)
    }

    /// Says what is wrong, and waits: a damaged record is repaired meanwhile.
    fn wait_out(&self, trouble: &Trouble) -> Result<Step, Over> {
        if self.troubles.admit().is_some() {
            tracing::warn!(%trouble, "delayed messages are not delivered, trying again");
        }
        Ok(Step::Wait(RETRY_PAUSE))
    }
}

/// What to do next.
enum Step {
    /// The next step at once.
    Again,
    /// Wait for a while, or for something to happen.
    Wait(Duration),
}

/// Why something could not be looked up.
#[derive(Debug, thiserror::Error)]
enum Trouble {
    #[error(transparent)]
    Index(#[from] TimersError),
    #[error(transparent)]
    Message(#[from] Unread),
    #[error(transparent)]
    Host(#[from] std::io::Error),
}

/// The keys of messages that a recall may mean. Reads the disk.
fn candidates(shared: &Arc<crate::shared::Shared>, recall: &Recall) -> Result<Vec<TimerKey>, Trouble> {
    let (topic, unique) = (topic_hash(&recall.topic), name_hash(&recall.unique_key));
    let Some(above) = recall.due_ms.checked_sub(1) else { return Ok(Vec::new()) };
    let above = TimerKey { due_ms: above, position: u64::MAX };
    let alike = |entry: &TimerEntry| (entry.topic_hash, entry.unique_hash) == (topic, unique);
    let found = shared.timers.due(above, recall.due_ms, RECALL_CANDIDATES, alike)?;
    let mut keys = Vec::new();
    for entry in found {
        // It may have been purged meanwhile.
        let Ok(bytes) = parked_message(&shared.log, &entry) else { continue };
        let is_it = MessageView::parse(&bytes).is_ok_and(|message| {
            parked::real_topic(&message) == Some(&recall.topic)
                && message.property(UNIQUE_KEY) == Some(&recall.unique_key)
        });
        if is_it {
            keys.push(entry.key);
        }
    }
    Ok(keys)
}
