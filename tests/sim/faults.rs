//! What goes wrong in a run, and when, by the seed.
//!
//! At any time at most one partition is in force, with its own end; other faults come on top. Never more is broken than
//! the group promises to survive: in one run one node alone, the weak one, loses what it had acknowledged, by an empty disk
//! by rot, or by sectors that cannot be read.

use folio_engine::disk::sim::{Fault as DiskFault, SeededChoice};

use crate::net::Delay;
use crate::node::Death;
use crate::rot::{Rot, Snapshots};

/// One thing that goes wrong.
#[derive(Debug, Clone, Hash)]
pub(crate) enum Fault {
    /// The node's process dies and is started again after so many milliseconds.
    Die {
        node: u64,
        death: DeathKind,
        down_ms: u64,
    },
    /// Its power fails in the middle of what its disk does, so many operations from now.
    DieAtOperation {
        node: u64,
        operations: u64,
    },
    /// Its disk is slow, leadership changes, and its power fails around the vote, so many operations after that is first
    /// written: behind records that wait for the disk.
    DieAtVote {
        node: u64,
        operations: u64,
        delay: Delay,
    },
    /// Its disk has no room for more than so many bytes, for so many milliseconds.
    FullDisk {
        node: u64,
        room: u64,
        ms: u64,
    },
    /// This node is no member any more; another one takes its place, unless the group shrinks.
    Members {
        leaves: u64,
        shrinks: bool,
    },
    /// Bytes of one of its files change.
    Rot {
        node: u64,
        what: Rot,
    },
    /// All snapshots of these nodes rot or are deleted.
    Snapshots {
        nodes: Vec<u64>,
        what: Snapshots,
    },
    /// A page of one of its files cannot be read any more, while the node runs.
    BadSector {
        node: u64,
        what: Rot,
    },
    /// All machines lose power at once.
    PowerCutOfAll {
        down_ms: u64,
    },
    /// No byte passes these links for so many milliseconds.
    Partition {
        links: Vec<(u64, u64)>,
        ms: u64,
    },
    /// Everything to and from the node takes longer.
    SlowNode {
        node: u64,
        delay: Delay,
        ms: u64,
    },
    SlowDisk {
        node: u64,
        delay: Delay,
        ms: u64,
    },
    /// An operation of its disk fails, so many from now.
    BadDisk {
        node: u64,
        operations: u64,
        fault: BadDisk,
    },
    /// The process is stopped and continued.
    Stop {
        node: u64,
        ms: u64,
    },
    /// Every process is stopped and continued: all at once, or each one so many milliseconds after the one before.
    StopAll {
        ms: u64,
        apart_ms: u64,
    },
    Transfer {
        to: Option<u64>,
    },
    WallClock {
        node: u64,
        skew_ms: i64,
    },
    LoseDisk {
        node: u64,
        down_ms: u64,
    },
}

#[derive(Debug, Clone, Copy, Hash)]
pub(crate) enum DeathKind {
    Kill,
    PowerCut,
}

impl From<DeathKind> for Death {
    fn from(kind: DeathKind) -> Death {
        match kind {
            DeathKind::Kill => Death::Kill,
            DeathKind::PowerCut => Death::PowerCut,
        }
    }
}

#[derive(Debug, Clone, Copy, Hash)]
pub(crate) enum BadDisk {
    Eio,
    FailSync,
    ShortWrite,
}

impl From<BadDisk> for DiskFault {
    fn from(fault: BadDisk) -> DiskFault {
        match fault {
            BadDisk::Eio => DiskFault::Eio,
            BadDisk::FailSync => DiskFault::FailSync,
            BadDisk::ShortWrite => DiskFault::ShortWrite,
        }
    }
}

/// Draws the faults of one run.
pub(crate) struct Faults {
    random: SeededChoice,
    nodes: u64,
    next_at: u64,
    /// Longest pause between two faults, milliseconds: some runs are rough, some calm.
    pause_ms: u64,
}

impl Faults {
    pub(crate) fn new(seed: u64, nodes: u64) -> Faults {
        let mut random = SeededChoice::new(seed);
        let pause_ms = [300, 1000, 3000][random.below(3) as usize];
        // The group is founded first.
        Faults { random, nodes, next_at: 1500, pause_ms }
    }

    /// The fault that is due, if any.
    pub(crate) fn due(&mut self, now: u64) -> Option<Fault> {
        if now < self.next_at {
            return None;
        }
        self.next_at = now + 1 + self.random.below(self.pause_ms);
        Some(self.draw())
    }

