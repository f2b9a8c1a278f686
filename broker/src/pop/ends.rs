//! What ends a message's flight, or moves its end: acknowledgements and changes of the invisible time.
//!
//! A handle says everything, so any leader takes it. The driver makes the move; what became of the message is read from the state after that, behind a
//! proof of leadership where this request has not made the move itself: a leader that was replaced would refuse what the next one has popped.

use std::sync::Arc;

use folio_protocol::Name;
use folio_protocol::popped::Handle;
use folio_raft::driver::{Counted, outcome};
use folio_state::sections::popped::Popping;
use folio_state::{AckPopped, BatchId, ChangePopped, PopQueue};

use super::INVISIBLE_MAX_MS;
use crate::broker::Broker;
use crate::clock::now_ms;
use crate::error::BrokerError;

/// How often a move is tried that another one of the same message came before.
const TRIES: usize = 8;

/// A message that becomes visible so soon, ms, may have come again before its change is answered.
const SOON_MS: u64 = 1000;

/// A popped message, by its handle.
#[derive(Debug, Clone)]
pub struct Popped {
    /// The consumer group.
    pub group: Name,
    /// The topic that it was popped from; perhaps a retry topic.
    pub topic: Name,
    /// The queue.
    pub queue_id: i32,
    /// Its offset.
    pub offset: i64,
    /// The handle.
    pub handle: Handle,
}

/// The parts of a new handle.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Changed {
    /// When it counts as popped, ms since the epoch.
    pub popped_ms: u64,
    /// The invisible time, ms.
    pub invisible_ms: u64,
}

/// A popped message as the state names it.
struct Named {
    queue: PopQueue,
    id: BatchId,
    invisible_ms: u64,
    offset: u64,
    was_in_flight: bool,
}

impl Named {
    /// What became of it, as far as this node has applied.
    fn popping(&mut self, broker: &Broker) -> Popping {
        let state = broker.group.state();
        self.id = state.popped().meant(&self.queue, self.id, self.offset);
        let committed = state.offset_as_stored(&self.queue);
        state.popped().popping(&self.queue, (self.id, self.invisible_ms), (self.offset, committed), now_ms())
    }

    /// What became of it, for certain. Once it was seen in flight here, what this node has applied tells what ended that; until then a leader
    /// that was replaced may not know of it.
    async fn surely(&mut self, broker: &Broker) -> Result<Popping, BrokerError> {
        let mut popping = self.popping(broker);
        if popping != Popping::InFlight && !self.was_in_flight {
            broker.group.confirm().await?;
            popping = self.popping(broker);
        }
        self.was_in_flight |= popping == Popping::InFlight;
        Ok(popping)
    }

    fn is_ordered(&self, broker: &Broker) -> bool {
        let state = broker.group.state();
        state.popped().batch(&self.queue, self.id).is_some_and(|batch| batch.order.is_some())
    }

    fn not_in_flight(&self) -> BrokerError {
        let Named { queue: PopQueue { group, topic, queue }, offset, .. } = self;
        BrokerError::NotInFlight(format!(
            "[POP]offset {offset} of topic[{topic}] queue {queue} is not in flight for group[{group}] by this handle: its \
             invisible time is over, or another handle has replaced it"
        ))
    }
}

impl Broker {
    fn named(&self, popped: &Popped) -> Result<Named, BrokerError> {
        let Popped { group, topic, queue_id, offset, handle } = popped;
        let known = self.topic(topic).ok_or_else(|| BrokerError::TopicNotExist(topic.to_string()))?;
        let queue = u32::try_from(*queue_id).ok().filter(|queue| *queue < known.read_queues);
        let queue = queue.ok_or_else(|| {
            BrokerError::IllegalMessage(format!(
                "queueId[{queue_id}] is illegal, topic:[{topic}] topicConfig.readQueueNums:[{}]",
                known.read_queues
            ))
        })?;
        let named = Named {
            queue: PopQueue { group: group.to_string(), topic: topic.to_string(), queue },
            id: BatchId { start: handle.start, popped_ms: handle.popped_ms },
            invisible_ms: handle.invisible_ms,
            offset: u64::try_from(*offset).unwrap_or(u64::MAX),
            was_in_flight: false,
        };
        Ok(named)
    }

    /// A message was handled; returns once that is applied here, or was before. Only the leader can. One that has come again
    /// meanwhile, or will, is refused (`pop.I5`).
    pub async fn ack_popped(self: &Arc<Self>, popped: &Popped) -> Result<(), BrokerError> {
        self.acknowledge(popped).await?;
        if popped.handle.is_ordered() {
            // Its queue may go on.
            self.pop_waits.wake(&popped.group, &popped.topic);
        }
        Ok(())
    }

