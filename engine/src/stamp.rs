//! The offsets every message gets when its record enters the log: QUEUEOFFSET counts the messages of one queue,
//! PHYSICALOFFSET is the message's own position.
//!
//! It is a pure function of the log before the record: the leader writes what it computes, a follower computes the same
//! and compares. It knows nothing of topics being created or deleted: an offset is never given twice.
//!
//! Invariants
//! - `stamp.I1` A record that is refused leaves the counters as they were.
//! - `stamp.I2` Undoing down to an entry gives back the counters as they were after it.
//! - `timers.I2` A parked message (`folio_protocol::parked`) that a leader's log takes is due later than every time up to which the log
//!   was told before that messages are to be delivered: the floor. So who told it has all that is due up to there once it has applied what
//!   the log held then. A follower takes the due time as it is.

use std::collections::VecDeque;
use std::sync::Arc;

use folio_protocol::message::{peek, stamp};
use folio_protocol::parked;
use thiserror::Error;

use crate::counters::{QueueCounters, topic_is_storable};
use crate::planted;

/// Why messages cannot be stamped, or its stamps are not the expected ones.
#[derive(Debug, Clone, PartialEq, Eq, Error)]
pub enum StampError {
    /// They are not whole, back to back.
    #[error("byte {at} of the messages does not start a whole message")]
    Malformed {
        /// Where in the messages.
        at: usize,
    },
    /// The topic cannot be the name of anything.
    #[error("the message at byte {at} of the messages has a topic that cannot be stored")]
    Topic {
        /// Where in the messages.
        at: usize,
    },
    /// A message carries other offsets than the log before it gives.
    #[error(
        "the message at byte {at} of the messages is stamped {found:?} (queue offset, position), expected {expected:?}"
    )]
    Offsets {
        /// Where in the messages.
        at: usize,
        /// Queue offset and position in the payload.
        found: (u64, u64),
        /// Queue offset and position by the log before.
        expected: (u64, u64),
    },
    /// The record's header counts other messages than the payload holds.
    #[error("the record says {stated} messages, its payload holds {found}")]
    Count {
        /// In the header.
        stated: u32,
        /// In the payload.
        found: u32,
    },
}

/// What a queue's counter was before a record.
#[derive(Debug)]
struct Before {
    topic: Arc<str>,
    queue: u32,
    next: u64,
}

/// How to take one record back.
#[derive(Debug)]
struct Undo {
    index: u64,
    queues: Box<[Before]>,
}

/// The counters, with the undo records of every entry that may still be truncated.
#[derive(Debug)]
pub(crate) struct Stamper {
    counters: QueueCounters,
    undo: VecDeque<Undo>,
    /// The lowest entry to go back to; `None` is the start of the log.
    floor: Option<u64>,
    /// Parked messages are due later than this, ms since the epoch.
    due_floor_ms: u64,
}

impl Stamper {
    /// Starts from the counters as of entry `floor`.
    pub(crate) fn new(counters: QueueCounters, floor: Option<u64>) -> Stamper {
        Stamper { counters, undo: VecDeque::new(), floor, due_floor_ms: 0 }
    }

    /// The next offsets after the last record.
    pub(crate) fn counters(&self) -> &QueueCounters {
        &self.counters
    }

    /// Has every parked message from now on be due after this time (`timers.I2`).
    pub(crate) fn raise_due_floor(&mut self, due_ms: u64) {
        self.due_floor_ms = self.due_floor_ms.max(due_ms);
    }

    /// Writes the offsets into the messages of entry `index`, of which the first will lie at `position`.
    pub(crate) fn stamp(
        &mut self,
        index: u64,
        position: u64,
        messages: u32,
        payload: &mut [u8],
    ) -> Result<(), StampError> {
        let due_least_ms = self.due_floor_ms.saturating_add(1);
        self.walk(index, position, messages, &mut Put { bytes: payload, due_least_ms })
    }

    /// Compares the offsets in the messages of entry `index`, of which the first lies at `position`, with what they must be,
    /// and counts them.
    pub(crate) fn check(
        &mut self,
        index: u64,
        position: u64,
        messages: u32,
        payload: &[u8],
    ) -> Result<(), StampError> {
        self.walk(index, position, messages, &mut Compare(payload))
    }

    fn walk(
        &mut self,
        index: u64,
        position: u64,
        messages: u32,
        payload: &mut impl Payload,
    ) -> Result<(), StampError> {
        let mut pass = Pass { counters: &mut self.counters, befores: Vec::new(), next: 0 };
        let walked = pass.messages(position, payload).and_then(|found| {
            if found == messages { Ok(()) } else { Err(StampError::Count { stated: messages, found }) }
        });
        pass.flush();
        let befores = pass.befores;
        if let Err(error) = walked {
            take_back(&mut self.counters, &befores);
            return Err(error);
        }
        self.undo.push_back(Undo { index, queues: befores.into() });
        Ok(())
    }

