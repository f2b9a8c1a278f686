//! Short stalls of whole processes, as a starved machine makes them: all at once, or one after the other.
//!
//! No node is broken and no link is: a stalled node's own silence is not its leader's. The report's changes of
//! term say how many elections that cost.

use std::time::{Duration, Instant};

use anyhow::Result;
use tokio::time::sleep;

use super::{Dice, Doing, Fault, Nemesis, Target};
use crate::cluster::Cluster;

/// How long stalls last, and how long processes run between two of them.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Stalling {
    /// The longest stall, ms; the shortest is 50 ms, or half of it.
    pub stall_ms_max: u64,
    /// The longest time between two stalls, ms.
    pub run_ms_max: u64,
}

/// The shortest stall, ms.
const STALL_MS_MIN: u64 = 50;
/// What is drawn for a fault: processes that run most of the time; that hardly run at all, as starved ones; and stalls
/// that outlast the leader's lease and an election's timeout together.
const KINDS: [Stalling; 3] = [
    Stalling { stall_ms_max: 400, run_ms_max: 500 },
    Stalling { stall_ms_max: 400, run_ms_max: 20 },
    Stalling { stall_ms_max: 1200, run_ms_max: 300 },
];
/// How long the stalls of one fault go on, ms.
const ROUND_MS: std::ops::Range<u64> = 4_000..12_000;

/// Stalls processes; they all run again when a fault is over.
pub(super) struct Stalls {
    stalled: Vec<u64>,
}

impl Stalls {
    pub(super) fn new() -> Self {
        Self { stalled: Vec::new() }
    }
}

/// Stalls these nodes once, all at once or one after the other; `stalled` has those that are not running meanwhile.
pub(crate) async fn stall(
    cluster: &Cluster,
    nodes: &[u64],
    stalled: &mut Vec<u64>,
    stalling: Stalling,
    dice: &mut Dice,
) -> Result<()> {
    let Stalling { stall_ms_max, run_ms_max } = stalling;
    let mut order = nodes.to_vec();
    dice.shuffle(&mut order);
    let at_once = if dice.one_in(2) { order.len() } else { 1 };
    for together in order.chunks(at_once.max(1)) {
        for id in together {
            cluster.node(*id)?.signal("STOP")?;
            stalled.push(*id);
        }
        sleep(dice.millis(STALL_MS_MIN.min(stall_ms_max / 2), stall_ms_max)).await;
        go_on(cluster, stalled)?;
    }
    sleep(dice.millis(1, run_ms_max)).await;
    Ok(())
}

/// Lets stalled nodes run.
pub(crate) fn go_on(cluster: &Cluster, stalled: &mut Vec<u64>) -> Result<()> {
    std::mem::take(stalled).into_iter().try_for_each(|id| cluster.node(id)?.signal("CONT"))
}

impl Nemesis for Stalls {
    fn name(&self) -> &'static str {
        "stalls"
    }

    fn about(&self) -> &'static str {
        "SIGSTOP for 50 to 400 or 1,200 ms, again and again: of all processes at once, or of one after the other"
    }

    fn targets(&self) -> &'static [Target] {
        &[Target::All]
    }

    fn inject<'a>(
        &'a mut self,
        cluster: &'a mut Cluster,
        nodes: &'a [u64],
        dice: &'a mut Dice,
    ) -> Doing<'a, Fault> {
        Box::pin(async move {
            let length: Duration = dice.millis(ROUND_MS.start, ROUND_MS.end);
            let stalling = *dice.one_of(&KINDS).unwrap_or(&KINDS[0]);
            let (started, mut rounds) = (Instant::now(), 0);
            while started.elapsed() < length {
                stall(cluster, nodes, &mut self.stalled, stalling, dice).await?;
                rounds += 1;
            }
            Ok(Fault::new(nodes, format!("{rounds} rounds of stalls in {length:?}, {stalling:?}")))
        })
    }

    fn heal<'a>(&'a mut self, cluster: &'a mut Cluster) -> Doing<'a, ()> {
        Box::pin(async move {
            go_on(cluster, &mut self.stalled)?;
            cluster.revive_all()
        })
    }
}
