//! A real small disk gets full under load while old segments expire: another program's file takes what is left.
//!
//! No node may end by it; each drops its old segments all the same, and the group serves again by itself in the room
//! that gives, while the other program's file is still there. Nodes drop them as soon as a disk is full: where one had none
//! left by the time the other file took the room that gave, there is none to serve in before that file is gone.

use std::time::Duration;

use anyhow::{Context, Result};

use super::flood::{Flood, log_files, until_dropped};
use super::{Dice, Doing, Fault, Needs, Nemesis, Target};
use crate::cluster::Cluster;

/// Room that is left before the flood, KiB: less than two segments.
const LEFT_KIB: std::ops::Range<u64> = 4 << 10..28 << 10;
/// Room that is left after it: less than any file's growth needs, KiB.
const REST_KIB_MAX: u64 = 64;
/// What a flood is at most: three segments, so that some are to be dropped.
const FLOOD_BYTES_MAX: u64 = 48 << 20;
/// Files of a log that has segments to drop: what is kept fits two, and one may be reserved ahead.
const FILES_MIN: usize = 4;
/// How long the group may take to serve again once old segments are dropped.
const SERVED_TIMEOUT: Duration = Duration::from_secs(60);

/// Fills disks.
pub(super) struct FullRetention {
    flood: Flood,
}

impl FullRetention {
    pub(super) fn new() -> Self {
        Self { flood: Flood::new() }
    }

    /// Has the logs grow, and then the disks full; says how much of the flood was acknowledged.
    async fn fill(&mut self, cluster: &mut Cluster, nodes: &[u64], dice: &mut Dice) -> Result<u64> {
        let before = self.flood.send(cluster, FLOOD_BYTES_MAX).await.context("flood")?;
        for id in nodes {
            cluster.node(*id)?.ext4()?.fill(dice.between(LEFT_KIB.start, LEFT_KIB.end) << 10)?;
        }
        let sent = self.flood.send(cluster, FLOOD_BYTES_MAX).await.context("flood")?;
        for id in nodes {
            cluster.node(*id)?.ext4()?.fill(dice.below(REST_KIB_MAX) << 10)?;
        }
        Ok(before + sent)
    }
}

impl Nemesis for FullRetention {
    fn name(&self) -> &'static str {
        "full-retention"
    }

    fn about(&self) -> &'static str {
        "a small ext4 is filled under load, another file takes the rest; old segments must go and make room"
    }

    fn targets(&self) -> &'static [Target] {
        &[Target::Leader, Target::Majority, Target::All, Target::All]
    }

    fn needs(&self) -> Needs {
        Needs { ext4: true, retention: true, ..Needs::default() }
    }

    fn inject<'a>(
        &'a mut self,
        cluster: &'a mut Cluster,
        nodes: &'a [u64],
        dice: &'a mut Dice,
    ) -> Doing<'a, Fault> {
        Box::pin(async move {
            let sent = self.fill(cluster, nodes, dice).await?;
            // One that dropped its segments a moment before the disk was full has none to drop now.
            let mut before = Vec::new();
            for id in nodes {
                let (start, files) = log_files(cluster, *id)?;
                before.extend((files >= FILES_MIN).then_some((*id, start)));
            }
            until_dropped(cluster, &before).await?;
            if before.len() == nodes.len() {
                self.flood
                    .until_served(cluster, SERVED_TIMEOUT)
                    .await
                    .context("with old segments dropped")?;
            }
            Ok(Fault::new(
                nodes,
                format!("disks full after a flood of {sent} bytes, old segments dropped: {before:?}"),
            ))
        })
    }

    fn heal<'a>(&'a mut self, cluster: &'a mut Cluster) -> Doing<'a, ()> {
        Box::pin(async move {
            cluster.ids().into_iter().try_for_each(|id| cluster.node(id)?.ext4()?.give_back())?;
            cluster.revive_all()
        })
    }
}
