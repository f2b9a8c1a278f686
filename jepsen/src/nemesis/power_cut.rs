//! The power fails: the process dies, and of what it had not synced the disk has what chance left.

use super::{Dice, Doing, Fault, Needs, Nemesis, Target};
use crate::cluster::Cluster;
use crate::lossy::{Loss, Losses};

/// Kills the processes and cuts their disks' power.
pub(super) struct PowerCut;

impl Nemesis for PowerCut {
    fn name(&self) -> &'static str {
        "power-cut"
    }

    fn about(&self) -> &'static str {
        "kill -9, and what was not fsync'ed is lost, torn or written in another order, names too"
    }

    fn targets(&self) -> &'static [Target] {
        &[Target::Leader, Target::Follower, Target::Majority, Target::All]
    }

    fn needs(&self) -> Needs {
        Needs { lossy: true, ..Needs::default() }
    }

    fn inject<'a>(
        &'a mut self,
        cluster: &'a mut Cluster,
        nodes: &'a [u64],
        dice: &'a mut Dice,
    ) -> Doing<'a, Fault> {
        Box::pin(async move {
            let cut = cut(cluster, nodes, dice)?;
            Ok(Fault::new(nodes, format!("power cut: {cut}")))
        })
    }
}

/// Cuts the power of these nodes; says what each disk lost.
pub(super) fn cut(cluster: &mut Cluster, nodes: &[u64], dice: &mut Dice) -> anyhow::Result<String> {
    // All processes first: it is one moment for all of them.
    for id in nodes {
        cluster.node(*id)?.signal("KILL")?;
    }
    let mut told = Vec::new();
    for id in nodes {
        let node = cluster.node_mut(*id)?;
        node.buried()?;
        let loss = Loss::draw(dice);
        let losses: Losses = node.disk()?.cut(loss, dice)?;
        told.push(format!("node {id} {loss:?} {losses:?}"));
    }
    Ok(told.join(", "))
}
