//! Serving a pop.

use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use folio_protocol::message::{MessageView, Messages};
use folio_protocol::popped::{self, Handle, ORDERED, Retry};
use folio_protocol::subscription::TagFilter;
use folio_raft::driver::Reply;
use folio_raft::proposal::ProposeError;
use folio_state::sections::popped::{ATTEMPT_BYTES_MAX, BATCHES_MAX};
use folio_state::{BatchId, PopAgain, PopQueue};
use tokio::sync::oneshot;
use tokio::time::sleep;

use super::pick::{Found, Pick, Rules, is_of_queue, pick};
use super::{Given, GivenBatch, INVISIBLE_MAX_MS, Subject, ToPop};
use crate::broker::Broker;
use crate::clock::now_ms;
use crate::error::BrokerError;
use crate::pull;

/// How often a pop looks anew, where other pops or commits were first, or its filter wants little of what there is.
const LOOKS: usize = 8;
/// Pause before a look that finds another clock: a pop time of its own for each.
const PAUSE: Duration = Duration::from_millis(1);
/// What a message of an ordered batch is taken to have, before it is read.
const MESSAGE_BYTES: usize = 16 << 10;
/// One pop in so many looks for retries first.
const RETRIES_FIRST: u32 = 5;

/// Asks the driver, and waits for its answer.
pub(super) async fn told(ask: impl FnOnce(Reply)) -> Result<(), ProposeError> {
    let (tell, told) = oneshot::channel();
    ask(Box::new(move |outcome| drop(tell.send(outcome))));
    told.await.unwrap_or_else(|_| Err(ProposeError::Unknown("the group stopped".to_owned())))
}

/// What one look gives.
#[derive(Default)]
struct Look {
    picks: Vec<Pick>,
    /// Ordered batches that are given again.
    again: Vec<PopAgain>,
    full: Option<PopQueue>,
    messages: usize,
}

impl Broker {
    /// Gives messages to a group; an answer without batches says that there are none. Only the leader can.
    pub async fn pop(self: &Arc<Self>, wish: &ToPop) -> Result<Given, BrokerError> {
        let subject = self.pop_subject(wish)?;
        if wish.attempt.as_ref().is_some_and(|attempt| attempt.len() > ATTEMPT_BYTES_MAX) {
            let text = format!("an attempt id of more than {ATTEMPT_BYTES_MAX} bytes");
            return Err(BrokerError::InvalidParameter(text));
        }
        let invisible_ms =
            u64::try_from(wish.invisible_ms).ok().filter(|ms| (1..=INVISIBLE_MAX_MS).contains(ms));
        let invisible_ms = invisible_ms.ok_or_else(|| {
            let asked = wish.invisible_ms;
            BrokerError::InvalidParameter(format!(
                "invisibleTime is {asked} ms, expected 1 to {INVISIBLE_MAX_MS}"
            ))
        })?;
        for look in 0..LOOKS {
            if look > 0 {
                sleep(PAUSE).await;
            }
            let popped_ms = now_ms();
            let found = self.look(wish, &subject, (popped_ms, invisible_ms))?;
            if found.picks.is_empty() && found.again.is_empty() {
                if let Some(queue) = found.full {
                    return Err(BrokerError::InFlightFull(queue.topic, queue.queue));
                }
                break;
            }
            let given = self.give(found, (popped_ms, invisible_ms)).await?;
            if !given.batches.is_empty() {
                let rest = self.rest(wish, &subject);
                return Ok(Given { rest, ..given });
            }
        }
        Ok(Given { popped_ms: now_ms(), invisible_ms, ..Given::default() })
    }

