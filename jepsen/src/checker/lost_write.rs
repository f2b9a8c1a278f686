//! lost-write: every acknowledged send is found on every replica, unless it has expired there, or a deletion of its
//! topic or queue may have taken it.

use std::collections::HashSet;

use super::Finding;
use crate::history::{History, Outcome};
use crate::reading::{QueueKey, Reading};

/// Counts sends, not replicas: a send missing on two replicas is one loss. Whether messages expire besides those that
/// are deleted is `expires`.
pub(super) fn check(history: &History, replicas: &[Reading], expires: bool) -> Finding {
    let mut finding = Finding::fatal("lost-write");
    let found: Vec<HashSet<_>> = replicas
        .iter()
        .map(|reading| reading.messages().filter_map(|(_, found)| found.key).collect())
        .collect();
    for op in &history.ops {
        let Outcome::Ok { offset, .. } = op.outcome else { continue };
        let place = QueueKey { topic: op.key.topic, queue: op.key.queue };
        if history.may_be_deleted(place, op.invoked_us) {
            continue;
        }
        // What was sent after a deletion has not expired with what that took, wherever the queue starts.
        let deletes = !expires && !history.deletions.is_empty();
        let without: Vec<&str> = replicas
            .iter()
            .zip(&found)
            .filter(|(reading, found)| {
                (deletes || offset >= reading.start(place)) && !found.contains(&op.key)
            })
            .map(|(reading, _)| reading.reader.as_str())
            .collect();
        if !without.is_empty() {
            finding.add(|| {
                format!(
                    "{} acknowledged at offset {offset} ({} us) is missing on {}",
                    op.key,
                    op.completed_us,
                    without.join(", ")
                )
            });
        }
    }
    finding
}

#[cfg(test)]
mod tests {
    use super::super::sample::{QUEUE, acked, found, history, reading, unknown};
    use super::*;
    use crate::history::Deletion;

    #[test]
    fn an_acknowledged_send_missing_on_one_replica_is_lost() {
        let history = history([acked(0, 0), acked(1, 1)]);
        let replicas = [reading([found(0, 0), found(1, 1)]), reading([found(0, 0)])];
        let finding = check(&history, &replicas, false);
        assert_eq!(finding.count, 1);
        assert!(finding.fails());
    }

    #[test]
    fn only_what_lies_before_the_first_kept_offset_has_expired() {
        let history = history([acked(0, 0), acked(1, 1), acked(2, 2)]);
        let mut replica = reading([found(2, 2)]);
        replica.starts.insert(QUEUE, 2);
        assert_eq!(check(&history, std::slice::from_ref(&replica), false).count, 0);
        replica.starts.insert(QUEUE, 1);
        assert_eq!(check(&history, &[replica], false).count, 1);
    }

    #[test]
    fn what_was_sent_after_a_deletion_must_be_there_and_what_it_may_have_taken_not() {
        let deletion = |acked_us| Deletion { topic: 0, from_queue: 0, invoked_us: 12, acked_us };
        let with = |acked_us| History {
            deletions: vec![deletion(acked_us)],
            ..history([acked(0, 0), acked(1, 1), acked(2, 2)])
        };
        // The second one was sent while the deletion was under way.
        let mut replica = reading([found(2, 2)]);
        replica.starts.insert(QUEUE, 2);
        assert_eq!(check(&with(Some(14)), &[replica], false).count, 0);
        let mut later = reading([]);
        later.starts.insert(QUEUE, 3);
        assert_eq!(
            check(&with(Some(14)), std::slice::from_ref(&later), false).count,
            1,
            "it starts too late"
        );
        assert_eq!(check(&with(None), &[later], false).count, 0, "the deletion may take effect late");
    }

    #[test]
    fn a_missing_send_of_unknown_outcome_is_no_loss() {
        let history = history([acked(0, 0), unknown(1)]);
        assert_eq!(check(&history, &[reading([found(0, 0)])], false).count, 0);
    }
}
