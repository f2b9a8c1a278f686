//! SIGSTOP and SIGCONT: a node that keeps its connections and says nothing, and wakes up believing
//! what it believed before.

use std::time::Duration;

use tokio::time::sleep;

use super::{Dice, Doing, Fault, Nemesis, Target};
use crate::cluster::Cluster;

/// Milliseconds after which the others elect a new leader, about.
const LEASE_MS: u64 = 300;

/// Stops processes; a short pause ends by itself before the lease does, a long one when healed.
pub(super) struct Pause {
    long: bool,
    paused: Vec<u64>,
}

impl Pause {
    /// Shorter than the lease: nobody may be replaced for it, nothing may be lost by it.
    pub(super) fn short() -> Self {
        Self { long: false, paused: Vec::new() }
    }

    /// Until healed, which is longer than the lease: a leader is replaced.
    pub(super) fn long() -> Self {
        Self { long: true, paused: Vec::new() }
    }

    /// Several short pauses in a row, each just below the lease.
    async fn stutter(&mut self, cluster: &Cluster, nodes: &[u64], dice: &mut Dice) -> anyhow::Result<()> {
        for _ in 0..dice.between(1, 6) {
            self.stop(cluster, nodes)?;
            sleep(dice.millis(LEASE_MS / 6, LEASE_MS)).await;
            self.go_on(cluster)?;
            sleep(dice.millis(1, LEASE_MS)).await;
        }
        Ok(())
    }

    fn stop(&mut self, cluster: &Cluster, nodes: &[u64]) -> anyhow::Result<()> {
        for id in nodes {
            cluster.node(*id)?.signal("STOP")?;
            self.paused.push(*id);
        }
        Ok(())
    }

    fn go_on(&mut self, cluster: &Cluster) -> anyhow::Result<()> {
        for id in std::mem::take(&mut self.paused) {
            cluster.node(id)?.signal("CONT")?;
        }
        Ok(())
    }
}

impl Nemesis for Pause {
    fn name(&self) -> &'static str {
        if self.long { "pause" } else { "pause-short" }
    }

    fn about(&self) -> &'static str {
        if self.long {
            "SIGSTOP for longer than the leader's lease, then SIGCONT"
        } else {
            "SIGSTOP again and again, each time shorter than the leader's lease"
        }
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
            if !self.long {
                self.stutter(cluster, nodes, dice).await?;
                return Ok(Fault::new(nodes, "pauses shorter than the lease"));
            }
            self.stop(cluster, nodes)?;
            // Whoever heals at once still gets a pause that outlasts the lease.
            sleep(Duration::from_millis(2 * LEASE_MS)).await;
            Ok(Fault::new(nodes, "pause"))
        })
    }

    fn heal<'a>(&'a mut self, cluster: &'a mut Cluster) -> Doing<'a, ()> {
        Box::pin(async move { self.go_on(cluster) })
    }
}
