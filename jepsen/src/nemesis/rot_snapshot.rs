//! Snapshots rot on the leader while it runs; then an empty node is filled by it and takes the leadership.
//!
//! The log no longer begins at 0, so that an empty node needs a snapshot: the one at the beginning of the log. The
//! leader has to notice that its own is damaged; a later one would leave the new node without messages that all
//! others keep.

use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail};
use tokio::time::sleep;

use super::damage::Damage;
use super::flood::{Flood, log_start, until_dropped};
use super::place::Place;
use super::{Dice, Doing, Fault, Needs, Nemesis, Target, restart};
use crate::cluster::Cluster;
use crate::growth::Growth;

/// What makes old segments expire: more than what is kept.
const FLOOD_BYTES: u64 = 80 << 20;
/// Leaders that are stopped until the filled node leads.
const HAND_OVERS_MAX: u32 = 6;
/// Two nodes that keep as much drop the same segments, each by itself, within this time.
const SAME_RETENTION: Duration = Duration::from_secs(3);

/// Where the log of a node starts, once that is at `own` or later, or after [`SAME_RETENTION`].
async fn started_by(cluster: &Cluster, id: u64, own: u64) -> Result<u64> {
    let begun = Instant::now();
    loop {
        let start = log_start(cluster, id)?;
        if start >= own || begun.elapsed() > SAME_RETENTION {
            return Ok(start);
        }
        sleep(Duration::from_millis(50)).await;
    }
}

/// Damages snapshots, and has a node filled from what is left.
pub(super) struct RotSnapshot {
    flood: Flood,
    growth: Growth,
    /// What the filled node lacks, in words.
    lacks: Option<String>,
}

impl RotSnapshot {
    pub(super) fn new() -> Self {
        Self { flood: Flood::new(), growth: Growth::default(), lacks: None }
    }

    /// Makes sure that the leader's log has lost its beginning and that some segments are kept.
    async fn begin_late(&mut self, cluster: &mut Cluster) -> Result<()> {
        let leader = cluster.leader().await?;
        let before: Vec<(u64, u64)> =
            cluster.ids().into_iter().map(|id| Ok((id, log_start(cluster, id)?))).collect::<Result<_>>()?;
        if before.iter().any(|(_, start)| *start == 0) {
            self.flood.send(cluster, FLOOD_BYTES).await.context("flood")?;
            let late: Vec<(u64, u64)> = before.into_iter().filter(|(_, start)| *start == 0).collect();
            until_dropped(cluster, &late).await?;
        }
        Place::Snapshot.until_there(cluster.node(leader)?).await
    }

    /// Damages the leader's snapshot at the beginning of its log, and each later one or not.
    fn hurt(cluster: &Cluster, leader: u64, dice: &mut Dice) -> Result<String> {
        let begin = format!("{:020}", log_start(cluster, leader)?);
        let mut files = Place::Snapshot.files(cluster.node(leader)?)?;
        files.retain(|file| file.file_name().is_some_and(|name| *name >= *begin.as_str()));
        let mut told = Vec::new();
        for (number, file) in files.iter().enumerate() {
            if number > 0 && dice.one_in(2) {
                continue;
            }
            let len = std::fs::metadata(file).with_context(|| format!("look at {}", file.display()))?.len();
            if len > 0 {
                told.push(Damage::draw(dice).inflict(file, len, dice.below(len), dice)?.what);
            }
        }
        Ok(told.join(", "))
    }

    /// Fills an empty node: another one in a follower's place, or the follower with an empty disk. Says which.
    async fn fill(&mut self, cluster: &mut Cluster, follower: u64, dice: &mut Dice) -> Result<u64> {
        if dice.one_in(2) {
            self.growth.replace(cluster, follower, None).await?;
            return cluster.ids().into_iter().max().context("a member");
        }
        self.growth.empty(cluster, follower).await?;
        Ok(follower)
    }
}

/// Stops leaders in order until this node leads; whether it does.
async fn hand_over(cluster: &mut Cluster, to: u64, dice: &mut Dice) -> Result<bool> {
    for _ in 0..HAND_OVERS_MAX {
        let leader = cluster.leader().await?;
        if leader == to {
            return Ok(true);
        }
        restart::stop(cluster, leader).await?;
        sleep(dice.millis(0, 500)).await;
        cluster.node_mut(leader)?.start()?;
        cluster.caught_up().await?;
    }
    Ok(cluster.leader().await? == to)
}

impl Nemesis for RotSnapshot {
    fn name(&self) -> &'static str {
        "rot-snapshot"
    }

    fn about(&self) -> &'static str {
        "snapshots of the running leader are damaged, then an empty node is filled and gets the leadership"
    }

    fn targets(&self) -> &'static [Target] {
        &[Target::Follower]
    }

    fn needs(&self) -> Needs {
        Needs { retention: true, old_reads: true, ..Needs::default() }
    }

    fn inject<'a>(
        &'a mut self,
        cluster: &'a mut Cluster,
        nodes: &'a [u64],
        dice: &'a mut Dice,
    ) -> Doing<'a, Fault> {
        Box::pin(async move {
            self.begin_late(cluster).await?;
            let leader = cluster.leader().await?;
            let others = cluster.ids().into_iter().filter(|id| *id != leader).collect::<Vec<u64>>();
            let follower = nodes.iter().find(|id| others.contains(id)).or(others.first()).copied();
            let hurt = Self::hurt(cluster, leader, dice)?;
            let filled = self.fill(cluster, follower.context("a follower")?, dice).await?;
            let own = log_start(cluster, filled)?;
            let source = started_by(cluster, leader, own).await?;
            if own > source {
                let lacks =
                    format!("node {filled} starts at {own}, node {leader}, which filled it, at {source}");
                self.lacks = Some(lacks);
            }
            let leads = hand_over(cluster, filled, dice).await?;
            let words = self.growth.words();
            let led = if leads { "leads" } else { "does not lead" };
            Ok(Fault::new(&[leader, filled], format!("{hurt}; {words}; node {filled} {led}")))
        })
    }

    fn heal<'a>(&'a mut self, cluster: &'a mut Cluster) -> Doing<'a, ()> {
        Box::pin(async move {
            cluster.revive_all()?;
            cluster.caught_up().await?;
            // The run ends here: more would expire, and with it the evidence for the checkers.
            self.lacks.take().map_or(Ok(()), |lacks| bail!(lacks))
        })
    }
}
