//! The promises, one a file: each takes the history and the readings and returns what broke it.
//!
//! A checker does no I/O and knows nothing of the cluster, so each is tested with a made-up
//! history that breaks its promise. The names follow those of `jepsen.tests.kafka`.

mod agreement;
mod calm;
mod delays;
mod duplicate;
mod finding;
mod inconsistent_offsets;
mod invented;
mod linearizable;
mod lost_repeat;
mod lost_write;
mod nonmonotonic_poll;
mod offset_gap;
mod offset_went_back;
mod once;
mod out_of_order;
mod poll_skip;
mod pops;
pub mod replicas;
mod reread;
mod resurrected;
mod retained_missing;
mod rules;
mod send_backs;
mod transactions;
mod unseen;

use std::borrow::Cow;

pub use finding::Finding;
pub use rules::Rules;

use crate::history::History;
use crate::reading::Reading;

/// Every checker: its name in reports and what it looks for.
pub const ALL: [(&str, &str); 28] = [
    ("lost-write", "an acknowledged message is missing on a replica"),
    ("invented", "a message nobody sent, or with a changed byte"),
    ("lost-repeat", "an object that was sent again on purpose was acknowledged and not stored again"),
    ("resurrected", "a refused message, or one that a deletion took, is there all the same"),
    ("inconsistent-offsets", "one offset held two messages, for whoever asked whenever"),
    ("out-of-order", "a producer's acknowledged messages changed their order within a queue"),
    (
        "duplicate",
        "an acknowledged message is stored twice; with retries, any message more often than it was sent",
    ),
    ("doubled", "a message that was popped was given to its group again while it was in flight"),
    ("refused", "an acknowledgement of a popped message was refused though nothing had replaced its handle"),
    ("early", "a message came, or a producer was asked, before its time"),
    ("late", "a message came later after its time than a calm cluster may take"),
    ("unresolved", "a transaction that nobody ended was not ended by what its producers answered"),
    ("contradicted", "a transaction ended otherwise than a producer was told"),
    ("asked-again", "a producer was asked about a transaction that it was told to have ended"),
    ("origin", "a message that was sent back lost its key, or where it came from"),
    ("offset-gap", "a queue's offsets have a hole"),
    ("agreement", "two replicas hold different queues"),
    ("retained-missing", "a replica's queue starts later than what another one still keeps"),
    ("poll-skip", "a consumer was led past a message"),
    ("nonmonotonic-poll", "a consumer was led back"),
    ("unseen", "an acknowledged message never reached a consumer that stayed until the end"),
    ("reread", "what a consumer was given once is not given again"),
    ("offset-went-back", "a group's offset is older than one that was acknowledged or told"),
    ("linearizable", "no order of appends and reads explains what clients of a queue saw"),
    ("replicas", "the replicas' log files differ below the committed position"),
    ("crashes", "a node ended by itself, or a thread panicked"),
    ("stuck", "the cluster did not serve again in time, or a fault could not be healed"),
    ("unreadable", "a replica's queues could not be read to their end"),
];

/// Runs every checker on what one workload did and saw. `replicas` are readings of each replica to
/// the end; what consumers were given meanwhile is in the history.
#[must_use]
pub fn check_all(history: &History, replicas: &[Reading], rules: Rules) -> Vec<Finding> {
    let (whole, whole_consumed) = (replicas, history.consumed());
    // What came by a consumer group's own topics is a copy of what was sent: it is judged apart.
    let home = at_home(replicas, rules.moves);
    let replicas = &*home;
    let consumed_home = at_home(&whole_consumed, rules.moves);
    let consumed = &*consumed_home;
    let all: Vec<&Reading> = replicas.iter().chain(consumed).collect();
    let mut findings = vec![
        lost_write::check(history, replicas, rules.expires),
        lost_repeat::check(history, replicas),
        invented::check(history, &all),
        resurrected::check(history, &all),
        resurrected::deleted(history, replicas),
        inconsistent_offsets::check(history, &all),
        out_of_order::check(history, replicas),
        duplicate::acknowledged(history, replicas),
        duplicate::unknown(history, replicas, rules.retried),
        duplicate::repeats(history, replicas),
        offset_gap::check(whole),
        agreement::check(whole),
        retained_missing::check(whole),
        poll_skip::check(&history.polls, whole),
        nonmonotonic_poll::check(&history.polls),
        reread::check(whole, &whole_consumed),
        offset_went_back::check(history),
        offset_went_back::late(history),
        linearizable::check(history, replicas),
    ];
    findings.extend(delays::check(history, replicas, consumed, rules));
    findings.extend(send_backs::check(history, whole, &whole_consumed, rules));
    findings.extend(transactions::check(history, replicas, consumed, rules));
    findings.extend(pops::check(history, replicas, rules));
    if rules.drained {
        let outran = if rules.outran { replicas } else { &[] };
        findings.push(unseen::check(history, consumed, outran));
    }
    findings
}

