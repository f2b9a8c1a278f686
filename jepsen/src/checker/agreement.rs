//! agreement: every replica holds the same queues, to the last message.

use super::Finding;
use crate::reading::{Found, QueueKey, Reading};

/// Compares every replica's queues with the first one's, length included.
pub(super) fn check(replicas: &[Reading]) -> Finding {
    let mut finding = Finding::fatal("agreement");
    let Some((first, others)) = replicas.split_first() else { return finding };
    for other in others {
        let lacking = other.queues.keys().filter(|key| !first.queues.contains_key(*key));
        for queue in first.queues.keys().chain(lacking) {
            let start = first.start(*queue).max(other.start(*queue));
            let (a, b) = (from(held(first, queue), start), from(held(other, queue), start));
            if a.len() != b.len() {
                finding.add(|| {
                    let (one, two) = (&first.reader, &other.reader);
                    format!("{queue}: {one} holds {} messages, {two} holds {}", a.len(), b.len())
                });
            }
            // At most one breach: everything after the first difference differs as well.
            if let Some((one, two)) = a.iter().zip(b).find(|(one, two)| one != two) {
                finding
                    .add(|| format!("{queue}: {} has {one:?}, {} has {two:?}", first.reader, other.reader));
            }
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

#[cfg(test)]
mod tests {
    use super::super::sample::{found, reading};
    use super::*;

    #[test]
    fn a_shorter_replica_and_a_different_one_disagree() {
        let whole = reading([found(0, 0), found(1, 1)]);
        let short = check(&[whole.clone(), reading([found(0, 0)])]);
        assert_eq!(short.count, 1);
        assert!(short.fails());
        let other = check(&[whole.clone(), reading([found(0, 0), found(1, 2)])]);
        assert_eq!(other.count, 1);
        let empty = Reading::default();
        assert_eq!(check(&[empty, whole]).count, 1, "a queue the first replica lacks");
    }

    #[test]
    fn equal_replicas_agree() {
        let whole = reading([found(0, 0), found(1, 1)]);
        assert_eq!(check(&[whole.clone(), whole]).count, 0);
    }
}
