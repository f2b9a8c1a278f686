//! What an operator should know of this node, as the status shows it.

use std::collections::BTreeMap;
use std::sync::Arc;

use parking_lot::Mutex;

use super::group_id::{GroupId, GroupIdFile};

/// Peers of other groups that are remembered at most.
const REFUSED_MAX: usize = 16;

/// Plain sentences, and the group's id.
#[derive(Default)]
pub(crate) struct StatusMessages {
    waits_for: Mutex<Option<String>>,
    refused: Mutex<BTreeMap<u64, (GroupId, String)>>,
    group_id: Option<Arc<GroupIdFile>>,
}

impl StatusMessages {
    pub(crate) fn new(group_id: Arc<GroupIdFile>) -> StatusMessages {
        StatusMessages { group_id: Some(group_id), ..StatusMessages::default() }
    }

    /// What this node waits for before it takes its part; `None` once it does.
    pub(crate) fn waits_for(&self, what: Option<String>) {
        *self.waits_for.lock() = what;
    }

    /// A peer of another group was refused. True the first time.
    pub(crate) fn refused(&self, node: u64, id: GroupId, sentence: &str) -> bool {
        let mut refused = self.refused.lock();
        if refused.len() >= REFUSED_MAX && !refused.contains_key(&node) {
            return false;
        }
        refused.insert(node, (id, sentence.to_owned())).is_none_or(|(before, _)| before != id)
    }

    /// What this node waits for.
    pub(crate) fn waiting(&self) -> Option<String> {
        self.waits_for.lock().clone()
    }

    /// Peers of other groups that called this node since it started.
    pub(crate) fn foreign(&self) -> Vec<String> {
        let own = self.group_id.as_ref().and_then(|file| file.get());
        let refused = self.refused.lock();
        // One that was told another id before its founding came to nothing is no stranger any more.
        let strangers = refused.iter().filter(|(_, (id, _))| Some(*id) != own);
        strangers.map(|(node, (_, sentence))| format!("node {node}: {sentence}")).collect()
    }

    /// The group's id, once it is known.
    pub(crate) fn group_id(&self) -> Option<String> {
        self.group_id.as_ref()?.get().map(|id| id.to_string())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_peer_of_another_group_is_news_once() {
        let (status_messages, id) = (StatusMessages::default(), GroupId::random());
        assert!(
            status_messages.refused(2, id, "another group")
                && !status_messages.refused(2, id, "another group")
        );
        assert!(status_messages.refused(2, GroupId::random(), "a third one"));
        assert_eq!(status_messages.foreign(), ["node 2: a third one"]);
    }
}
