//! What consumers sent back comes again once, as a retry after its delay or as a dead letter, and says where it came from.
//!
//! | name | what breaks it |
//! |---|---|
//! | `lost-write` | a send-back was acknowledged, and what it becomes is missing |
//! | `duplicate` | it is there twice, however often it was sent back: no offset of the group goes back |
//! | `resurrected` | a retry or dead letter is there that nobody sent back |
//! | `early`, `late` | it is stored before its delay is over, or given out; see [`Calm`] |
//! | `origin` | it lost its unique key, the topic or the position that it had first |

use std::collections::HashMap;

use super::calm::{Calm, LATE_MS};
use super::delays::DRIFT_MS;
use super::{Finding, Rules, once};
use crate::history::{History, Moved, SendBack};
use crate::payload::OpKey;
use crate::reading::{Found, Marks, QueueKey, Reading};
use crate::workload::RETRIES;

pub(super) fn check(
    history: &History,
    replicas: &[Reading],
    consumed: &[Reading],
    rules: Rules,
) -> Vec<Finding> {
    let sent = history.send_backs.iter().map(|sent| (sent.moved, sent)).collect();
    let retries = Retries { history, sent, rules };
    let all: Vec<&Reading> = replicas.iter().chain(consumed).collect();
    let doubled = once::doubled(replicas, &retries.of());
    let mut findings =
        vec![retries.lost(replicas, consumed), doubled, retries.resurrected(&all), retries.origin(&all)];
    findings.extend(retries.times(replicas));
    findings
}

struct Retries<'a> {
    history: &'a History,
    sent: HashMap<Moved, &'a SendBack>,
    rules: Rules,
}

impl Retries<'_> {
    /// Histories without send-backs have no such topics.
    fn of(&self) -> impl Fn(QueueKey, &Found) -> Option<Moved> + use<> {
        let has_some = !self.sent.is_empty();
        move |queue, found| Moved::of(queue, found).filter(|_| has_some)
    }

    fn lost(&self, replicas: &[Reading], consumed: &[Reading]) -> Finding {
        let mut finding = Finding::fatal("lost-write");
        if self.rules.clocks_jump || self.rules.outran {
            return finding;
        }
        let acked = self.history.send_backs.iter().filter(|sent| sent.acked_us.is_some());
        let wanted = acked.map(|sent| (sent.moved, format!("acknowledged at {:?} us", sent.acked_us)));
        once::missing(&mut finding, wanted, (replicas, consumed), &self.of(), self.rules);
        finding
    }

    fn resurrected(&self, readings: &[&Reading]) -> Finding {
        let mut finding = Finding::fatal("resurrected");
        for reading in readings {
            for (queue, found) in reading.messages() {
                if let Some(moved) = self.of()(queue, found).filter(|moved| !self.sent.contains_key(moved)) {
                    let (who, offset) = (&reading.reader, found.offset);
                    finding.add(|| format!("{who}: {queue} offset {offset}: nobody sent back {moved}"));
                }
            }
        }
        finding
    }

    /// What a message says of itself, against where it lies.
    fn origin(&self, readings: &[&Reading]) -> Finding {
        let mut finding = Finding::fatal("origin");
        let messages = || readings.iter().flat_map(|reading| reading.messages());
        let first = messages().filter(|(queue, _)| queue.topic == 0);
        let first: HashMap<OpKey, u64> =
            first.filter_map(|(_, found)| Some((found.key?, found.position))).collect();
        for (queue, found) in messages() {
            let (Some(moved), Some(marks)) = (self.of()(queue, found), found.marks) else { continue };
            // What it was may have expired.
            let position = first.get(&moved.key).copied();
            if !marks.whole || position.is_some_and(|position| marks.origin != Some(position)) {
                let origin = marks.origin;
                finding.add(|| {
                    format!("{moved} says it came from {origin:?}, it was at {position:?}: {marks:?}")
                });
            }
        }
        finding
    }

    fn times(&self, replicas: &[Reading]) -> [Finding; 2] {
        let (mut early, mut late) = (Finding::fatal("early"), Finding::fatal("late"));
        if self.rules.clocks_jump {
            return [early, late];
        }
        let calm = Calm::of(self.history);
        for (queue, found) in replicas.iter().flat_map(Reading::messages) {
            let (Some(moved), Some(marks)) = (self.of()(queue, found), found.marks) else { continue };
            let Some(sent) = self.sent.get(&moved) else { continue };
            let due_ms = self.history.day_ms(sent.invoked_us) + sent.delay_ms;
            let (stored_ms, said_ms) = (marks.stored_ms, said_ms(moved, marks));
            if stored_ms.min(said_ms) + DRIFT_MS < due_ms || stored_ms < said_ms {
                early.add(|| {
                    format!("{moved} is stored at {stored_ms} ms, due at {said_ms}, not before {due_ms}")
                });
            }
            // A send-back whose first tries went nowhere is due later.
            let known_ms = sent.acked_us.map(|acked_us| self.history.day_ms(acked_us) + sent.delay_ms);
            if known_ms.is_some_and(|due_ms| calm.is_late(due_ms, stored_ms)) {
                late.add(|| {
                    format!("{moved} came at {stored_ms} ms, due at {known_ms:?}, {LATE_MS} ms in calm")
                });
            }
        }
        self.given(&mut early);
        [early, late]
    }

    /// Nobody is given it before its time, by the clock of the history.
    fn given(&self, early: &mut Finding) {
        for poll in &self.history.polls {
            for moved in poll.found.iter().filter_map(|found| self.of()(poll.queue, found)) {
                let Some(sent) = self.sent.get(&moved) else { continue };
                let due_us = sent.invoked_us + sent.delay_ms * 1000;
                if poll.completed_us + DRIFT_MS * 1000 < due_us {
                    let at_us = poll.completed_us;
                    early.add(|| format!("{moved} was given out at {at_us} us, due at {due_us}"));
                }
            }
        }
    }
}

