//! Bad sectors below a running node: reading them fails with EIO, until they are written again.
//!
//! Consumers read old messages all the while, and the node reads its disk back; it must not end by it. The stretches
//! are in the log below what the node had acknowledged, in consume queues or in snapshots. Those in the log it has to
//! write again by itself, with what its peers have.

use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use anyhow::{Context, Result, ensure};
use tokio::time::sleep;

use super::place::Place;
use super::{Dice, Doing, Fault, Needs, Nemesis, Target};
use crate::cluster::Cluster;
use crate::lossy::Class;
use crate::node::Node;

/// How long bad sectors of the log may take to be found and written again.
const MENDED_TIMEOUT: Duration = Duration::from_secs(60);
/// How long a fault may take to be met by the process.
const MET_TIMEOUT: Duration = Duration::from_secs(8);
const POLL: Duration = Duration::from_millis(20);
/// Stretches of one fault, at most.
const STRETCHES_MAX: u64 = 4;
/// Length of a stretch, in pages.
const PAGES: std::ops::Range<u64> = 1..16;
const PAGE: u64 = 4096;

/// Makes sectors unreadable.
pub(super) struct Unreadable;

impl Unreadable {
    /// A stretch of one of this node's files: where it begins and how long it is.
    fn choose(node: &Node, durable: u64, dice: &mut Dice) -> Result<(PathBuf, u64, u64)> {
        let places = [Place::Log, Place::Log, Place::Log, Place::Derived, Place::Snapshot];
        let place = *dice.one_of(&places).unwrap_or(&Place::Log);
        // Consume queues and snapshots come later than the first messages.
        let place = if place.files(node).is_ok_and(|files| !files.is_empty()) { place } else { Place::Log };
        let (path, len) = place.choose(node, durable, dice)?;
        let from = dice.below(len) / PAGE * PAGE;
        let count = (dice.between(PAGES.start, PAGES.end) * PAGE).min(len.saturating_sub(from));
        Ok((path, from, count))
    }

    /// Makes stretches of this node's files unreadable; says which.
    fn hurt(node: &Node, durable: u64, dice: &mut Dice) -> Result<Vec<String>> {
        // All are chosen first: choosing reads the files.
        let chosen = (0..dice.between(1, STRETCHES_MAX)).map(|_| Self::choose(node, durable, dice));
        let chosen = chosen.collect::<Result<Vec<_>>>()?;
        let mut told = Vec::new();
        for (path, from, count) in chosen {
            let below = path.strip_prefix(node.data_dir()).unwrap_or(Path::new(""));
            // A consume queue or a snapshot may have been replaced meanwhile: that one is whole.
            match node.disk()?.spoil(below, from, count) {
                Err(error) if path.exists() => {
                    return Err(error).with_context(|| format!("spoil {}", path.display()));
                }
                _ => told.push(format!("{count} bytes at {from} of {}", path.display())),
            }
        }
        Ok(told)
    }

    /// Waits a while for a process to meet a bad sector; says how many did.
    async fn until_met(cluster: &mut Cluster, nodes: &[u64], before: &[u64]) -> Result<usize> {
        let started = Instant::now();
        loop {
            let mut met = 0;
            for (id, before) in nodes.iter().zip(before) {
                met += usize::from(cluster.node(*id)?.disk()?.hits().reads > *before);
            }
            if met == nodes.len() || started.elapsed() > MET_TIMEOUT {
                return Ok(met);
            }
            sleep(POLL).await;
        }
    }
}

impl Nemesis for Unreadable {
    fn name(&self) -> &'static str {
        "eio-live"
    }

    fn about(&self) -> &'static str {
        "stretches of the log, of consume queues and of snapshots fail to be read with EIO, while readers read them"
    }

    fn targets(&self) -> &'static [Target] {
        &[Target::Leader, Target::Follower]
    }

    fn needs(&self) -> Needs {
        Needs { lossy: true, scrub: true, old_reads: true, ..Needs::default() }
    }

    fn inject<'a>(
        &'a mut self,
        cluster: &'a mut Cluster,
        nodes: &'a [u64],
        dice: &'a mut Dice,
    ) -> Doing<'a, Fault> {
        Box::pin(async move {
            let before: Vec<u64> =
                nodes.iter().map(|id| Ok(cluster.node(*id)?.disk()?.hits().reads)).collect::<Result<_>>()?;
            let mut told = Vec::new();
            for id in nodes {
                let durable = cluster.status(*id).await?.durable_position;
                told.extend(Self::hurt(cluster.node(*id)?, durable, dice)?);
            }
            let met = Self::until_met(cluster, nodes, &before).await?;
            Ok(Fault::new(nodes, format!("EIO, met by {met} of them: {}", told.join(", "))))
        })
    }

    fn heal<'a>(&'a mut self, cluster: &'a mut Cluster) -> Doing<'a, ()> {
        Box::pin(async move {
            let mended = until_mended(cluster).await;
            for id in cluster.ids() {
                cluster.node(id)?.disk()?.heal_reads();
            }
            mended?;
            cluster.revive_all()?;
            // The next bad sectors must not meet a node that others need whole.
            cluster.caught_up().await
        })
    }
}

/// Waits until no log has a bad sector any more: whoever only works around them keeps a replica less.
async fn until_mended(cluster: &mut Cluster) -> Result<()> {
    let started = Instant::now();
    for id in cluster.ids() {
        loop {
            let left = cluster.node(id)?.disk()?.unreadable(Class::Log);
            if left == 0 {
                break;
            }
            cluster.check_alive()?;
            ensure!(
                started.elapsed() < MENDED_TIMEOUT,
                "node {id} has {left} bytes of its log unreadable still after {MENDED_TIMEOUT:?}"
            );
            sleep(POLL).await;
        }
    }
    Ok(())
}
