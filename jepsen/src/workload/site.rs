//! Where a workload's clients work.

/// Where clients find the cluster.
#[derive(Debug, Clone)]
pub struct Site {
    /// The NameServer of every node.
    pub name_servers: Vec<String>,
    /// The broker of every node.
    pub brokers: Vec<String>,
    /// Seed of every random choice.
    pub seed: u64,
    /// Whether readers read from the beginning again and again.
    pub old_reads: bool,
    /// Whether nodes' clocks jump: what is due by them may not come within a run.
    pub clocks_jump: bool,
}
