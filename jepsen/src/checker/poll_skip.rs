//! poll-skip: a consumer that goes on where the broker told it to is not led past a message.
//!
//! A poll that asks for an offset is given the messages from there on, one after the other, and is
//! told to go on right after the last. Anything a replica holds in between was skipped.

use std::collections::{BTreeSet, HashMap};

use super::Finding;
use crate::history::Poll;
use crate::reading::{QueueKey, Reading};

/// Within a poll, and between two polls of one session.
pub(super) fn check(polls: &[Poll], replicas: &[Reading]) -> Finding {
    let mut finding = Finding::fatal("poll-skip");
    let mut held: HashMap<QueueKey, BTreeSet<u64>> = HashMap::new();
    for (queue, found) in replicas.iter().flat_map(Reading::messages) {
        held.entry(queue).or_default().insert(found.offset);
    }
    let mut expected: HashMap<(&str, u64, QueueKey), u64> = HashMap::new();
    for poll in polls {
        let session = (poll.consumer.as_str(), poll.session, poll.queue);
        let mut next = expected.get(&session).copied().unwrap_or(poll.from);
        for offset in poll.found.iter().map(|found| found.offset).chain([poll.next]) {
            let between = held.get(&poll.queue).map(|held| held.range(next..offset.max(next)));
            if let Some(skipped) = between.and_then(|mut between| between.next()) {
                finding.add(|| {
                    let Poll { consumer, queue, broker, from, .. } = poll;
                    format!("{queue}: {consumer} asked {broker} from {from} on and was led from {next} to {offset}, past {skipped}")
                });
            }
            next = next.max(offset + u64::from(offset != poll.next));
        }
        expected.insert(session, next);
    }
    finding
}

#[cfg(test)]
mod tests {
    use super::super::sample::{found, poll, reading};
    use super::*;

    fn replica() -> [Reading; 1] {
        [reading((0..5).map(|at| found(at, at)))]
    }

    #[test]
    fn a_message_left_out_within_a_poll_is_skipped() {
        let finding = check(&[poll(0, [found(0, 0), found(2, 2)], 3)], &replica());
        assert_eq!(finding.count, 1);
        assert!(finding.fails());
    }

    #[test]
    fn a_message_left_out_between_two_polls_is_skipped() {
        let polls = [poll(0, [found(0, 0)], 1), poll(2, [found(2, 2)], 3)];
        assert_eq!(check(&polls, &replica()).count, 1, "the second poll began behind offset 1");
        let far = [poll(0, [found(0, 0)], 4)];
        assert_eq!(check(&far, &replica()).count, 1, "told to go on too far");
    }

    #[test]
    fn polls_that_follow_each_other_skip_nothing() {
        let polls = [poll(0, [found(0, 0), found(1, 1)], 2), poll(2, [found(2, 2)], 3)];
        assert_eq!(check(&polls, &replica()).count, 0);
        let mut again = poll(0, [found(0, 0)], 1);
        again.session = 9;
        assert_eq!(check(&[polls[0].clone(), again], &replica()).count, 0, "a new session starts over");
    }
}
