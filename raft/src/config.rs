//! What a group needs to know to start on a node.

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::path::PathBuf;
use std::time::Duration;

use crate::secret::ClusterSecret;
use crate::types::NodeAddress;

/// When an acknowledgement is given.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Flush {
    /// After fdatasync on a majority.
    Sync,
    /// When a majority has it in the page cache; a power cut of a majority can lose it.
    Async,
}

/// How old records are dropped: whole segments, oldest first.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Retention {
    /// Drop segments whose newest record is older than this; `None` keeps them.
    pub age: Option<Duration>,
    /// Drop the oldest segments while the log is larger than this many bytes; `None` keeps them.
    pub bytes: Option<u64>,
    /// How often to look; on a full disk, and where the log is an eighth larger than `bytes`, each second.
    pub interval: Duration,
}

impl Default for Retention {
    /// RocketMQ's `fileReservedTime`: 72 hours.
    fn default() -> Self {
        Retention {
            age: Some(Duration::from_secs(72 * 3600)),
            bytes: None,
            interval: Duration::from_secs(60),
        }
    }
}

/// How old records are read and checked in the background, so that rot is found while a peer can mend it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Scrub {
    /// Bytes read from the disk a second; 0 turns it off.
    pub bytes_per_second: u64,
    /// A pass over the whole log begins this long after the one before began, or when that is done.
    pub interval: Duration,
}

impl Default for Scrub {
    /// Slow enough not to be felt: 100 GB in half a day.
    fn default() -> Self {
        Scrub { bytes_per_second: 4 << 20, interval: Duration::from_secs(24 * 3600) }
    }
}

/// Election timing. A follower campaigns after `election_max` plus a random time between the two bounds
/// without hearing from the leader (openraft's lease plus its timeout).
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Timing {
    /// Shortest random election timeout.
    pub election_min: Duration,
    /// Longest random election timeout, and the leader's lease.
    pub election_max: Duration,
    /// Interval of the leader's heartbeats.
    pub heartbeat: Duration,
}

impl Default for Timing {
    /// For a local network: the queue is back about half a second after a leader's death.
    fn default() -> Self {
        Timing {
            election_min: Duration::from_millis(200),
            election_max: Duration::from_millis(300),
            heartbeat: Duration::from_millis(50),
        }
    }
}

/// How long a stored message answers a retry of itself: each bound ends it, and half of those in keys and bytes is certain.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct DedupConfig {
    /// Messages remembered at most; 20 bytes of memory each.
    pub keys: usize,
    /// For how long, unless the other bounds are reached.
    pub age: Duration,
    /// The stretch of the log they lie in at most: what a restart has to read.
    pub bytes: u64,
}

impl Default for DedupConfig {
    /// At 100,000 messages of 1 KiB a second that is four seconds, longer than a client waits before it tries again.
    fn default() -> Self {
        DedupConfig { keys: 1_800_000, age: Duration::from_secs(60), bytes: 1 << 30 }
    }
}

/// One group on one node.
#[derive(Debug, Clone)]
pub struct GroupConfig {
    /// This node's id in the group, from 1.
    pub node_id: u64,
    /// The cluster's name.
    pub cluster: String,
    /// The group's name, which is RocketMQ's `brokerName`.
    pub group: String,
    /// Where the group's files are.
    pub data_dir: PathBuf,
    /// Size of a log segment: the same on every node, for ever.
    pub segment_bytes: u64,
    /// The members at the group's birth, this node included. Later changes come through the log.
    pub nodes: BTreeMap<u64, NodeAddress>,
    /// Where this node connects to a peer instead of the peer's own address: a route that only this
    /// node has, such as through a tunnel. It is told to nobody.
    pub dial: BTreeMap<u64, String>,
    /// Wait to be added to a running group instead of founding one.
    pub join: bool,
    /// The group has one voter, this node. Only with it a node that knows of no other founds a group; and as long as a
    /// leader has it, no other node is added. So a node of a group that has grown never founds one alone, whatever becomes
    /// of its disk.
    pub single_node: bool,
    /// Where to listen for peers.
    pub listen: SocketAddr,
    /// When an acknowledgement is given.
    pub flush: Flush,
    /// Election timing.
    pub timing: Timing,
    /// When old segments go.
    pub retention: Retention,
    /// How old records are checked.
    pub scrub: Scrub,
    /// What peers prove to each other that they have; `None`: a peer's word for its id is taken.
    pub secret: Option<ClusterSecret>,
    /// How a client's repeated sends are recognised; `None`: not at all, each is stored.
    pub dedup: Option<DedupConfig>,
}
