//! What is in flight, as operators see it.

use std::sync::Arc;

use folio_state::PopQueue;
use folio_state::sections::popped::{Batch, BatchId};
use serde::{Deserialize, Serialize};

use crate::broker::Broker;
use crate::error::BrokerError;

/// Batches of one list at most.
const LIST_MAX: usize = 1_000;

/// What is in flight of some groups and topics.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct InFlightList {
    /// How many messages.
    pub messages: u64,
    /// In how many batches: what one pop was given of one queue, less what has left it.
    pub batches: u64,
    /// Those that were popped first.
    pub oldest: Vec<ListedBatch>,
}

/// Messages in flight that one pop was given of one queue.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct ListedBatch {
    /// When they were popped, ms since the epoch.
    pub popped_ms: u64,
    /// The consumer group.
    pub group: String,
    /// The topic: a retry topic where they have come before.
    pub topic: String,
    /// The queue.
    pub queue: u32,
    /// When they come again, ms since the epoch.
    pub visible_ms: u64,
    /// Whether they are consumed in order: nothing else of their queue is popped before.
    pub ordered: bool,
    /// Their offsets that are not acknowledged, ascending.
    pub offsets: Vec<u64>,
}

impl Broker {
    /// What is in flight, of one consumer group or of all and of one topic or of all; the batches that were popped first, `max` and
    /// [`LIST_MAX`] at most. The leader's to answer.
    pub async fn list_in_flight(
        self: &Arc<Self>,
        group: Option<String>,
        topic: Option<String>,
        max: usize,
    ) -> Result<InFlightList, BrokerError> {
        self.apart(move |broker| {
            // A copy shares its parts: nothing waits while it is looked through.
            let popped = broker.group.state().popped().clone();
            let is_wanted = |queue: &PopQueue| {
                group.as_ref().is_none_or(|group| *group == queue.group)
                    && topic.as_ref().is_none_or(|topic| *topic == queue.topic)
            };
            let wanted = popped.batches().filter(|(queue, _, _)| is_wanted(queue));
            Ok(list(wanted, max.min(LIST_MAX)))
        })
        .await
    }
}

fn list<'a>(all: impl Iterator<Item = (&'a PopQueue, BatchId, &'a Batch)>, max: usize) -> InFlightList {
    let mut all: Vec<_> = all.collect();
    let messages = all.iter().map(|(_, _, batch)| batch.count()).sum();
    let batches = all.len() as u64;
    all.sort_unstable_by_key(|(queue, id, _)| (id.popped_ms, *queue, id.start));
    all.truncate(max);
    let oldest = all.into_iter().map(|(queue, id, batch)| of(queue, id, batch)).collect();
    InFlightList { messages, batches, oldest }
}

fn of(queue: &PopQueue, id: BatchId, batch: &Batch) -> ListedBatch {
    ListedBatch {
        popped_ms: id.popped_ms,
        group: queue.group.clone(),
        topic: queue.topic.clone(),
        queue: queue.queue,
        visible_ms: batch.visible_ms,
        ordered: batch.order.is_some(),
        offsets: batch.in_flight(id).collect(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_oldest_batches_are_listed_and_all_are_counted() {
        let queues: Vec<PopQueue> =
            (0..3).map(|queue| PopQueue { group: "g".into(), topic: "t".into(), queue }).collect();
        let batch = Batch {
            visible_ms: 900,
            until_ms: 900,
            position: 0,
            retry_v2: false,
            diffs: vec![0, 1, 4],
            acked: 0b010,
            gone: 0,
            order: None,
        };
        let at = |popped_ms| BatchId { start: 10, popped_ms };
        let all = [(&queues[0], at(7), &batch), (&queues[1], at(5), &batch), (&queues[2], at(6), &batch)];
        let listed = list(all.into_iter(), 2);
        assert_eq!((listed.messages, listed.batches), (6, 3));
        let oldest: Vec<(u32, u64)> =
            listed.oldest.iter().map(|batch| (batch.queue, batch.popped_ms)).collect();
        assert_eq!(oldest, [(1, 5), (2, 6)]);
        assert_eq!(listed.oldest[0].offsets, [10, 14]);
    }
}
