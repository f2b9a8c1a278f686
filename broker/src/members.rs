//! Who is in the group, and how clients reach its nodes.

use folio_raft::types::NodeAddress;

use crate::broker::Broker;
use crate::error::BrokerError;

impl Broker {
    /// Takes a node in that runs and waits; done when it votes. Its id was never used before in this group.
    pub async fn add_node(&self, id: u64, address: NodeAddress) -> Result<(), BrokerError> {
        tracing::info!(node = id, raft = address.raft, "a node is being added");
        self.group.add_learner(id, address).await?;
        Ok(self.group.promote(id).await?)
    }

    /// Takes a member out, dead or alive; done when it is out of the membership.
    pub async fn remove_node(&self, id: u64) -> Result<(), BrokerError> {
        tracing::info!(node = id, "a node is being removed");
        Ok(self.group.remove_member(id).await?)
    }

    /// The broker ports of this group's nodes as clients shall see them: the leader's first, the others by their ids. While no
    /// leader is known this node calls itself the leader: it takes any request and holds what needs a leader until there is one.
    pub fn broker_addresses(&self) -> Vec<String> {
        let status = self.group.status();
        let leader = status.leader.unwrap_or(self.node_id());
        let mut ids: Vec<u64> = status.members.keys().copied().filter(|id| *id != leader).collect();
        ids.insert(0, leader);
        let reached = ids.into_iter().filter_map(|id| {
            let founding = status.members.get(&id).map(|address| address.broker.clone());
            self.broker_address(id, founding)
        });
        reached.collect()
    }

    /// Where clients reach a node's broker port: its own word counts more than the membership's.
    fn broker_address(&self, node: u64, founding: Option<String>) -> Option<String> {
        if node == self.node_id() {
            return Some(self.identity.addresses.broker.clone());
        }
        let told = self.clients.addresses_of(node).map(|addresses| addresses.broker);
        told.or(founding).filter(|address| !address.is_empty())
    }
}
