//! Whether an attack was borne: the bounds, and what is held against them. Nothing here does I/O.
//!
//! Absolute bounds are for a quiet machine. On one that does other work as well, a latency says more about the machine than
//! about the attack: [`Bounds::wide`] compares it with the quiet stretch right before the attack, and allows for the time
//! by which the machine kept a thread of the harness waiting. What is no matter of time is the same in both: nothing lost,
//! no change of leader, memory, sockets, no end of a process.

use std::collections::BTreeMap;
use std::time::Duration;

use serde::Serialize;

use super::good::Served;
use super::tally::{Done, Floor};
use super::watch::Reading;

const MIB: u64 = 1 << 20;
/// Minutes of an attack that is long.
const LONG_MINUTES: usize = 15;

/// What an attack may cost at most.
#[derive(Debug, Clone, Copy, Serialize)]
pub struct Bounds {
    /// The good client's p99, in ms.
    pub p99_ms: f64,
    /// Its p99 as a multiple of the quiet one's; the larger of both bounds counts. 0: the absolute one alone.
    pub p99_times_quiet: f64,
    /// The longest time without any acknowledgement, in ms.
    pub gap_ms: f64,
    /// Whether a stall of the machine is added to the two bounds above.
    pub allow_stalls: bool,
    /// Failed sends for each thousand that were acknowledged.
    pub failed_per_thousand: u64,
    /// A node's memory at any moment.
    pub memory_bytes: u64,
    /// A node's memory above what it was before, once the attack is over.
    pub memory_kept_bytes: u64,
    /// A node's memory after a long attack above what it was after half of it: then its caches had time to fill, as they do
    /// without an attack.
    pub memory_growth_bytes: u64,
    /// Sockets above what they were before, once the attack is over.
    pub sockets_kept: u64,
    /// What one attack may add to a node's log, and each of its seconds on top.
    pub log_bytes: u64,
    /// See there.
    pub log_bytes_per_second: u64,
}

impl Bounds {
    /// For a machine that does nothing else.
    #[must_use]
    pub fn strict() -> Self {
        Self {
            p99_ms: 50.0,
            p99_times_quiet: 0.0,
            gap_ms: 1000.0,
            allow_stalls: false,
            failed_per_thousand: 1,
            // A machine of 512 MB, less what its system takes.
            memory_bytes: 448 * MIB,
            // An allocator keeps a part of what it once had.
            memory_kept_bytes: 96 * MIB,
            memory_growth_bytes: 32 * MIB,
            sockets_kept: 16,
            log_bytes: 64 << 10,
            log_bytes_per_second: 8 << 10,
        }
    }

    /// For a machine that does other work as well, and for builds without optimization.
    #[must_use]
    pub fn wide() -> Self {
        Self {
            p99_ms: 100.0,
            p99_times_quiet: 10.0,
            gap_ms: 2000.0,
            allow_stalls: true,
            failed_per_thousand: 5,
            ..Self::strict()
        }
    }
}

/// A node beside an attack.
#[derive(Debug, Clone, Serialize)]
pub struct NodeSeen {
    /// Its id.
    pub node: u64,
    /// Right before.
    pub before: Reading,
    /// The most memory meanwhile.
    pub peak_bytes: u64,
    /// Its memory after each minute.
    pub minutes_bytes: Vec<u64>,
    /// Once it was over, and the node had time to put away what it held.
    pub after: Reading,
}

/// Everything that was seen of one attack.
#[derive(Debug, Clone, Default, Serialize)]
pub struct Seen {
    /// What it got through.
    pub done: Done,
    /// Seconds it lasted.
    pub seconds: f64,
    /// The quiet stretch before.
    pub quiet: Served,
    /// The good client meanwhile.
    pub during: Served,
    /// By how much a thread of the harness was woken up too late, in ms.
    pub stall_ms: f64,
    /// What was used of the processors.
    pub used: Processors,
    /// Leader and term before, if there was one.
    pub leader_before: Option<(u64, u64)>,
    /// Leader and term afterwards; none when no node said in time that it leads.
    pub leader_after: Option<(u64, u64)>,
    /// The nodes.
    pub nodes: Vec<NodeSeen>,
    /// Processes that ended, panics in their logs.
    pub crashes: Vec<String>,
    /// Acknowledged messages that did not come back.
    pub missing: u64,
    /// What a new client could not do afterwards.
    pub fresh: Vec<String>,
    /// Why the attack itself could not be made.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub failed: Option<String>,
}

