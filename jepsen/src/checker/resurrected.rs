//! resurrected: a send the server refused, or that never left the client, is found nowhere; and nothing that was
//! deleted with its topic or queue is served after the deletion was acknowledged, by no node.
//!
//! A refusal tells the client that sending again is safe; if the first one is there all the same,
//! the client has been made to duplicate its message.

use std::collections::HashMap;

use super::Finding;
use crate::history::{Deletion, History, Outcome};
use crate::payload::OpKey;
use crate::reading::{Found, QueueKey, Reading};

pub(super) fn check(history: &History, readings: &[&Reading]) -> Finding {
    let refused: HashMap<_, _> = history
        .ops
        .iter()
        .filter_map(|op| match &op.outcome {
            Outcome::Fail { error } => Some((op.key, error)),
            Outcome::Ok { .. } | Outcome::Unknown { .. } => None,
        })
        .collect();
    let mut finding = Finding::fatal("resurrected");
    for reading in readings {
        for (queue, found) in reading.messages() {
            if let Some(error) = found.key.and_then(|key| refused.get(&key)) {
                finding.add(|| {
                    format!(
                        "{}: {queue} offset {} holds a send that was refused with: {error}",
                        reading.reader, found.offset
                    )
                });
            }
        }
    }
    finding
}

/// What was acknowledged before a deletion was asked for: in what consumers were given later, and in the replicas.
pub(super) fn deleted(history: &History, replicas: &[Reading]) -> Finding {
    let mut finding = Finding::fatal("resurrected");
    if history.deletions.is_empty() {
        return finding;
    }
    let acked = history.ops.iter().filter(|op| matches!(op.outcome, Outcome::Ok { .. }));
    let completed_us: HashMap<OpKey, u64> = acked.map(|op| (op.key, op.completed_us)).collect();
    // When it was certainly gone.
    let gone_us = |queue: QueueKey, key: OpKey| {
        let sent_us = *completed_us.get(&key)?;
        let took = |deletion: &&Deletion| deletion.takes(queue) && sent_us < deletion.invoked_us;
        history.deletions.iter().filter(took).filter_map(|deletion| deletion.acked_us).min()
    };
    let mut add = |who: &str, queue: QueueKey, found: &Found, asked_us: u64| {
        let gone = found.key.and_then(|key| Some((key, gone_us(queue, key)?)));
        if let Some((key, gone_us)) = gone.filter(|(_, gone_us)| *gone_us < asked_us) {
            finding.add(|| {
                format!("{who}: {queue} offset {} holds {key}, deleted at {gone_us} us", found.offset)
            });
        }
    };
    for poll in &history.polls {
        poll.found.iter().for_each(|found| add(&poll.consumer, poll.queue, found, poll.invoked_us));
    }
    for reading in replicas {
        reading.messages().for_each(|(queue, found)| add(&reading.reader, queue, found, u64::MAX));
    }
    finding
}

#[cfg(test)]
mod tests {
    use super::super::sample::{QUEUE, acked, failed, found, history, poll, reading, unknown};
    use super::*;

    fn with_deletion(acked_us: Option<u64>) -> History {
        let deletion = Deletion { topic: 0, from_queue: 0, invoked_us: 12, acked_us };
        History { deletions: vec![deletion], ..history([acked(0, 0), acked(1, 1), acked(2, 2)]) }
    }

    #[test]
    fn a_deleted_message_that_is_served_again_breaks_it() {
        let replica = reading([found(0, 0), found(1, 1), found(2, 2)]);
        let finding = deleted(&with_deletion(Some(14)), std::slice::from_ref(&replica));
        assert_eq!(
            finding.count, 1,
            "the second one was sent meanwhile, the third one after it: {finding:?}"
        );
        assert!(finding.fails());
        assert_eq!(deleted(&with_deletion(None), std::slice::from_ref(&replica)).count, 0);
        let mut other_queues = with_deletion(Some(14));
        other_queues.deletions[0].from_queue = QUEUE.queue + 1;
        assert_eq!(deleted(&other_queues, &[replica]).count, 0);
    }

    #[test]
    fn a_reader_may_be_given_it_until_the_deletion_is_acknowledged() {
        let mut history = with_deletion(Some(14));
        let mut early = poll(0, [found(0, 0)], 1);
        early.invoked_us = 13;
        history.polls.push(early.clone());
        assert_eq!(deleted(&history, &[]).count, 0);
        history.polls.push(crate::history::Poll { invoked_us: 15, ..early });
        assert_eq!(deleted(&history, &[]).count, 1);
    }

    #[test]
    fn a_refused_send_that_is_there_breaks_it() {
        let reading = reading([found(0, 0)]);
        let finding = check(&history([failed(0)]), &[&reading]);
        assert_eq!(finding.count, 1);
        assert!(finding.fails());
    }

    #[test]
    fn acknowledged_and_unknown_sends_may_be_there() {
        let reading = reading([found(0, 0), found(1, 1)]);
        assert_eq!(check(&history([acked(0, 0), unknown(1)]), &[&reading]).count, 0);
    }
}
