//! The system clock of one node jumps, forth or back, or runs away. The monotonic clock does not.
//!
//! The nodes' processes are started with a small library of ours preloaded that moves what they are
//! told ([`crate::clock`]); no other process on this machine notices.

use std::time::Duration;

use super::{Dice, Doing, Fault, Needs, Nemesis, Target};
use crate::cluster::Cluster;

/// Moves clocks until healed.
pub(super) struct Clock;

/// How far a clock jumps, ms: within an election, seconds, more than any timeout, months.
const JUMPS_MS: [(u64, u64); 4] = [(50, 500), (1_000, 60_000), (3_600_000, 90_000_000), (1 << 32, 1 << 34)];
/// Further jumps while the fault lasts.
const JUMPS_MAX: u64 = 8;

impl Nemesis for Clock {
    fn name(&self) -> &'static str {
        "clock"
    }

    fn about(&self) -> &'static str {
        "a node's system clock jumps by milliseconds to months, forth and back"
    }

    fn targets(&self) -> &'static [Target] {
        &[Target::Leader, Target::Follower, Target::Majority, Target::All]
    }

    fn needs(&self) -> Needs {
        Needs { clock: true, ..Needs::default() }
    }

    fn inject<'a>(
        &'a mut self,
        cluster: &'a mut Cluster,
        nodes: &'a [u64],
        dice: &'a mut Dice,
    ) -> Doing<'a, Fault> {
        Box::pin(async move {
            let mut told = Vec::new();
            for _ in 0..dice.between(1, JUMPS_MAX) {
                for id in nodes {
                    let (from, to) = JUMPS_MS[dice.below(JUMPS_MS.len() as u64) as usize];
                    let by = dice.between(from, to) as i64 * if dice.one_in(2) { -1 } else { 1 };
                    cluster.node(*id)?.set_clock(by)?;
                    told.push(format!("node {id} {by} ms"));
                }
                tokio::time::sleep(dice.millis(0, 400)).await;
            }
            tokio::time::sleep(Duration::from_millis(10)).await;
            Ok(Fault::new(nodes, format!("clocks off by {}", told.join(", "))))
        })
    }

    fn heal<'a>(&'a mut self, cluster: &'a mut Cluster) -> Doing<'a, ()> {
        Box::pin(async move {
            for id in cluster.ids() {
                cluster.node(id)?.set_clock(0)?;
            }
            Ok(())
        })
    }
}
