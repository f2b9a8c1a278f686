//! The feature level: which commands, sections and encodings the group uses.
//!
//! A build supports levels up to [`FEATURE_LEVEL`]. During a rolling upgrade nodes of two builds form one group, and what the
//! leader proposes must be known to all of them. So the group has a level, which is part of the state, and the leader raises
//! it once all members have said that their builds support a higher one (crate `raft`). A leader proposes no command, and a
//! node writes no section, of a level above the group's.
//!
//! - `features.I1`: no command and no section of a level above the group's is written.
//! - `features.I2`: the group's level never falls, and no node takes part that does not support it.

use serde::{Deserialize, Serialize};

use crate::bounds::OutOfBounds;
use crate::codec::{self, CodecError};
use crate::operation::{Apply, Operation, Outcome};
use crate::section::{FIRST_LEVEL, Has, Levels, NextOffsets, Section};

/// From this level on a record may carry commands and messages together (a transition), and what consumers sent back is noted.
pub const TRANSITIONS: u16 = FIRST_LEVEL + 1;

/// From this level on messages may be delayed.
pub const TIMERS: u16 = TRANSITIONS + 1;

/// From this level on messages may be part of a transaction.
pub const TRANSACTIONS: u16 = TIMERS + 1;

/// From this level on messages may be popped.
pub const POP: u16 = TRANSACTIONS + 1;

/// The level of the next build.
pub(crate) const NEXT_LEVEL: u16 = POP + 1;

/// The highest level that this build supports. The feature `next-level` makes a build of the next level, for the test of
/// rolling upgrades.
pub const FEATURE_LEVEL: u16 = if cfg!(feature = "next-level") { NEXT_LEVEL } else { NEXT_LEVEL - 1 };

/// The group's level.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Features {
    level: u16,
}

impl Default for Features {
    fn default() -> Features {
        Features { level: FIRST_LEVEL }
    }
}

impl Section for Features {
    const TAG: u16 = 6;

    fn decode(version: u16, bytes: &[u8]) -> Result<Features, CodecError> {
        if version != Self::VERSION {
            return Err(CodecError::Newer { what: "section", number: Self::TAG, version });
        }
        let features: Features = codec::decode_body(bytes)?;
        check(features.level)?;
        Ok(features)
    }
}

impl Features {
    pub(crate) fn level(&self) -> u16 {
        self.level
    }
}

/// `features.I2`
fn check(level: u16) -> Result<(), CodecError> {
    match level {
        0..FIRST_LEVEL => Err(CodecError::Body(format!("feature level {level} is none"))),
        FIRST_LEVEL..=FEATURE_LEVEL => Ok(()),
        _ => Err(CodecError::Level { level, supported: FEATURE_LEVEL }),
    }
}

/// Raises the group's level. A lower one changes nothing.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct RaiseLevel {
    /// The new level, which every member has said that it supports.
    pub level: u16,
}

impl Operation for RaiseLevel {
    const KIND: u16 = 64;

    fn check_bounds(&self) -> Result<(), OutOfBounds> {
        Ok(())
    }

    fn decode(version: u16, bytes: &[u8]) -> Result<RaiseLevel, CodecError> {
        if version != Self::VERSION {
            return Err(CodecError::Newer { what: "command", number: Self::KIND, version });
        }
        let raise: RaiseLevel = codec::decode_body(bytes)?;
        check(raise.level)?;
        Ok(raise)
    }
}

impl<S: Has<Features> + Levels> Apply<S> for RaiseLevel {
    fn growth(&self, state: &S, _: &dyn NextOffsets) -> i64 {
        let before = Features::within(state);
        let after = Features { level: before.level.max(self.level) };
        let sections = state.bytes_between(before.level, after.level);
        sections as i64 + after.encoded_bytes() as i64 - before.encoded_bytes() as i64
    }

    fn apply(self, state: &mut S, _: &dyn NextOffsets) -> Outcome {
        Features::within_mut(state).level = Features::within_mut(state).level.max(self.level);
        Outcome::Done
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::Command;
    use crate::State;
    use crate::framing::{Writer, sections};

    #[test]
    fn features_i2_the_level_never_falls() {
        let mut state = State::default();
        assert_eq!(state.level(), FIRST_LEVEL);
        state.apply(RaiseLevel { level: 7 });
        state.apply(RaiseLevel { level: 3 });
        assert_eq!(state.level(), 7);
    }

    /// The section of level 2 came without being counted, and a checkpoint was larger than the limit knew (`state.I1`).
    #[test]
    fn state_i1_a_raised_level_counted_as_nothing() {
        let mut state = State::default();
        for level in [FIRST_LEVEL, TRANSITIONS, FIRST_LEVEL, FEATURE_LEVEL] {
            let raise = Command::from(RaiseLevel { level });
            let (growth, before) = (state.growth(&raise, &crate::NoMessages), state.encoded_bytes() as i64);
            assert_eq!(growth > 0, level > state.level(), "{level}");
            state.apply(raise);
            assert_eq!(state.encoded_bytes() as i64, before + growth, "{level}");
        }
    }

    /// With a level below the first no section would be written any more.
    #[test]
    fn features_i2_level_0_was_taken_and_the_next_checkpoint_was_empty() {
        let section = Features { level: 0 };
        let mut body = Vec::new();
        section.encode(&mut body).unwrap();
        assert!(Features::decode(1, &body).is_err());
        assert!(Command::decode(&Command::from(RaiseLevel { level: 0 }).encode()).is_err());
    }

    #[test]
    fn features_i2_a_level_that_this_build_does_not_support_is_refused_by_name() {
        let above = FEATURE_LEVEL + 1;
        let command = Command::decode(&Command::from(RaiseLevel { level: above }).encode());
        let error = CodecError::Level { level: above, supported: FEATURE_LEVEL };
        assert_eq!(command, Err(error.clone()));
        let mut state = State::default();
        state.apply(RaiseLevel { level: above });
        let mut writer = Writer::default();
        state.encode(&mut writer).unwrap();
        let bytes = writer.finish();
        let read: Vec<_> = sections(&bytes).unwrap();
        let of_features = read.iter().find(|section| section.tag == Features::TAG).unwrap();
        assert_eq!(State::default().decode_section(of_features), Err(error.clone()));
        let text =
            format!("feature level {above} is in use, and this build supports levels up to {FEATURE_LEVEL}");
        assert!(error.to_string().starts_with(&text), "{error}");
    }
}
