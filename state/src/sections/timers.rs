//! Delayed messages: which of those that are parked in the log are still to be delivered.
//!
//! A delayed message is stored in the parking topic ([`folio_protocol::parked`]) with the time at which it is due, and
//! moved to its real topic then. Its [`TimerKey`], due time and position, says when its turn is. The state has no entry for a
//! parked message. It has two watermarks and the exceptions:
//!
//! - the *watermark*: a key. What has this key or a lower one was delivered, or was recalled before;
//! - the *carried position*: what lies before it in the log was delivered, recalled, or parked again further on;
//! - *recalled* keys above both.
//!
//! So a message is pending exactly if its key is above the watermark, its position is not before the carried one, and it is not
//! recalled. That is a function of the message's bytes and this state. The leader's log sees to it that no message is
//! parked with a key at or below a watermark that the log holds before it (`folio_engine::stamp`, `timers.I2`).
//!
//! All commands say what is to be, and a state that has their effect already is left as it is, so nothing depends on order.
//!
//! Invariants
//! - `timers.I1` A parked message is delivered once, or recalled, and never both: one [`FireTimers`] goes over its key.
//! - `timers.I3` There are never more than [`RECALLED_MAX`] recalled keys by what a leader proposes.

use folio_protocol::parked::TimerKey;
use serde::{Deserialize, Serialize};

use super::features::TIMERS;
use crate::bounds::OutOfBounds;
use crate::cow_map::CowMap;
use crate::operation::{Apply, Operation, Outcome, Unmet};
use crate::section::{Has, NextOffsets, Section};

/// Recalled messages whose time has not come: 4 MiB of state.
pub const RECALLED_MAX: usize = 262_144;

/// Bytes of a recalled key.
const KEY_BYTES: i64 = 16;

/// See the module.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Timers {
    watermark: TimerKey,
    carried: u64,
    recalled: CowMap<TimerKey, ()>,
}

impl Section for Timers {
    const TAG: u16 = 8;
    const SINCE: u16 = TIMERS;
}

impl Timers {
    /// What has this key or a lower one is not pending any more.
    pub fn watermark(&self) -> TimerKey {
        self.watermark
    }

    /// What lies before this position is not pending any more.
    pub fn carried(&self) -> u64 {
        self.carried
    }

    /// Whether a parked message of this key is still to be delivered.
    pub fn is_pending(&self, key: TimerKey) -> bool {
        key > self.watermark && key.position >= self.carried && !self.recalled.contains_key(&key)
    }

    /// Whether it was recalled, and is known as such.
    pub fn is_recalled(&self, key: TimerKey) -> bool {
        self.recalled.contains_key(&key)
    }

    /// How many recalled keys there are.
    pub fn recalled(&self) -> usize {
        self.recalled.len()
    }

    fn set(&mut self, watermark: TimerKey, carried: u64) {
        self.watermark = self.watermark.max(watermark);
        self.carried = self.carried.max(carried);
        if self.passed().next().is_none() {
            return;
        }
        let kept: Vec<TimerKey> =
            self.recalled.iter().map(|(key, ())| *key).filter(|key| !self.is_past(*key)).collect();
        self.recalled = kept.into_iter().map(|key| (key, ())).collect();
    }

    fn is_past(&self, key: TimerKey) -> bool {
        key <= self.watermark || key.position < self.carried
    }

    /// Recalled keys that are not needed any more.
    fn passed(&self) -> impl Iterator<Item = TimerKey> {
        self.recalled.iter().map(|(key, ())| *key).filter(|key| self.is_past(*key))
    }

    fn growth_of(&self, watermark: TimerKey, carried: u64) -> i64 {
        let (watermark, carried) = (self.watermark.max(watermark), self.carried.max(carried));
        let after = Timers { watermark, carried, recalled: self.recalled.clone() };
        -KEY_BYTES * after.passed().count() as i64
    }
}

/// Delivers what is pending up to a key. It comes with the delivered messages, in one transition.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct FireTimers {
    /// The watermark that the leader decided on.
    pub from: TimerKey,
    /// The new one.
    pub to: TimerKey,
}

impl Operation for FireTimers {
    const KIND: u16 = 96;
    const SINCE: u16 = TIMERS;

    fn check_bounds(&self) -> Result<(), OutOfBounds> {
        Ok(())
    }
}

impl<S: Has<Timers>> Apply<S> for FireTimers {
    fn growth(&self, state: &S, _: &dyn NextOffsets) -> i64 {
        Timers::within(state).growth_of(self.to, 0)
    }

    /// `timers.I1`
    fn precondition(&self, state: &S) -> Result<(), Unmet> {
        let watermark = Timers::within(state).watermark;
        if watermark != self.from || self.to <= self.from {
            return Err(Unmet(format!(
                "timers.I1: delivered from {} to {}, the watermark is {watermark}",
                self.from, self.to
            )));
        }
        Ok(())
    }

    fn apply(self, state: &mut S, _: &dyn NextOffsets) -> Outcome {
        Timers::within_mut(state).set(self.to, 0);
        Outcome::Done
    }
}

/// Parks what is pending before a position once more. It comes with these messages, in one transition.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct CarryTimers {
    /// The carried position that the leader decided on.
    pub from: u64,
    /// The new one.
    pub to: u64,
}

