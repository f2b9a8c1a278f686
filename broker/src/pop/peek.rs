//! Looking at what a pop would be given: PEEK gives the messages and changes nothing; a notification says whether there are any.

use std::sync::Arc;

use folio_protocol::popped::Retry;
use folio_protocol::subscription::TagFilter;
use folio_raft::driver::is_given_up;
use folio_state::PopQueue;

use super::give::blocking;
use super::look::BYTES_MAX;
use super::pick::{Found, Rules, pick, place};
use super::{Given, GivenBatch, ToPop};
use crate::broker::Broker;
use crate::clock::now_ms;
use crate::error::BrokerError;
use crate::pull::{self, Limits};

impl Broker {
    /// The next messages of a queue, or of any; they stay where they are. Only the leader can tell.
    pub async fn peek(self: &Arc<Self>, wish: &ToPop) -> Result<Given, BrokerError> {
        let subject = self.pop_subject(wish)?;
        self.group.confirm().await?;
        // All that it may be, at once: who waits for more while he has some may wait for another one who does.
        let memory = Some(self.node.reads.take(BYTES_MAX).await);
        let mut given = Given { popped_ms: now_ms(), memory, ..Given::default() };
        let (mut left, mut bytes_left) = (subject.max, BYTES_MAX);
        for (queue, _) in self.pop_queues(wish, &subject) {
            if left == 0 || bytes_left == 0 {
                break;
            }
            let rules = Rules {
                filter: &TagFilter::All,
                limits: Limits { messages: left, bytes: bytes_left },
                popped_ms: given.popped_ms,
                invisible_ms: 0,
                begins_at_end: wish.begins_at_end,
                attempt: None,
                retry_v2: false,
            };
            let (_, start, end) = place(self, &queue, wish.begins_at_end)?;
            given.rest += end.saturating_sub(start);
            let Found::Some(found) = pick(self, queue.clone(), &rules)? else { continue };
            let (count, bytes) = (found.batch.messages, found.batch.bytes);
            // Its first message is one whatever there is.
            if bytes > bytes_left && !given.messages.is_empty() {
                continue;
            }
            bytes_left = bytes_left.saturating_sub(bytes);
            let broker = self.clone();
            let read = blocking(move || {
                let queue = &found.pop.queue;
                pull::bytes(&broker, (&queue.topic, queue.queue), &found.batch).map(|parts| (found, parts))
            });
            let (found, parts) = read.await?;
            if count == 0 {
                continue;
            }
            left -= count;
            given.rest -= (count as u64).min(given.rest);
            let (start, retry) = (found.pop.id.start, Retry::of_topic(&queue.topic));
            let offsets = found.pop.diffs.iter().map(|diff| start + u64::from(*diff)).collect();
            given.messages.extend(parts);
            given.batches.push(GivenBatch { retry, queue: queue.queue, start, offsets, attempts: 0 });
        }
        Ok(given)
    }

    /// Whether there is a message to pop. Only the leader can tell.
    pub fn has_popable(&self, wish: &ToPop) -> Result<bool, BrokerError> {
        let subject = self.pop_subject(wish)?;
        let is_blocked = |queue: &PopQueue, attempt: &str| {
            let state = self.group.state();
            let ordered = state.popped().ordered(queue);
            ordered.map(|(_, batch)| {
                let same = batch.order.as_ref().is_some_and(|order| order.attempt == attempt);
                let waits = batch.visible_ms > now_ms() && (attempt.is_empty() || !same);
                waits || is_given_up(&state, &queue.group, batch)
            })
        };
        for (queue, _) in self.pop_queues(wish, &subject) {
            if let Some(attempt) = &wish.attempt {
                match is_blocked(&queue, attempt) {
                    Some(true) => continue,
                    Some(false) => return Ok(true),
                    None => {}
                }
            }
            let (_, start, end) = place(self, &queue, wish.begins_at_end)?;
            if start < end {
                return Ok(true);
            }
        }
        Ok(false)
    }
}