    /// Whether the counters after entry `keep` can be restored.
    pub(crate) fn can_undo_to(&self, keep: Option<u64>) -> bool {
        keep >= self.floor
    }

    /// Restores the counters as they were after entry `keep`. The caller asked [`Stamper::can_undo_to`] before.
    pub(crate) fn undo_to(&mut self, keep: Option<u64>) {
        assert!(
            self.can_undo_to(keep),
            "stamp.I2: nothing is known below entry {:?}, asked for {keep:?}",
            self.floor
        );
        while let Some(undo) = self.undo.pop_back_if(|undo| Some(undo.index) > keep) {
            if !planted::is("forget-undo") {
                take_back(&mut self.counters, &undo.queues);
            }
        }
    }

    /// Drops what is needed to go back below entry `index`.
    pub(crate) fn forget(&mut self, index: u64) {
        while self.undo.pop_front_if(|undo| undo.index <= index).is_some() {}
        self.floor = self.floor.max(Some(index));
    }
}

fn take_back(counters: &mut QueueCounters, befores: &[Before]) {
    for before in befores.iter().rev() {
        counters.set(&before.topic, before.queue, before.next);
    }
}

/// Queue offset and position of a message.
type Offsets = (u64, u64);

/// The two things done with the offsets of a message.
trait Payload {
    fn bytes(&self) -> &[u8];
    fn meet(&mut self, at: usize, found: Offsets, expected: Offsets) -> Result<(), StampError>;
    /// The message is a parked one.
    fn meet_parked(&mut self, at: usize) -> Result<(), StampError>;
}

struct Put<'a> {
    bytes: &'a mut [u8],
    due_least_ms: u64,
}

impl Payload for Put<'_> {
    fn bytes(&self) -> &[u8] {
        self.bytes
    }

    fn meet(&mut self, at: usize, _found: Offsets, expected: Offsets) -> Result<(), StampError> {
        stamp(&mut self.bytes[at..], expected.0, expected.1);
        Ok(())
    }

    fn meet_parked(&mut self, at: usize) -> Result<(), StampError> {
        let raised = parked::raise_due(&mut self.bytes[at..], self.due_least_ms);
        raised.map_err(|_| StampError::Malformed { at })
    }
}

struct Compare<'a>(&'a [u8]);

impl Payload for Compare<'_> {
    fn bytes(&self) -> &[u8] {
        self.0
    }

    fn meet(&mut self, at: usize, found: Offsets, expected: Offsets) -> Result<(), StampError> {
        if found == expected { Ok(()) } else { Err(StampError::Offsets { at, found, expected }) }
    }

    fn meet_parked(&mut self, _at: usize) -> Result<(), StampError> {
        Ok(())
    }
}

/// One walk over messages. Those of one queue mostly stand side by side, so the counter of the last queue is kept at
/// hand in `next` and put back when another queue comes.
struct Pass<'a> {
    counters: &'a mut QueueCounters,
    /// The last one is the queue at hand.
    befores: Vec<Before>,
    next: u64,
}

impl Pass<'_> {
    fn messages(&mut self, position: u64, payload: &mut impl Payload) -> Result<u32, StampError> {
        let (mut at, mut count) = (0, 0);
        while at < payload.bytes().len() {
            let route = peek(&payload.bytes()[at..]).map_err(|_| StampError::Malformed { at })?;
            let (size, found) = (route.total_size, (route.queue_offset, route.physical_offset));
            let is_parked = route.topic == parked::TOPIC.as_bytes();
            self.turn_to(route.topic, route.queue_id).ok_or(StampError::Topic { at })?;
            payload.meet(at, found, (self.next, position + at as u64))?;
            if is_parked {
                payload.meet_parked(at)?;
            }
            self.next += 1;
            at += size;
            count += 1;
        }
        Ok(count)
    }

    fn turn_to(&mut self, topic: &[u8], queue: u32) -> Option<()> {
        if let Some(at_hand) = self.befores.last()
            && at_hand.queue == queue
            && at_hand.topic.as_bytes() == topic
        {
            return Some(());
        }
        self.flush();
        let topic = match self.counters.name(topic) {
            Some(name) => name.clone(),
            None if topic_is_storable(topic) => Arc::from(std::str::from_utf8(topic).ok()?),
            None => return None,
        };
        self.next = self.counters.get(topic.as_bytes(), queue);
        self.befores.push(Before { topic, queue, next: self.next });
        Some(())
    }

    fn flush(&mut self) {
        if let Some(at_hand) = self.befores.last() {
            self.counters.set(&at_hand.topic, at_hand.queue, self.next);
        }
    }
}

#[cfg(test)]
mod tests {
    use folio_protocol::message::MessageView;

