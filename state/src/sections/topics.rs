//! Topics: their queues, permissions and attributes.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

use super::min_offsets::MinOffsets;
use super::popped::Popped;
use super::sent_back::SentBack;
use super::size::{entry, replaced};
use super::{insert_new, removed};
use crate::bounds::{
    FILTER_TYPE_BYTES_MAX, OutOfBounds, QUEUES_MAX, at_most, check_attributes, check_topic_name,
};
use crate::cow_map::CowMap;
use crate::operation::{Apply, Operation, Outcome};
use crate::section::{Has, NextOffsets, Section};

/// Permission bit: the topic may be read.
pub const PERM_READ: u32 = 4;
/// Permission bit: the topic may be written.
pub const PERM_WRITE: u32 = 2;
/// Permission bit: topics created from this template inherit its settings.
pub const PERM_INHERIT: u32 = 1;

/// A topic as every replica knows it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Topic {
    /// The topic's name.
    pub name: String,
    /// Queues that consumers may read.
    pub read_queues: u32,
    /// Queues that producers may write.
    pub write_queues: u32,
    /// Permission bits, see [`PERM_READ`].
    pub perm: u32,
    /// Whether clients asked for strict order over the whole topic.
    pub order: bool,
    /// RocketMQ's topic system flag, stored and echoed.
    pub sys_flag: u32,
    /// `SINGLE_TAG` or `MULTI_TAG`, stored and echoed.
    pub filter_type: String,
    /// Attributes such as `message.type`, stored and echoed.
    pub attributes: BTreeMap<String, String>,
}

impl Topic {
    /// A readable and writable topic of `queues` queues.
    pub fn new(name: impl Into<String>, queues: u32) -> Topic {
        Topic {
            name: name.into(),
            read_queues: queues,
            write_queues: queues,
            perm: PERM_READ | PERM_WRITE,
            order: false,
            sys_flag: 0,
            filter_type: "SINGLE_TAG".to_owned(),
            attributes: BTreeMap::new(),
        }
    }

    /// How many queues may be read or written.
    pub fn queue_count(&self) -> u32 {
        self.read_queues.max(self.write_queues)
    }

    /// Whether consumers may read it.
    pub fn readable(&self) -> bool {
        self.perm & PERM_READ != 0
    }

    /// Whether producers may write it.
    pub fn writable(&self) -> bool {
        self.perm & PERM_WRITE != 0
    }

    fn check_bounds(&self) -> Result<(), OutOfBounds> {
        check_topic_name(&self.name)?;
        at_most("queues of a topic", self.queue_count() as usize, QUEUES_MAX as usize)?;
        at_most("bytes of a topic's filterType", self.filter_type.len(), FILTER_TYPE_BYTES_MAX)?;
        check_attributes(&self.attributes)
    }
}

/// Topics by name.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Topics(CowMap<String, Topic>);

impl Section for Topics {
    const TAG: u16 = 1;
}

impl Topics {
    pub(crate) fn get(&self, name: &str) -> Option<&Topic> {
        self.0.get(name)
    }

    pub(crate) fn iter(&self) -> impl Iterator<Item = &Topic> {
        self.0.values()
    }

    pub(crate) fn put(&mut self, topic: Topic) {
        self.0.insert(topic.name.clone(), topic);
    }

    pub(crate) fn remove(&mut self, name: &str) -> Outcome {
        removed(self.0.remove(name))
    }

    pub(crate) fn growth_of_put(&self, topic: &Topic) -> i64 {
        replaced(&topic.name, topic, self.get(&topic.name))
    }

    pub(crate) fn growth_of_removal(&self, name: &str) -> i64 {
        -entry(name, self.get(name))
    }
}

/// Creates a topic unless one of that name exists: concurrent auto-creations cannot undo each other.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct CreateTopic(pub Topic);

impl Operation for CreateTopic {
    const KIND: u16 = 1;

    fn check_bounds(&self) -> Result<(), OutOfBounds> {
        self.0.check_bounds()
    }
}

impl<S: Has<Topics>> Apply<S> for CreateTopic {
    fn growth(&self, state: &S, _: &dyn NextOffsets) -> i64 {
        match Topics::within(state).get(&self.0.name) {
            Some(_) => 0,
            None => Topics::within(state).growth_of_put(&self.0),
        }
    }

    fn apply(self, state: &mut S, _: &dyn NextOffsets) -> Outcome {
        insert_new(&mut Topics::within_mut(state).0, self.0.name.clone(), self.0)
    }
}

/// Creates or replaces a topic. Queues that it had before and that can be neither read nor written afterwards lose their
/// messages: should the topic get them again, they begin after those.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct PutTopic(pub Topic);

