//! Bad links that are not cut: slow, lossy, flapping.

use std::time::Duration;

use anyhow::{Context, Result};
use tokio::task::JoinHandle;
use tokio::time::sleep;

use super::partition::CUTS;
use super::{Dice, Doing, Fault, Needs, Nemesis, Target};
use crate::cluster::Cluster;
use crate::network::Setter;
use crate::relay::Flow;

/// What is wrong with the links of the chosen nodes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Kind {
    /// Late: 20 to 320 ms, around the lease.
    Slow,
    /// Stalls and resets.
    Lossy,
    /// Cut and whole again many times a minute, each link by itself.
    Flapping,
}

/// Spoils links until healed.
pub(super) struct Weather {
    kind: Kind,
    flapping: Option<JoinHandle<Result<()>>>,
}

impl Weather {
    pub(super) fn new(kind: Kind) -> Self {
        Self { kind, flapping: None }
    }

    fn flow(&self, dice: &mut Dice) -> Flow {
        match self.kind {
            Kind::Slow => Flow::Slow { least: dice.millis(20, 250), jitter: dice.millis(1, 70) },
            Kind::Lossy => {
                Flow::Lossy { stalls: dice.between(5, 100) as u32, resets: dice.between(0, 20) as u32 }
            }
            Kind::Flapping => CUTS[dice.below(CUTS.len() as u64) as usize],
        }
    }

    /// Fails if the links did not flap until now.
    async fn stop_flapping(&mut self) -> Result<()> {
        let Some(task) = self.flapping.take() else { return Ok(()) };
        task.abort();
        match task.await {
            Err(stopped) if stopped.is_cancelled() => Ok(()),
            ended => ended.context("flap")?.context("the links flap no more"),
        }
    }
}

impl Drop for Weather {
    fn drop(&mut self) {
        if let Some(task) = self.flapping.take() {
            task.abort();
        }
    }
}

/// Cuts and mends one direction after the other, for ever.
async fn flap(setter: Setter, directions: Vec<(u64, u64)>, flow: Flow, mut dice: Dice) -> Result<()> {
    while let Some((from, to)) = dice.one_of(&directions).copied() {
        setter.set(from, to, flow)?;
        sleep(dice.millis(10, 400)).await;
        if dice.one_in(3) {
            setter.heal()?;
            sleep(dice.millis(1, 200)).await;
        } else {
            setter.set(from, to, Flow::Pass)?;
        }
    }
    Ok(())
}

impl Nemesis for Weather {
    fn name(&self) -> &'static str {
        match self.kind {
            Kind::Slow => "slow-link",
            Kind::Lossy => "lossy-link",
            Kind::Flapping => "flapping-link",
        }
    }

    fn about(&self) -> &'static str {
        match self.kind {
            Kind::Slow => "links late by 20 to 320 ms, in order",
            Kind::Lossy => {
                "links that stall for 200 ms and break connections: what loss looks like above TCP"
            }
            Kind::Flapping => "links cut and whole again several times a second, each direction by itself",
        }
    }

    fn targets(&self) -> &'static [Target] {
        &[Target::Leader, Target::Follower, Target::All]
    }

    fn needs(&self) -> Needs {
        let (late, lossy) = (self.kind == Kind::Slow, self.kind == Kind::Lossy);
        Needs { links: true, late_links: late, lossy_links: lossy, ..Needs::default() }
    }

    fn inject<'a>(
        &'a mut self,
        cluster: &'a mut Cluster,
        nodes: &'a [u64],
        dice: &'a mut Dice,
    ) -> Doing<'a, Fault> {
        Box::pin(async move {
            let links = cluster.links()?;
            let directions: Vec<(u64, u64)> = links
                .directions()
                .into_iter()
                .filter(|(from, to)| nodes.contains(from) || nodes.contains(to))
                .collect();
            let flow = self.flow(dice);
            if self.kind == Kind::Flapping {
                self.stop_flapping().await?;
                let dice = Dice::new(dice.roll());
                self.flapping = Some(tokio::spawn(flap(links.clone(), directions, flow, dice)));
            } else {
                directions.iter().try_for_each(|(from, to)| links.set(*from, *to, flow))?;
            }
            // A fault is there before anybody waits for its effect.
            sleep(Duration::from_millis(10)).await;
            Ok(Fault::new(nodes, format!("{}: {}", self.name(), links.words(flow))))
        })
    }

    fn heal<'a>(&'a mut self, cluster: &'a mut Cluster) -> Doing<'a, ()> {
        Box::pin(async move {
            self.stop_flapping().await?;
            cluster.links()?.heal()
        })
    }
}
