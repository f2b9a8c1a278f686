//! unseen: every acknowledged message reaches every consumer that stayed until the end.
//!
//! The members of a group are one consumer: together they must have been given each message at
//! least once, whichever member died meanwhile. Where old messages expire while disks are full, they may expire before a consumer had
//! a chance to read them: a node that has no room takes no records, and the others do not wait for it.

use std::collections::HashSet;

use super::Finding;
use crate::history::{History, Outcome};
use crate::payload::OpKey;
use crate::reading::{QueueKey, Reading};

/// Counts a message once for each consumer that missed it; one that was given nothing missed all. What every one of
/// `outran` has dropped by the end is not counted.
pub(super) fn check(history: &History, consumed: &[Reading], outran: &[Reading]) -> Finding {
    let is_dropped = |queue: QueueKey, offset: u64| {
        !outran.is_empty() && outran.iter().all(|replica| offset < replica.start(queue))
    };
    let mut finding = Finding::fatal("unseen");
    for consumer in &history.consumers {
        let given = consumed.iter().filter(|reading| reading.reader == *consumer);
        let given = given.flat_map(Reading::messages).filter_map(|(_, found)| found.key);
        let seen: HashSet<OpKey> = given.collect();
        for op in &history.ops {
            let Outcome::Ok { offset, .. } = op.outcome else { continue };
            let queue = QueueKey { topic: op.key.topic, queue: op.key.queue };
            if !seen.contains(&op.key) && !is_dropped(queue, offset) {
                finding.add(|| {
                    let (key, at) = (op.key, op.completed_us);
                    format!("{}: never given {key}, acknowledged at offset {offset} ({at} us)", consumer)
                });
            }
        }
    }
    finding
}

#[cfg(test)]
mod tests {
    use super::super::sample::{QUEUE, acked, found, history, reading, unknown};
    use super::*;

    #[test]
    fn an_acknowledged_message_that_one_consumer_never_got_is_unseen() {
        let mut history = history([acked(0, 0), acked(1, 1)]);
        history.consumers.push("node 1".to_owned());
        let whole = reading([found(0, 0), found(1, 1)]);
        let finding = check(&history, &[reading([found(0, 0)])], &[]);
        assert_eq!(finding.count, 1);
        assert!(finding.fails());
        assert_eq!(check(&history, &[whole], &[]).count, 0);
        assert_eq!(check(&history, &[], &[]).count, 2, "a consumer that was given nothing at all");
    }

    #[test]
    fn seeing_a_message_twice_or_missing_one_of_unknown_outcome_is_right() {
        let mut history = history([acked(0, 0), unknown(1)]);
        history.consumers.push("node 1".to_owned());
        assert_eq!(check(&history, &[reading([found(0, 0), found(0, 0)])], &[]).count, 0);
    }

    #[test]
    fn a_message_that_every_replica_has_dropped_may_have_outrun_a_consumer() {
        let mut history = history([acked(0, 0), acked(1, 1)]);
        history.consumers.push("node 1".to_owned());
        let replica = |start| {
            let mut replica = reading([found(1, 1)]);
            replica.starts.insert(QUEUE, start);
            replica
        };
        let given = [reading([found(1, 1)])];
        assert_eq!(check(&history, &given, &[replica(1), replica(1)]).count, 0);
        assert_eq!(check(&history, &given, &[replica(1), replica(0)]).count, 1, "one keeps it");
        assert_eq!(check(&history, &given, &[]).count, 1, "no disk was full");
        assert_eq!(check(&history, &[reading([])], &[replica(1)]).count, 1, "the other one is kept");
    }
}
