//! Election safety: a term has one leader at most.

use std::collections::BTreeMap;

use folio_raft::status::{Role, Status};

use super::{Checked, violation};

#[derive(Default)]
pub(crate) struct Elections {
    /// The leader of each term, and whether its log was compared.
    leaders: BTreeMap<u64, (u64, bool)>,
    newest: u64,
}

impl Elections {
    pub(crate) fn check(&mut self, status: &Status) -> Checked {
        self.newest = self.newest.max(status.term);
        if status.role != Role::Leader {
            return Ok(());
        }
        let (leader, _) = *self.leaders.entry(status.term).or_insert((status.node_id, false));
        if leader == status.node_id {
            return Ok(());
        }
        let seen = format!("nodes {leader} and {} lead in term {}", status.node_id, status.term);
        Err(violation("election safety", seen))
    }

    /// The newest term that any node has said.
    pub(crate) fn newest(&self) -> u64 {
        self.newest
    }

    /// Terms that had a leader.
    pub(crate) fn leaders(&self) -> u64 {
        self.leaders.len() as u64
    }

    /// Whether this leader's term was not asked about before.
    pub(crate) fn is_new_leader(&mut self, status: &Status) -> bool {
        self.leaders.get_mut(&status.term).is_some_and(|(_, compared)| !std::mem::replace(compared, true))
    }
}
