//! When the cluster was calm: nothing was broken, and it had acknowledged something since the last fault. What is due may
//! wait through a fault; it is late once it has waited longer than [`LATE_MS`] in calm stretches together.

use crate::history::History;

/// How long what is due may wait while the cluster is calm, ms: a change of the leader, and a busy machine.
pub(super) const LATE_MS: u64 = 5_000;

/// See the module.
pub(super) struct Calm {
    /// Beginning and end of each stretch, ms since the epoch.
    stretches: Vec<(u64, u64)>,
}

impl Calm {
    pub(super) fn of(history: &History) -> Self {
        let (mut stretches, mut begin) = (Vec::new(), Some(history.start_ms));
        for fault in &history.faults {
            let at_ms = history.day_ms(fault.at_us);
            if fault.is_over() {
                begin = Some(at_ms);
            } else if let Some(begin) = begin.take() {
                stretches.push((begin, at_ms));
            }
        }
        stretches.extend(begin.map(|begin| (begin, u64::MAX)));
        Self { stretches }
    }

    /// Whether what was due then came too late.
    pub(super) fn is_late(&self, due_ms: u64, came_ms: u64) -> bool {
        let waited = |(begin, end): &(u64, u64)| came_ms.min(*end).saturating_sub(due_ms.max(*begin));
        self.stretches.iter().map(waited).sum::<u64>() > LATE_MS
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::history::Fault;

    #[test]
    fn what_waits_through_a_fault_is_late_only_after_calm_time() {
        let fault = |at_ms: u64, fault: &str| Fault {
            at_us: at_ms * 1000,
            fault: fault.to_owned(),
            stops_writes: true,
        };
        let faults = vec![fault(2_000, "kill begins"), fault(3_000, "heal"), fault(20_000, Fault::OVER)];
        let calm = Calm::of(&History { faults, start_ms: 1_000_000, ..History::default() });
        let late = |due_ms: u64, came_ms: u64| calm.is_late(1_000_000 + due_ms, 1_000_000 + came_ms);
        assert!(!late(1_500, 24_400), "it waited for 500 ms before, and 4,400 ms after");
        assert!(late(1_500, 24_600));
        assert!(!late(2_500, 19_000));
        assert!(late(30_000, 35_001) && !late(30_000, 35_000));
        assert!(late(0, 60_000) && !late(60_000, 0));
    }
}
