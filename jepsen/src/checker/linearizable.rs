//! linearizable: each queue is one log, and every append to it and read of it happened at one moment
//! between its question and its answer.
//!
//! The search is not ours: it is the Wing-Gong-Lowe checker of `todc-utils`, the algorithm that
//! Porcupine and Knossos use. What is ours is how requests become operations on a log `L`:
//!
//! | request and answer | operation |
//! |---|---|
//! | SEND acknowledged at `queueOffset` n | append the message; right if `L` had n messages |
//! | SEND of unknown outcome, found later at offset n | the same, but it may happen at any time after its start |
//! | SEND of unknown outcome, found nowhere | none: it may happen after everything else |
//! | SEND refused | none (`resurrected` looks for it) |
//! | PULL from offset n with messages, at any node | read; right if `L` holds just these from n on |
//! | PULL without messages | none: a follower may lag, and says nothing of the log's end |
//! | PULL far behind the end: PULL_OFFSET_MOVED to n | length; right if `L` has n messages: the leader proves its leadership first |
//!
//! A message's offset is known once it was seen, so at each moment at most one append fits: the
//! search stays short. The workload bounds the operations per queue all the same.

use std::collections::{BTreeMap, BTreeSet, HashMap};

use todc_utils::linearizability::WGLChecker;
use todc_utils::linearizability::history::{Action, History as Actions};
use todc_utils::specifications::Specification;

use super::Finding;
use crate::history::{History, Outcome};
use crate::payload::OpKey;
use crate::reading::{Found, QueueKey, Reading};

/// Queues with a sure answer about their length are judged; others belong to other workloads. Nothing
/// is where no replica could be read, which is a finding of its own.
pub(super) fn check(history: &History, replicas: &[Reading]) -> Finding {
    let mut finding = Finding::fatal("linearizable");
    if replicas.is_empty() {
        // Where a send of unknown outcome went, if anywhere, is then anybody's guess.
        return finding;
    }
    let mut judged: BTreeSet<QueueKey> = history.ends.iter().map(|end| end.queue).collect();
    // Whether a send of unknown outcome is among what has expired, nobody can tell.
    judged.retain(|queue| replicas.iter().all(|replica| replica.start(*queue) == 0));
    let mut queues: BTreeMap<QueueKey, Vec<Timed>> = BTreeMap::new();
    for (queue, timed) in appends(history, replicas).chain(reads(history)).chain(ends(history)) {
        if judged.contains(&queue) {
            queues.entry(queue).or_default().push(timed);
        }
    }
    for (queue, operations) in queues {
        if let Some((culprit, before)) = first_unexplained(&operations) {
            finding.add(|| {
                let Timed { invoked_us, completed_us, what } = culprit;
                format!(
                    "{queue}: no order of {before} operations explains {what:?} ({invoked_us} to {completed_us} us)"
                )
            });
        }
    }
    finding
}

/// A message, or bytes that are none of ours.
type Value = Option<OpKey>;

#[derive(Debug, Clone, PartialEq, Eq)]
enum Operation {
    Append { value: OpKey, offset: u64 },
    Read { from: u64, values: Vec<Value> },
    Length(u64),
}

#[derive(Debug, Clone, PartialEq, Eq)]
struct Timed {
    invoked_us: u64,
    completed_us: u64,
    what: Operation,
}

impl Operation {
    /// How many messages the log certainly has with it.
    fn shows(&self) -> u64 {
        match self {
            Self::Append { offset, .. } => offset.saturating_add(1),
            Self::Read { from, values } => from.saturating_add(values.len() as u64),
            Self::Length(length) => *length,
        }
    }
}

/// A log that only grows.
struct Log;

impl Specification for Log {
    type State = Vec<OpKey>;
    type Operation = Operation;

    fn init() -> Self::State {
        Vec::new()
    }

    fn apply(operation: &Operation, log: &Self::State) -> (bool, Self::State) {
        let fits = match operation {
            Operation::Append { value, offset } if *offset == log.len() as u64 => {
                let mut longer = log.clone();
                longer.push(*value);
                return (true, longer);
            }
            Operation::Append { .. } => false,
            Operation::Read { from, values } => {
                let rest = usize::try_from(*from).ok().and_then(|from| log.get(from..)).unwrap_or(&[]);
                rest.len() >= values.len() && rest.iter().zip(values).all(|(held, seen)| Some(*held) == *seen)
            }
            Operation::Length(length) => *length == log.len() as u64,
        };
        (fits, log.clone())
    }
}

fn appends(history: &History, replicas: &[Reading]) -> impl Iterator<Item = (QueueKey, Timed)> {
    let seen: HashMap<OpKey, u64> = replicas
        .iter()
        .flat_map(Reading::messages)
        .map(|(_, found)| found)
        .chain(history.polls.iter().flat_map(|poll| &poll.found))
        .filter_map(|found| Some((found.key?, found.offset)))
        .collect();
    history.ops.iter().filter_map(move |op| {
        let (offset, completed_us) = match op.outcome {
            Outcome::Ok { offset, .. } => (offset, op.completed_us),
            Outcome::Unknown { .. } => (*seen.get(&op.key)?, u64::MAX),
            Outcome::Fail { .. } => return None,
        };
        let queue = QueueKey { topic: op.key.topic, queue: op.key.queue };
        let what = Operation::Append { value: op.key, offset };
        Some((queue, Timed { invoked_us: op.invoked_us, completed_us, what }))
    })
}

fn reads(history: &History) -> impl Iterator<Item = (QueueKey, Timed)> {
    history.polls.iter().map(|poll| {
        let from = poll.found.first().map_or(poll.from, |found: &Found| found.offset);
        let values = poll.found.iter().map(|found| found.key).collect();
        let what = Operation::Read { from, values };
        (poll.queue, Timed { invoked_us: poll.invoked_us, completed_us: poll.completed_us, what })
    })
}

