//! Delayed messages: each acknowledged one is delivered once, not early and not late; none that was taken back is.
//!
//! | name | what breaks it |
//! |---|---|
//! | `lost-write` | an acknowledged message that is due and was not taken back is missing; one that is due after the run cannot be taken back at its end |
//! | `duplicate` | a message is there twice: its producer sent it again under its one unique key only |
//! | `resurrected` | a message is there whose recall was acknowledged, or whose send was refused |
//! | `early` | a message is stored before the time that it says itself, says an earlier time than its producer, or is given out before that |
//! | `late` | see [`Calm`] |
//!
//! Where clocks of nodes jump, messages are early or held back by as much: only what does not depend on clocks is judged.

use std::collections::HashMap;

use super::calm::{Calm, LATE_MS};
use super::{Finding, Rules, once};
use crate::history::{Delayed, History, Outcome, Recall, Recalled};
use crate::payload::OpKey;
use crate::reading::{Found, QueueKey, Reading};

/// By how much the clock of the machine may run ahead of the one of the history, ms.
pub(super) const DRIFT_MS: u64 = 100;

pub(super) fn check(
    history: &History,
    replicas: &[Reading],
    consumed: &[Reading],
    rules: Rules,
) -> Vec<Finding> {
    let sent = history.delayed.iter().map(|delayed| (delayed.op.key, delayed)).collect();
    let delays = Delays { history, sent, calm: Calm::of(history), rules };
    let all: Vec<&Reading> = replicas.iter().chain(consumed).collect();
    let mut findings = vec![
        delays.lost(replicas, consumed),
        delays.far(),
        once::doubled(replicas, &once::key_of(&delays.sent)),
        delays.resurrected(&all),
    ];
    let (mut early, mut late) = (Finding::fatal("early"), Finding::fatal("late"));
    for reading in replicas {
        delays.times(reading, &mut early, &mut late);
    }
    if !rules.clocks_jump {
        delays.given(&mut early);
    }
    findings.extend([early, late]);
    findings
}

struct Delays<'a> {
    history: &'a History,
    sent: HashMap<OpKey, &'a Delayed>,
    calm: Calm,
    rules: Rules,
}

