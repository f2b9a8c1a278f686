//! Serving a pop: messages are chosen, read, noted as in flight, and given out, in this order. What cannot be read is not given.

use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use folio_protocol::message::Messages;
use folio_protocol::popped::{self, Handle, Retry};
use folio_raft::driver::outcome;
use folio_raft::proposal::ProposeError;
use folio_state::sections::popped::ATTEMPT_BYTES_MAX;
use folio_state::{BatchId, PopAgain, PopQueue};
use tokio::time::{Instant, timeout_at};

use super::locks::PopLock;
use super::look::{Again, BYTES_MAX, Look, Times};
use super::pick::Pick;
use super::{Given, GivenBatch, INVISIBLE_MAX_MS, ToPop};
use crate::broker::Broker;
use crate::clock::now_ms;
use crate::error::BrokerError;
use crate::pull;
use crate::reads::ReadMemory;

/// How long a pop looks anew, where other pops or commits were first, or its filter wants little of what there is.
const LOOKING: Duration = Duration::from_millis(500);
/// How long a pop waits for others, and for memory: who has forwarded it waits no longer than twice that.
const WAIT_TIMEOUT: Duration = Duration::from_millis(2500);
/// What a message of an ordered batch is taken to have, before it is read.
const MESSAGE_BYTES: usize = 16 << 10;

/// What was read of a queue, and is to be popped.
struct Read {
    pick: Pick,
    lock: PopLock,
    parts: Vec<Bytes>,
}

impl Broker {
    /// Gives messages to a group; an answer without batches says that there are none, or, where it says that some are left, that none of those
    /// looked at are wanted. Only the leader can.
    pub async fn pop(self: &Arc<Self>, wish: &ToPop) -> Result<Given, BrokerError> {
        let subject = self.pop_subject(wish)?;
        let invisible_ms = times_of(wish)?;
        let queues = self.pop_queues(wish, &subject);
        let began = Instant::now();
        let (until, mut held) = (began + WAIT_TIMEOUT, None);
        // Who has waited for a queue looks at it.
        while held.is_some() || began.elapsed() < LOOKING {
            let times = Times { popped_ms: now_ms(), invisible_ms };
            let look = self.look((wish, &subject), &queues, times, held.take());
            if look.is_empty() {
                match look {
                    Look { busy: Some(queue), .. } => {
                        held = Some(within(until, self.pop_locks.lock(&queue)).await?);
                    }
                    Look { failed: Some(error), .. } => return Err(error),
                    Look { full: Some(PopQueue { topic, queue, .. }), .. } => {
                        return Err(BrokerError::InFlightFull(topic, queue));
                    }
                    _ => return Ok(Given { popped_ms: times.popped_ms, invisible_ms, ..Given::default() }),
                }
                continue;
            }
            let given = self.give(look, times, until).await?;
            if !given.batches.is_empty() {
                let rest = self.rest(wish, &queues);
                return Ok(Given { rest, ..given });
            }
        }
        let rest = self.rest(wish, &queues);
        Ok(Given { popped_ms: now_ms(), invisible_ms, rest, ..Given::default() })
    }

    /// Has all that was found noted as in flight, and gives what is.
    async fn give(self: &Arc<Self>, found: Look, times: Times, until: Instant) -> Result<Given, BrokerError> {
        let Look { picks, again, mut failed, .. } = found;
        let mut given =
            Given { popped_ms: times.popped_ms, invisible_ms: times.invisible_ms, ..Given::default() };
        given.memory = within(until, self.memory(&picks, &again)).await?;
        let mut asked = Vec::new();
        for (pick, lock) in picks {
            match self.read(pick).await {
                Ok((pick, parts)) => asked.push(Read { pick, lock, parts }),
                Err(error) => failed = Some(error),
            }
        }
        // Their time begins now: waiting and reading are not the client's.
        given.popped_ms = now_ms();
        let asked = asked.into_iter().map(|mut read| {
            read.pick.pop.id.popped_ms = given.popped_ms;
            read.pick.pop.visible_ms = given.popped_ms + times.invisible_ms;
            self.clone().note(read)
        });
        let asked: Vec<_> = asked.collect();
        // The locks are held until all is added: what is in flight is what was asked for.
        let mut locks = Vec::new();
        for (Read { pick, lock, parts }, outcome) in join(asked).await {
            match outcome {
                Ok(()) => self.add(&mut given, &pick, parts),
                Err(error) => failed = Some(error.into()),
            }
            locks.push(lock);
        }
        for (again, lock) in again {
            if let Err(error) = self.give_again(&mut given, again).await {
                failed = Some(error);
            }
            locks.push(lock);
        }
        match failed {
            Some(error) if given.batches.is_empty() => Err(error),
            _ => Ok(given),
        }
    }

