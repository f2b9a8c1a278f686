//! What breaks a cluster: one nemesis a file, each named, each able to put back what it broke.
//!
//! A nemesis is handed a running [`Cluster`] and the nodes it is to act on; it knows nothing of
//! workloads and judges nothing. Who calls it waits a while between [`Nemesis::inject`] and
//! [`Nemesis::heal`]; after `heal` every process runs, every link passes bytes and every disk works,
//! so the cluster has to serve again by itself.
//!
//! A process that may end by itself because of what was injected (a failed fdatasync must stop it)
//! is excused first ([`crate::node::Node::excuse`]): [`Cluster::check_alive`] reports all others.

mod clock;
mod damage;
mod dice;
mod disk;
mod eio;
mod flood;
mod full_retention;
mod grow;
mod kill;
mod membership;
mod partition;
mod pause;
mod place;
mod power_cut;
mod restart;
mod rot;
mod rot_snapshot;
pub(crate) mod stalls;
mod swap;
mod target;
mod weather;

use std::future::Future;
use std::pin::Pin;
use std::sync::LazyLock;

use anyhow::Result;

pub use dice::Dice;
pub use rot::SELF_REPAIR;
pub use stalls::Stalling;
pub use target::Target;

use partition::Shape;
use place::Place;
use weather::Kind;

use crate::cluster::Cluster;
use crate::ext4;
use crate::lossy;
use crate::network::Network;

/// Something under way that ends with a `T`.
pub type Doing<'a, T> = Pin<Box<dyn Future<Output = Result<T>> + Send + 'a>>;

/// What was done, for the history and the log line.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Fault {
    /// Ids of the nodes it was done to.
    pub nodes: Vec<u64>,
    /// What, in words.
    pub what: String,
}

impl Fault {
    /// `what` was done to `nodes`.
    #[must_use]
    pub fn new(nodes: &[u64], what: impl Into<String>) -> Self {
        Self { nodes: nodes.to_vec(), what: what.into() }
    }
}

impl std::fmt::Display for Fault {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{} at nodes {:?}", self.what, self.nodes)
    }
}

/// What a cluster must be started with, for a nemesis to work on it.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Needs {
    /// Links between nodes can be broken.
    pub links: bool,
    /// Links can be late.
    pub late_links: bool,
    /// Links can lose a part of what is sent.
    pub lossy_links: bool,
    /// Data directories lie on our lossy file system.
    pub lossy: bool,
    /// Each node has a clock of its own.
    pub clock: bool,
    /// Nodes read their disks back all the time, not once a day.
    pub scrub: bool,
    /// The cluster is born as one node.
    pub alone: bool,
    /// Nodes drop old segments.
    pub retention: bool,
    /// Data directories lie on a small ext4 each.
    pub ext4: bool,
    /// Consumers read old messages all the time.
    pub old_reads: bool,
    /// Clients may make a node hold as little as on a machine of 512 MB.
    pub little_memory: bool,
}

impl Needs {
    /// What both need: for nemeses that are mixed in one run.
    #[must_use]
    pub fn and(self, other: Self) -> Self {
        Self {
            links: self.links || other.links,
            late_links: self.late_links || other.late_links,
            lossy_links: self.lossy_links || other.lossy_links,
            lossy: self.lossy || other.lossy,
            clock: self.clock || other.clock,
            scrub: self.scrub || other.scrub,
            alone: self.alone || other.alone,
            retention: self.retention || other.retention,
            ext4: self.ext4 || other.ext4,
            old_reads: self.old_reads || other.old_reads,
            little_memory: self.little_memory || other.little_memory,
        }
    }
}

/// Why a nemesis cannot be used on this machine.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum Skip {
    /// The lossy file system cannot be mounted.
    #[error("FUSE is missing: {0}")]
    NoFuse(String),
    /// A file cannot be mounted as a file system.
    #[error("a small ext4 (root, mkfs.ext4, a loop device) is missing: {0}")]
    NoExt4(String),
    /// The library that moves a process's clock cannot be found or built.
    #[error("the clock shim is missing: {0}")]
    NoClock(String),
    /// There can be no network namespaces.
    #[error("network namespaces are missing: {0}")]
    NoNamespaces(String),
    /// Nothing in the kernel holds packets back.
    #[error("delay in network namespaces (tc, the kernel's netem) is missing: {0}")]
    NoDelay(String),
    /// Nothing in the kernel loses packets at random.
    #[error("loss in network namespaces (tc, the kernel's cls_bpf) is missing: {0}")]
    NoLoss(String),
}

