//! retained-missing: what one replica still keeps, no other one lacks at its beginning.
//!
//! Replicas drop the same old segments, each at its own time. Once all of them had the time for it, a replica whose
//! queue starts later than another's lacks messages that are retained: it was filled without them, and as soon as it
//! leads, consumers are moved past them.

use super::Finding;
use crate::reading::{QueueKey, Reading};

/// Compares where queues start, where messages may expire.
pub(super) fn check(replicas: &[Reading]) -> Finding {
    let mut finding = Finding::fatal("retained-missing");
    for reading in replicas {
        for (queue, start) in &reading.starts {
            let kept = replicas.iter().filter_map(|other| Some((kept_below(other, *queue, *start)?, other)));
            if let Some((count, other)) = kept.max_by_key(|(count, _)| *count) {
                finding.add(|| {
                    let (who, whose) = (&reading.reader, &other.reader);
                    format!("{queue}: starts at {start} on {who}, {whose} keeps {count} messages before that")
                });
            }
        }
    }
    finding
}

/// How many messages this replica keeps before an offset; `None` when it keeps none.
fn kept_below(replica: &Reading, queue: QueueKey, start: u64) -> Option<usize> {
    let found = replica.queues.get(&queue)?;
    let from = replica.start(queue);
    let count = found.iter().filter(|found| (from..start).contains(&found.offset)).count();
    (count > 0).then_some(count)
}

#[cfg(test)]
mod tests {
    use super::super::sample::{QUEUE, found, reading};
    use super::*;

    fn replica(start: u64) -> Reading {
        let mut replica = reading((start..6).map(|at| found(at, at)));
        replica.starts.insert(QUEUE, start);
        replica
    }

    #[test]
    fn a_replica_that_starts_later_than_what_another_keeps_lacks_messages() {
        let finding = check(&[replica(1), replica(4)]);
        assert_eq!(finding.count, 1);
        assert!(finding.fails());
        assert!(finding.examples[0].contains("keeps 3 messages"), "{:?}", finding.examples);
    }

    #[test]
    fn replicas_that_dropped_the_same_lack_nothing() {
        assert_eq!(check(&[replica(4), replica(4)]).count, 0);
        assert_eq!(check(&[reading([found(0, 0)]), reading([])]).count, 0, "nothing expires there");
    }
}
