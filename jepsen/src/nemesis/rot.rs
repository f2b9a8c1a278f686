//! Bits that are not what was written: in the log, in what is derived from it, in the vote; while
//! the node is down, and while it runs.
//!
//! At most a minority is damaged at a time: what a majority lost, nobody can give back.

use std::path::PathBuf;
use std::time::{Duration, Instant};

use anyhow::{Context, Result};
use tokio::time::sleep;

use super::damage::Damage;
use super::{Dice, Doing, Fault, Nemesis, Target};
use crate::cluster::Cluster;
use crate::node::Node;

/// Whether a damaged node is expected to get over it by itself, with its peers' help. If not, it is
/// mended as a person would: its data are deleted and it catches up.
pub const SELF_REPAIR: bool = true;

/// How long a node that starts on damaged files gets to show what it makes of them.
const VERDICT: Duration = Duration::from_secs(3);
const POLL: Duration = Duration::from_millis(20);

/// Where the damage is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Place {
    /// In the log, below what the node had acknowledged: in an old segment or in the last one.
    Log,
    /// In a consume queue or the checkpoint.
    Derived,
    /// In the vote file.
    Vote,
}

/// Damages files.
pub(super) struct Rot {
    place: Place,
    /// While the process runs.
    live: bool,
    /// Nodes with damaged files.
    damaged: Vec<u64>,
}

impl Rot {
    pub(super) fn new(place: Place, live: bool) -> Self {
        Self { place, live, damaged: Vec::new() }
    }

    /// The file to damage, and how many of its bytes mean something.
    fn choose(&self, node: &Node, durable: u64, dice: &mut Dice) -> Result<(PathBuf, u64)> {
        let log = node.commitlog()?;
        let group = log.parent().context("the log lies in a folder")?.to_owned();
        match self.place {
            Place::Vote => whole(group.join("vote")),
            Place::Derived => {
                let mut files = Vec::new();
                files_below(&group.join("consumequeue"), &mut files)?;
                let checkpoint = group.join("checkpoint");
                files.sort();
                if checkpoint.exists() && dice.one_in(3) {
                    return whole(checkpoint);
                }
                whole(dice.one_of(&files).context("no consume queue has a file yet")?.clone())
            }
            Place::Log => {
                let mut segments = Vec::new();
                files_below(&log, &mut segments)?;
                segments.sort();
                let base = |path: &PathBuf| path.file_name()?.to_str()?.parse::<u64>().ok();
                segments.retain(|path| base(path).is_some_and(|base| base < durable));
                // The last one as often as all older ones together.
                let older = segments.len().saturating_sub(1) as u64;
                let at = if dice.one_in(2) { older } else { dice.below(older) };
                let chosen = segments.get(at as usize).context("the log has no segment yet")?;
                let (path, len) = whole(chosen.clone())?;
                let start = base(chosen).unwrap_or_default();
                Ok((path, len.min(durable.saturating_sub(start))))
            }
        }
    }

    fn hurt(&mut self, node: &Node, durable: u64, dice: &mut Dice) -> Result<String> {
        let (path, len) = self.choose(node, durable, dice)?;
        self.damaged.push(node.id);
        Damage::draw(dice).inflict(&path, len, dice.roll() % len.max(1), dice)
    }

    /// As a person would who was told to by the log: away with the data, or with what is derived.
    fn mend(&self, node: &mut Node) -> Result<()> {
        if node.is_started() {
            node.kill()?;
        }
        match self.place {
            Place::Log | Place::Vote => node.wipe_everything(),
            Place::Derived => node.wipe_derived().map(drop),
        }
    }
}

fn whole(path: PathBuf) -> Result<(PathBuf, u64)> {
    let len = std::fs::metadata(&path).with_context(|| format!("look at {}", path.display()))?.len();
    Ok((path, len))
}

fn files_below(dir: &std::path::Path, files: &mut Vec<PathBuf>) -> Result<()> {
    for entry in std::fs::read_dir(dir).with_context(|| format!("list {}", dir.display()))? {
        let path = entry?.path();
        if path.is_dir() { files_below(&path, files)? } else { files.push(path) }
    }
    Ok(())
}

impl Nemesis for Rot {
    fn name(&self) -> &'static str {
        match (self.place, self.live) {
            (Place::Log, false) => "rot-log",
            (Place::Log, true) => "rot-log-live",
            (Place::Derived, false) => "rot-derived",
            (Place::Derived, true) => "rot-derived-live",
            (Place::Vote, _) => "rot-vote",
        }
    }

    fn about(&self) -> &'static str {
        match (self.place, self.live) {
            (Place::Log, false) => {
                "bits flipped, pages zeroed, writes lost or misplaced in the log of a dead node"
            }
            (Place::Log, true) => "the same in the log of a running node",
            (Place::Derived, false) => "the same in a consume queue or the checkpoint of a dead node",
            (Place::Derived, true) => "the same in a consume queue or the checkpoint of a running node",
            (Place::Vote, _) => "the same in the vote file of a dead node",
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
            let mut told = Vec::new();
            for id in nodes {
                let durable = cluster.status(*id).await?.durable_position;
                let node = cluster.node_mut(*id)?;
                if !self.live {
                    node.kill()?;
                }
                if !SELF_REPAIR {
                    node.excuse();
                }
                told.push(self.hurt(node, durable, dice)?);
            }
            Ok(Fault::new(nodes, told.join(", ")))
        })
    }

    fn heal<'a>(&'a mut self, cluster: &'a mut Cluster) -> Doing<'a, ()> {
        Box::pin(async move {
            for id in std::mem::take(&mut self.damaged) {
                let node = cluster.node_mut(id)?;
                // What does it make of it by itself?
                if !node.is_started() {
                    node.start()?;
                }
                let started = Instant::now();
                while !SELF_REPAIR && node.ended().is_none() && started.elapsed() < VERDICT {
                    sleep(POLL).await;
                }
                if !SELF_REPAIR {
                    self.mend(node)?;
                }
            }
            cluster.revive_all()?;
            // The next damage must not meet a node that has nothing yet: that would be a majority's.
            cluster.caught_up().await
        })
    }
}
