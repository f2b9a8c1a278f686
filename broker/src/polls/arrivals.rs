//! Arrivals on their way from the thread that applies records to the task that wakes polls.
//!
//! The thread that applies notes them and goes on: it takes no lock that a client can hold, and looks at no poll. Of the
//! arrivals of one queue with one tag only the furthest offset is kept: a poll that any of them answers is answered by
//! that one.
//!
//! What waits is bounded. A queue with arrivals of more than [`TAGS_MAX`] tags is noted as having arrivals of any tag; with
//! more than [`ENTRIES_MAX`] entries it is noted that something arrived somewhere. Both wake more polls than
//! necessary, and none too few (`polls.I1`): a poll that is woken looks at its queue.

use std::collections::HashMap;
use std::mem;
use std::sync::Arc;

use folio_engine::queues::Arrival;
use parking_lot::Mutex;
use tokio::sync::Notify;

/// Tags of one queue that are told apart.
const TAGS_MAX: usize = 1_024;
/// Queues and tags that are told apart: some 6 MiB.
const ENTRIES_MAX: usize = 65_536;

/// How much is told apart.
#[derive(Debug, Clone, Copy)]
pub(super) struct Limits {
    pub(super) tags: usize,
    pub(super) entries: usize,
}

impl Default for Limits {
    fn default() -> Limits {
        Limits { tags: TAGS_MAX, entries: ENTRIES_MAX }
    }
}

/// See the module.
#[derive(Default)]
pub(crate) struct Arrivals {
    limits: Limits,
    news: Mutex<News>,
    came: Notify,
}

/// What arrived since the last look.
#[derive(Debug, Default)]
pub(crate) struct News {
    pub(super) queues: HashMap<Arc<str>, HashMap<u32, Arrived>>,
    /// Too much to tell apart: something may have arrived in any queue.
    pub(super) everywhere: bool,
    entries: usize,
}

/// What arrived in one queue.
#[derive(Debug)]
pub(super) enum Arrived {
    /// By the tags' code, the furthest offset.
    Tags(HashMap<i64, u64>),
    /// Tags that are not told apart; the furthest offset of all.
    Any(u64),
}

impl Arrivals {
    #[cfg(test)]
    pub(super) fn with_limits(limits: Limits) -> Arrivals {
        Arrivals { limits, ..Arrivals::default() }
    }

    /// Notes arrivals; the task that wakes polls hears of them.
    pub(super) fn note(&self, arrivals: &[Arrival]) {
        let mut news = self.news.lock();
        // A record's messages mostly are of one queue: one look-up for all.
        for same in arrivals.chunk_by(is_alike) {
            if let Some(furthest) = same.iter().max_by_key(|arrival| arrival.offset) {
                news.add(furthest, self.limits);
            }
        }
        drop(news);
        self.came.notify_one();
    }

    /// Returns once something was noted since the last [`Arrivals::take`].
    pub(crate) async fn come(&self) {
        self.came.notified().await;
    }

    /// Everything noted since the last call.
    pub(crate) fn take(&self) -> News {
        mem::take(&mut self.news.lock())
    }
}

fn is_alike(one: &Arrival, other: &Arrival) -> bool {
    one.queue == other.queue && one.tags_code == other.tags_code && one.topic == other.topic
}

impl News {
    fn add(&mut self, arrival: &Arrival, limits: Limits) {
        if self.everywhere {
            return;
        }
        if !self.queues.contains_key(&arrival.topic) {
            self.queues.insert(arrival.topic.clone(), HashMap::new());
        }
        let Some(queues) = self.queues.get_mut(&arrival.topic) else { return };
        let arrived = queues.entry(arrival.queue).or_insert_with(|| Arrived::Tags(HashMap::new()));
        self.entries += arrived.add(arrival, limits.tags);
        if self.entries > limits.entries {
            *self = News { everywhere: true, ..News::default() };
        }
    }
}

impl Arrived {
    /// Returns by how many entries it grows.
    fn add(&mut self, arrival: &Arrival, tags_max: usize) -> usize {
        let offset = arrival.offset;
        match self {
            Arrived::Any(furthest) => *furthest = offset.max(*furthest),
            Arrived::Tags(tags) => {
                if let Some(furthest) = tags.get_mut(&arrival.tags_code) {
                    *furthest = offset.max(*furthest);
                } else if tags.len() < tags_max {
                    tags.insert(arrival.tags_code, offset);
                    return 1;
                } else {
                    let furthest = tags.values().copied().fold(offset, u64::max);
                    *self = Arrived::Any(furthest);
                }
            }
        }
        0
    }
}
