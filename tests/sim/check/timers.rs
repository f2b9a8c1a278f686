//! Delayed messages are delivered once, not early, and not passed over: by the committed records alone, and at the end by what each node
//! says is pending.
//!
//! A delayed message has its number in its body, parked and delivered; a retry that a consumer group waits for has the position of what
//! was sent back. One position may be parked more than once for a group, where that is allowed (`check::moves`).

use std::collections::{BTreeMap, BTreeSet};

use folio_engine::record::Record;
use folio_protocol::message::Messages;
use folio_protocol::names;
use folio_protocol::parked::{self, TimerKey};
use folio_raft::group::Group;
use folio_raft::proposal::ProposeError;
use folio_state::{CarryTimers, Command, FireTimers, RecallTimer};

use super::{Checked, violation};

/// The topic that delayed messages are sent to.
pub(crate) const TOPIC: &str = "timed";

/// A delayed message: its real topic, and the number in its body.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Id {
    topic: String,
    number: u64,
}

impl Id {
    fn of(topic: &str, body: &[u8]) -> Option<Id> {
        let is_delayed = topic == TOPIC || names::is_retry_topic(topic);
        let number = || body.first_chunk().map_or(0, |number| u64::from_le_bytes(*number));
        is_delayed.then(|| Id { topic: topic.to_owned(), number: number() })
    }

    /// The number of a message that a producer delayed.
    fn sent(&self) -> Option<u64> {
        (self.topic == TOPIC).then_some(self.number)
    }
}

/// What became of a message, for good.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum End {
    Delivered,
    Recalled,
}

#[derive(Default)]
pub(crate) struct Timers {
    /// Messages whose senders were told that they are stored.
    told: BTreeSet<u64>,
    /// Messages whose recall was answered with success.
    told_recalled: BTreeSet<u64>,
    pub(crate) pending: BTreeMap<TimerKey, Id>,
    keys: BTreeMap<u64, TimerKey>,
    ended: BTreeMap<u64, End>,
    /// The latest time that any node's clock has shown.
    latest_ms: u64,
    pub(crate) delivered: u64,
    /// Those of them that a consumer group waited for.
    pub(crate) delivered_retries: u64,
}

impl Timers {
    /// A node's clock shows this.
    pub(crate) fn saw(&mut self, now_ms: u64) {
        self.latest_ms = self.latest_ms.max(now_ms);
    }

    pub(crate) fn answered(&mut self, number: u64, stored: bool) {
        if stored {
            self.told.insert(number);
        }
    }

    pub(crate) fn recall_answered(&mut self, number: u64, answer: &Result<(), ProposeError>) {
        if answer.is_ok() {
            self.told_recalled.insert(number);
        }
    }

    /// Takes in the next committed record.
    pub(crate) fn committed(&mut self, record: &Record) -> Checked {
        let (mut watermark, mut carried) = (TimerKey::default(), 0);
        for command in record.commands() {
            match Command::decode(&command) {
                Ok(Command::FireTimers(FireTimers { to, .. })) => watermark = to,
                Ok(Command::CarryTimers(CarryTimers { to, .. })) => carried = to,
                Ok(Command::RecallTimer(RecallTimer { key })) => self.recalled(key)?,
                _ => {}
            }
        }
        for (_, message) in Messages::new(record.messages()).filter_map(Result::ok) {
            let is_parked = message.topic() == parked::TOPIC;
            let topic = if is_parked { parked::real_topic(&message) } else { Some(message.topic()) };
            match topic.and_then(|topic| Id::of(topic, message.body())) {
                Some(id) if is_parked => self.parked(id, parked::key(&message), carried)?,
                // Retries are also stored without having waited.
                Some(id) if id.topic == TOPIC || watermark != TimerKey::default() => {
                    self.delivered(id, watermark)?;
                }
                _ => {}
            }
        }
        let passed = |key: &TimerKey| *key <= watermark || key.position < carried;
        match self.pending.iter().find(|(key, _)| passed(key)) {
            Some((key, id)) => {
                let seen = format!("message {id:?} of {key} is behind {watermark} or {carried}");
                Err(violation("no timer is passed over", seen))
            }
            None => Ok(()),
        }
    }

