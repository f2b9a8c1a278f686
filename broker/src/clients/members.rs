//! The consumers of each group, on all nodes: a change of a group looks at its members alone.

use std::collections::{BTreeMap, HashMap};
use std::sync::Arc;

use super::Consumer;

/// Where a consumer is registered, with its number there.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Place {
    /// At another node.
    Node(u64, u64),
    /// At this node, over this connection.
    Channel(u64, u64),
}

/// See the module.
#[derive(Default)]
pub(super) struct Members(HashMap<String, BTreeMap<Place, Arc<Consumer>>>);

impl Members {
    pub(super) fn insert(&mut self, place: Place, consumer: Arc<Consumer>) {
        let group = consumer.data.group_name.as_str();
        match self.0.get_mut(group) {
            Some(members) => drop(members.insert(place, consumer)),
            None => drop(self.0.insert(group.to_owned(), BTreeMap::from([(place, consumer)]))),
        }
    }

    pub(super) fn remove(&mut self, place: Place, group: &str) {
        let Some(members) = self.0.get_mut(group) else { return };
        members.remove(&place);
        if members.is_empty() {
            self.0.remove(group);
        }
    }

    /// Those of one group: at other nodes first.
    pub(super) fn of(&self, group: &str) -> impl Iterator<Item = (Place, &Consumer)> {
        let members = self.0.get(group).into_iter().flatten();
        members.map(|(place, consumer)| (*place, consumer.as_ref()))
    }

    #[cfg(test)]
    pub(super) fn is_empty(&self) -> bool {
        self.0.is_empty()
    }
}
