//! Limits of client connections: what an operator may set, and what fits the machine where nothing is set.

use std::time::Duration;

use folio_protocol::limits::FRAME_BYTES_MAX;
use tokio::time::Instant;

use super::descriptors;
use super::machine::default_memory_bytes;
use crate::admin::Network;

/// RocketMQ's idle time of a connection.
const IDLE_TIMEOUT: Duration = Duration::from_secs(120);
/// A frame of 16 MiB at half a megabyte a second.
const FRAME_TIMEOUT: Duration = Duration::from_secs(30);
/// TCP tries again for longer than that; a client that takes no byte meanwhile does not read.
const WRITE_TIMEOUT: Duration = Duration::from_secs(30);
/// Connections of one node, all ports together.
const CONNECTIONS_MAX: usize = 10_000;
/// What each connection may hold without a share, times four: connections get a quarter of the memory at most.
const CONNECTION_MEMORY_BYTES: usize = 64 * 1024;
/// Bytes waiting for one client: four of the largest frames.
const OUTGOING_BYTES_MAX: usize = 4 * FRAME_BYTES_MAX;
/// Twice the sends that a client had outstanding when it sent 200,000 a second.
const REQUESTS_MAX: usize = 8_192;
/// What a time beyond the clock's end is taken for.
const FAR: Duration = Duration::from_secs(86_400 * 365 * 30);

/// Limits of connections.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct NetConfig {
    /// A connection nothing was read from for this long, and that waits for no answer, is closed.
    pub idle_timeout: Duration,
    /// A frame must be complete this long after its first byte.
    pub frame_timeout: Duration,
    /// A client that takes no byte for this long, while some wait for it, is closed.
    pub write_timeout: Duration,
    /// Open connections, all listeners of the node together.
    pub connections_max: usize,
    /// Of these, connections from one address; half of them where it is not set.
    pub connections_per_address_max: Option<usize>,
    /// Bytes that may wait for one client.
    pub outgoing_bytes_max: usize,
    /// Sends of one connection that are served at a time; any other request counts as sixteen.
    pub requests_max: usize,
    /// Bytes that all clients together may make the node hold.
    pub memory_bytes: usize,
    /// Where operators are besides this machine's own address, whatever port they connect to.
    pub operators: Vec<Network>,
}

impl Default for NetConfig {
    fn default() -> Self {
        Self::with_memory(default_memory_bytes())
    }
}

impl NetConfig {
    /// The defaults of a node whose clients may make it hold so many bytes.
    pub fn with_memory(memory_bytes: usize) -> Self {
        Self {
            idle_timeout: IDLE_TIMEOUT,
            frame_timeout: FRAME_TIMEOUT,
            write_timeout: WRITE_TIMEOUT,
            connections_max: (memory_bytes / CONNECTION_MEMORY_BYTES).clamp(1, CONNECTIONS_MAX),
            connections_per_address_max: None,
            outgoing_bytes_max: OUTGOING_BYTES_MAX,
            requests_max: REQUESTS_MAX,
            memory_bytes,
            operators: Network::LOOPBACK.to_vec(),
        }
    }

    /// Connections from one address.
    pub fn per_address_max(&self) -> usize {
        self.connections_per_address_max.unwrap_or(self.connections_max / 2).max(1)
    }

    /// Lowers the limit of connections to what `open_files_max` leaves them.
    pub fn fit_open_files(&mut self, open_files_max: usize) {
        let max = descriptors::connections_max(open_files_max);
        if max < self.connections_max {
            tracing::warn!(
                "only {open_files_max} open files are allowed (ulimit -n): {max} client connections instead of \
                 limits.connections = {}, so that log, consume queues and peers keep theirs",
                self.connections_max
            );
            self.connections_max = max;
        }
    }
}

/// So long after an instant, or in the far future if no clock goes that far.
pub(super) fn after(since: Instant, timeout: Duration) -> Instant {
    since.checked_add(timeout).unwrap_or_else(|| since + FAR)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_defaults_fit_512_mib_and_1024_open_files() {
        let mut config = NetConfig::with_memory(100 << 20);
        assert_eq!(config.connections_max, 1_600);
        config.fit_open_files(1_024);
        assert_eq!((config.connections_max, config.per_address_max()), (448, 224));
        config.fit_open_files(usize::MAX);
        assert_eq!(config.connections_max, 448);
        assert_eq!(NetConfig::with_memory(1 << 30).connections_max, CONNECTIONS_MAX);
    }

    /// `idle_seconds = 2^63-1` was added to a clock's reading, and every connection ended in a panic.
    #[test]
    fn a_timeout_beyond_the_clocks_end_is_a_long_one() {
        let now = Instant::now();
        assert_eq!(after(now, Duration::from_secs(3)), now + Duration::from_secs(3));
        for seconds in [i64::MAX as u64, u64::MAX] {
            assert!(after(now, Duration::from_secs(seconds)) > now + Duration::from_secs(1 << 29));
        }
    }
}
