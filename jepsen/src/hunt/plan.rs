//! What a hunt is to do, and where.

use std::path::PathBuf;
use std::time::Duration;

use crate::network::Network;
use crate::workload::Kind;

/// What to run.
#[derive(Clone)]
pub struct Plan {
    /// The binary `folio`.
    pub binary: PathBuf,
    /// Folder for everything the run writes, one folder a nemesis.
    pub dir: PathBuf,
    /// First port.
    pub base_port: u16,
    /// Seed of every random choice.
    pub seed: u64,
    /// Workloads, by name.
    pub workloads: Vec<Kind>,
    /// Nemeses, by name.
    pub nemeses: Vec<String>,
    /// How long all of it lasts; starting, healing and checking come on top.
    pub length: Duration,
    /// Whether data, logs and histories are kept where nothing was found.
    pub keep: bool,
    /// Where nodes run, and by what their links are broken.
    pub network: Network,
}