impl Operation for CarryTimers {
    const KIND: u16 = 97;
    const SINCE: u16 = TIMERS;

    fn check_bounds(&self) -> Result<(), OutOfBounds> {
        Ok(())
    }
}

impl<S: Has<Timers>> Apply<S> for CarryTimers {
    fn growth(&self, state: &S, _: &dyn NextOffsets) -> i64 {
        Timers::within(state).growth_of(TimerKey::default(), self.to)
    }

    /// `timers.I1`
    fn precondition(&self, state: &S) -> Result<(), Unmet> {
        let carried = Timers::within(state).carried;
        if carried != self.from || self.to <= self.from {
            return Err(Unmet(format!(
                "timers.I1: carried from {} to {}, the carried position is {carried}",
                self.from, self.to
            )));
        }
        Ok(())
    }

    fn apply(self, state: &mut S, _: &dyn NextOffsets) -> Outcome {
        Timers::within_mut(state).set(TimerKey::default(), self.to);
        Outcome::Done
    }
}

/// Recalls a parked message: it will not be delivered.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct RecallTimer {
    /// The message's.
    pub key: TimerKey,
}

impl Operation for RecallTimer {
    const KIND: u16 = 98;
    const SINCE: u16 = TIMERS;

    fn check_bounds(&self) -> Result<(), OutOfBounds> {
        Ok(())
    }
}

impl<S: Has<Timers>> Apply<S> for RecallTimer {
    fn growth(&self, state: &S, _: &dyn NextOffsets) -> i64 {
        if Timers::within(state).is_pending(self.key) { KEY_BYTES } else { 0 }
    }

    /// `timers.I1`
    fn precondition(&self, state: &S) -> Result<(), Unmet> {
        let timers = Timers::within(state);
        if timers.is_pending(self.key) {
            return Ok(());
        }
        Err(Unmet(format!("timers.I1: the message of {} is recalled and not pending", self.key)))
    }

    fn apply(self, state: &mut S, _: &dyn NextOffsets) -> Outcome {
        let timers = Timers::within_mut(state);
        if !timers.is_pending(self.key) {
            return Outcome::NotFound;
        }
        timers.recalled.insert(self.key, ());
        Outcome::Done
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{NoMessages, RaiseLevel, State};

    fn key(due_ms: u64, position: u64) -> TimerKey {
        TimerKey { due_ms, position }
    }

    fn fire(from: TimerKey, to: TimerKey) -> FireTimers {
        FireTimers { from, to }
    }

    fn state() -> State {
        let mut state = State::default();
        state.apply(RaiseLevel { level: TIMERS });
        state
    }

    #[test]
    fn timers_i1_a_message_is_delivered_once() {
        let mut state = state();
        assert!(state.timers().is_pending(key(10, 500)));
        let first = fire(key(0, 0), key(10, 500));
        assert_eq!(first.precondition(&state), Ok(()));
        state.apply(first.clone());
        let pending = |state: &State| {
            [key(10, 400), key(10, 500), key(10, 600), key(11, 3)].map(|key| state.timers().is_pending(key))
        };
        assert_eq!(pending(&state), [false, false, true, true]);
        assert!(first.precondition(&state).unwrap_err().to_string().starts_with("timers.I1"));
        assert!(fire(key(10, 500), key(10, 500)).precondition(&state).is_err(), "nothing is delivered");
        // Applied all the same, it changes nothing.
        let before = state.clone();
        state.apply(first);
        assert_eq!(state, before);
    }

    #[test]
    fn what_is_carried_is_pending_at_its_new_place_alone() {
        let mut state = state();
        let carry = CarryTimers { from: 0, to: 1000 };
        assert_eq!(carry.precondition(&state), Ok(()));
        state.apply(carry.clone());
        assert!(carry.precondition(&state).is_err());
        let timers = state.timers();
        assert!(!timers.is_pending(key(99, 999)) && timers.is_pending(key(99, 1000)));
        assert_eq!(timers.carried(), 1000);
        state.apply(CarryTimers { from: 0, to: 7 });
        assert_eq!(state.timers().carried(), 1000, "it never goes back");
    }

    #[test]
    fn timers_i1_what_is_recalled_is_not_delivered_and_forgotten_with_its_time() {
        let mut state = state();
        let recall = RecallTimer { key: key(50, 700) };
        assert_eq!(recall.precondition(&state), Ok(()));
        state.apply(recall.clone());
        assert!(!state.timers().is_pending(key(50, 700)) && state.timers().is_pending(key(50, 701)));
        assert!(recall.precondition(&state).is_err());
        assert_eq!(state.apply(recall), Outcome::NotFound);
        state.apply(RecallTimer { key: key(90, 800) });
        state.apply(fire(key(0, 0), key(60, 1)));
        assert_eq!((state.timers().recalled(), state.timers().is_pending(key(50, 700))), (1, false));
        let carry = CarryTimers { from: 0, to: 801 };
        assert_eq!(state.growth(&carry.clone().into(), &NoMessages), -KEY_BYTES);
        state.apply(carry);
        assert_eq!(state.timers().recalled(), 0);
        let late = RecallTimer { key: key(55, 900) };
        assert!(late.precondition(&state).is_err(), "it was delivered");
    }
}
