//! Changing who is in the group: add a learner, make it a voter, remove a member.
//!
//! - `members.I1` A node becomes a voter once it has all that the leader's log had when that was asked for. One that lacks it counts in
//!   every majority and may have to refuse its vote: then the group bears one loss less than its members promise.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use openraft::ChangeMembers;
use openraft::async_runtime::WatchReceiver;
use openraft::errors::{ClientWriteError, RaftError};
use tokio::time::{Instant, timeout};

use super::{AdminError, Group};
use crate::status::Role;
use crate::types::{NodeAddress, TypeConfig};

/// How long a node that is added may take to answer: it may have been started a moment ago.
const ANSWER_PATIENCE: Duration = Duration::from_secs(10);
/// Pause before it is asked again.
const ANSWER_PAUSE: Duration = Duration::from_millis(200);

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
        self.check_level(id, &address).await?;
        self.0.raft.add_learner(id, address, true).await.map(drop).map_err(refused)
    }

    /// Makes a learner a voter, once it has caught up (`members.I1`). Waits for that as long as this node leads.
    pub async fn promote(&self, id: u64) -> Result<(), AdminError> {
        self.check_leader()?;
        self.check_may_grow()?;
        if let Some(address) = self.status().members.get(&id) {
            self.check_level(id, address).await?;
        }
        self.wait_until_caught_up(id).await?;
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
        self.wait_until_caught_up(new).await?;
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

    /// `members.I1`: openraft counts a learner as near that lacks some thousand entries, which may be all that there are.
    async fn wait_until_caught_up(&self, id: u64) -> Result<(), AdminError> {
        let goal = self.status().last.map(|last| last.index);
        let mut metrics = self.0.raft.metrics();
        loop {
            let (is_known, has) = {
                let metrics = metrics.borrow_watched().clone();
                let has = metrics.replication.as_ref().and_then(|matched| matched.get(&id).cloned());
                (has.is_some(), has.flatten().map(|id| id.index))
            };
            self.check_leader()?;
            // openraft refuses a node that is no member.
            if (is_known && has >= goal) || !self.status().members.contains_key(&id) {
                return Ok(());
            }
            // A loss of leadership is seen here a moment later than there.
            if let Ok(Err(_)) = timeout(ANSWER_PAUSE, metrics.changed()).await {
                return Err(AdminError::Refused("the group stops".to_owned()));
            }
        }
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

    /// `features.I2`: a voter that cannot take part would count in every majority. openraft would make one of a node that has
    /// never answered, as long as the log is short.
    async fn check_level(&self, id: u64, address: &NodeAddress) -> Result<(), AdminError> {
        let level = self.0.shared.level.get();
        let (begun, mut supports) = (Instant::now(), None);
        while supports.is_none() && begun.elapsed() < ANSWER_PATIENCE {
            supports = self.ask_level(id, &address.raft).await;
            if supports.is_none() {
                tokio::time::sleep(ANSWER_PAUSE).await;
            }
        }
        match supports {
            Some(supports) if supports >= level => Ok(()),
            Some(supports) => Err(AdminError::Refused(format!(
                "the group uses feature level {level}, and the build of node {id} supports levels up to {supports}: install the \
                 build of the other nodes there"
            ))),
            None => Err(AdminError::Refused(format!(
                "node {id} does not answer at {}: start it with `join = true`, and look into its log",
                address.raft
            ))),
        }
    }

    fn check_leader(&self) -> Result<(), AdminError> {
        let status = self.status();
        if status.role == Role::Leader { Ok(()) } else { Err(AdminError::NotLeader(status.leader)) }
    }
}