/// Readings without what came by consumer groups' own topics, if there are such.
fn at_home(readings: &[Reading], moves: bool) -> Cow<'_, [Reading]> {
    match moves {
        true => readings.iter().map(|reading| reading.of_topic(0)).collect(),
        false => Cow::Borrowed(readings),
    }
}

#[cfg(test)]
mod sample {
    //! Small histories for the checkers' tests.

    use crate::history::{History, Op, Outcome, Poll};
    use crate::payload::OpKey;
    use crate::reading::{Found, QueueKey, Reading};

    pub(crate) const QUEUE: QueueKey = QueueKey { topic: 0, queue: 0 };

    pub(crate) fn key(seq: u64) -> OpKey {
        OpKey { topic: 0, queue: 0, producer: 0, seq }
    }

    pub(crate) fn op(seq: u64, outcome: Outcome) -> Op {
        Op { key: key(seq), invoked_us: seq * 10, completed_us: seq * 10 + 5, resent: 0, outcome }
    }

    pub(crate) fn acked(seq: u64, offset: u64) -> Op {
        op(seq, Outcome::Ok { offset, position: None })
    }

    pub(crate) fn unknown(seq: u64) -> Op {
        op(seq, Outcome::Unknown { error: "timeout".to_owned() })
    }

    pub(crate) fn failed(seq: u64) -> Op {
        op(seq, Outcome::Fail { error: "busy".to_owned() })
    }

    pub(crate) fn history(ops: impl IntoIterator<Item = Op>) -> History {
        History { ops: ops.into_iter().collect(), ..History::default() }
    }

    pub(crate) fn found(offset: u64, seq: u64) -> Found {
        Found { offset, position: offset * 100, size: 100, key: Some(key(seq)), marks: None }
    }

    pub(crate) fn poll<const N: usize>(from: u64, found: [Found; N], next: u64) -> Poll {
        Poll {
            consumer: "reader".to_owned(),
            session: 0,
            broker: "a".to_owned(),
            queue: QUEUE,
            from,
            next,
            invoked_us: 0,
            completed_us: 1,
            found: found.to_vec(),
        }
    }

    pub(crate) fn reading(found: impl IntoIterator<Item = Found>) -> Reading {
        let queues = [(QUEUE, found.into_iter().collect())].into();
        Reading { reader: "node 1".to_owned(), queues, ..Reading::default() }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_finding_has_its_line_in_the_list() {
        let rules = Rules { retried: true, drained: true, ..Rules::default() };
        let mut names: Vec<&str> =
            check_all(&History::default(), &[], rules).iter().map(|finding| finding.name).collect();
        names.extend(["replicas", "crashes", "stuck", "unreadable"]);
        names.retain(|name| *name != "offset-went-back-late");
        let names: std::collections::BTreeSet<&str> = names.into_iter().collect();
        let listed: std::collections::BTreeSet<&str> = ALL.iter().map(|(name, _)| *name).collect();
        assert_eq!(names, listed);
        assert_eq!(listed.len(), ALL.len());
    }
}
