//! Delayed messages are delivered once, not early, and not passed over: by the committed records alone, and at the end by what each node
//! says is pending.
//!
//! A delayed message has its number in its body, parked and delivered.

use std::collections::{BTreeMap, BTreeSet};

use folio_engine::record::{Record, RecordKind};
use folio_protocol::message::Messages;
use folio_protocol::parked::{self, TimerKey};
use folio_raft::group::Group;
use folio_raft::proposal::ProposeError;
use folio_state::{CarryTimers, Command, FireTimers, RecallTimer};

use super::{Checked, Violation, violation};

/// The topic that delayed messages are sent to.
pub(crate) const TOPIC: &str = "timed";

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
    pub(crate) pending: BTreeMap<TimerKey, u64>,
    keys: BTreeMap<u64, TimerKey>,
    ended: BTreeMap<u64, End>,
    /// The latest time that any node's clock has shown.
    latest_ms: u64,
    pub(crate) delivered: u64,
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
        let is_transition = record.header.kind == RecordKind::Transition;
        for (_, message) in Messages::new(record.messages()).filter_map(Result::ok) {
            let number = || message.body().first_chunk().map_or(0, |number| u64::from_le_bytes(*number));
            match message.topic() {
                parked::TOPIC => self.parked(number(), parked::key(&message), is_transition)?,
                TOPIC => self.delivered(number())?,
                _ => {}
            }
        }
        let passed = |key: &TimerKey| *key <= watermark || key.position < carried;
        match self.pending.iter().find(|(key, _)| passed(key)) {
            Some((key, number)) => {
                let seen = format!("message {number} of {key} is behind {watermark} or {carried}");
                Err(violation("no timer is passed over", seen))
            }
            None => Ok(()),
        }
    }

    fn parked(&mut self, number: u64, key: TimerKey, carried: bool) -> Checked {
        let before = self.keys.insert(number, key);
        if let Some(end) = self.ended.get(&number) {
            return Err(violation(
                "a timer ends once",
                format!("message {number}, {end:?}, is parked again"),
            ));
        }
        if before.is_some() != carried {
            let seen = format!("message {number} is parked at {key}, before at {before:?}");
            return Err(violation("a timer is parked once", seen));
        }
        if let Some(before) = before {
            self.pending.remove(&before);
        }
        self.pending.insert(key, number);
        Ok(())
    }

    fn delivered(&mut self, number: u64) -> Checked {
        self.delivered += 1;
        let key = self.end(number, End::Delivered)?;
        if key.due_ms > self.latest_ms {
            let seen = format!("message {number} of {key}, no clock was past {} ms", self.latest_ms);
            return Err(violation("no timer is early", seen));
        }
        Ok(())
    }

    fn recalled(&mut self, key: TimerKey) -> Checked {
        match self.pending.get(&key).copied() {
            Some(number) => self.end(number, End::Recalled).map(drop),
            None => Err(violation("a timer ends once", format!("{key} is recalled, and is not pending"))),
        }
    }

    fn end(&mut self, number: u64, end: End) -> Result<TimerKey, Violation> {
        let key = self.keys.get(&number).copied();
        let Some(key) = key.filter(|key| self.pending.remove(key).is_some()) else {
            let seen = format!("message {number}: {end:?}, before {:?}", self.ended.get(&number));
            return Err(violation("a timer ends once", seen));
        };
        self.ended.insert(number, end);
        Ok(key)
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
