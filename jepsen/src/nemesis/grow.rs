//! A cluster born as one node grows to three, has members replaced one after the other, shrinks and grows again; at
//! any step a member may come back with an empty disk.

use anyhow::Context;

use super::{Dice, Doing, Fault, Needs, Nemesis, Target};
use crate::cluster::Cluster;
use crate::growth::Growth;

/// Changes the membership under load.
#[derive(Default)]
pub(super) struct Grow {
    growth: Growth,
}

impl Nemesis for Grow {
    fn name(&self) -> &'static str {
        "grow"
    }

    fn about(&self) -> &'static str {
        "born as one node, grown to three, members replaced, shrunk and grown again, an empty disk at any step"
    }

    fn targets(&self) -> &'static [Target] {
        &[Target::All]
    }

    fn needs(&self) -> Needs {
        Needs { alone: true, ..Needs::default() }
    }

    fn inject<'a>(
        &'a mut self,
        cluster: &'a mut Cluster,
        nodes: &'a [u64],
        dice: &'a mut Dice,
    ) -> Doing<'a, Fault> {
        Box::pin(async move {
            if cluster.free_place().is_some() {
                self.growth.fill(cluster, Some(dice)).await?;
            } else if dice.one_in(4) {
                self.growth.shrink(cluster, dice).await?;
            } else {
                let id = *dice.one_of(nodes).context("a member")?;
                self.growth.replace(cluster, id, Some(dice)).await?;
            }
            Ok(Fault::new(&cluster.ids(), self.growth.words()))
        })
    }

    fn heal<'a>(&'a mut self, cluster: &'a mut Cluster) -> Doing<'a, ()> {
        Box::pin(async move {
            cluster.revive_all()?;
            cluster.caught_up().await
        })
    }

    fn finish<'a>(&'a mut self, cluster: &'a mut Cluster) -> Doing<'a, ()> {
        Box::pin(async move {
            cluster.revive_all()?;
            self.growth.fill(cluster, None).await
        })
    }
}
