//! duplicate: a send is stored at most once.
//!
//! Where clients never send the same body twice, a second copy was made inside the cluster (a
//! forwarded request tried again, a record proposed again). For an acknowledged send that is an
//! error; for one of unknown outcome it is only counted. Where clients send again after an unknown
//! outcome, under the same unique key, any second copy is an error: the leader knows the key.

use std::collections::{HashMap, HashSet};

use super::Finding;
use crate::history::{History, Outcome};
use crate::payload::OpKey;
use crate::reading::Reading;

/// Acknowledged sends that are stored more than once.
pub(super) fn acknowledged(history: &History, replicas: &[Reading]) -> Finding {
    count(Finding::fatal("duplicate"), &keys(history, true), replicas)
}

/// Sends of unknown outcome that are stored more than once; an error if they were `retried`.
pub(super) fn unknown(history: &History, replicas: &[Reading], retried: bool) -> Finding {
    let finding = if retried { Finding::fatal("duplicate") } else { Finding::counted("duplicate") };
    count(finding, &keys(history, false), replicas)
}

fn keys(history: &History, acked: bool) -> HashSet<OpKey> {
    let wanted = history.ops.iter().filter(|op| matches!(op.outcome, Outcome::Ok { .. }) == acked);
    wanted.map(|op| op.key).collect()
}

fn count(mut finding: Finding, keys: &HashSet<OpKey>, replicas: &[Reading]) -> Finding {
    for reading in replicas {
        let mut seen: HashMap<OpKey, u64> = HashMap::new();
        for (queue, found) in reading.messages() {
            let Some(key) = found.key.filter(|key| keys.contains(key)) else { continue };
            if let Some(first) = seen.insert(key, found.offset) {
                finding.add(|| {
                    format!(
                        "{}: {queue} holds {key} at offset {first} and again at {}",
                        reading.reader, found.offset
                    )
                });
            }
        }
    }
    finding
}

#[cfg(test)]
mod tests {
    use super::super::sample::{acked, found, history, reading, unknown as unclear};
    use super::*;

    #[test]
    fn a_second_copy_of_an_acknowledged_send_fails_the_run() {
        let replicas = [reading([found(0, 0), found(1, 0)])];
        let finding = acknowledged(&history([acked(0, 0)]), &replicas);
        assert_eq!(finding.count, 1);
        assert!(finding.fails());
    }

    #[test]
    fn a_second_copy_of_a_send_of_unknown_outcome_is_only_counted() {
        let replicas = [reading([found(0, 0), found(1, 0)])];
        let history = history([unclear(0)]);
        assert_eq!(acknowledged(&history, &replicas).count, 0);
        let finding = unknown(&history, &replicas, false);
        assert_eq!(finding.count, 1);
        assert!(!finding.fails());
    }

    #[test]
    fn where_sends_are_retried_no_second_copy_is_right() {
        let replicas = [reading([found(0, 0), found(1, 0)])];
        assert!(unknown(&history([unclear(0)]), &replicas, true).fails());
        assert!(acknowledged(&history([acked(0, 0)]), &replicas).fails());
        let once = [reading([found(0, 0)])];
        assert_eq!(unknown(&history([unclear(0)]), &once, true).count, 0);
    }

    #[test]
    fn one_copy_on_each_replica_is_right() {
        let replicas = [reading([found(0, 0)]), reading([found(0, 0)])];
        assert_eq!(acknowledged(&history([acked(0, 0)]), &replicas).count, 0);
    }
}