    fn node(&mut self) -> u64 {
        1 + self.random.below(self.nodes)
    }

    /// Mostly short, sometimes long.
    fn ms(&mut self) -> u64 {
        match self.random.below(4) {
            0 => self.random.below(4000),
            1 => self.random.below(50),
            _ => self.random.below(900),
        }
    }

    fn draw(&mut self) -> Fault {
        let (node, ms) = (self.node(), self.ms());
        match self.random.below(100) {
            0..10 => Fault::Die { node, death: DeathKind::Kill, down_ms: ms },
            10..18 => Fault::Die { node, death: DeathKind::PowerCut, down_ms: ms },
            18..24 => Fault::DieAtVote { node, operations: self.random.below(6), delay: self.delay() },
            24..32 => Fault::DieAtOperation { node, operations: self.random.below(60) },
            32..36 => Fault::PowerCutOfAll { down_ms: ms },
            36..53 => Fault::Partition { links: self.links(node), ms },
            53..59 => Fault::Members { leaves: node, shrinks: self.random.below(3) == 0 },
            59..63 => Fault::SlowNode { node, delay: self.delay(), ms },
            63..68 => Fault::SlowDisk { node, delay: self.delay(), ms },
            68..71 => Fault::BadDisk { node, operations: self.random.below(40), fault: self.bad_disk() },
            71..77 => Fault::FullDisk { node, room: self.room(), ms: 2 * ms },
            77..80 => Fault::Stop { node, ms },
            80..82 => Fault::StopAll { ms, apart_ms: self.random.below(2) * ms },
            82..86 => Fault::Transfer { to: (self.random.below(2) == 0).then_some(node) },
            86..89 => Fault::WallClock { node, skew_ms: self.random.below(20_000_000) as i64 - 10_000_000 },
            89..92 => Fault::Rot { node, what: self.rot() },
            92..94 => Fault::Snapshots { nodes: self.some(), what: self.snapshots() },
            94..96 => Fault::BadSector { node, what: self.lost() },
            _ => Fault::LoseDisk { node, down_ms: ms },
        }
    }

    /// Mostly less than a segment, sometimes nothing at all.
    fn room(&mut self) -> u64 {
        match self.random.below(4) {
            0 => 0,
            1 => self.random.below(64 << 10),
            _ => self.random.below(12 << 10),
        }
    }

    fn delay(&mut self) -> Delay {
        let least = self.random.below(40);
        Delay { least, most: least + self.random.below(300) }
    }

    fn bad_disk(&mut self) -> BadDisk {
        [BadDisk::Eio, BadDisk::FailSync, BadDisk::ShortWrite][self.random.below(3) as usize]
    }

    fn rot(&mut self) -> Rot {
        let kinds = [
            Rot::Record,
            Rot::Record,
            Rot::Unit,
            Rot::Vote,
            Rot::Mark,
            Rot::Checkpoint,
            Rot::Snapshot,
            Rot::Index,
            Rot::Index,
        ];
        kinds[self.random.below(kinds.len() as u64) as usize]
    }

    /// Any nodes, at times all.
    fn some(&mut self) -> Vec<u64> {
        let all = self.random.below(3) == 0;
        (1..=self.nodes).filter(|_| all || self.random.below(2) == 0).collect()
    }

    /// Of all snapshots of a node.
    fn snapshots(&mut self) -> Snapshots {
        [Snapshots::Rotten, Snapshots::Deleted][self.random.below(2) as usize]
    }

    fn lost(&mut self) -> Rot {
        [Rot::Record, Rot::Record, Rot::Unit, Rot::Checkpoint][self.random.below(4) as usize]
    }

    /// A cut around one node, in one direction or both, between two halves, or any links at all.
    fn links(&mut self, node: u64) -> Vec<(u64, u64)> {
        let all: Vec<(u64, u64)> = (1..=self.nodes)
            .flat_map(|a| (1..=self.nodes).map(move |b| (a, b)))
            .filter(|(a, b)| a != b)
            .collect();
        let kind = self.random.below(5);
        let halves = self.random.below(1 << self.nodes);
        let side = |node: u64| halves >> (node - 1) & 1;
        let mut cut = |link: &(u64, u64)| match kind {
            0 => link.0 == node || link.1 == node,
            1 => link.0 == node,
            2 => link.1 == node,
            3 => side(link.0) != side(link.1),
            _ => self.random.below(3) == 0,
        };
        all.into_iter().filter(|link| cut(link)).collect()
    }
}