    async fn acknowledge(&self, popped: &Popped) -> Result<(), BrokerError> {
        let mut named = self.named(popped)?;
        for _ in 0..TRIES {
            match named.surely(self).await? {
                Popping::Acked => return Ok(()),
                Popping::Superseded | Popping::Not => return Err(named.not_in_flight()),
                Popping::InFlight => {
                    let Named { queue, id, offset, .. } = &named;
                    let ack = AckPopped { queue: queue.clone(), id: *id, offset: *offset };
                    let counted = Counted::default();
                    outcome(|reply| self.group.ack_popped(ack, counted.clone(), reply)).await?;
                    // An ordered batch may have been given again in the same moment.
                    if counted.is_so() && named.popping(self) != Popping::Superseded {
                        return Ok(());
                    }
                }
            }
        }
        Err(BrokerError::Overtaken)
    }

    /// A message becomes visible so long from now. Only the leader can. A repeat is told what the first one did.
    pub async fn change_popped(
        self: &Arc<Self>,
        popped: &Popped,
        invisible_ms: i64,
    ) -> Result<Changed, BrokerError> {
        let mut named = self.named(popped)?;
        let asked = invisible_ms;
        let invisible_ms = u64::try_from(asked).ok().filter(|ms| *ms <= INVISIBLE_MAX_MS);
        let invisible_ms = invisible_ms.ok_or_else(|| {
            BrokerError::InvalidParameter(format!(
                "invisibleTime is {asked} ms, expected 0 to {INVISIBLE_MAX_MS}"
            ))
        })?;
        for _ in 0..TRIES {
            match named.surely(self).await? {
                Popping::InFlight if named.is_ordered(self) => {
                    return self.change_ordered(&mut named, invisible_ms).await;
                }
                Popping::InFlight => {
                    let popped_ms = now_ms().max(named.id.popped_ms + 1);
                    let visible_ms = popped_ms + invisible_ms;
                    let Named { queue, id, offset, .. } = &named;
                    let change = ChangePopped {
                        queue: queue.clone(),
                        id: *id,
                        offset: *offset,
                        popped_ms,
                        visible_ms,
                    };
                    let counted = Counted::default();
                    outcome(|reply| self.group.change_popped(change, counted.clone(), reply)).await?;
                    if counted.is_so() && (invisible_ms < SOON_MS || self.is_in_flight(&named, popped_ms)) {
                        return Ok(Changed { popped_ms, invisible_ms });
                    }
                }
                Popping::Superseded => return self.changed(&named, invisible_ms),
                Popping::Acked | Popping::Not => return Err(named.not_in_flight()),
            }
        }
        Err(BrokerError::Overtaken)
    }

    /// Whether a message has a batch of its own: a reset may have come before its change.
    fn is_in_flight(&self, named: &Named, popped_ms: u64) -> bool {
        let id = BatchId { start: named.offset, popped_ms };
        self.group.state().popped().batch(&named.queue, id).is_some()
    }

    /// The handle that replaced this one, if it was asked for by the same wish.
    fn changed(&self, named: &Named, invisible_ms: u64) -> Result<Changed, BrokerError> {
        let state = self.group.state();
        let changed = state.popped().changed(&named.queue, named.offset, named.id);
        let same = changed.filter(|(id, batch)| batch.visible_ms == id.popped_ms + invisible_ms);
        let (id, _) = same.ok_or_else(|| named.not_in_flight())?;
        Ok(Changed { popped_ms: id.popped_ms, invisible_ms })
    }

    /// An ordered message keeps its pop time. It waits as long as its batch does: others of that may need longer.
    async fn change_ordered(&self, named: &mut Named, invisible_ms: u64) -> Result<Changed, BrokerError> {
        let visible_ms = now_ms() + invisible_ms;
        let Named { queue, id, offset, .. } = named;
        let popped_ms = id.popped_ms;
        let change = ChangePopped { queue: queue.clone(), id: *id, offset: *offset, popped_ms, visible_ms };
        outcome(|reply| self.group.change_popped(change, Counted::default(), reply)).await?;
        if named.popping(self) != Popping::InFlight {
            return Err(named.not_in_flight());
        }
        let state = self.group.state();
        let batch = state.popped().batch(&named.queue, named.id).ok_or_else(|| named.not_in_flight())?;
        Ok(Changed { popped_ms, invisible_ms: batch.visible_ms.saturating_sub(popped_ms) })
    }
}