fn ends(history: &History) -> impl Iterator<Item = (QueueKey, Timed)> {
    history.ends.iter().map(|end| {
        let what = Operation::Length(end.end);
        (end.queue, Timed { invoked_us: end.invoked_us, completed_us: end.completed_us, what })
    })
}

/// An operation that nobody saw the end of.
const NEVER_US: u64 = u64::MAX;

/// The operation whose answer is the first that no order explains, and how many were over by then.
/// A beginning of a linearizable history is linearizable, so it is searched by halves.
fn first_unexplained(operations: &[Timed]) -> Option<(&Timed, usize)> {
    if is_linearizable(operations, NEVER_US - 1) {
        return None;
    }
    let mut over: Vec<&Timed> = operations.iter().filter(|timed| timed.completed_us < NEVER_US).collect();
    over.sort_by_key(|timed| timed.completed_us);
    let first = over.partition_point(|timed| is_linearizable(operations, timed.completed_us));
    over.get(first).map(|timed| (*timed, first + 1))
}

/// Judges what clients knew at `until_us`. Reads without an answer by then are left out; appends
/// without one are part of the log if somebody saw a message at their offset or behind it.
fn is_linearizable(operations: &[Timed], until_us: u64) -> bool {
    let over = |timed: &&Timed| timed.completed_us <= until_us;
    let shown = operations.iter().filter(over).map(|timed| timed.what.shows()).max().unwrap_or(0);
    let mut events = Vec::new();
    for (process, timed) in operations.iter().enumerate() {
        let completed_us = match timed.what {
            _ if over(&timed) => timed.completed_us,
            Operation::Append { offset, .. } if offset < shown && timed.invoked_us <= until_us => NEVER_US,
            _ => continue,
        };
        // At the same microsecond questions come first: what may overlap is taken to overlap.
        events.push((timed.invoked_us, 0, process, Action::Call(timed.what.clone())));
        events.push((completed_us, 1, process, Action::Response(timed.what.clone())));
    }
    events.sort_by_key(|(at_us, order, process, _)| (*at_us, *order, *process));
    let actions: Vec<_> = events.into_iter().map(|(_, _, process, action)| (process, action)).collect();
    actions.is_empty() || WGLChecker::<Log>::is_linearizable(Actions::from_actions(actions))
}

#[cfg(test)]
mod tests {
    use super::super::sample::{QUEUE, acked, found, history, op, poll, reading, unknown};
    use super::*;
    use crate::history::{End, Op, Poll};

    /// Sends are asked at `seq * 10` and answered 5 later.
    fn judge(ops: &[Op], polls: &[(u64, Poll)], ends: &[(u64, u64)], replica: &[Found]) -> Finding {
        let mut history = history(ops.to_vec());
        for (at_us, poll) in polls {
            history.polls.push(Poll { invoked_us: *at_us, completed_us: at_us + 2, ..poll.clone() });
        }
        // One at the very beginning makes the queue one that is judged.
        for (at_us, end) in ends.iter().chain(&[(0, 0)]) {
            let (invoked_us, completed_us) = (*at_us, at_us + 2);
            history.ends.push(End { queue: QUEUE, invoked_us, completed_us, end: *end });
        }
        check(&history, &[reading(replica.to_vec())])
    }

    fn two() -> [Op; 2] {
        [acked(1, 0), acked(2, 1)]
    }

    #[test]
    fn appends_and_reads_in_their_order_are_linearizable() {
        let polls = [(16, poll(0, [found(0, 1)], 1)), (26, poll(0, [found(0, 1), found(1, 2)], 2))];
        let finding = judge(&two(), &polls, &[(16, 1), (22, 1), (22, 2), (26, 2)], &[]);
        assert_eq!(finding.count, 0, "{finding:?}");
        let overlap = op(2, Outcome::Ok { offset: 0, position: None });
        let early = Op { invoked_us: 12, ..overlap };
        assert_eq!(judge(&[acked(1, 1), early], &[], &[], &[]).count, 0, "they overlapped");
    }

    #[test]
    fn an_old_length_after_an_acknowledgement_is_not() {
        let finding = judge(&two(), &[], &[(26, 1)], &[]);
        assert_eq!(finding.count, 1);
        assert!(finding.fails());
        assert!(finding.examples[0].contains("Length(1)"), "{:?}", finding.examples);
    }

    #[test]
    fn a_read_of_what_was_not_yet_sent_or_at_another_place_is_not() {
        assert_eq!(judge(&two(), &[(5, poll(0, [found(0, 1)], 1))], &[], &[]).count, 1);
        assert_eq!(judge(&two(), &[(26, poll(0, [found(0, 2)], 1))], &[], &[]).count, 1);
    }

    #[test]
    fn a_later_append_at_an_earlier_offset_is_not() {
        assert_eq!(judge(&[acked(1, 1), acked(2, 0)], &[], &[], &[]).count, 1);
    }

    #[test]
    fn an_append_of_unknown_outcome_may_happen_late_or_never_but_only_once() {
        let ops = [unknown(1), acked(2, 0)];
        assert_eq!(judge(&ops, &[], &[(26, 1)], &[]).count, 0, "never");
        let late = judge(&ops, &[], &[(26, 1), (40, 2)], &[found(0, 2), found(1, 1)]);
        assert_eq!(late.count, 0, "after the other one: {late:?}");
        let gone = judge(&ops, &[], &[(26, 2), (40, 1)], &[found(0, 2), found(1, 1)]);
        assert_eq!(gone.count, 1, "it was there and went");
    }
}