    /// Parked: for the first time, or once more, of what lay before `carried`.
    fn parked(&mut self, id: Id, key: TimerKey, carried: u64) -> Checked {
        if carried > 0 {
            let of =
                |(before, of): (&TimerKey, &Id)| (before.position < carried && *of == id).then_some(*before);
            let Some(before) = self.pending.iter().find_map(of) else {
                return Err(violation(
                    "a timer ends once",
                    format!("message {id:?} is carried, and is not pending"),
                ));
            };
            self.pending.remove(&before);
        }
        if let Some(number) = id.sent() {
            let before = self.keys.insert(number, key);
            if let Some(end) = self.ended.get(&number) {
                return Err(violation(
                    "a timer ends once",
                    format!("message {number}, {end:?}, is parked again"),
                ));
            }
            if before.is_some() != (carried > 0) {
                let seen = format!("message {number} is parked at {key}, before at {before:?}");
                return Err(violation("a timer is parked once", seen));
            }
        }
        self.pending.insert(key, id);
        Ok(())
    }

    /// Of what is pending up to the watermark, and is the same, the first is delivered.
    fn delivered(&mut self, id: Id, watermark: TimerKey) -> Checked {
        self.delivered += 1;
        self.delivered_retries += u64::from(id.sent().is_none());
        let mut due = self.pending.range(..=watermark);
        let Some(key) = due.find_map(|(key, of)| (*of == id).then_some(*key)) else {
            let ended = id.sent().and_then(|number| self.ended.get(&number));
            let seen = format!("message {id:?} is delivered, before {ended:?}");
            return Err(violation("a timer ends once", seen));
        };
        self.end(key, End::Delivered);
        if key.due_ms > self.latest_ms {
            let seen = format!("message {id:?} of {key}, no clock was past {} ms", self.latest_ms);
            return Err(violation("no timer is early", seen));
        }
        Ok(())
    }

    fn recalled(&mut self, key: TimerKey) -> Checked {
        if !self.pending.contains_key(&key) {
            return Err(violation("a timer ends once", format!("{key} is recalled, and is not pending")));
        }
        self.end(key, End::Recalled);
        Ok(())
    }

    fn end(&mut self, key: TimerKey, end: End) {
        if let Some(number) = self.pending.remove(&key).and_then(|id| id.sent()) {
            self.ended.insert(number, end);
        }
    }

    /// What senders were told is so.
    pub(crate) fn check_kept(&self) -> Checked {
        let lost = self.told.iter().find(|number| !self.keys.contains_key(number));
        let came = self.told_recalled.iter().find(|of| self.ended.get(of) != Some(&End::Recalled));
        match (lost, came) {
            (Some(number), _) => {
                Err(violation("acknowledged is kept", format!("delayed message {number} is in no log")))
            }
            (_, Some(number)) => {
                let seen = format!("message {number}: {:?}", self.ended.get(number));
                Err(violation("recalled is recalled", seen))
            }
            _ => Ok(()),
        }
    }

    /// A node's index and state say of the same messages that they are pending.
    pub(crate) fn check_node(&self, group: &Group) -> Checked {
        let state = group.state().timers().clone();
        let mut pending = Vec::new();
        let read = group.timers().for_each(TimerKey::default(), |entry| {
            pending.extend(state.is_pending(entry.key).then_some(entry.key));
            true
        });
        read.map_err(|error| violation("a readable timer index", error.to_string()))?;
        if pending.iter().eq(self.pending.keys()) {
            return Ok(());
        }
        let seen = format!("node {} has {pending:?}, committed are {:?}", group.node_id(), self.pending);
        Err(violation("pending timers are known", seen))
    }
}
