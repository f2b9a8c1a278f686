//! What a cluster must be started with, so that it can be broken in a certain way.

/// What a nemesis needs of a cluster.
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
