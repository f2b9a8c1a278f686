//! Transactions: what is committed is there once, what is rolled back never, and who says nothing is asked until it is known.
//!
//! | name | what breaks it |
//! |---|---|
//! | `lost-write` | a commit was acknowledged, and its message is missing |
//! | `unresolved` | no end was acknowledged, and the message of a producer that answers with a commit is missing at the end |
//! | `duplicate` | the message of a transaction is there twice |
//! | `resurrected` | the message of a producer that rolls back is there, or one that was refused |
//! | `contradicted` | an end was refused that no other one came before, or one was acknowledged after the opposite |
//! | `asked-again` | a broker asked after it had acknowledged an end; another one, longer than [`ON_THE_WAY_MS`] after |
//! | `early` | a broker asked before the time that a producer has |

use std::collections::{HashMap, HashSet};

use super::{Finding, Rules, once};
use crate::history::{Check, Ended, Half, History, Outcome, TransactionEnd};
use crate::payload::OpKey;
use crate::reading::{Found, Reading};

/// How long a producer may say nothing before it is asked, ms: `transactions.timeout` of the nodes.
const CHECK_AFTER_MS: u64 = 3_000;
/// How long a question may be under way that another broker hands out, ms: as long as it waits for an answer, and for a node that stood still.
const ON_THE_WAY_MS: u64 = 10_000;

pub(super) fn check(
    history: &History,
    replicas: &[Reading],
    consumed: &[Reading],
    rules: Rules,
) -> Vec<Finding> {
    let halves = history.halves.iter().map(|half| (half.op.key, half)).collect();
    let transactions = Transactions { history, halves, rules };
    let all: Vec<&Reading> = replicas.iter().chain(consumed).collect();
    let mut findings = transactions.missing(replicas, consumed);
    findings.extend([
        once::doubled(replicas, &once::key_of(&transactions.halves)),
        transactions.resurrected(&all),
        transactions.contradicted(),
        transactions.asked_again(),
        transactions.early(),
    ]);
    findings
}

struct Transactions<'a> {
    history: &'a History,
    halves: HashMap<OpKey, &'a Half>,
    rules: Rules,
}

impl Transactions<'_> {
    /// Where clocks jump, nobody can say when a producer is asked: what was not ended stays open.
    fn missing(&self, replicas: &[Reading], consumed: &[Reading]) -> Vec<Finding> {
        let (mut lost, mut open) = (Finding::fatal("lost-write"), Finding::fatal("unresolved"));
        if self.rules.outran {
            return vec![lost, open];
        }
        let acked = self.history.endings.iter().filter(|end| end.ended == Ended::Yes && end.commits);
        let acked: HashSet<OpKey> = acked.map(|end| end.key).collect();
        let wanted = |is_acked: bool, what: &'static str| {
            let acked = acked.clone();
            let committing = self.history.committing().map(|half| half.op.key);
            committing
                .filter(move |key| acked.contains(key) == is_acked)
                .map(move |key| (key, what.to_owned()))
        };
        let (at, of) = ((replicas, consumed), &|_, found: &Found| found.key);
        once::missing(&mut lost, wanted(true, "whose commit was acknowledged"), at, of, self.rules);
        if !self.rules.clocks_jump {
            once::missing(&mut open, wanted(false, "whose producer commits"), at, of, self.rules);
        }
        vec![lost, open]
    }

    fn resurrected(&self, readings: &[&Reading]) -> Finding {
        let why = |half: &&Half| match half.op.outcome {
            Outcome::Fail { .. } => Some((half.op.key, "which was refused")),
            _ => (!half.commits).then_some((half.op.key, "which was rolled back, or is to be")),
        };
        let gone: HashMap<OpKey, &str> = self.halves.values().filter_map(why).collect();
        once::present(&gone, readings)
    }

    fn contradicted(&self) -> Finding {
        let mut finding = Finding::fatal("contradicted");
        for end in &self.history.endings {
            let Some(half) = self.halves.get(&end.key) else { continue };
            let is_wish = half.commits == end.commits;
            if (is_wish && end.ended == Ended::Refused) || (!is_wish && end.ended == Ended::Yes) {
                let TransactionEnd { key, broker, commits, ended, .. } = end;
                finding.add(|| {
                    let (wish, what) = (half.commits, if *commits { "commit" } else { "rollback" });
                    format!("{key}: {broker} said {ended:?} to a {what}; its producer commits: {wish}")
                });
            }
        }
        finding
    }

    /// A question and an answer of one broker come in the order in which it sent them.
    fn asked_again(&self) -> Finding {
        let mut finding = Finding::fatal("asked-again");
        let mut ends: HashMap<OpKey, Vec<&TransactionEnd>> = HashMap::new();
        for end in self.history.endings.iter().filter(|end| end.ended == Ended::Yes) {
            ends.entry(end.key).or_default().push(end);
        }
        for check in &self.history.checks {
            let Check { key, broker, at_us } = check;
            let of = ends.get(key).into_iter().flatten();
            let too_late = |end: &&&TransactionEnd| {
                let grace_us = if end.broker == *broker { 0 } else { ON_THE_WAY_MS * 1000 };
                *at_us > end.completed_us + grace_us
            };
            if let Some(end) = of.filter(too_late).min_by_key(|end| end.completed_us) {
                let (by, ended_us) = (&end.broker, end.completed_us);
                finding.add(|| {
                    format!(
                        "{broker} asked about {key} at {at_us} us, {by} acknowledged its end at {ended_us} us"
                    )
                });
            }
        }
        finding
    }

    fn early(&self) -> Finding {
        let mut finding = Finding::fatal("early");
        for Check { key, broker, at_us } in &self.history.checks {
            let Some(half) = self.halves.get(key) else { continue };
            let since_ms = at_us.saturating_sub(half.op.invoked_us) / 1000;
            if since_ms + super::delays::DRIFT_MS < CHECK_AFTER_MS && !self.rules.clocks_jump {
                finding.add(|| format!("{broker} asked about {key} {since_ms} ms after it was sent"));
            }
        }
        finding
    }
}