/// When it was due, as it says itself. A dead letter does not wait: what it says is of the retry before.
fn said_ms(moved: Moved, marks: Marks) -> u64 {
    let is_retry = moved.by == RETRIES;
    marks.due_ms.filter(|_| is_retry).unwrap_or(marks.stored_ms)
}

#[cfg(test)]
mod tests {
    use super::super::sample;
    use super::*;
    use crate::workload::DEAD_LETTERS;

    const START_MS: u64 = 1_000_000;

    fn moved(seq: u64, times: u32, by: u32) -> Moved {
        Moved { key: sample::key(seq), times, by }
    }

    fn sent(moved: Moved, delay_ms: u64) -> SendBack {
        SendBack { moved, delay_ms, invoked_us: 1_000_000, acked_us: Some(1_200_000), tries: 2 }
    }

    /// One comes again once and is a dead letter then; the other one was not acknowledged.
    fn history() -> History {
        let unknown = SendBack { acked_us: None, ..sent(moved(1, 1, RETRIES), 2_000) };
        let send_backs = vec![sent(moved(0, 1, RETRIES), 1_000), sent(moved(0, 2, DEAD_LETTERS), 0), unknown];
        History { send_backs, start_ms: START_MS, ..History::default() }
    }

    fn came(seq: u64, times: u32, by: u32, stored_ms: u64) -> (u32, Found) {
        let (stored_ms, origin) = (START_MS + stored_ms, Some(seq * 100));
        let marks = Marks { stored_ms, due_ms: None, times, origin, whole: true };
        let offset = 10 * u64::from(by) + u64::from(times) + stored_ms % 7;
        (by, Found { offset, marks: Some(marks), ..sample::found(offset, seq) })
    }

    fn right() -> Vec<(u32, Found)> {
        vec![came(0, 1, RETRIES, 2_000), came(0, 2, DEAD_LETTERS, 1_001)]
    }

    fn broken(found: &[(u32, Found)]) -> Vec<(&'static str, u64)> {
        let mut replica = sample::reading([sample::found(0, 0), sample::found(1, 1)]);
        for (topic, found) in found {
            let queue = QueueKey { topic: *topic, queue: 0 };
            replica.queues.entry(queue).or_default().push(found.clone());
        }
        let findings = check(&history(), &[replica], &[], Rules::default());
        findings
            .iter()
            .filter(|finding| finding.fails())
            .map(|finding| (finding.name, finding.count))
            .collect()
    }

    #[test]
    fn what_comes_again_once_after_its_delay_is_right() {
        assert_eq!(broken(&right()), []);
        let both: Vec<_> = right().into_iter().chain([came(1, 1, RETRIES, 3_000)]).collect();
        assert_eq!(broken(&both), [], "nobody knows what became of it");
    }

    #[test]
    fn what_does_not_come_again_is_lost() {
        assert_eq!(broken(&right()[..1]), [("lost-write", 1)]);
        assert_eq!(broken(&right()[1..]), [("lost-write", 1)]);
    }

    #[test]
    fn what_comes_again_twice_is_doubled() {
        let twice: Vec<_> = right().into_iter().chain([came(0, 1, RETRIES, 2_001)]).collect();
        assert_eq!(broken(&twice), [("duplicate", 1)]);
    }

    #[test]
    fn what_nobody_sent_back_is_resurrected() {
        for wrong in [came(1, 2, RETRIES, 3_000), came(1, 1, DEAD_LETTERS, 3_000), came(2, 1, RETRIES, 3_000)]
        {
            let more: Vec<_> = right().into_iter().chain([wrong]).collect();
            assert_eq!(broken(&more), [("resurrected", 1)]);
        }
    }

    #[test]
    fn a_retry_before_its_delay_is_early_and_one_long_after_is_late() {
        let at = |stored_ms| [came(0, 1, RETRIES, stored_ms), right()[1].clone()];
        assert_eq!(broken(&at(1_800)), [("early", 1)]);
        assert_eq!(broken(&at(7_201)), [("late", 1)]);
        assert_eq!(broken(&at(7_200)), []);
    }

    #[test]
    fn a_retry_says_where_it_came_from() {
        let with = |change: fn(Marks) -> Marks| {
            let mut found = right();
            found[0].1.marks = found[0].1.marks.map(change);
            found
        };
        assert_eq!(broken(&with(|marks| Marks { origin: Some(7), ..marks })), [("origin", 1)]);
        assert_eq!(broken(&with(|marks| Marks { origin: None, ..marks })), [("origin", 1)]);
        assert_eq!(broken(&with(|marks| Marks { whole: false, ..marks })), [("origin", 1)]);
    }
}
