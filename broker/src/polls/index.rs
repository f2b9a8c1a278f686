//! Which polls an arrival answers, found without a look at any other.
//!
//! Of each queue: the polls that take every message, by offset; and under each tag's code the polls that ask for it, by
//! offset. A poll for several tags is under each of them. What a message answers is the beginning of two of these lists.

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::sync::Arc;

use folio_protocol::subscription::TagFilter;

use super::arrivals::{Arrived, News};
use super::ticket::Ticket;

/// See the module.
#[derive(Default)]
pub(super) struct Index {
    queues: HashMap<Arc<str>, BTreeMap<u32, QueuePolls>>,
}

type ByOffset = BTreeSet<(u64, Ticket)>;

#[derive(Default)]
struct QueuePolls {
    all: ByOffset,
    tags: HashMap<i64, ByOffset>,
}

impl Index {
    pub(super) fn insert(&mut self, (topic, queue): (&Arc<str>, u32), filter: &TagFilter, at: (u64, Ticket)) {
        let polls = self.queues.entry(topic.clone()).or_default().entry(queue).or_default();
        if *filter == TagFilter::All {
            polls.all.insert(at);
        }
        for code in filter.codes() {
            polls.tags.entry(*code).or_default().insert(at);
        }
    }

    pub(super) fn remove(&mut self, (topic, queue): (&Arc<str>, u32), filter: &TagFilter, at: (u64, Ticket)) {
        let Some(queues) = self.queues.get_mut(topic) else { return };
        let Some(polls) = queues.get_mut(&queue) else { return };
        polls.all.remove(&at);
        for code in filter.codes() {
            let Some(tagged) = polls.tags.get_mut(code) else { continue };
            tagged.remove(&at);
            if tagged.is_empty() {
                polls.tags.remove(code);
            }
        }
        if polls.all.is_empty() && polls.tags.is_empty() {
            queues.remove(&queue);
        }
        if queues.is_empty() {
            self.queues.remove(topic);
        }
    }

    /// The polls that the news answer. One that several answer may be named several times.
    pub(super) fn answered_by(&self, news: &News) -> Vec<Ticket> {
        let mut tickets = Vec::new();
        if news.everywhere {
            let polls = self.queues.values().flat_map(BTreeMap::values);
            polls.for_each(|polls| polls.up_to(u64::MAX, &mut tickets));
        }
        for (topic, arrived) in &news.queues {
            let Some(queues) = self.queues.get(topic) else { continue };
            for (queue, arrived) in arrived {
                if let Some(polls) = queues.get(queue) {
                    polls.answered_by(arrived, &mut tickets);
                }
            }
        }
        tickets
    }

    #[cfg(test)]
    pub(super) fn is_empty(&self) -> bool {
        self.queues.is_empty()
    }
}

impl QueuePolls {
    fn answered_by(&self, arrived: &Arrived, tickets: &mut Vec<Ticket>) {
        match arrived {
            Arrived::Any(offset) => self.up_to(*offset, tickets),
            Arrived::Tags(tags) => {
                let furthest = tags.values().copied().max().unwrap_or(0);
                take_up_to(&self.all, furthest, tickets);
                for (code, offset) in tags {
                    if let Some(polls) = self.tags.get(code) {
                        take_up_to(polls, *offset, tickets);
                    }
                }
            }
        }
    }

    fn up_to(&self, offset: u64, tickets: &mut Vec<Ticket>) {
        take_up_to(&self.all, offset, tickets);
        self.tags.values().for_each(|polls| take_up_to(polls, offset, tickets));
    }
}

fn take_up_to(polls: &ByOffset, offset: u64, tickets: &mut Vec<Ticket>) {
    tickets.extend(polls.range(..=(offset, Ticket::LAST)).map(|(_, ticket)| *ticket));
}
