//! unseen: every acknowledged message reaches every consumer that stayed until the end.
//!
//! The members of a group are one consumer: together they must have been given each message at
//! least once, whoever died meanwhile.

use std::collections::HashSet;

use super::Finding;
use crate::history::{History, Outcome};
use crate::payload::OpKey;
use crate::reading::Reading;

/// Counts a message once for each consumer that missed it.
pub(super) fn check(history: &History, consumed: &[Reading]) -> Finding {
    let mut finding = Finding::fatal("unseen");
    for reading in consumed {
        let seen: HashSet<OpKey> = reading.messages().filter_map(|(_, found)| found.key).collect();
        for op in &history.ops {
            let Outcome::Ok { offset, .. } = op.outcome else { continue };
            if !seen.contains(&op.key) {
                finding.add(|| {
                    let (key, at) = (op.key, op.completed_us);
                    format!(
                        "{}: never given {key}, acknowledged at offset {offset} ({at} us)",
                        reading.reader
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
    fn an_acknowledged_message_that_one_consumer_never_got_is_unseen() {
        let history = history([acked(0, 0), acked(1, 1)]);
        let whole = reading([found(0, 0), found(1, 1)]);
        let finding = check(&history, &[whole.clone(), reading([found(0, 0)])]);
        assert_eq!(finding.count, 1);
        assert!(finding.fails());
        assert_eq!(check(&history, &[whole]).count, 0);
    }

    #[test]
    fn seeing_a_message_twice_or_missing_one_of_unknown_outcome_is_right() {
        let history = history([acked(0, 0), unknown(1)]);
        assert_eq!(check(&history, &[reading([found(0, 0), found(0, 0)])]).count, 0);
    }
}
