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
use super::place::Place;
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

    fn hurt(&mut self, node: &Node, durable: u64, dice: &mut Dice) -> Result<String> {
        let (path, len) = self.place.choose(node, durable, dice)?;
        let inflicted = Damage::draw(dice).inflict(&path, len, dice.roll() % len.max(1), dice)?;
        // Only of the log is it known what has to be there: what the others have.
        let places = if self.place == Place::Log { inflicted.places } else { Vec::new() };
        self.wounds.push(Wound { node: node.id, path, places });
        Ok(inflicted.what)
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
            Place::Derived | Place::Snapshot => node.wipe_derived().map(drop),
        }
    }
}

impl Nemesis for Rot {
    fn name(&self) -> &'static str {
        match (self.place, self.live) {
            (Place::Log, false) => "rot-log",
            (Place::Log, true) => "rot-log-live",
            (Place::Derived, false) => "rot-derived",
            (Place::Derived, true) => "rot-derived-live",
            (Place::Vote | Place::Snapshot, _) => "rot-vote",
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
            (Place::Vote | Place::Snapshot, _) => "the same in the vote file of a dead node",
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
                self.place.until_there(cluster.node(*id)?).await?;
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
