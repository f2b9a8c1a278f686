//! Consumer groups: how each of them consumes.

use std::collections::BTreeMap;

use folio_protocol::names;
use serde::{Deserialize, Serialize};

use super::locks::Locks;
use super::min_offsets::MinOffsets;
use super::offsets::Offsets;
use super::popped::Popped;
use super::sent_back::SentBack;
use super::size::{entry, replaced};
use super::topics::{DeleteTopic, Topics};
use super::{insert_new, removed};
use crate::bounds::{OutOfBounds, QUEUES_MAX, at_most, check_attributes, check_group_name};
use crate::cow_map::CowMap;
use crate::operation::{Apply, Operation, Outcome};
use crate::section::{Has, NextOffsets, Section};

/// A consumer group as every replica knows it; the names follow RocketMQ's subscription group.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct ConsumerGroup {
    /// The group's name.
    pub name: String,
    /// Whether the group may consume at all.
    pub consume_enable: bool,
    /// Whether a new group starts at the oldest message.
    pub consume_from_min_enable: bool,
    /// Whether broadcasting consumption is allowed.
    pub consume_broadcast_enable: bool,
    /// Whether the group consumes in order.
    pub consume_message_orderly: bool,
    /// Queues of the group's retry topic.
    pub retry_queues: u32,
    /// Retries of a message before it goes to the dead-letter topic.
    pub retry_max: u32,
    /// Minutes that a client may hold one message.
    pub consume_timeout_minutes: u32,
    /// RocketMQ's group system flag, stored and echoed.
    pub sys_flag: u32,
    /// Whether members are told of membership changes.
    pub notify_consumer_ids_changed: bool,
    /// Attributes, stored and echoed.
    pub attributes: BTreeMap<String, String>,
}

impl ConsumerGroup {
    /// A group with RocketMQ's defaults: one retry queue, sixteen retries, fifteen minutes a message.
    pub fn new(name: impl Into<String>) -> ConsumerGroup {
        ConsumerGroup {
            name: name.into(),
            consume_enable: true,
            consume_from_min_enable: true,
            consume_broadcast_enable: true,
            consume_message_orderly: false,
            retry_queues: 1,
            retry_max: 16,
            consume_timeout_minutes: 15,
            sys_flag: 0,
            notify_consumer_ids_changed: true,
            attributes: BTreeMap::new(),
        }
    }

    fn check_bounds(&self) -> Result<(), OutOfBounds> {
        check_group_name(&self.name)?;
        at_most("queues of a retry topic", self.retry_queues as usize, QUEUES_MAX as usize)?;
        check_attributes(&self.attributes)
    }
}

/// Consumer groups by name.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct ConsumerGroups(CowMap<String, ConsumerGroup>);

impl Section for ConsumerGroups {
    const TAG: u16 = 2;
}

impl ConsumerGroups {
    pub(crate) fn get(&self, name: &str) -> Option<&ConsumerGroup> {
        self.0.get(name)
    }

    pub(crate) fn iter(&self) -> impl Iterator<Item = &ConsumerGroup> {
        self.0.values()
    }

    fn growth_of_put(&self, group: &ConsumerGroup) -> i64 {
        replaced(&group.name, group, self.get(&group.name))
    }
}

/// Creates a consumer group unless one of that name exists.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct CreateGroup(pub ConsumerGroup);

impl Operation for CreateGroup {
    const KIND: u16 = 16;

    fn check_bounds(&self) -> Result<(), OutOfBounds> {
        self.0.check_bounds()
    }
}

impl<S: Has<ConsumerGroups>> Apply<S> for CreateGroup {
    fn growth(&self, state: &S, _: &dyn NextOffsets) -> i64 {
        match ConsumerGroups::within(state).get(&self.0.name) {
            Some(_) => 0,
            None => ConsumerGroups::within(state).growth_of_put(&self.0),
        }
    }

    fn apply(self, state: &mut S, _: &dyn NextOffsets) -> Outcome {
        insert_new(&mut ConsumerGroups::within_mut(state).0, self.0.name.clone(), self.0)
    }
}

/// Creates or replaces a consumer group.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct PutGroup(pub ConsumerGroup);

impl Operation for PutGroup {
    const KIND: u16 = 17;

    fn check_bounds(&self) -> Result<(), OutOfBounds> {
        self.0.check_bounds()
    }
}

impl<S: Has<ConsumerGroups>> Apply<S> for PutGroup {
    fn growth(&self, state: &S, _: &dyn NextOffsets) -> i64 {
        ConsumerGroups::within(state).growth_of_put(&self.0)
    }

    fn apply(self, state: &mut S, _: &dyn NextOffsets) -> Outcome {
        ConsumerGroups::within_mut(state).0.insert(self.0.name.clone(), self.0);
        Outcome::Done
    }
}

/// Deletes a consumer group with its locks.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct DeleteGroup {
    /// The group's name.
    pub name: String,
    /// Whether its offsets, what it sent back, its retry topic and the messages that wait there for another attempt go too.
    pub clean_offsets: bool,
}

impl DeleteGroup {
    fn retries(&self) -> DeleteTopic {
        DeleteTopic { name: names::retry_topic(&self.name) }
    }
}

impl Operation for DeleteGroup {
    const KIND: u16 = 18;

    fn check_bounds(&self) -> Result<(), OutOfBounds> {
        Ok(())
    }

    fn deletes_in(&self) -> Option<String> {
        self.clean_offsets.then(|| self.retries().name)
    }
}

impl<S> Apply<S> for DeleteGroup
where
    S: Has<ConsumerGroups>
        + Has<Offsets>
        + Has<SentBack>
        + Has<Locks>
        + Has<Topics>
        + Has<MinOffsets>
        + Has<Popped>,
{
    fn growth(&self, state: &S, queues: &dyn NextOffsets) -> i64 {
        let of_offsets = if self.clean_offsets {
            // As it is once what is in flight of the retry topic has gone with that.
            let mut popped = Popped::within(state).clone();
            popped.lose(&self.retries().name, &queues.next_offsets(&self.retries().name));
            self.retries().growth(state, queues) + popped.growth_of_removal(&self.name)
        } else {
            0
        };
        of_offsets + growth_of_deletion(state, &self.name, self.clean_offsets)
    }

    fn apply(self, state: &mut S, queues: &dyn NextOffsets) -> Outcome {
        if self.clean_offsets {
            self.retries().apply(state, queues);
            Popped::within_mut(state).forget(&self.name);
        }
        delete(state, &self.name, self.clean_offsets)
    }
}

/// Deletes a group with its locks and, if asked for, its offsets.
pub(crate) fn delete<S>(state: &mut S, name: &str, clean_offsets: bool) -> Outcome
where
    S: Has<ConsumerGroups> + Has<Offsets> + Has<Locks>,
{
    if clean_offsets {
        Offsets::within_mut(state).forget(name);
    }
    Locks::within_mut(state).forget(name);
    removed(ConsumerGroups::within_mut(state).0.remove(name))
}

pub(crate) fn growth_of_deletion<S>(state: &S, name: &str, clean_offsets: bool) -> i64
where
    S: Has<ConsumerGroups> + Has<Offsets> + Has<Locks>,
{
    let of_offsets = if clean_offsets { Offsets::within(state).growth_of_removal(name) } else { 0 };
    of_offsets
        - entry(name, Locks::within(state).of(name))
        - entry(name, ConsumerGroups::within(state).get(name))
}
