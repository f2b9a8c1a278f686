//! Changing who is in the group: add a learner, make it a voter, remove a member.

use std::collections::{BTreeMap, BTreeSet};

use openraft::ChangeMembers;
use openraft::errors::{ClientWriteError, RaftError};

use super::{AdminError, Group};
use crate::status::Role;
use crate::types::{NodeAddress, TypeConfig};

fn refused(error: RaftError<TypeConfig, ClientWriteError<TypeConfig>>) -> AdminError {
    match error.forward_to_leader() {
        Some(forward) => AdminError::NotLeader(forward.leader_id),
        None => AdminError::Refused(error.to_string()),
    }
}

impl Group {
    /// Adds a node that follows without voting, and waits until it has nearly caught up.
    pub async fn add_learner(&self, id: u64, address: NodeAddress) -> Result<(), AdminError> {
        self.check_leader()?;
        self.check_may_grow()?;
        self.0.raft.add_learner(id, address, true).await.map(drop).map_err(refused)
    }

    /// Makes a learner a voter.
    pub async fn promote(&self, id: u64) -> Result<(), AdminError> {
        self.check_leader()?;
        self.check_may_grow()?;
        let change = ChangeMembers::AddVoterIds(BTreeSet::from([id]));
        self.0.raft.change_membership(change, true).await.map(drop).map_err(refused)
    }

    /// Removes a member, dead or alive, altogether. A leader that removes itself steps down.
    pub async fn remove_member(&self, id: u64) -> Result<(), AdminError> {
        self.check_leader()?;
        let status = self.status();
        if !status.members.contains_key(&id) {
            return Err(AdminError::Refused(format!("node {id} is not a member of the group")));
        }
        if status.voters.contains(&id) {
            let change = ChangeMembers::RemoveVoters(BTreeSet::from([id]));
            self.0.raft.change_membership(change, false).await.map(drop).map_err(refused)?;
        }
        if self.status().members.contains_key(&id) {
            let change = ChangeMembers::RemoveNodes(BTreeSet::from([id]));
            self.0.raft.change_membership(change, false).await.map(drop).map_err(refused)?;
        }
        Ok(())
    }

    /// Replaces one member by another in one change: the group never has fewer voters than before.
    pub async fn replace_member(&self, old: u64, new: u64, address: NodeAddress) -> Result<(), AdminError> {
        self.add_learner(new, address).await?;
        let voters: BTreeSet<u64> =
            self.status().voters.into_iter().filter(|id| *id != old).chain([new]).collect();
        let change = ChangeMembers::ReplaceAllVoters(voters);
        self.0.raft.change_membership(change, false).await.map(drop).map_err(refused)?;
        if self.status().members.contains_key(&old) {
            let change = ChangeMembers::RemoveNodes(BTreeSet::from([old]));
            self.0.raft.change_membership(change, false).await.map(drop).map_err(refused)?;
        }
        Ok(())
    }

    /// The members' addresses by id.
    pub fn members(&self) -> BTreeMap<u64, NodeAddress> {
        self.status().members
    }

    /// `founding.I1`: a node whose configuration would let it found a group alone has no other members.
    fn check_may_grow(&self) -> Result<(), AdminError> {
        if !self.0.single_node {
            return Ok(());
        }
        Err(AdminError::Refused(format!(
            "this group has one voter: the configuration of node {} says `single_node = true`. Remove that key, restart the \
             node, and add the other one then",
            self.0.node_id
        )))
    }

    fn check_leader(&self) -> Result<(), AdminError> {
        let status = self.status();
        if status.role == Role::Leader { Ok(()) } else { Err(AdminError::NotLeader(status.leader)) }
    }
}
