//! Bits that are not what was written: in the log, in what is derived from it, in the vote; while
//! the node is down, and while it runs.
//!
//! At most a minority is damaged at a time: what a majority lost, nobody can give back.

use std::fs::File;
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use anyhow::{Context, Result, ensure};
use tokio::time::sleep;

use super::damage::Damage;
use super::{Dice, Doing, Fault, Needs, Nemesis, Target};
use crate::cluster::Cluster;
use crate::node::Node;

/// Whether a damaged node is expected to get over it by itself, with its peers' help. If not, it is
/// mended as a person would: its data are deleted and it catches up.
pub const SELF_REPAIR: bool = true;

/// How long files may take to be there, and damage to be mended.
const MENDED_TIMEOUT: Duration = Duration::from_secs(60);
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
    wounds: Vec<Wound>,
}

/// Damage that is not known to be mended.
struct Wound {
    node: u64,
    path: PathBuf,
    /// Where it is; empty where nobody can say what has to be there after a while.
    places: Vec<(u64, u64)>,
}

impl Wound {
    /// Whether the file is the same there as another node's, which nobody damaged; or is no file at
    /// all any more.
    fn is_healed(&self, cluster: &Cluster) -> Result<bool> {
        let others = cluster.running().filter(|node| node.id != self.node);
        let others: Vec<PathBuf> =
            others.filter_map(|node| Some(node.commitlog().ok()?.join(self.path.file_name()?))).collect();
        if !self.path.exists() {
            return Ok(true);
        }
        for (from, len) in &self.places {
            let own = bytes(&self.path, *from, *len)?;
            if !others.iter().any(|other| bytes(other, *from, *len).is_ok_and(|other| other == own)) {
                return Ok(false);
            }
        }
        Ok(true)
    }
}

fn bytes(path: &Path, from: u64, len: u64) -> Result<Vec<u8>> {
    let mut bytes = vec![0; len as usize];
    let read = File::open(path).and_then(|file| file.read_exact_at(&mut bytes, from));
    read.map(|()| bytes).with_context(|| format!("read {} at {from}", path.display()))
}

impl Rot {
    pub(super) fn new(place: Place, live: bool) -> Self {
        Self { place, live, wounds: Vec::new() }
    }

    /// The file to damage, and how many of its bytes mean something.
    fn choose(&self, node: &Node, durable: u64, dice: &mut Dice) -> Result<(PathBuf, u64)> {
        let (log, group) = (node.commitlog()?, node.group_dir()?);
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
        let inflicted = Damage::draw(dice).inflict(&path, len, dice.roll() % len.max(1), dice)?;
        // Only of the log is it known what has to be there: what the others have.
        let places = if self.place == Place::Log { inflicted.places } else { Vec::new() };
        self.wounds.push(Wound { node: node.id, path, places });
        Ok(inflicted.what)
    }

    /// Waits for files to damage: consume queues are written some seconds after their messages.
    async fn until_there(&self, node: &Node) -> Result<()> {
        let started = Instant::now();
        if self.place != Place::Derived {
            return Ok(());
        }
        loop {
            let mut files = Vec::new();
            files_below(&node.group_dir()?.join("consumequeue"), &mut files)?;
            if !files.is_empty() {
                return Ok(());
            }
            ensure!(started.elapsed() < MENDED_TIMEOUT, "no consume queue has a file");
            sleep(POLL).await;
        }
    }

    /// Lets a node show what it makes of the damage, then does as a person would: away with the data,
    /// or with what is derived.
    async fn give_up(&self, node: &mut Node) -> Result<()> {
        if !node.is_started() {
            node.start()?;
        }
        let started = Instant::now();
        while node.ended().is_none() && started.elapsed() < VERDICT {
            sleep(POLL).await;
        }
        node.kill()?;
        match self.place {
            Place::Log | Place::Vote => node.wipe_everything(),
            Place::Derived => node.wipe_derived().map(drop),
        }
    }
}

/// A file and its length, without the zeroes at its end: they are reserved space.
fn whole(path: PathBuf) -> Result<(PathBuf, u64)> {
    let used = read(&path)?.iter().rposition(|byte| *byte != 0).map_or(0, |last| last + 1);
    Ok((path, used as u64))
}

fn read(path: &Path) -> Result<Vec<u8>> {
    std::fs::read(path).with_context(|| format!("read {}", path.display()))
}

fn files_below(dir: &Path, files: &mut Vec<PathBuf>) -> Result<()> {
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

    fn needs(&self) -> Needs {
        Needs { scrub: true, ..Needs::default() }
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
                self.until_there(cluster.node(*id)?).await?;
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
            let wounds = std::mem::take(&mut self.wounds);
            for wound in wounds.iter().filter(|_| !SELF_REPAIR) {
                self.give_up(cluster.node_mut(wound.node)?).await?;
            }
            cluster.revive_all()?;
            let started = Instant::now();
            for wound in wounds.iter().filter(|_| SELF_REPAIR) {
                while !wound.is_healed(cluster)? {
                    cluster.check_alive()?;
                    ensure!(
                        started.elapsed() < MENDED_TIMEOUT,
                        "node {} has not mended {} at {:?} in {MENDED_TIMEOUT:?}",
                        wound.node,
                        wound.path.display(),
                        wound.places
                    );
                    sleep(POLL).await;
                }
            }
            // The next damage must not meet a node that has nothing yet: that would be a majority's.
            cluster.caught_up().await
        })
    }
}