    use super::*;
    use crate::sample::message;

    #[test]
    fn timers_i2_a_parked_message_is_due_after_the_floor() {
        let mut stamper = Stamper::new(QueueCounters::new(), None);
        let due = |stamper: &mut Stamper, index, topic, due_ms: u64| {
            let mut bytes = message(topic, 0, b"body");
            if due_ms > 0 {
                parked::raise_due(&mut bytes, due_ms).unwrap();
            }
            stamper.stamp(index, 1000, 1, &mut bytes).unwrap();
            let view = MessageView::parse(&bytes).unwrap();
            assert_eq!(view.physical_offset(), 1000);
            view.prepared_transaction_offset()
        };
        assert_eq!(due(&mut stamper, 1, parked::TOPIC, 70), 70);
        stamper.raise_due_floor(80);
        stamper.raise_due_floor(60);
        assert_eq!(due(&mut stamper, 2, parked::TOPIC, 70), 81);
        assert_eq!(due(&mut stamper, 3, parked::TOPIC, 90), 90);
        assert_eq!(due(&mut stamper, 4, "orders", 0), 0, "not parked");
        let mut bytes = message(parked::TOPIC, 1, b"body");
        stamp(&mut bytes, 0, 1000);
        stamper.check(5, 1000, 1, &bytes).unwrap();
    }

    fn payload(routes: &[(&str, u32)]) -> Vec<u8> {
        routes.iter().flat_map(|(topic, queue)| message(topic, *queue, b"body")).collect()
    }

    #[test]
    fn offsets_count_per_queue_and_positions_are_those_of_the_messages() {
        let mut stamper = Stamper::new(QueueCounters::new(), None);
        let mut bytes = payload(&[("a", 0), ("a", 0), ("b", 7), ("a", 1), ("a", 0)]);
        stamper.stamp(1, 1000, 5, &mut bytes).unwrap();
        let (mut at, mut offsets) = (0, Vec::new());
        while at < bytes.len() {
            let route = peek(&bytes[at..]).unwrap();
            assert_eq!(route.physical_offset, 1000 + at as u64);
            offsets.push(route.queue_offset);
            at += route.total_size;
        }
        assert_eq!(offsets, [0, 1, 0, 0, 2]);
        assert_eq!(stamper.counters().get("a", 0), 3);

        let mut follower = Stamper::new(QueueCounters::new(), None);
        follower.check(1, 1000, 5, &bytes).unwrap();
        assert_eq!(follower.counters(), stamper.counters());
        assert!(matches!(follower.check(2, 1000, 5, &bytes), Err(StampError::Offsets { at: 0, .. })));
        assert_eq!(follower.counters(), stamper.counters(), "stamp.I1");
    }

    #[test]
    fn undo_restores_every_earlier_state() {
        let mut stamper = Stamper::new(QueueCounters::new(), None);
        let mut states = vec![stamper.counters().clone()];
        for index in 0..6u64 {
            let routes = [("a", 0), ("b", index as u32 % 2), ("a", 0), ("c", 0)];
            let count = 1 + index as usize % 4;
            stamper.stamp(index, 0, count as u32, &mut payload(&routes[..count])).unwrap();
            states.push(stamper.counters().clone());
        }
        for keep in (0..6u64).rev() {
            stamper.undo_to(Some(keep));
            assert_eq!(stamper.counters(), &states[keep as usize + 1]);
        }
        stamper.undo_to(None);
        assert!(stamper.counters().is_empty());
    }

    #[test]
    fn what_was_forgotten_cannot_be_undone() {
        let mut stamper = Stamper::new(QueueCounters::new(), Some(4));
        stamper.stamp(5, 0, 1, &mut payload(&[("a", 0)])).unwrap();
        assert!(stamper.can_undo_to(Some(4)));
        assert!(!stamper.can_undo_to(Some(3)) && !stamper.can_undo_to(None));
        stamper.forget(5);
        assert!(!stamper.can_undo_to(Some(4)));
    }

    #[test]
    fn a_bad_payload_is_refused_and_changes_nothing() {
        let mut stamper = Stamper::new(QueueCounters::new(), None);
        let whole = payload(&[("a", 0), ("b", 0)]);
        for end in 1..whole.len() {
            let refused = stamper.stamp(1, 0, 2, &mut whole[..end].to_vec());
            assert!(refused.is_err(), "cut at {end}");
        }
        assert_eq!(
            stamper.stamp(1, 0, 3, &mut whole.clone()),
            Err(StampError::Count { stated: 3, found: 2 })
        );
        assert_eq!(stamper.stamp(1, 0, 1, &mut payload(&[(".", 0)])), Err(StampError::Topic { at: 0 }));
        assert!(stamper.counters().is_empty(), "stamp.I1");
    }
}
