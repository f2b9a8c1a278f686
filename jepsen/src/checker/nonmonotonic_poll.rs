//! nonmonotonic-poll: within a session a consumer's offsets only grow.

use std::collections::HashMap;

use super::Finding;
use crate::history::Poll;
use crate::reading::QueueKey;

/// Whatever node answers: a reader that moves on to a node that lags waits there, it is not sent back.
pub(super) fn check(polls: &[Poll]) -> Finding {
    let mut finding = Finding::fatal("nonmonotonic-poll");
    let mut reached: HashMap<(&str, u64, QueueKey), u64> = HashMap::new();
    for poll in polls {
        let session = (poll.consumer.as_str(), poll.session, poll.queue);
        let mut least = reached.get(&session).copied().unwrap_or(0);
        for offset in poll.found.iter().map(|found| found.offset).chain([poll.next]) {
            if offset < least {
                finding.add(|| {
                    let Poll { consumer, queue, broker, from, .. } = poll;
                    format!("{queue}: {consumer} had reached {least}, asked {broker} for {from} and was given {offset}")
                });
            }
            least = if offset == poll.next { least.max(offset) } else { offset + 1 };
        }
        reached.insert(session, least);
    }
    finding
}

#[cfg(test)]
mod tests {
    use super::super::sample::{found, poll};
    use super::*;

    #[test]
    fn a_step_back_within_a_poll_or_between_two_is_found() {
        let within = check(&[poll(0, [found(1, 1), found(0, 0)], 2)]);
        assert_eq!(within.count, 1);
        assert!(within.fails());
        let between = [poll(0, [found(0, 0), found(1, 1)], 2), poll(2, [found(1, 1)], 2)];
        assert_eq!(check(&between).count, 1);
        assert_eq!(check(&[poll(0, [found(0, 0), found(1, 1)], 0)]).count, 1, "told to go back");
    }

    #[test]
    fn growing_offsets_and_a_new_session_are_right() {
        let mut again = poll(0, [found(0, 0)], 1);
        again.session = 9;
        let polls = [poll(0, [found(0, 0)], 1), poll(1, [found(1, 1), found(2, 2)], 3), again];
        assert_eq!(check(&polls).count, 0);
    }
}
