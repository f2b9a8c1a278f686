//! offset-went-back: what a group committed is what it is told, whoever leads.
//!
//! An answer is right if some commit of that offset, or the start of the group at 0, may have been
//! the last one to take effect: nothing that certainly came after it was over before the question
//! was asked. What certainly came after it is an acknowledged commit, or an answer, of another
//! offset. Nothing is assumed about commits whose outcome is unknown: they may take effect late, and
//! lower an offset again; that is counted apart (`late`) and no breach, because
//!
//! - the wire gives commits no number and allows an offset to go back, so a node that is handed an old
//!   commit after a newer one came in elsewhere cannot tell it from a client that means it;
//! - it costs what at-least-once costs: messages are given again, none is left out;
//! - it ends with the next commit of whoever consumes the queue.
//!
//! It is not fatal for commits through one node either, whose order that node keeps: a client's two
//! connections to it, or those of two members, have no order among themselves.

use std::collections::{BTreeMap, HashMap};

use super::Finding;
use crate::history::{Commit, Committed, History};
use crate::reading::QueueKey;

/// Something that shows the offset to be `offset` at one moment between `from_us` and `to_us`.
struct Evidence {
    offset: u64,
    from_us: u64,
    to_us: u64,
}

/// Answers that no order of the commits explains.
pub(super) fn check(history: &History) -> Finding {
    let mut finding = Finding::fatal("offset-went-back");
    for (queue, evidence) in evidence(history) {
        let commits = commits(history, queue);
        for answer in history.committed.iter().filter(|answer| answer.queue == queue) {
            if !explained(answer, &commits, &evidence) {
                finding.add(|| example(answer, &evidence));
            }
        }
    }
    finding
}

/// Answers below an offset that was acknowledged before: only a late commit of unknown outcome can
/// have done that.
pub(super) fn late(history: &History) -> Finding {
    let mut finding = Finding::counted("offset-went-back-late");
    for (queue, evidence) in evidence(history) {
        let commits = commits(history, queue);
        let answers = history.committed.iter().filter(|answer| answer.queue == queue);
        for answer in answers.filter(|answer| explained(answer, &commits, &evidence)) {
            if before(answer, &evidence).any(|known| known.offset > answer.offset) {
                finding.add(|| example(answer, &evidence));
            }
        }
    }
    finding
}

fn example(answer: &Committed, evidence: &[Evidence]) -> String {
    let known = before(answer, evidence).map(|known| known.offset).max().unwrap_or(0);
    let Committed { queue, broker, offset, invoked_us, .. } = answer;
    format!("{queue}: {broker} said {offset} ({invoked_us} us) after {known} had been acknowledged or told")
}

fn before<'a>(answer: &Committed, evidence: &'a [Evidence]) -> impl Iterator<Item = &'a Evidence> {
    let asked = answer.invoked_us;
    evidence.iter().filter(move |known| known.to_us < asked)
}

fn evidence(history: &History) -> BTreeMap<QueueKey, Vec<Evidence>> {
    let mut queues: BTreeMap<QueueKey, Vec<Evidence>> = BTreeMap::new();
    for commit in &history.commits {
        let known = queues.entry(commit.queue).or_default();
        if let Some(to_us) = commit.acked_us {
            known.push(Evidence { offset: commit.offset, from_us: commit.invoked_us, to_us });
        }
    }
    for answer in &history.committed {
        let Committed { offset, invoked_us: from_us, completed_us: to_us, .. } = *answer;
        queues.entry(answer.queue).or_default().push(Evidence { offset, from_us, to_us });
    }
    queues
}

/// Commits of a queue by their offset.
fn commits(history: &History, queue: QueueKey) -> HashMap<u64, Vec<&Commit>> {
    let mut commits: HashMap<u64, Vec<&Commit>> = HashMap::new();
    for commit in history.commits.iter().filter(|commit| commit.queue == queue) {
        commits.entry(commit.offset).or_default().push(commit);
    }
    commits
}

fn explained(answer: &Committed, commits: &HashMap<u64, Vec<&Commit>>, evidence: &[Evidence]) -> bool {
    let begun = commits.get(&answer.offset).into_iter().flatten();
    let begun = begun.filter(|commit| commit.invoked_us < answer.completed_us);
    // The one that may have taken effect last is the best explanation.
    let ended = begun.map(|commit| commit.acked_us.unwrap_or(u64::MAX)).max();
    let Some(ended) = ended.or((answer.offset == 0).then_some(0)) else { return false };
    before(answer, evidence).all(|known| known.offset == answer.offset || known.from_us <= ended)
}

#[cfg(test)]
mod tests {
    use super::super::sample::QUEUE;
    use super::*;

    fn commit(offset: u64, invoked_us: u64, acked_us: Option<u64>) -> Commit {
        Commit { queue: QUEUE, invoked_us, acked_us, offset }
    }

    fn told(offset: u64, invoked_us: u64) -> Committed {
        let broker = "a".to_owned();
        Committed { queue: QUEUE, broker, invoked_us, completed_us: invoked_us + 5, offset }
    }

    fn history(commits: &[Commit], committed: &[Committed]) -> History {
        History { commits: commits.to_vec(), committed: committed.to_vec(), ..History::default() }
    }

    #[test]
    fn an_offset_below_an_acknowledged_one_went_back() {
        let commits = [commit(10, 0, Some(5)), commit(20, 10, Some(15))];
        let finding = check(&history(&commits, &[told(10, 30)]));
        assert_eq!(finding.count, 1);
        assert!(finding.fails());
        assert_eq!(check(&history(&commits, &[told(0, 30)])).count, 1, "forgotten altogether");
        assert_eq!(check(&history(&commits, &[told(20, 30), told(20, 40)])).count, 0);
    }

    #[test]
    fn an_offset_that_was_told_once_and_is_gone_went_back() {
        let commits = [commit(10, 0, Some(5)), commit(20, 10, None)];
        assert_eq!(check(&history(&commits, &[told(20, 30), told(10, 50)])).count, 1);
        assert_eq!(check(&history(&commits, &[told(10, 30), told(20, 50)])).count, 0, "it came late");
    }

    #[test]
    fn an_offset_that_nobody_committed_is_wrong() {
        assert_eq!(check(&history(&[commit(10, 0, Some(5))], &[told(11, 30)])).count, 1);
        assert_eq!(check(&history(&[], &[told(0, 30)])).count, 0, "a new group starts at 0");
    }

    #[test]
    fn a_commit_of_unknown_outcome_may_take_effect_late_and_is_counted() {
        let commits = [commit(10, 0, None), commit(20, 10, Some(15))];
        let history = history(&commits, &[told(10, 30)]);
        assert_eq!(check(&history).count, 0);
        let counted = late(&history);
        assert_eq!(counted.count, 1);
        assert!(!counted.fails());
    }
}
