//! The stories that are told instead of drawn; `world/scripts.rs` plays them.

/// A story.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Script {
    /// A leader is deposed while it is cut off; the node that helped to depose it loses its disk, and hears the deposed
    /// one first when it comes back.
    DeposedLeader,
    /// For a minute all processes are stopped for a moment again and again, at once or one after the other.
    Stalls,
    /// A leader hangs on a quiet machine, then another one on a machine that has just stalled for a while.
    HungLeader,
    /// All disks take longer for a sync than a heartbeat's answer may take.
    SlowDisks,
    /// Retention has run; then no node has a whole snapshot, and a follower loses its disk.
    RottenSnapshots,
}
