//! A node that comes back with another disk: an empty one, or the one of some seconds ago.
//!
//! An old disk is more than Raft is built for: such a node has forgotten votes and entries that it
//! had confirmed, which is what a node may never do. What FolioMQ makes of it is for the checkers to
//! say; one node at a time, while the others are whole, must lose nothing.

use std::path::Path;

use anyhow::{Context, Result};
use tokio::time::sleep;

use super::{Dice, Doing, Fault, Nemesis, Target};
use crate::cluster::Cluster;

/// Which disk it comes back with.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Disk {
    Empty,
    Old,
}

/// Swaps disks of dead nodes.
pub(super) struct Swap(pub(super) Disk);

impl Nemesis for Swap {
    fn name(&self) -> &'static str {
        match self.0 {
            Disk::Empty => "empty-disk",
            Disk::Old => "old-disk",
        }
    }

    fn about(&self) -> &'static str {
        match self.0 {
            Disk::Empty => "kill -9; the node comes back with an empty disk",
            Disk::Old => "kill -9; the node comes back with a copy of its disk made some seconds before",
        }
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
            for id in nodes {
                match self.0 {
                    Disk::Empty => {
                        let node = cluster.node_mut(*id)?;
                        node.kill()?;
                        node.wipe_everything()?;
                    }
                    Disk::Old => set_back(cluster, *id, dice).await?,
                }
            }
            Ok(Fault::new(nodes, self.name()))
        })
    }

    fn heal<'a>(&'a mut self, cluster: &'a mut Cluster) -> Doing<'a, ()> {
        Box::pin(async move {
            cluster.revive_all()?;
            // A new disk is filled before the next one is lost: two at once are a majority's data.
            cluster.caught_up().await
        })
    }
}

/// Copies a node's disk, lets it work on, kills it and puts the copy in its place.
async fn set_back(cluster: &mut Cluster, id: u64, dice: &mut Dice) -> Result<()> {
    let copy = tempfile::tempdir().context("a folder for the copy")?;
    let node = cluster.node_mut(id)?;
    node.kill()?;
    copy_tree(&node.data_dir(), copy.path())?;
    node.start()?;
    cluster.caught_up().await?;
    sleep(dice.millis(500, 4000)).await;
    let node = cluster.node_mut(id)?;
    node.kill()?;
    node.wipe_everything()?;
    copy_tree(copy.path(), &node.data_dir())
}

/// Copies what is below a folder.
fn copy_tree(from: &Path, to: &Path) -> Result<()> {
    std::fs::create_dir_all(to).with_context(|| format!("create {}", to.display()))?;
    for entry in std::fs::read_dir(from).with_context(|| format!("list {}", from.display()))? {
        let entry = entry?;
        let (path, copy) = (entry.path(), to.join(entry.file_name()));
        if entry.file_type()?.is_dir() {
            copy_tree(&path, &copy)?;
        } else {
            std::fs::copy(&path, &copy).with_context(|| format!("copy {}", path.display()))?;
        }
    }
    Ok(())
}