/// Milliseconds of a processor that were used during an attack.
#[derive(Debug, Clone, Default, Serialize)]
pub struct Processors {
    /// By the nodes, each by the names of its threads.
    pub nodes: Vec<BTreeMap<String, u64>>,
    /// By the attackers' threads.
    pub attackers: u64,
    /// By the good client, and all else in the harness.
    pub harness: u64,
}

impl Processors {
    /// All nodes together.
    #[must_use]
    pub fn of_nodes(&self) -> u64 {
        self.nodes.iter().flat_map(BTreeMap::values).sum()
    }
}

/// Every bound that was broken, in words; empty when the attack was made and borne.
#[must_use]
pub(crate) fn judge(seen: &Seen, floor: &Floor, bounds: &Bounds) -> Vec<String> {
    let mut broken = Vec::new();
    if let Some(why) = &seen.failed {
        broken.push(format!("did not attack: {why}"));
    }
    if let Some(lacking) = seen.done.lacks(floor) {
        broken.push(format!("did not attack: {lacking}"));
    }
    broken.extend(seen.crashes.iter().cloned());
    leader(seen, &mut broken);
    client(seen, bounds, &mut broken);
    for node in &seen.nodes {
        resources(node, seen.seconds, bounds, &mut broken);
    }
    broken.extend(seen.fresh.iter().map(|what| format!("afterwards: {what}")));
    broken
}

fn leader(seen: &Seen, broken: &mut Vec<String>) {
    match (seen.leader_before, seen.leader_after) {
        (before, after) if before == after => {}
        (_, None) => broken.push("no leader afterwards".to_owned()),
        (None, Some(_)) => {}
        (Some((node, term)), Some((now, then))) => {
            broken.push(format!("the leader changed: node {node} in term {term}, node {now} in term {then}"));
        }
    }
}

fn client(seen: &Seen, bounds: &Bounds, broken: &mut Vec<String>) {
    let stall = if bounds.allow_stalls { seen.stall_ms } else { 0.0 };
    let (sends, quiet) = (&seen.during.sends, &seen.quiet.sends);
    let p99 = bounds.p99_ms.max(quiet.p99_ms * bounds.p99_times_quiet) + stall;
    if sends.count > 0 && sends.p99_ms >= p99 {
        let (now, before) = (sends.p99_ms, quiet.p99_ms);
        broken.push(format!("p99 of sends {now:.0} ms ({before:.0} ms before), at most {p99:.0} ms"));
    }
    let gap = bounds.gap_ms + stall;
    for (what, figures) in [("acknowledgement", sends), ("delivery", &seen.during.deliveries)] {
        if figures.gap_ms >= gap {
            broken.push(format!("{:.0} ms without {what}, at most {gap:.0} ms", figures.gap_ms));
        }
    }
    if seen.during.failed * 1000 > bounds.failed_per_thousand * sends.count.max(1000) {
        let error = seen.during.error.as_deref().unwrap_or("no answer");
        broken.push(format!("{} good sends failed, the last with: {error}", seen.during.failed));
    }
    if seen.missing > 0 {
        broken.push(format!("{} acknowledged messages did not come back", seen.missing));
    }
}

fn resources(node: &NodeSeen, seconds: f64, bounds: &Bounds, broken: &mut Vec<String>) {
    let NodeSeen { node: id, before, peak_bytes, after, .. } = node;
    let mut over = |what: &str, value: u64, most: u64| {
        if value > most {
            broken.push(format!("node {id}: {what} {value}, at most {most}"));
        }
    };
    over("MiB of memory", peak_bytes / MIB, bounds.memory_bytes / MIB);
    let above = |bytes: u64| after.memory_bytes.saturating_sub(bytes) / MIB;
    match node.minutes_bytes.get(node.minutes_bytes.len() / 2) {
        Some(half) if node.minutes_bytes.len() >= LONG_MINUTES => {
            over("MiB of memory more than after half of it", above(*half), bounds.memory_growth_bytes / MIB);
        }
        _ => over("MiB of memory kept", above(before.memory_bytes), bounds.memory_kept_bytes / MIB),
    }
    over("sockets kept", after.sockets.saturating_sub(before.sockets), bounds.sockets_kept);
    let length = Duration::from_secs_f64(seconds.max(0.0)).as_secs();
    let logged = after.log_bytes.saturating_sub(before.log_bytes);
    over("bytes of log", logged, bounds.log_bytes + length * bounds.log_bytes_per_second);
}

#[cfg(test)]
mod tests {
    use super::super::meter::Figures;
    use super::*;

    const FLOOR: Floor = Floor { opened: 1, frames: 0, bytes: 0, heard: 0 };

