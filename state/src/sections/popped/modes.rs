//! How the clients of a group get the messages of a topic: by pull or by pop.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

use crate::cow_map::CowMap;
use crate::sections::size::entry;

/// How the clients of a group get the messages of a topic.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct RequestMode {
    /// They pop.
    pub pops: bool,
    /// With how many clients behind it each one shares its queues; 0: all pop from all queues.
    pub share: u32,
}

/// Group -> topic -> mode.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct Modes(pub(super) CowMap<String, BTreeMap<String, RequestMode>>);

impl Modes {
    pub(super) fn get(&self, group: &str, topic: &str) -> Option<RequestMode> {
        self.0.get(group)?.get(topic).copied()
    }

    pub(super) fn iter(&self) -> impl Iterator<Item = (&str, &str, RequestMode)> {
        let all = self.0.iter();
        all.flat_map(|(group, of)| {
            of.iter().map(move |(topic, mode)| (group.as_str(), topic.as_str(), *mode))
        })
    }

    pub(super) fn forget(&mut self, group: &str) {
        self.0.remove(group);
    }

    pub(super) fn growth_of_removal(&self, group: &str) -> i64 {
        -entry(group, self.0.get(group))
    }
}
