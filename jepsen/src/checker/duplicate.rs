//! duplicate: a send is stored at most once.
//!
//! Where clients never send the same body twice, a second copy was made inside the cluster (a
//! forwarded request tried again, a record proposed again). For an acknowledged send that is an
//! error; for one of unknown outcome it is only counted. Where clients send again after an unknown
//! outcome, under the same unique key, any second copy is an error: the leader knows the key.

use std::collections::{HashMap, HashSet};

use super::{Finding, lost_repeat};
use crate::history::{History, How, Outcome};
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

/// Objects that were sent several times on purpose: stored at most as often as they were sent, what a client tried
/// again counted once.
///
/// Where an object had been sent before, and the node that could tell what its client knows is gone, a second try looks
/// like one more send on purpose: a copy more is then the lesser error, and allowed. The first send of an object is
/// known by its key alone: tried again, it is one message.
pub(super) fn repeats(history: &History, replicas: &[Reading]) -> Finding {
    let mut finding = Finding::fatal("duplicate");
    let objects = lost_repeat::by_object(history);
    for reading in replicas {
        let mut stored: HashMap<OpKey, usize> = HashMap::new();
        for key in reading.messages().filter_map(|(_, found)| found.key) {
            *stored.entry(key).or_default() += 1;
        }
        for (object, sends) in &objects {
            let sent = sends.iter().filter(|send| !matches!(send.outcome, Outcome::Fail { .. })).count();
            let known_by_key = |at: usize| at == 0 && sends[at].how != How::Pipelined;
            let later = sends.iter().enumerate().filter(|(at, _)| !known_by_key(*at));
            let allowed = sent + later.map(|(_, send)| send.resent as usize).sum::<usize>();
            let stored = stored.get(object).copied().unwrap_or(0);
            if stored > allowed {
                let resent: u32 = sends.iter().map(|send| send.resent).sum();
                finding.add(|| {
                    let who = &reading.reader;
                    format!(
                        "{who}: {object} is stored {stored} times, sent {sent} times ({resent} tried again)"
                    )
                });
            }
        }
    }
    finding
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
    use super::super::sample::{acked, found, history, key, reading, unknown as unclear};
    use super::*;
    use crate::history::Repeat;

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
    fn an_object_is_stored_at_most_as_often_as_it_was_sent() {
        let sent = |at, resent, outcome| Repeat {
            object: key(0),
            to: 0,
            how: How::Sync,
            invoked_us: at,
            completed_us: at + 5,
            resent,
            lived: true,
            outcome,
        };
        let ok = |offset| Outcome::Ok { offset, position: None };
        let refused = Outcome::Fail { error: "busy".to_owned() };
        let sends = vec![sent(0, 1, ok(0)), sent(10, 0, ok(1)), sent(20, 0, refused)];
        let mut history = History { repeats: sends, ..History::default() };
        let copies = |count| [reading((0..count).map(|at| found(at, 0)))];
        assert_eq!(repeats(&history, &copies(2)).count, 0);
        let finding = repeats(&history, &copies(3));
        assert_eq!(finding.count, 1, "the first one's second try is no message of its own");
        assert!(finding.fails());
        history.repeats[1].resent = 1;
        assert_eq!(repeats(&history, &copies(3)).count, 0, "a later one's second try may look like one");
        assert_eq!(repeats(&history, &copies(4)).count, 1);
    }

    #[test]
    fn one_copy_on_each_replica_is_right() {
        let replicas = [reading([found(0, 0)]), reading([found(0, 0)])];
        assert_eq!(acknowledged(&history([acked(0, 0)]), &replicas).count, 0);
    }
}
