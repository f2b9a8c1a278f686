//! A disk that works badly while the process lives: full, slow, or failing.

use std::time::{Duration, Instant};

use anyhow::Result;
use tokio::time::sleep;

use super::{Dice, Doing, Fault, Needs, Nemesis, Target};
use crate::cluster::Cluster;
use crate::lossy::{Class, Disk, Failing, Faults, Hits};

/// What is wrong with it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Kind {
    /// No space is left, until it is freed again: the process has to get over it by itself.
    Full,
    /// Each sync takes 50 to 200 ms longer.
    Slow,
    /// A write fails with EIO: the process may end, and must not acknowledge what it could not write.
    WriteError,
    /// A sync fails with EIO and loses what it was to sync; the next one succeeds. The process must
    /// not believe its disk any more.
    SyncError,
}

/// Breaks disks until healed.
pub(super) struct DiskFault(pub(super) Kind);

/// How long a fault may take to be met by the process.
const MET_TIMEOUT: Duration = Duration::from_secs(8);
/// How long a process whose log is poisoned may take to end: it answers what waits first.
const END_TIMEOUT: Duration = Duration::from_secs(20);
/// Space left when a disk gets full: at most so many KiB.
const LEFT_KIB_MAX: u64 = 2048;
/// Operations that fail before the disk works again.
const FAILING_MAX: u64 = 4;

impl Kind {
    fn faults(self, disk: &Disk, dice: &mut Dice) -> Faults {
        let mut faults = Faults::default();
        let classes = [Some(Class::Log), Some(Class::Log), Some(Class::Vote), Some(Class::Other), None];
        let mut failing = || Failing {
            class: classes[dice.below(classes.len() as u64) as usize],
            times: dice.between(1, FAILING_MAX + 1) as u32,
        };
        match self {
            Self::WriteError => faults.writes = Some(failing()),
            Self::SyncError => faults.syncs = Some(failing()),
            Self::Full => faults.capacity = Some(disk.used() + (dice.below(LEFT_KIB_MAX) << 10)),
            Self::Slow => faults.slow = Some((Duration::from_millis(50), Duration::from_millis(200))),
        }
        faults
    }

    /// Whether a process may end by it.
    fn may_end(self) -> bool {
        matches!(self, Self::WriteError | Self::SyncError)
    }

    fn met(self, before: &Hits, now: &Hits) -> bool {
        match self {
            Self::Full => now.full > before.full,
            Self::Slow => now.slow > before.slow,
            Self::WriteError => now.writes > before.writes,
            Self::SyncError => now.syncs > before.syncs,
        }
    }
}

impl Nemesis for DiskFault {
    fn name(&self) -> &'static str {
        match self.0 {
            Kind::Full => "disk-full",
            Kind::Slow => "slow-disk",
            Kind::WriteError => "write-error",
            Kind::SyncError => "sync-error",
        }
    }

    fn about(&self) -> &'static str {
        match self.0 {
            Kind::Full => "ENOSPC until space is freed; the node must serve again by itself",
            Kind::Slow => "every fsync and fdatasync takes 50 to 200 ms longer",
            Kind::WriteError => "a few writes fail with EIO: of the log, the vote or anything",
            Kind::SyncError => "a few fsyncs or fdatasyncs fail with EIO, and what they were to sync is lost",
        }
    }

    fn targets(&self) -> &'static [Target] {
        match self.0 {
            Kind::Slow => &[Target::Leader, Target::Follower, Target::All],
            _ => &[Target::Leader, Target::Follower, Target::Majority, Target::All],
        }
    }

    fn needs(&self) -> Needs {
        Needs { lossy: true, ..Needs::default() }
    }

    fn inject<'a>(
        &'a mut self,
        cluster: &'a mut Cluster,
        nodes: &'a [u64],
        dice: &'a mut Dice,
    ) -> Doing<'a, Fault> {
        Box::pin(async move {
            let before: Vec<Hits> =
                nodes.iter().map(|id| Ok(cluster.node(*id)?.disk()?.hits())).collect::<Result<_>>()?;
            let mut told = Vec::new();
            for id in nodes {
                let node = cluster.node_mut(*id)?;
                if self.0.may_end() {
                    node.excuse();
                }
                let faults = self.0.faults(node.disk()?, dice);
                node.disk()?.set_faults(faults.clone());
                told.push(format!("{faults:?}"));
            }
            let met = self.until_met(cluster, nodes, &before).await?;
            Ok(Fault::new(nodes, format!("{}, met by {met} of them: {}", self.name(), told.join(", "))))
        })
    }

    fn heal<'a>(&'a mut self, cluster: &'a mut Cluster) -> Doing<'a, ()> {
        Box::pin(async move {
            for id in cluster.ids() {
                cluster.node(id)?.disk()?.set_faults(Faults::default());
            }
            until_ended(cluster).await?;
            cluster.revive_all()
        })
    }
}

/// Waits for excused processes that are on their way out: one that is taken for running loses its
/// excuse and ends a moment later. A process that says it serves has survived.
async fn until_ended(cluster: &mut Cluster) -> Result<()> {
    let started = Instant::now();
    loop {
        let mut ending = false;
        for id in cluster.ids() {
            let node = cluster.node_mut(id)?;
            let runs = node.is_excused() && node.is_started() && node.ended().is_none();
            ending |= runs && !cluster.status(id).await.is_ok_and(|status| status.role != "stopped");
        }
        if !ending || started.elapsed() > END_TIMEOUT {
            return Ok(());
        }
        sleep(Duration::from_millis(50)).await;
    }
}

impl DiskFault {
    /// Waits a while for the processes to meet the fault; says how many did.
    async fn until_met(&self, cluster: &Cluster, nodes: &[u64], before: &[Hits]) -> Result<usize> {
        let started = Instant::now();
        loop {
            let mut met = 0;
            for (id, before) in nodes.iter().zip(before) {
                met += usize::from(self.0.met(before, &cluster.node(*id)?.disk()?.hits()));
            }
            if met == nodes.len() || started.elapsed() > MET_TIMEOUT {
                return Ok(met);
            }
            sleep(Duration::from_millis(20)).await;
        }
    }
}
