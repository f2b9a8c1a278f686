//! The commands of earlier builds that do what no command does any more.

use serde::{Deserialize, Serialize};

use crate::bounds::OutOfBounds;
use crate::operation::{Apply, Operation, Outcome};
use crate::section::{Has, NextOffsets, Section};
use crate::sections::groups::{ConsumerGroups, delete, growth_of_deletion};
use crate::sections::locks::{LockQueues, Locks};
use crate::sections::offsets::Offsets;
use crate::sections::topics::{PutTopic, Topic, Topics};

/// Creates or replaces a topic; messages in queues that it loses are not deleted.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct PutTopicV1(pub(super) Topic);

impl Operation for PutTopicV1 {
    const KIND: u16 = 0x7001;

    fn check_bounds(&self) -> Result<(), OutOfBounds> {
        PutTopic(self.0.clone()).check_bounds()
    }
}

impl<S: Has<Topics>> Apply<S> for PutTopicV1 {
    fn growth(&self, state: &S, _: &dyn NextOffsets) -> i64 {
        Topics::within(state).growth_of_put(&self.0)
    }

    fn apply(self, state: &mut S, _: &dyn NextOffsets) -> Outcome {
        Topics::within_mut(state).put(self.0);
        Outcome::Done
    }
}

/// Forgets a topic and deletes none of its messages.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct DeleteTopicV1 {
    pub(super) name: String,
}

impl Operation for DeleteTopicV1 {
    const KIND: u16 = 0x7002;

    fn check_bounds(&self) -> Result<(), OutOfBounds> {
        Ok(())
    }
}

impl<S: Has<Topics>> Apply<S> for DeleteTopicV1 {
    fn growth(&self, state: &S, _: &dyn NextOffsets) -> i64 {
        Topics::within(state).growth_of_removal(&self.name)
    }

    fn apply(self, state: &mut S, _: &dyn NextOffsets) -> Outcome {
        Topics::within_mut(state).remove(&self.name)
    }
}

/// Forgets a consumer group and deletes none of its retries.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct DeleteGroupV1 {
    pub(super) name: String,
    pub(super) clean_offsets: bool,
}

impl Operation for DeleteGroupV1 {
    const KIND: u16 = 0x7003;

    fn check_bounds(&self) -> Result<(), OutOfBounds> {
        Ok(())
    }
}

impl<S> Apply<S> for DeleteGroupV1
where
    S: Has<ConsumerGroups> + Has<Offsets> + Has<Locks>,
{
    fn growth(&self, state: &S, _: &dyn NextOffsets) -> i64 {
        growth_of_deletion(state, &self.name, self.clean_offsets)
    }

    fn apply(self, state: &mut S, _: &dyn NextOffsets) -> Outcome {
        delete(state, &self.name, self.clean_offsets)
    }
}

/// Takes or renews locks by the leader's wall clock.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct LockQueuesV1(pub(super) LockQueues);

impl Operation for LockQueuesV1 {
    const KIND: u16 = 0x7004;
    const DEPENDS_ON_ORDER: bool = true;

    fn check_bounds(&self) -> Result<(), OutOfBounds> {
        self.0.check_bounds()
    }
}

impl<S: Has<Locks>> Apply<S> for LockQueuesV1 {
    fn growth(&self, state: &S, _: &dyn NextOffsets) -> i64 {
        Locks::within(state).growth_of_locks(&self.0)
    }

    fn apply(self, state: &mut S, _: &dyn NextOffsets) -> Outcome {
        Outcome::Locked(Locks::within_mut(state).take_by_wall_clock(self.0))
    }
}