impl Delays<'_> {
    fn lost(&self, replicas: &[Reading], consumed: &[Reading]) -> Finding {
        let mut finding = Finding::fatal("lost-write");
        if !self.rules.clocks_jump && !self.rules.outran {
            let wanted = self.history.awaited();
            let wanted = wanted
                .map(|delayed| (delayed.op.key, format!("acknowledged and due at {} ms", delayed.due_ms)));
            once::missing(&mut finding, wanted, (replicas, consumed), &|_, found| found.key, self.rules);
        }
        finding
    }

    /// What is due after the run, and cannot be taken back, is not there any more.
    fn far(&self) -> Finding {
        let mut finding = Finding::fatal("lost-write");
        let is_far = |recall: &&Recall| self.sent.get(&recall.key).is_some_and(|delayed| delayed.is_far);
        let refused = |recall: &&Recall| recall.recalled == Recalled::Refused && !self.rules.clocks_jump;
        for recall in self.history.recalls.iter().filter(is_far).filter(refused) {
            finding.add(|| {
                format!("{}, acknowledged and due after the run, is not waiting any more", recall.key)
            });
        }
        finding
    }

    fn resurrected(&self, readings: &[&Reading]) -> Finding {
        let taken_back = |recall: &&Recall| recall.recalled == Recalled::Yes;
        let recalled =
            self.history.recalls.iter().filter(taken_back).map(|recall| (recall.key, "which was taken back"));
        let refused = |delayed: &&Delayed| matches!(delayed.op.outcome, Outcome::Fail { .. });
        let refused = self.history.delayed.iter().filter(refused);
        let refused = refused.map(|delayed| (delayed.op.key, "which was refused"));
        let gone: HashMap<OpKey, &str> = recalled.chain(refused).collect();
        once::present(&gone, readings)
    }

    /// By the times that servers name.
    fn times(&self, reading: &Reading, early: &mut Finding, late: &mut Finding) {
        for (queue, found) in self.delayed(reading) {
            let (Some(key), Some(marks)) = (found.key, found.marks) else { continue };
            let Some(delayed) = self.sent.get(&key) else { continue };
            // What comes to a server after its time does not wait.
            let said_ms = marks.due_ms.unwrap_or(marks.stored_ms);
            let wanted_ms = if self.rules.clocks_jump { 0 } else { delayed.due_ms };
            if marks.stored_ms < said_ms || said_ms < wanted_ms {
                let (who, stored_ms) = (&reading.reader, marks.stored_ms);
                early.add(|| {
                    format!("{who}: {queue}: {key} is stored at {stored_ms} ms, due at {said_ms}, by its producer at {wanted_ms}")
                });
            }
            // A message that was acknowledged after its time is due from then on.
            let due_ms = said_ms.max(self.history.day_ms(delayed.op.completed_us));
            if !self.rules.clocks_jump && self.calm.is_late(due_ms, marks.stored_ms) {
                let (who, after_ms) = (&reading.reader, marks.stored_ms.saturating_sub(due_ms));
                late.add(|| {
                    format!("{who}: {queue}: {key} came {after_ms} ms after its time, {LATE_MS} in calm")
                });
            }
        }
    }

    /// By the clock of the history alone: nobody is given a message before its time.
    fn given(&self, early: &mut Finding) {
        for poll in &self.history.polls {
            let given_ms = self.history.day_ms(poll.completed_us) + DRIFT_MS;
            for key in poll.found.iter().filter_map(|found| found.key) {
                if let Some(delayed) = self.sent.get(&key).filter(|delayed| given_ms < delayed.due_ms) {
                    let (who, due_ms) = (&poll.consumer, delayed.due_ms);
                    early.add(|| {
                        format!("{who} was given {key} at {given_ms} ms at the latest, due at {due_ms}")
                    });
                }
            }
        }
    }

    /// The delayed messages of a reading.
    fn delayed<'r>(&self, reading: &'r Reading) -> impl Iterator<Item = (QueueKey, &'r Found)> {
        reading.messages().filter(|(_, found)| found.key.is_some_and(|key| self.sent.contains_key(&key)))
    }
}

#[cfg(test)]
mod tests {
    use super::super::sample;
    use super::*;
    use crate::history::Op;
    use crate::reading::Marks;

    const START_MS: u64 = 1_000_000;

    fn delayed(seq: u64, due_ms: u64, is_far: bool, op: fn(u64, u64) -> Op) -> Delayed {
        Delayed { op: op(seq, seq), due_ms: START_MS + due_ms, is_far }
    }

    /// Two messages that are due after one and two seconds, and one that is due after the run.
    fn history(recalls: &[(u64, Recalled)]) -> History {
        let delayed = vec![
            delayed(0, 1_000, false, sample::acked),
            delayed(1, 2_000, false, sample::acked),
            delayed(2, 3_600_000, true, sample::acked),
        ];
        let recall = |(seq, recalled): &(u64, Recalled)| Recall {
            key: sample::key(*seq),
            invoked_us: 100,
            completed_us: 200,
            recalled: *recalled,
        };
        let recalls = recalls.iter().map(recall).collect();
        History { delayed, recalls, start_ms: START_MS, ..History::default() }
    }

    fn came(offset: u64, seq: u64, due_ms: u64, stored_ms: u64) -> Found {
        let (due_ms, stored_ms) = (Some(START_MS + due_ms), START_MS + stored_ms);
        let marks = Marks { due_ms, stored_ms, whole: true, ..Marks::default() };
        Found { marks: Some(marks), ..sample::found(offset, seq) }
    }

    fn broken(history: &History, found: &[Found], rules: Rules) -> Vec<(&'static str, u64)> {
        let replicas = [sample::reading(found.to_vec())];
        let findings = check(history, &replicas, &history.consumed(), rules);
        findings
            .iter()
            .filter(|finding| finding.fails())
            .map(|finding| (finding.name, finding.count))
            .collect()
    }

