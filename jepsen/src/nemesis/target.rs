//! Which nodes a nemesis acts on.

use anyhow::Result;

use super::Dice;
use crate::cluster::Cluster;

/// Nodes by their part in the group, resolved when a fault is injected.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Target {
    /// The one that leads now.
    Leader,
    /// One that does not.
    Follower,
    /// Any nodes, as many as the group can miss.
    Minority,
    /// Any nodes, as many as decide.
    Majority,
    /// All of them.
    All,
}

impl Target {
    /// Its name on the command line.
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            Self::Leader => "leader",
            Self::Follower => "follower",
            Self::Minority => "minority",
            Self::Majority => "majority",
            Self::All => "all",
        }
    }

    /// Ids of the nodes that are meant now.
    ///
    /// # Errors
    /// When the leader matters and there is none in time.
    pub async fn pick(self, cluster: &mut Cluster, dice: &mut Dice) -> Result<Vec<u64>> {
        let mut ids = cluster.ids();
        dice.shuffle(&mut ids);
        let count = match self {
            Self::Leader | Self::Follower => {
                let leader = cluster.leader().await?;
                ids.retain(|id| (*id == leader) == (self == Self::Leader));
                1
            }
            Self::Minority => ids.len().saturating_sub(1) / 2,
            Self::Majority => ids.len() / 2 + 1,
            Self::All => ids.len(),
        };
        ids.truncate(count);
        Ok(ids)
    }
}