    fn figures(p99_ms: f64, gap_ms: f64) -> Figures {
        Figures { count: 10_000, p50_ms: 1.0, p99_ms, max_ms: p99_ms, gap_ms }
    }

    /// An attack that was made and borne.
    fn borne() -> Seen {
        let served =
            Served { sends: figures(10.0, 20.0), deliveries: figures(12.0, 30.0), ..Served::default() };
        let reading = Reading { memory_bytes: 50 * MIB, sockets: 20, log_bytes: 1000 };
        Seen {
            done: Done { opened: 1, ..Done::default() },
            seconds: 5.0,
            quiet: served.clone(),
            during: served,
            leader_before: Some((1, 2)),
            leader_after: Some((1, 2)),
            nodes: vec![NodeSeen {
                node: 1,
                before: reading,
                peak_bytes: 60 * MIB,
                minutes_bytes: Vec::new(),
                after: reading,
            }],
            ..Seen::default()
        }
    }

    /// What is found once something was changed in it.
    fn found(change: impl FnOnce(&mut Seen)) -> String {
        let mut seen = borne();
        change(&mut seen);
        judge(&seen, &FLOOR, &Bounds::strict()).join("; ")
    }

    #[test]
    fn an_attack_that_was_borne_breaks_nothing() {
        assert_eq!(found(|_| ()), "");
    }

    /// `hostile.I1`
    #[test]
    fn an_attack_that_did_nothing_is_not_borne() {
        assert!(found(|seen| seen.done = Done::default()).contains("did not attack"));
        assert!(found(|seen| seen.failed = Some("no route".to_owned())).contains("no route"));
    }

    #[test]
    fn each_bound_is_found_by_its_breach() {
        type Change = fn(&mut Seen);
        let changes: [(Change, &str); 15] = [
            (|seen| seen.during.sends = figures(51.0, 20.0), "p99"),
            (|seen| seen.during.sends = figures(10.0, 1001.0), "without acknowledgement"),
            (|seen| seen.during.deliveries = figures(10.0, 1001.0), "without delivery"),
            (|seen| seen.during.failed = 11, "good sends failed"),
            (|seen| seen.missing = 1, "did not come back"),
            (|seen| seen.leader_after = Some((2, 3)), "the leader changed"),
            (|seen| seen.leader_after = Some((1, 3)), "the leader changed"),
            (|seen| seen.leader_after = None, "no leader"),
            (|seen| seen.crashes.push("node 2 ended by itself".to_owned()), "ended by itself"),
            (|seen| seen.fresh.push("no route".to_owned()), "afterwards: no route"),
            (|seen| seen.nodes[0].peak_bytes = 449 * MIB, "MiB of memory 449"),
            (|seen| seen.nodes[0].after.memory_bytes = 147 * MIB, "memory kept 97"),
            (|seen| seen.nodes[0].after.sockets = 37, "sockets kept 17"),
            (|seen| seen.nodes[0].after.log_bytes = 1 << 20, "bytes of log"),
            (|seen| seen.during.sends = Figures { gap_ms: 5000.0, ..Figures::default() }, "without"),
        ];
        for (change, expected) in changes {
            let found = found(change);
            assert!(found.contains(expected), "{expected}: {found}");
            assert!(!found.contains("; "), "{expected} alone: {found}");
        }
    }

    #[test]
    fn memory_after_a_long_attack_is_compared_with_half_of_it() {
        let grown = |minutes: usize, after: u64| {
            found(|seen| {
                seen.nodes[0].minutes_bytes = (1..=minutes as u64).map(|minute| minute * MIB).collect();
                seen.nodes[0].after.memory_bytes = after * MIB;
            })
        };
        assert_eq!(grown(20, 43), "", "11 after half of it");
        assert!(grown(20, 44).contains("after half of it 33, at most 32"));
        assert_eq!(grown(14, 146), "");
        assert!(grown(14, 147).contains("memory kept 97"));
    }

    #[test]
    fn wide_bounds_follow_the_machine_and_not_what_is_no_matter_of_time() {
        let mut seen = borne();
        seen.quiet.sends = figures(30.0, 100.0);
        seen.during.sends = figures(290.0, 2300.0);
        seen.stall_ms = 400.0;
        assert_eq!(judge(&seen, &FLOOR, &Bounds::wide()), Vec::<String>::new());
        assert_eq!(judge(&seen, &FLOOR, &Bounds::strict()).len(), 2);
        seen.missing = 1;
        seen.leader_after = Some((3, 9));
        assert_eq!(judge(&seen, &FLOOR, &Bounds::wide()).len(), 2);
    }
}
