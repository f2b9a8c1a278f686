//! reread: what a consumer was given once, at an offset, every replica gives again at that offset.
//!
//! So no reader was ever shown what was not committed, and nothing that was shown is taken back.

use std::collections::HashMap;

use super::Finding;
use crate::reading::{Found, QueueKey, Reading};

/// Looks for everything consumers were given in every replica, unless it has expired there.
pub(super) fn check(replicas: &[Reading], consumed: &[Reading]) -> Finding {
    let mut finding = Finding::fatal("reread");
    for replica in replicas {
        let held: HashMap<(QueueKey, u64), &Found> =
            replica.messages().map(|(queue, found)| ((queue, found.offset), found)).collect();
        for reading in consumed {
            for (queue, seen) in reading.messages() {
                let again = held.get(&(queue, seen.offset));
                let expired = seen.offset < replica.start(queue);
                if !expired && again.is_none_or(|found| *found != seen) {
                    finding.add(|| {
                        let what = again.map_or("nothing".to_owned(), |found| format!("{found:?}"));
                        let (who, where_) = (&reading.reader, &replica.reader);
                        format!("{queue}: {who} was given {seen:?}, {where_} has {what} there")
                    });
                }
            }
        }
    }
    finding
}

#[cfg(test)]
mod tests {
    use super::super::sample::{QUEUE, found, reading};
    use super::*;

    #[test]
    fn a_message_that_was_seen_and_is_gone_or_another_one_is_found() {
        let seen = [reading([found(0, 0), found(1, 1)])];
        let gone = check(&[reading([found(0, 0)])], &seen);
        assert_eq!(gone.count, 1);
        assert!(gone.fails());
        assert_eq!(check(&[reading([found(0, 0), found(1, 5)])], &seen).count, 1);
    }

    #[test]
    fn a_reader_may_stop_early_and_what_expired_may_be_gone() {
        let seen = [reading([found(0, 0)])];
        assert_eq!(check(&[reading([found(0, 0), found(1, 1)])], &seen).count, 0);
        let mut later = reading([found(1, 1)]);
        later.starts.insert(QUEUE, 1);
        assert_eq!(check(&[later], &seen).count, 0);
    }
}