    /// The memory of what is to be read from the disk, taken at once: who waits for more while he has some may wait for another one who does.
    async fn memory(&self, picks: &[(Pick, PopLock)], again: &[(Again, PopLock)]) -> Option<ReadMemory> {
        let cold = picks.iter().filter(|(pick, _)| !pull::is_fresh(self, &pick.batch));
        let of_picks: usize = cold.map(|(pick, _)| pick.batch.bytes).sum();
        let of_again: usize = again.iter().map(|(again, _)| again.offsets.len() * MESSAGE_BYTES).sum();
        match of_picks + of_again {
            0 => None,
            bytes => Some(self.node.reads.take(bytes).await),
        }
    }

    /// The bytes of what was picked.
    async fn read(self: &Arc<Self>, pick: Pick) -> Result<(Pick, Vec<Bytes>), BrokerError> {
        let (broker, is_fresh) = (self.clone(), pull::is_fresh(self, &pick.batch));
        let read = move || {
            let queue = &pick.pop.queue;
            let parts = pull::bytes(&broker, (&queue.topic, queue.queue), &pick.batch)?;
            Ok((pick, parts))
        };
        if is_fresh { read() } else { blocking(read).await }
    }

    /// Has it noted as in flight.
    async fn note(self: Arc<Self>, read: Read) -> (Read, Result<(), ProposeError>) {
        let pop = read.pick.pop.clone();
        let noted = outcome(|reply| self.group.pop(pop, reply)).await;
        (read, noted)
    }

    /// Adds what was popped, if the state was as it was seen.
    fn add(&self, given: &mut Given, pick: &Pick, parts: Vec<Bytes>) {
        let (queue, id) = (&pick.pop.queue, pick.pop.id);
        let is_in_flight = self.group.state().popped().batch(queue, id).is_some();
        if !is_in_flight || pick.pop.diffs.is_empty() {
            return;
        }
        let offsets = pick.pop.diffs.iter().map(|diff| id.start + u64::from(*diff)).collect();
        let retry = Retry::of_topic(&queue.topic);
        let messages = if retry == Retry::Normal { parts } else { self.recoded(given, queue, id, &parts) };
        given.messages.extend(messages);
        given.batches.push(GivenBatch { retry, queue: queue.queue, start: id.start, offsets, attempts: 0 });
    }

    /// Retries as messages of the topic that the client asked for, with their handles.
    fn recoded(&self, given: &Given, queue: &PopQueue, id: BatchId, parts: &[Bytes]) -> Vec<Bytes> {
        let topic = popped::first_topic(&queue.group, &queue.topic);
        let mut all = Vec::new();
        for part in parts {
            for (_, view) in Messages::new(part).flatten() {
                let bytes = part.slice_ref(view.bytes());
                let handle = Handle {
                    start: id.start,
                    popped_ms: given.popped_ms,
                    invisible_ms: given.invisible_ms,
                    revive_queue: 0,
                    retry: Retry::of_topic(&queue.topic),
                    broker: self.identity.broker_name.clone(),
                    queue: queue.queue,
                    offset: view.queue_offset(),
                };
                // One without room for its handle was not stored as a retry, but may have been sent as one: it becomes a dead letter.
                all.extend(popped::given(&view, &bytes, topic, &handle));
            }
        }
        all
    }

