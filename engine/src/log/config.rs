//! How a log stores, and what opening does about damage.

/// How a log stores.
#[derive(Debug, Clone, Copy)]
pub struct LogConfig {
    /// Length of a segment file; fixed when a group is created, equal on all replicas.
    pub segment_bytes: u64,
    /// Recent records kept in memory; more while they are not written yet.
    pub cache_bytes: usize,
    /// Whether completions wait for `fdatasync`. `false` is RocketMQ's ASYNC_FLUSH: what was acknowledged in the last
    /// half second is lost when the machine (not only the process) stops.
    pub sync: bool,
}

impl Default for LogConfig {
    fn default() -> LogConfig {
        LogConfig { segment_bytes: 1 << 30, cache_bytes: 32 << 20, sync: true }
    }
}

/// What opening does about damage below the durable mark.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum OnRot {
    /// Refuses, and changes nothing.
    #[default]
    Refuse,
    /// Ends the log before the first damaged record, also when the durable mark itself is damaged. The caller has noted
    /// durably that this replica lost what it had acknowledged, and must not vote before it has caught up.
    Cut,
}
