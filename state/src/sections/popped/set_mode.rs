//! The command that says how the clients of a group get the messages of a topic.

use serde::{Deserialize, Serialize};

use super::modes::RequestMode;
use super::table::Popped;
use crate::bounds::{OutOfBounds, check_group_name, check_topic_name};
use crate::codec::encoded_bytes;
use crate::operation::{Apply, Operation, Outcome};
use crate::section::{Has, NextOffsets, Section};
use crate::sections::features::POP;
use crate::sections::size::{COUNT_BYTES, signed};

/// Bytes of a mode.
const MODE_BYTES: u64 = 1 + 4;

/// Says how the clients of a group get the messages of a topic.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct SetRequestMode {
    /// The consumer group.
    pub group: String,
    /// The topic.
    pub topic: String,
    /// How.
    pub mode: RequestMode,
}

impl Operation for SetRequestMode {
    const KIND: u16 = 134;
    const SINCE: u16 = POP;
    const DEPENDS_ON_ORDER: bool = true;

    fn check_bounds(&self) -> Result<(), OutOfBounds> {
        check_group_name(&self.group)?;
        check_topic_name(&self.topic)
    }
}

impl<S: Has<Popped>> Apply<S> for SetRequestMode {
    fn growth(&self, state: &S, _: &dyn NextOffsets) -> i64 {
        let of_group = Popped::within(state).modes.0.get(&self.group);
        let of_topic = encoded_bytes(&self.topic) + MODE_BYTES;
        match of_group {
            None => signed(encoded_bytes(&self.group) + COUNT_BYTES + of_topic),
            Some(topics) if topics.contains_key(&self.topic) => 0,
            Some(_) => signed(of_topic),
        }
    }

    fn apply(self, state: &mut S, _: &dyn NextOffsets) -> Outcome {
        let modes = &mut Popped::within_mut(state).modes.0;
        modes.get_or_default(self.group).insert(self.topic, self.mode);
        Outcome::Done
    }
}