/// One way to break a cluster.
pub trait Nemesis: Send {
    /// Its name on the command line.
    fn name(&self) -> &'static str;

    /// What it does, in a line.
    fn about(&self) -> &'static str;

    /// On which nodes it makes sense.
    fn targets(&self) -> &'static [Target];

    /// What the cluster must be started with.
    fn needs(&self) -> Needs {
        Needs::default()
    }

    /// Breaks something at these nodes; `nodes` comes from [`Target::pick`].
    ///
    /// # Errors
    /// When it could not be done: then nothing is proven.
    fn inject<'a>(
        &'a mut self,
        cluster: &'a mut Cluster,
        nodes: &'a [u64],
        dice: &'a mut Dice,
    ) -> Doing<'a, Fault>;

    /// Puts back whatever is broken: processes run, links are whole, disks work. Harmless when
    /// nothing is.
    ///
    /// # Errors
    /// When it could not be done, or a node ended that nothing excused.
    fn heal<'a>(&'a mut self, cluster: &'a mut Cluster) -> Doing<'a, ()> {
        Box::pin(async move { cluster.revive_all() })
    }

    /// Brings a healed cluster to where it is to be judged: with all its members.
    ///
    /// # Errors
    /// When it could not be done.
    fn finish<'a>(&'a mut self, _cluster: &'a mut Cluster) -> Doing<'a, ()> {
        Box::pin(async { Ok(()) })
    }
}

/// Every nemesis there is.
#[must_use]
pub fn all() -> Vec<Box<dyn Nemesis>> {
    let mut all: Vec<Box<dyn Nemesis>> = vec![
        Box::new(kill::Kill),
        Box::new(pause::Pause::short()),
        Box::new(pause::Pause::long()),
        Box::new(restart::Storm),
        Box::new(restart::Rolling),
        Box::new(restart::HandOver),
        Box::new(stalls::Stalls::new()),
        Box::new(membership::Membership::new()),
        Box::new(grow::Grow::default()),
        Box::new(swap::Swap(swap::Disk::Empty)),
        Box::new(swap::Swap(swap::Disk::Old)),
    ];
    for (place, live) in [
        (Place::Log, false),
        (Place::Log, true),
        (Place::Derived, false),
        (Place::Derived, true),
        (Place::Vote, false),
    ] {
        all.push(Box::new(rot::Rot::new(place, live)));
    }
    all.push(Box::new(rot_snapshot::RotSnapshot::new()));
    all.push(Box::new(eio::Unreadable));
    all.push(Box::new(clock::Clock));
    all.push(Box::new(power_cut::PowerCut));
    for kind in [disk::Kind::Full, disk::Kind::Slow, disk::Kind::WriteError, disk::Kind::SyncError] {
        all.push(Box::new(disk::DiskFault(kind)));
    }
    all.push(Box::new(full_retention::FullRetention::new()));
    for shape in [Shape::OneWay, Shape::Isolate, Shape::Ring, Shape::Bridge] {
        all.push(Box::new(partition::Partition(shape)));
    }
    for kind in [Kind::Flapping, Kind::Slow, Kind::Lossy] {
        all.push(Box::new(weather::Weather::new(kind)));
    }
    all
}

/// Whether this machine has what the nemesis needs where the nodes are to run.
///
/// # Errors
/// With the reason why not, by name.
pub fn available(nemesis: &dyn Nemesis, network: &Network) -> std::result::Result<(), Skip> {
    static FUSE: LazyLock<std::result::Result<(), String>> = LazyLock::new(lossy::check);
    static EXT4: LazyLock<std::result::Result<(), String>> = LazyLock::new(ext4::check);
    let needs = nemesis.needs();
    if let Network::Namespaces(namespaces) = network {
        if needs.late_links {
            namespaces.delays().map_err(Skip::NoDelay)?;
        }
        if needs.lossy_links {
            namespaces.loses().map_err(Skip::NoLoss)?;
        }
    }
    if needs.lossy {
        (*FUSE).clone().map_err(Skip::NoFuse)?;
    }
    if needs.ext4 {
        (*EXT4).clone().map_err(Skip::NoExt4)?;
    }
    if needs.clock {
        crate::clock::library().map_err(Skip::NoClock)?;
    }
    Ok(())
}
