//! Restarts: many and rude, or one after the other and polite.

use std::time::{Duration, Instant};

use anyhow::{Result, ensure};
use tokio::time::sleep;

use super::{Dice, Doing, Fault, Nemesis, Target};
use crate::cluster::Cluster;

/// How long a node that was told to stop may take to end.
const STOP_TIMEOUT: Duration = Duration::from_secs(15);
/// Looks at a process that is to end.
const POLL: Duration = Duration::from_millis(10);

/// kill -9 and start, again and again, also while a node is still starting.
pub(super) struct Storm;

impl Nemesis for Storm {
    fn name(&self) -> &'static str {
        "restart-storm"
    }

    fn about(&self) -> &'static str {
        "kill -9 and start again and again, also while a node is still starting"
    }

    fn targets(&self) -> &'static [Target] {
        &[Target::Leader, Target::Follower, Target::Majority, Target::All]
    }

    fn inject<'a>(
        &'a mut self,
        cluster: &'a mut Cluster,
        nodes: &'a [u64],
        dice: &'a mut Dice,
    ) -> Doing<'a, Fault> {
        Box::pin(async move {
            let blows = dice.between(4, 16);
            for _ in 0..blows {
                let Some(id) = dice.one_of(nodes) else { break };
                let node = cluster.node_mut(*id)?;
                if node.is_started() {
                    node.kill()?
                } else {
                    node.start()?
                }
                sleep(dice.millis(5, 400)).await;
            }
            Ok(Fault::new(nodes, format!("{blows} kills and starts")))
        })
    }
}

/// SIGTERM to one node after the other, each comes back and catches up before the next.
pub(super) struct Rolling;

impl Nemesis for Rolling {
    fn name(&self) -> &'static str {
        "rolling-restart"
    }

    fn about(&self) -> &'static str {
        "SIGTERM to one node after the other; each is back before the next is stopped"
    }

    fn targets(&self) -> &'static [Target] {
        &[Target::All]
    }

    fn inject<'a>(
        &'a mut self,
        cluster: &'a mut Cluster,
        nodes: &'a [u64],
        dice: &'a mut Dice,
    ) -> Doing<'a, Fault> {
        Box::pin(async move {
            for id in nodes {
                stop(cluster, *id).await?;
                sleep(dice.millis(0, 500)).await;
                cluster.node_mut(*id)?.start()?;
                cluster.caught_up().await?;
            }
            Ok(Fault::new(nodes, "stopped and started one after the other"))
        })
    }
}

/// SIGTERM, by which a leader hands its leadership over; the node is back at once.
pub(super) struct HandOver;

impl Nemesis for HandOver {
    fn name(&self) -> &'static str {
        "hand-over"
    }

    fn about(&self) -> &'static str {
        "the leader is stopped in order, which hands leadership over, and comes back at once; a few times"
    }

    fn targets(&self) -> &'static [Target] {
        &[Target::Leader]
    }

    fn inject<'a>(
        &'a mut self,
        cluster: &'a mut Cluster,
        nodes: &'a [u64],
        dice: &'a mut Dice,
    ) -> Doing<'a, Fault> {
        Box::pin(async move {
            let mut handed = nodes.to_vec();
            for _ in 0..dice.between(1, 5) {
                let leader = cluster.leader().await?;
                stop(cluster, leader).await?;
                cluster.node_mut(leader)?.start()?;
                handed.push(leader);
            }
            handed.sort_unstable();
            handed.dedup();
            Ok(Fault::new(&handed, "leadership handed over"))
        })
    }
}

/// Stops a node in order and waits for its end.
pub(super) async fn stop(cluster: &mut Cluster, id: u64) -> Result<()> {
    let node = cluster.node_mut(id)?;
    node.signal("TERM")?;
    let started = Instant::now();
    while node.ended().is_none() {
        ensure!(started.elapsed() < STOP_TIMEOUT, "node {id} still ran {STOP_TIMEOUT:?} after SIGTERM");
        sleep(POLL).await;
    }
    let status = node.wait()?;
    ensure!(status.success(), "node {id} ended with {status} after SIGTERM");
    Ok(())
}
