//! disagreements: every replica holds the same queues, and a live reader saw nothing else.

use super::Finding;
use crate::reading::{Found, QueueKey, Reading};

/// Compares every replica's queues with the first one's, length included; a live reader's must be
/// a beginning of them.
pub(super) fn check(replicas: &[Reading], live: &[Reading]) -> Finding {
    let mut finding = Finding::fatal("disagreements");
    let Some((first, others)) = replicas.split_first() else { return finding };
    for other in others {
        for queue in
            first.queues.keys().chain(other.queues.keys().filter(|key| !first.queues.contains_key(*key)))
        {
            let start = first.start(*queue).max(other.start(*queue));
            let (a, b) = (from(held(first, queue), start), from(held(other, queue), start));
            if a.len() != b.len() {
                finding.add(|| {
                    format!(
                        "{queue}: {} holds {} messages, {} holds {}",
                        first.reader,
                        a.len(),
                        other.reader,
                        b.len()
                    )
                });
            }
            same_beginning(&mut finding, queue, (&first.reader, a), (&other.reader, b));
        }
    }
    for reading in live {
        for (queue, seen) in &reading.queues {
            let start = first.start(*queue);
            let (held, seen) = (from(held(first, queue), start), from(seen, start));
            if seen.len() > held.len() {
                finding.add(|| {
                    format!(
                        "{queue}: {} was given {} messages, {} holds only {}",
                        reading.reader,
                        seen.len(),
                        first.reader,
                        held.len()
                    )
                });
            }
            same_beginning(&mut finding, queue, (&first.reader, held), (&reading.reader, seen));
        }
    }
    finding
}

fn held<'a>(reading: &'a Reading, queue: &QueueKey) -> &'a [Found] {
    reading.queues.get(queue).map_or(&[], Vec::as_slice)
}

/// Without what has expired on one of the two.
fn from(found: &[Found], start: u64) -> &[Found] {
    &found[found.partition_point(|found| found.offset < start)..]
}

/// Adds at most one breach: everything after the first difference differs as well.
fn same_beginning(finding: &mut Finding, queue: &QueueKey, a: (&str, &[Found]), b: (&str, &[Found])) {
    if let Some((one, two)) = a.1.iter().zip(b.1).find(|(one, two)| one != two) {
        finding.add(|| format!("{queue}: {} has {one:?}, {} has {two:?}", a.0, b.0));
    }
}

#[cfg(test)]
mod tests {
    use std::slice::from_ref;

    use super::super::sample::{found, reading};
    use super::*;

    #[test]
    fn a_shorter_replica_and_a_different_one_disagree() {
        let whole = reading([found(0, 0), found(1, 1)]);
        let short = check(&[whole.clone(), reading([found(0, 0)])], &[]);
        assert_eq!(short.count, 1);
        assert!(short.fails());
        let other = check(&[whole.clone(), reading([found(0, 0), found(1, 2)])], &[]);
        assert_eq!(other.count, 1);
        let empty = Reading::default();
        assert_eq!(check(&[empty, whole], &[]).count, 1, "a queue the first replica lacks");
    }

    #[test]
    fn a_live_reader_may_stop_early_but_not_see_more_or_other() {
        let whole = reading([found(0, 0), found(1, 1)]);
        assert_eq!(check(from_ref(&whole), &[reading([found(0, 0)])]).count, 0);
        assert_eq!(check(from_ref(&whole), &[reading([found(0, 5)])]).count, 1);
        let more = reading([found(0, 0), found(1, 1), found(2, 2)]);
        assert_eq!(check(&[whole], &[more]).count, 1);
    }
}