    /// The queues of a pop, in the order in which they are looked at.
    pub(super) fn pop_queues(&self, wish: &ToPop, subject: &Subject) -> Vec<(PopQueue, bool)> {
        let turn = self.node.ids.draw();
        let queue =
            |topic: &str, queue| PopQueue { group: wish.group.to_string(), topic: topic.to_owned(), queue };
        let count = subject.topic.read_queues.max(1);
        let own: Vec<u32> = match subject.queue {
            Some(queue) => vec![queue],
            None => (0..subject.topic.read_queues).map(|at| (at + turn) % count).collect(),
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
        if turn.is_multiple_of(RETRIES_FIRST) {
            retries.into_iter().chain(own).collect()
        } else {
            own.chain(retries).collect()
        }
    }

    fn look(
        &self,
        wish: &ToPop,
        subject: &Subject,
        (popped_ms, invisible_ms): (u64, u64),
    ) -> Result<Look, BrokerError> {
        let mut found = Look::default();
        if self.group.state().popped().count() >= BATCHES_MAX {
            return Err(BrokerError::InFlightFull(wish.topic.to_string(), 0));
        }
        for (queue, is_retry) in self.pop_queues(wish, subject) {
            if found.messages >= subject.max {
                break;
            }
            if let Some(attempt) = &wish.attempt {
                let ordered = self.ordered_again(&queue, attempt, (popped_ms, invisible_ms));
                match ordered {
                    Some(Ok((again, messages))) => {
                        found.messages += messages;
                        found.again.push(again);
                        continue;
                    }
                    Some(Err(Blocked)) => continue,
                    None => {}
                }
            }
            let rules = Rules {
                // A retry was wanted when it was popped first.
                filter: if is_retry { &TagFilter::All } else { &subject.filter },
                max: subject.max - found.messages,
                popped_ms,
                invisible_ms,
                begins_at_end: wish.begins_at_end,
                attempt: wish.attempt.as_deref(),
                retry_v2: self.settings.pop_retry_v2,
            };
            match pick(self, queue.clone(), &rules)? {
                Found::Some(pick) => {
                    found.messages += pick.batch.messages;
                    found.picks.push(*pick);
                }
                Found::Nothing => {}
                Found::Full => found.full = Some(queue),
            }
        }
        Ok(found)
    }

    /// What becomes of an ordered batch that is in flight; `None` where there is none.
    fn ordered_again(
        &self,
        queue: &PopQueue,
        attempt: &str,
        (popped_ms, invisible_ms): (u64, u64),
    ) -> Option<Result<(PopAgain, usize), Blocked>> {
        let state = self.group.state();
        let (id, batch) = state.popped().ordered(queue)?;
        let is_repeat =
            !attempt.is_empty() && batch.order.as_ref().is_some_and(|order| order.attempt == attempt);
        if !is_repeat && batch.visible_ms > popped_ms {
            return Some(Err(Blocked));
        }
        let again = PopAgain {
            queue: queue.clone(),
            id,
            popped_ms,
            visible_ms: popped_ms + invisible_ms,
            attempt: attempt.to_owned(),
            counts: !is_repeat,
        };
        Some(Ok((again, batch.count() as usize)))
    }

    /// Has all that was found noted as in flight, and gives what is.
    async fn give(
        self: &Arc<Self>,
        found: Look,
        (popped_ms, invisible_ms): (u64, u64),
    ) -> Result<Given, BrokerError> {
        let mut given = Given { popped_ms, invisible_ms, ..Given::default() };
        let mut asked = Vec::new();
        for Pick { pop, batch } in found.picks {
            let pick = self.read(Pick { pop, batch }).await?;
            let broker = self.clone();
            asked.push(async move {
                let (pick, parts) = pick;
                let pop = pick.pop.clone();
                let outcome = told(|reply| broker.group.pop(pop, reply)).await;
                (pick, parts, outcome)
            });
        }
        let mut failed = None;
        for (pick, parts, outcome) in join(asked).await {
            match outcome {
                Ok(()) => self.add(&mut given, &pick, parts),
                Err(error) => failed = Some(error),
            }
        }
        for again in found.again {
            let (queue, asked) = (again.queue.clone(), again.clone());
            match told(|reply| self.group.pop_again(asked, reply)).await {
                Ok(()) => self.add_again(&mut given, queue).await?,
                Err(error) => failed = Some(error),
            }
        }
        match failed {
            Some(error) if given.batches.is_empty() => Err(error.into()),
            _ => Ok(given),
        }
    }

    /// The bytes of what was picked, before it is popped: what cannot be read is not given to anybody.
    async fn read(self: &Arc<Self>, pick: Pick) -> Result<(Pick, Vec<Bytes>), BrokerError> {
        if pull::is_fresh(self, &pick.batch) {
            let queue = &pick.pop.queue;
            let parts = pull::bytes(self, (&queue.topic, queue.queue), &pick.batch)?;
            return Ok((pick, parts));
        }
        let broker = self.clone();
        let _memory = self.node.reads.take(pick.bytes()).await;
        let read = tokio::task::spawn_blocking(move || {
            let queue = &pick.pop.queue;
            let parts = pull::bytes(&broker, (&queue.topic, queue.queue), &pick.batch)?;
            Ok((pick, parts))
        });
        read.await.map_err(|_| BrokerError::Internal("the node stops".to_owned()))?
    }

    /// Adds what was popped, if this pop was the one that counts.
    fn add(&self, given: &mut Given, pick: &Pick, parts: Vec<Bytes>) {
        let (queue, id) = (&pick.pop.queue, pick.pop.id);
        let is_mine = self.group.state().popped().batch(queue, id).is_some();
        if !is_mine || pick.pop.diffs.is_empty() {
            return;
        }
        let offsets = pick.pop.diffs.iter().map(|diff| id.start + u64::from(*diff)).collect();
        let retry = pick.retry();
        if retry == Retry::Normal {
            given.messages.extend(parts);
        } else {
            let messages = self.recoded(given, queue, id, &parts);
            given.messages.extend(messages);
        }
        given.batches.push(GivenBatch { retry, queue: queue.queue, start: id.start, offsets, attempts: 0 });
    }

    /// Retries as messages of the topic that the client asked for, with their handles.
    fn recoded(&self, given: &Given, queue: &PopQueue, id: BatchId, parts: &[Bytes]) -> Vec<Bytes> {
        let topic = first_topic(queue);
        let mut all = Vec::new();
        for part in parts {
            for message in Messages::new(part).flatten() {
                let (_, view) = message;
                let bytes = part.slice_ref(view.bytes());
                let handle = self.handle(given, queue, id, view.queue_offset());
                all.extend(popped::given(&view, &bytes, topic, &handle));
            }
        }
        all
    }

    fn handle(&self, given: &Given, queue: &PopQueue, id: BatchId, offset: u64) -> Handle {
        Handle {
            start: id.start,
            popped_ms: given.popped_ms,
            invisible_ms: given.invisible_ms,
            revive_queue: 0,
            retry: Retry::of_topic(&queue.topic),
            broker: self.identity.broker_name.clone(),
            queue: queue.queue,
            offset,
        }
    }

    /// Adds an ordered batch that is given again, as it is now.
    async fn add_again(self: &Arc<Self>, given: &mut Given, queue: PopQueue) -> Result<(), BrokerError> {
        let ordered = {
            let state = self.group.state();
            let ordered = state.popped().ordered(&queue).map(|(id, batch)| (id, batch.clone()));
            ordered.filter(|(id, _)| id.popped_ms == given.popped_ms)
        };
        let Some((id, batch)) = ordered else { return Ok(()) };
        let offsets: Vec<u64> = batch.in_flight(id).collect();
        let attempts = batch.order.as_ref().map_or(0, |order| order.attempts);
        let (broker, of, wanted) = (self.clone(), queue.clone(), offsets.clone());
        let _memory = self.node.reads.take(offsets.len() * MESSAGE_BYTES).await;
        let read = tokio::task::spawn_blocking(move || {
            wanted
                .iter()
                .map(|offset| broker.group.popped_message(&of, *offset))
                .collect::<Result<Vec<_>, _>>()
        });
        let read = read.await.map_err(|_| BrokerError::Internal("the node stops".to_owned()))?;
        let read = read.map_err(|error| BrokerError::Unreadable(error.to_string()))?;
        for (bytes, offset) in read.into_iter().zip(&offsets) {
            let lost = || BrokerError::Unreadable(format!("offset {offset} of {queue:?} is not in the log"));
            given.messages.push(self.shown(given, &queue, id, *offset, bytes.ok_or_else(lost)?)?);
        }
        let retry = Retry::of_topic(&queue.topic);
        given.batches.push(GivenBatch { retry, queue: queue.queue, start: id.start, offsets, attempts });
        Ok(())
    }

    /// A message as it lies in its queue, wherever it was carried.
    fn shown(
        &self,
        given: &Given,
        queue: &PopQueue,
        id: BatchId,
        offset: u64,
        bytes: Bytes,
    ) -> Result<Bytes, BrokerError> {
        let view = MessageView::parse(&bytes).map_err(|error| BrokerError::Unreadable(error.to_string()))?;
        if is_of_queue(&view, queue) {
            return Ok(bytes);
        }
        let handle = Handle { revive_queue: ORDERED, ..self.handle(given, queue, id, offset) };
        popped::given(&view, &bytes, &queue.topic, &handle)
            .map_err(|error| BrokerError::Internal(error.to_string()))
    }

    /// How many messages are left behind the cursors.
    fn rest(&self, wish: &ToPop, subject: &Subject) -> u64 {
        let left = |(queue, _): (PopQueue, bool)| {
            let (_, start, end) = super::pick::place(self, &queue, wish.begins_at_end).ok()?;
            Some(end.saturating_sub(start))
        };
        self.pop_queues(wish, subject).into_iter().filter_map(left).sum()
    }
}

/// An ordered batch is in flight.
struct Blocked;

/// The topic whose retries a queue holds, or its own.
pub(super) fn first_topic(queue: &PopQueue) -> &str {
    let rest = queue.topic.strip_prefix(&folio_protocol::names::retry_topic(&queue.group));
    rest.and_then(|rest| rest.strip_prefix(['_', '+'])).unwrap_or(&queue.topic)
}

/// All of them, side by side; in their order.
async fn join<T: Send + 'static>(futures: Vec<impl Future<Output = T> + Send + 'static>) -> Vec<T> {
    let tasks: Vec<_> = futures.into_iter().map(tokio::spawn).collect();
    let mut all = Vec::with_capacity(tasks.len());
    for task in tasks {
        all.extend(task.await);
    }
    all
}
