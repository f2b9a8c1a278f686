//! What a build of the next feature level adds, for the test of rolling upgrades: a section, and a command that tells a number.
//!
//! Only with the feature `next-level`, which no build has by default.

use serde::{Deserialize, Serialize};

use super::features::NEXT_LEVEL;
use crate::bounds::OutOfBounds;
use crate::operation::{Apply, Operation, Outcome};
use crate::section::{Has, NextOffsets, Section};

/// The last number that [`Count`] told.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Counted(pub(crate) u64);

impl Section for Counted {
    const TAG: u16 = 0x7f00;
    const SINCE: u16 = NEXT_LEVEL;
}

/// Tells a number. What it says is what the state becomes, as with every command (`snapshots.I3`).
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Count(pub u64);

impl Operation for Count {
    const KIND: u16 = 0x6f00;
    const SINCE: u16 = NEXT_LEVEL;

    fn check_bounds(&self) -> Result<(), OutOfBounds> {
        Ok(())
    }
}

impl<S: Has<Counted>> Apply<S> for Count {
    fn growth(&self, _: &S, _: &dyn NextOffsets) -> i64 {
        0
    }

    fn apply(self, state: &mut S, _: &dyn NextOffsets) -> Outcome {
        Counted::within_mut(state).0 = self.0;
        Outcome::Done
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::State;
    use crate::framing::{Writer, sections};
    use crate::{Command, RaiseLevel};

    #[test]
    fn features_i1_a_section_of_the_next_level_is_written_from_that_level_on() {
        let mut state = State::default();
        let tags = |state: &State| -> Vec<u16> {
            let mut writer = Writer::default();
            state.encode(&mut writer).unwrap();
            let bytes = writer.finish();
            assert_eq!((bytes.len() - crate::framing::EMPTY_BYTES) as u64, state.encoded_bytes());
            sections(&bytes).unwrap().iter().map(|section| section.tag).collect()
        };
        assert!(!tags(&state).contains(&Counted::TAG));
        assert_eq!(Command::from(Count(1)).since(), NEXT_LEVEL);
        state.apply(RaiseLevel { level: NEXT_LEVEL });
        state.apply(Count(1));
        assert!(tags(&state).contains(&Counted::TAG));
        assert_eq!(state.counted(), 1);
    }
}
