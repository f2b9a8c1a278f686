//! What one pop finds: it goes through the queues, and takes the lock of each that has something for it.

use folio_protocol::subscription::TagFilter;
use folio_raft::driver::{AGAIN_BEFORE_MS, is_given_up};
use folio_state::{PopAgain, PopQueue};

use super::locks::PopLock;
use super::pick::{Found, Pick, Rules, pick};
use super::{Subject, ToPop};
use crate::broker::Broker;
use crate::error::BrokerError;
use crate::pull::Limits;

/// Bytes of one answer, as a pull's; the first message always fits.
pub(super) const BYTES_MAX: usize = 4 << 20;
/// One pop in so many looks for retries first.
const RETRIES_FIRST: u32 = 5;

/// When messages are popped, and for how long, ms.
#[derive(Debug, Clone, Copy)]
pub(super) struct Times {
    pub(super) popped_ms: u64,
    pub(super) invisible_ms: u64,
}

/// An ordered batch that is given again.
pub(super) struct Again {
    pub(super) pop: PopAgain,
    /// What is in flight of it.
    pub(super) offsets: Vec<u64>,
}

/// What one look gives. Nobody else pops from its queues meanwhile.
#[derive(Default)]
pub(super) struct Look {
    pub(super) picks: Vec<(Pick, PopLock)>,
    pub(super) again: Vec<(Again, PopLock)>,
    /// A queue with too much in flight.
    pub(super) full: Option<PopQueue>,
    /// A queue that another request pops from.
    pub(super) busy: Option<PopQueue>,
    /// Why a queue could not be looked at.
    pub(super) failed: Option<BrokerError>,
    messages: usize,
    bytes: usize,
}

/// What becomes of an ordered batch that is in flight.
enum Ordered {
    Again(Again),
    /// Its queue is blocked.
    Blocked,
}

impl Look {
    pub(super) fn is_empty(&self) -> bool {
        self.picks.is_empty() && self.again.is_empty()
    }

    /// What fits besides.
    fn left(&self, messages_max: usize) -> Option<Limits> {
        let limits = Limits {
            messages: messages_max.saturating_sub(self.messages),
            bytes: BYTES_MAX.saturating_sub(self.bytes),
        };
        (limits.messages > 0 && limits.bytes > 0).then_some(limits)
    }

    fn add(&mut self, pick: Pick, lock: PopLock) {
        // Its first message is one whatever there is.
        if self.bytes > 0 && self.bytes + pick.batch.bytes > BYTES_MAX {
            return;
        }
        self.messages += pick.batch.messages;
        self.bytes += pick.batch.bytes;
        self.picks.push((pick, lock));
    }
}

impl Broker {
    /// The queues of a pop, in the order in which they are looked at, and whether they hold retries.
    pub(super) fn pop_queues(&self, wish: &ToPop, subject: &Subject) -> Vec<(PopQueue, bool)> {
        let turn = self.node.ids.draw();
        let queue =
            |topic: &str, queue| PopQueue { group: wish.group.to_string(), topic: topic.to_owned(), queue };
        let count = subject.topic.read_queues.max(1);
        let own: Vec<u32> = match subject.queue {
            Some(queue) => vec![queue],
            None => (0..subject.topic.read_queues).map(|at| (at + turn % count) % count).collect(),
        };
        let own = own.into_iter().map(|number| (queue(&subject.topic.name, number), false));
        if wish.attempt.is_some() {
            return own.collect();
        }
        let retries = self.pop_retry_topics(&wish.group, &wish.topic);
        let retries: Vec<(PopQueue, bool)> = retries
            .iter()
            .flat_map(|(_, topic)| (0..topic.read_queues).map(|number| (queue(&topic.name, number), true)))
            .collect();
        // Not by the same number: in a topic of five queues it would always be the same one that comes after the retries.
        if (turn / count).is_multiple_of(RETRIES_FIRST) {
            retries.into_iter().chain(own).collect()
        } else {
            own.chain(retries).collect()
        }
    }

    /// Looks at them, until there is enough. `held`: the lock that this request has waited for.
    pub(super) fn look(
        &self,
        (wish, subject): (&ToPop, &Subject),
        queues: &[(PopQueue, bool)],
        times: Times,
        mut held: Option<PopLock>,
    ) -> Look {
        let mut look = Look::default();
        for (queue, is_retry) in queues {
            let Some(limits) = look.left(subject.max) else { break };
            let Some(lock) = self.pop_locks.try_lock(queue, &mut held) else {
                look.busy.get_or_insert_with(|| queue.clone());
                continue;
            };
            match self.ordered(queue, wish.attempt.as_deref().unwrap_or_default(), times) {
                Some(Ordered::Again(again)) => {
                    look.messages += again.offsets.len();
                    look.again.push((again, lock));
                    continue;
                }
                Some(Ordered::Blocked) => continue,
                None => {}
            }
            let rules = Rules {
                // A retry was wanted when it was popped first.
                filter: if *is_retry { &TagFilter::All } else { &subject.filter },
                limits,
                popped_ms: times.popped_ms,
                invisible_ms: times.invisible_ms,
                begins_at_end: wish.begins_at_end,
                attempt: wish.attempt.as_deref(),
                retry_v2: self.settings.pop_retry_v2,
            };
            match pick(self, queue.clone(), &rules) {
                Ok(Found::Some(pick)) => look.add(*pick, lock),
                Ok(Found::Nothing) => {}
                Ok(Found::Full) => look.full = Some(queue.clone()),
                Err(error) => look.failed = Some(error),
            }
        }
        look
    }

    /// What becomes of an ordered batch that is in flight; `None` where there is none. One that is over is given to whoever asks.
    fn ordered(&self, queue: &PopQueue, attempt: &str, times: Times) -> Option<Ordered> {
        let state = self.group.state();
        let (id, batch) = state.popped().ordered(queue)?;
        let is_repeat =
            !attempt.is_empty() && batch.order.as_ref().is_some_and(|order| order.attempt == attempt);
        let is_early = batch.visible_ms > times.popped_ms;
        let is_last = is_given_up(&state, &queue.group, batch);
        // What is under way of a last attempt that is over is the revival's.
        let may_repeat = is_repeat && (!is_last || batch.visible_ms > times.popped_ms + AGAIN_BEFORE_MS);
        if !may_repeat && (is_early || is_last) {
            return Some(Ordered::Blocked);
        }
        let pop = PopAgain {
            queue: queue.clone(),
            id,
            seen_ms: batch.visible_ms,
            popped_ms: times.popped_ms,
            visible_ms: times.popped_ms + times.invisible_ms,
            attempt: attempt.to_owned(),
            counts: !is_repeat,
        };
        Some(Ordered::Again(Again { pop, offsets: batch.in_flight(id).collect() }))
    }

    /// How many messages are left behind the cursors.
    pub(super) fn rest(&self, wish: &ToPop, queues: &[(PopQueue, bool)]) -> u64 {
        let left = |(queue, _): &(PopQueue, bool)| {
            let (_, start, end) = super::pick::place(self, queue, wish.begins_at_end).ok()?;
            Some(end.saturating_sub(start))
        };
        queues.iter().filter_map(left).sum()
    }
}