    /// Gives an ordered batch again, what is in flight of it then. One that has no place in this answer stays as it is.
    async fn give_again(self: &Arc<Self>, given: &mut Given, again: Again) -> Result<(), BrokerError> {
        let Again { pop, offsets } = again;
        let (broker, of) = (self.clone(), pop.queue.clone());
        let read = blocking(move || {
            let one = |offset: u64| Some((offset, broker.group.popped_message(&of, offset).transpose()?));
            let all: Vec<_> = offsets.into_iter().filter_map(one).collect();
            let read = all.into_iter().map(|(offset, bytes)| bytes.map(|bytes| (offset, bytes)));
            read.collect::<Result<Vec<_>, _>>().map_err(|error| BrokerError::Unreadable(error.to_string()))
        });
        let read = read.await?;
        let bytes: usize = read.iter().map(|(_, bytes)| bytes.len()).sum();
        let has: usize = given.messages.iter().map(Bytes::len).sum();
        if has > 0 && has + bytes > BYTES_MAX {
            return Ok(());
        }
        let (queue, popped_ms) = (pop.queue.clone(), given.popped_ms);
        let pop = PopAgain { popped_ms, visible_ms: popped_ms + given.invisible_ms, ..pop };
        outcome(|reply| self.group.pop_again(pop, reply)).await?;
        let ordered = {
            let state = self.group.state();
            let ordered = state.popped().ordered(&queue).filter(|(id, _)| id.popped_ms == popped_ms);
            ordered.map(|(id, batch)| (id, batch.clone()))
        };
        let Some((id, batch)) = ordered else { return Ok(()) };
        let in_flight: Vec<u64> = batch.in_flight(id).collect();
        let (mut offsets, mut messages) = (Vec::new(), Vec::new());
        for (offset, bytes) in read.into_iter().filter(|(offset, _)| in_flight.contains(offset)) {
            offsets.push(offset);
            messages.push(bytes);
        }
        if offsets.is_empty() {
            return Ok(());
        }
        given.messages.extend(messages);
        given.batches.push(GivenBatch {
            retry: Retry::of_topic(&queue.topic),
            queue: queue.queue,
            start: id.start,
            offsets,
            attempts: batch.order.as_ref().map_or(0, |order| order.attempts),
        });
        Ok(())
    }
}

/// The invisible time, ms.
fn times_of(wish: &ToPop) -> Result<u64, BrokerError> {
    if wish.attempt.as_ref().is_some_and(|attempt| attempt.len() > ATTEMPT_BYTES_MAX) {
        let text = format!("an attempt id of more than {ATTEMPT_BYTES_MAX} bytes");
        return Err(BrokerError::InvalidParameter(text));
    }
    let invisible_ms = u64::try_from(wish.invisible_ms).ok().filter(|ms| (1..=INVISIBLE_MAX_MS).contains(ms));
    invisible_ms.ok_or_else(|| {
        let asked = wish.invisible_ms;
        BrokerError::InvalidParameter(format!(
            "invisibleTime is {asked} ms, expected 1 to {INVISIBLE_MAX_MS}"
        ))
    })
}

/// Waits for it until then: nothing is in flight yet, and the client that asked may be gone after that.
async fn within<T>(until: Instant, what: impl Future<Output = T>) -> Result<T, BrokerError> {
    timeout_at(until, what).await.map_err(|_| BrokerError::Propose(ProposeError::Busy))
}

/// Reads the disk apart from the runtime's threads.
pub(super) async fn blocking<T: Send + 'static>(
    read: impl FnOnce() -> Result<T, BrokerError> + Send + 'static,
) -> Result<T, BrokerError> {
    let read = tokio::task::spawn_blocking(read).await;
    read.map_err(|_| BrokerError::Internal("the node stops".to_owned()))?
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
