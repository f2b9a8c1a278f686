//! Members come and go under load: a node is added and taken out again, leader or not.

use anyhow::Result;

use super::{Dice, Doing, Fault, Nemesis, Target};
use crate::admin;
use crate::cluster::Cluster;

/// Adds an empty node, or lets it take the place of a member.
pub(super) struct Membership {
    /// The node that is there only for a while.
    guest: Option<u64>,
    /// The last id that was given: none is used twice in a group.
    last: u64,
}

impl Membership {
    pub(super) fn new() -> Self {
        Self { guest: None, last: 0 }
    }

    async fn add(&mut self, cluster: &mut Cluster) -> Result<u64> {
        let id = self.last.max(cluster.ids().into_iter().max().unwrap_or(0)) + 1;
        self.last = id;
        cluster.start_joining(id)?;
        self.guest = Some(id);
        let at = cluster.node(id)?.addresses.clone();
        admin::add_node(cluster, id, &at).await?;
        Ok(id)
    }

    async fn remove_guest(&mut self, cluster: &mut Cluster) -> Result<()> {
        let Some(id) = self.guest else { return Ok(()) };
        admin::remove_node(cluster, id).await?;
        self.guest = None;
        cluster.retire(id)
    }
}

impl Nemesis for Membership {
    fn name(&self) -> &'static str {
        "membership"
    }

    fn about(&self) -> &'static str {
        "an empty node is added under load, sometimes a member is killed meanwhile; it is taken out again"
    }

    fn targets(&self) -> &'static [Target] {
        &[Target::Leader, Target::Follower]
    }

    fn inject<'a>(
        &'a mut self,
        cluster: &'a mut Cluster,
        nodes: &'a [u64],
        dice: &'a mut Dice,
    ) -> Doing<'a, Fault> {
        Box::pin(async move {
            let guest = self.add(cluster).await?;
            let mut what = format!("node {guest} added");
            if dice.one_in(2) {
                for id in nodes {
                    cluster.node_mut(*id)?.kill()?;
                    what.push_str(&format!(", node {id} killed"));
                }
            }
            Ok(Fault::new(&[guest], what))
        })
    }

    fn heal<'a>(&'a mut self, cluster: &'a mut Cluster) -> Doing<'a, ()> {
        Box::pin(async move {
            cluster.revive_all()?;
            cluster.leader().await?;
            self.remove_guest(cluster).await
        })
    }
}