impl PutTopic {
    /// The queues that lose their messages, with their ends.
    ///
    /// A queue that is still written keeps its messages, even if nobody may read it for a while; one that is still read
    /// keeps them so that consumers can finish it. What is sent to a lost queue by a client that has not heard yet comes
    /// after the minimum and is kept.
    fn lost(&self, topics: &Topics, queues: &dyn NextOffsets) -> Vec<(u32, u64)> {
        let Some(before) = topics.get(&self.0.name) else { return Vec::new() };
        let (had, has) = (before.queue_count(), self.0.queue_count());
        if has >= had {
            return Vec::new();
        }
        let mut lost = queues.next_offsets(&self.0.name);
        lost.retain(|(queue, _)| (has..had).contains(queue));
        lost
    }
}

impl Operation for PutTopic {
    const KIND: u16 = 2;

    fn check_bounds(&self) -> Result<(), OutOfBounds> {
        self.0.check_bounds()
    }

    fn deletes_in(&self) -> Option<String> {
        Some(self.0.name.clone())
    }
}

impl<S: Has<Topics> + Has<MinOffsets> + Has<SentBack> + Has<Popped>> Apply<S> for PutTopic {
    fn growth(&self, state: &S, queues: &dyn NextOffsets) -> i64 {
        let lost = self.lost(Topics::within(state), queues);
        let of_loss = if lost.is_empty() { 0 } else { growth_of_loss(state, &self.0.name, &lost) };
        Topics::within(state).growth_of_put(&self.0) + of_loss
    }

    fn apply(self, state: &mut S, queues: &dyn NextOffsets) -> Outcome {
        let lost = self.lost(Topics::within(state), queues);
        if !lost.is_empty() {
            lose(state, &self.0.name, lost);
        }
        Topics::within_mut(state).put(self.0);
        Outcome::Done
    }
}

/// Deletes a topic with its messages. Its queue offsets are never used again: a topic of the same name goes on after them.
///
/// The messages of a topic that does not exist are deleted, too: it may have been deleted by an earlier build. The offsets
/// of consumer groups stay. Each counts as the new minimum from now on, so a group that comes back reads all that is sent
/// after the deletion.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct DeleteTopic {
    /// The topic's name.
    pub name: String,
}

impl Operation for DeleteTopic {
    const KIND: u16 = 3;

    fn check_bounds(&self) -> Result<(), OutOfBounds> {
        Ok(())
    }

    fn deletes_in(&self) -> Option<String> {
        Some(self.name.clone())
    }
}

impl<S: Has<Topics> + Has<MinOffsets> + Has<SentBack> + Has<Popped>> Apply<S> for DeleteTopic {
    fn growth(&self, state: &S, queues: &dyn NextOffsets) -> i64 {
        let lost = queues.next_offsets(&self.name);
        growth_of_loss(state, &self.name, &lost) + Topics::within(state).growth_of_removal(&self.name)
    }

    fn apply(self, state: &mut S, queues: &dyn NextOffsets) -> Outcome {
        lose(state, &self.name, queues.next_offsets(&self.name));
        Topics::within_mut(state).remove(&self.name)
    }
}

/// Deletes all that these queues of a topic hold below their ends, and what was noted of it (`sent_back.I1`).
fn lose<S>(state: &mut S, topic: &str, lost: Vec<(u32, u64)>)
where
    S: Has<MinOffsets> + Has<SentBack> + Has<Popped>,
{
    Popped::within_mut(state).lose(topic, &lost);
    SentBack::within_mut(state).forget_moved_to(topic);
    MinOffsets::within_mut(state).raise(topic, lost);
}

/// What [`lose`] adds.
fn growth_of_loss<S>(state: &S, topic: &str, lost: &[(u32, u64)]) -> i64
where
    S: Has<MinOffsets> + Has<SentBack> + Has<Popped>,
{
    SentBack::within(state).growth_of_loss(topic)
        + Popped::within(state).growth_of_loss(topic, lost)
        + MinOffsets::within(state).growth(topic, lost)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::State;

    #[test]
    fn create_leaves_an_existing_topic_alone_and_put_replaces_it() {
        let mut state = State::default();
        assert_eq!(state.apply(CreateTopic(Topic::new("t", 4))), Outcome::Done);
        assert_eq!(state.apply(CreateTopic(Topic::new("t", 8))), Outcome::Exists);
        assert_eq!(state.topic("t").map(|t| t.read_queues), Some(4));
        assert_eq!(state.apply(PutTopic(Topic::new("t", 8))), Outcome::Done);
        assert_eq!(state.topic("t").map(|t| t.read_queues), Some(8));
        assert_eq!(state.apply(DeleteTopic { name: "t".into() }), Outcome::Done);
        assert_eq!(state.apply(DeleteTopic { name: "t".into() }), Outcome::NotFound);
    }
}