    fn right() -> [Found; 2] {
        [came(0, 0, 1_000, 1_001), came(1, 1, 2_000, 2_300)]
    }

    #[test]
    fn messages_that_come_once_and_in_time_are_right() {
        let history = history(&[(2, Recalled::Yes)]);
        assert_eq!(broken(&history, &right(), Rules::default()), []);
    }

    #[test]
    fn a_message_before_its_time_is_early_by_each_clock() {
        let mut history = history(&[]);
        let stored = [came(0, 0, 1_000, 999), right()[1].clone()];
        assert_eq!(broken(&history, &stored, Rules::default()), [("early", 1)]);
        let said = [came(0, 0, 900, 950), right()[1].clone()];
        assert_eq!(broken(&history, &said, Rules::default()), [("early", 1)]);
        assert_eq!(broken(&history, &said, Rules { clocks_jump: true, ..Rules::default() }), []);
        let poll = sample::poll(0, [right()[0].clone()], 1);
        history.polls = vec![crate::history::Poll { completed_us: 890_000, ..poll }];
        assert_eq!(broken(&history, &right(), Rules::default()), [("early", 1)]);
    }

    #[test]
    fn a_message_that_is_sent_after_its_time_comes_at_once() {
        let unparked = |stored_ms| {
            let mut found = came(0, 0, 0, stored_ms);
            found.marks = found.marks.map(|marks| Marks { due_ms: None, ..marks });
            [found, right()[1].clone()]
        };
        assert_eq!(broken(&history(&[]), &unparked(1_000), Rules::default()), []);
        assert_eq!(broken(&history(&[]), &unparked(999), Rules::default()), [("early", 1)]);
    }

    #[test]
    fn a_message_long_after_its_time_is_late() {
        let found = [came(0, 0, 1_000, 6_001), right()[1].clone()];
        assert_eq!(broken(&history(&[]), &found, Rules::default()), [("late", 1)]);
    }

    #[test]
    fn an_acknowledged_message_that_does_not_come_is_lost() {
        assert_eq!(broken(&history(&[]), &right()[..1], Rules::default()), [("lost-write", 1)]);
        let refused = history(&[(1, Recalled::Refused)]);
        assert_eq!(broken(&refused, &right()[..1], Rules::default()), [("lost-write", 1)]);
        let maybe = history(&[(1, Recalled::Unknown)]);
        assert_eq!(broken(&maybe, &right()[..1], Rules::default()), []);
        assert_eq!(broken(&maybe, &right(), Rules::default()), []);
    }

    #[test]
    fn a_message_that_is_due_after_the_run_and_cannot_be_taken_back_is_lost() {
        assert_eq!(
            broken(&history(&[(2, Recalled::Refused)]), &right(), Rules::default()),
            [("lost-write", 1)]
        );
    }

    #[test]
    fn a_message_that_comes_twice_is_doubled() {
        let found = [right()[0].clone(), right()[1].clone(), came(2, 1, 2_000, 2_400)];
        assert_eq!(broken(&history(&[]), &found, Rules::default()), [("duplicate", 1)]);
    }

    #[test]
    fn a_message_that_was_taken_back_or_refused_and_comes_is_resurrected() {
        let mut history = history(&[(1, Recalled::Yes)]);
        assert_eq!(broken(&history, &right(), Rules::default()), [("resurrected", 1)]);
        assert_eq!(broken(&history, &right()[..1], Rules::default()), []);
        history.delayed[0] = delayed(0, 1_000, false, |seq, _| sample::failed(seq));
        assert_eq!(broken(&history, &right()[..1], Rules::default()), [("resurrected", 1)]);
    }

    #[test]
    fn what_expired_must_have_been_given_to_somebody() {
        let rules = Rules { expires: true, ..Rules::default() };
        let mut history = history(&[]);
        assert_eq!(broken(&history, &right()[1..], rules), [("lost-write", 1)]);
        let poll = sample::poll(0, [right()[0].clone()], 1);
        history.polls = vec![crate::history::Poll { completed_us: 1_100_000, ..poll }];
        assert_eq!(broken(&history, &right()[1..], rules), []);
    }
}
