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
mod list;
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

use anyhow::Result;

pub use dice::Dice;
pub use list::{all, available};
pub use rot::SELF_REPAIR;
pub use stalls::Stalling;
pub use target::Target;

use crate::cluster::Cluster;
pub use crate::needs::Needs;

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
