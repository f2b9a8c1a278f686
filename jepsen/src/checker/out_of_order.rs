//! out-of-order: a producer with one send in flight per queue finds its acknowledged sends there
//! in the order it sent them.

use std::collections::{HashMap, HashSet};

use super::Finding;
use crate::history::{History, Outcome};
use crate::reading::{QueueKey, Reading};

/// Sends of unknown outcome are left out: they may take effect after a later one.
pub(super) fn check(history: &History, replicas: &[Reading]) -> Finding {
    let acked: HashSet<_> =
        history.ops.iter().filter(|op| matches!(op.outcome, Outcome::Ok { .. })).map(|op| op.key).collect();
    let mut finding = Finding::fatal("out-of-order");
    for reading in replicas {
        let mut last: HashMap<(QueueKey, u32), u64> = HashMap::new();
        for (queue, found) in reading.messages() {
            let Some(key) = found.key.filter(|key| acked.contains(key)) else { continue };
            let before = last.insert((queue, key.producer), key.seq);
            if let Some(before) = before.filter(|before| *before > key.seq) {
                finding.add(|| {
                    format!(
                        "{}: {queue} offset {}: producer {} seq {} comes after its seq {before}",
                        reading.reader, found.offset, key.producer, key.seq
                    )
                });
            }
        }
    }
    finding
}

#[cfg(test)]
mod tests {
    use super::super::sample::{acked, found, history, reading, unknown};
    use super::*;

    #[test]
    fn a_later_send_at_an_earlier_offset_is_out_of_order() {
        let history = history([acked(0, 1), acked(1, 0)]);
        let finding = check(&history, &[reading([found(0, 1), found(1, 0)])]);
        assert_eq!(finding.count, 1);
        assert!(finding.fails());
    }

    #[test]
    fn a_send_of_unknown_outcome_may_arrive_late() {
        let history = history([unknown(0), acked(1, 0), acked(2, 2)]);
        let replicas = [reading([found(0, 1), found(1, 0), found(2, 2)])];
        assert_eq!(check(&history, &replicas).count, 0);
    }
}