#[cfg(test)]
mod tests {
    use super::super::sample;
    use super::*;

    fn half(seq: u64, commits: bool) -> Half {
        Half { op: sample::acked(seq, seq), commits }
    }

    fn end(seq: u64, commits: bool, broker: &str, ended: Ended) -> TransactionEnd {
        let (invoked_us, completed_us) = (100, 200);
        TransactionEnd {
            key: sample::key(seq),
            commits,
            broker: broker.to_owned(),
            invoked_us,
            completed_us,
            ended,
        }
    }

    fn asked(seq: u64, broker: &str, at_us: u64) -> Check {
        Check { key: sample::key(seq), broker: broker.to_owned(), at_us }
    }

    /// One commits and was told so, one rolls back, one commits when it is asked.
    fn history() -> History {
        History {
            halves: vec![half(0, true), half(1, false), half(2, true)],
            endings: vec![end(0, true, "a", Ended::Yes), end(1, false, "b", Ended::Yes)],
            checks: vec![asked(2, "c", 3_100_000)],
            ..History::default()
        }
    }

    fn broken(history: &History, seqs: &[u64]) -> Vec<(&'static str, u64)> {
        broken_by(history, seqs, Rules::default())
    }

    fn broken_by(history: &History, seqs: &[u64], rules: Rules) -> Vec<(&'static str, u64)> {
        let found = seqs.iter().zip(0..).map(|(seq, offset)| sample::found(offset, *seq));
        let findings = check(history, &[sample::reading(found)], &history.consumed(), rules);
        findings
            .iter()
            .filter(|finding| finding.fails())
            .map(|finding| (finding.name, finding.count))
            .collect()
    }

    #[test]
    fn what_is_committed_once_and_what_is_rolled_back_never_is_right() {
        let mut history = history();
        assert_eq!(broken(&history, &[0, 2]), []);
        // Told twice, and an opposite end that was refused.
        history.endings.extend([end(0, true, "b", Ended::Yes), end(0, false, "c", Ended::Refused)]);
        // Asked before the end was acknowledged, and by another broker soon after.
        history.checks = vec![asked(0, "a", 150), asked(0, "c", 9_000_000), asked(2, "c", 3_100_000)];
        history.halves[0].op.invoked_us = 0;
        assert_eq!(broken_by(&history, &[2, 0], Rules { clocks_jump: true, ..Rules::default() }), []);
    }

    #[test]
    fn a_missing_message_is_lost_or_its_transaction_unresolved() {
        assert_eq!(broken(&history(), &[2]), [("lost-write", 1)]);
        assert_eq!(broken(&history(), &[0]), [("unresolved", 1)]);
        let rules = Rules { clocks_jump: true, ..Rules::default() };
        assert_eq!(broken_by(&history(), &[], rules), [("lost-write", 1)]);
    }

    #[test]
    fn a_message_that_is_there_twice_is_doubled() {
        assert_eq!(broken(&history(), &[0, 2, 0]), [("duplicate", 1)]);
    }

    #[test]
    fn a_message_that_was_rolled_back_or_refused_is_resurrected() {
        assert_eq!(broken(&history(), &[0, 1, 2]), [("resurrected", 1)]);
        let mut refused = history();
        refused.halves[2].op = sample::failed(2);
        assert_eq!(broken(&refused, &[0, 2]), [("resurrected", 1)]);
        assert_eq!(broken(&refused, &[0]), []);
    }

    #[test]
    fn two_ends_cannot_both_be_true() {
        let mut both = history();
        both.endings.push(end(0, false, "b", Ended::Yes));
        assert_eq!(broken(&both, &[0, 2]), [("contradicted", 1)]);
        let mut refused = history();
        refused.endings.push(end(2, true, "b", Ended::Refused));
        assert_eq!(broken(&refused, &[0, 2]), [("contradicted", 1)]);
    }

    #[test]
    fn a_broker_that_was_told_the_end_does_not_ask() {
        let mut again = history();
        again.checks.push(asked(0, "a", 3_500_000));
        assert_eq!(broken(&again, &[0, 2]), [("asked-again", 1)]);
        let mut other = history();
        other.checks.push(asked(0, "b", 3_500_000));
        assert_eq!(broken(&other, &[0, 2]), [], "it may have been on its way");
        other.checks.push(asked(0, "b", 10_000_201));
        assert_eq!(broken(&other, &[0, 2]), [("asked-again", 1)]);
    }

    #[test]
    fn a_producer_has_its_time_before_it_is_asked() {
        let mut history = history();
        history.checks.push(asked(2, "a", 2_800_000));
        assert_eq!(broken(&history, &[0, 2]), [("early", 1)]);
    }
}
