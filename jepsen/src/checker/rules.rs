//! What a workload may hold the cluster to.

/// What a workload may hold the cluster to, beyond what holds always.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Rules {
    /// Sends of unknown outcome were sent again under the same unique key: there is one copy.
    pub retried: bool,
    /// Consumers stayed until they had reached the end: they were given everything.
    pub drained: bool,
    /// Old messages expired meanwhile.
    pub expires: bool,
    /// They did so while disks were full: before every consumer could read them.
    pub outran: bool,
    /// Nodes' clocks jumped: what was due by them came early, or is held back.
    pub clocks_jump: bool,
    /// Messages were sent back: topics other than the first one are a consumer group's own.
    pub moves: bool,
}
