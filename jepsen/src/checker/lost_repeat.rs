//! lost-repeat: an object that is sent again on purpose is stored again.
//!
//! Clients send under one key for two reasons: an application sends one object several times, or a client tries again
//! what it got no answer to. A send is certainly no second try where every send of the object before it was answered
//! at once, on a connection that lived on, and nothing was broken meanwhile: then a place of its own is promised by
//! its acknowledgement. One-way sends are never tried again; of several between two answered ones, all on one living
//! connection, not all may be missing.
//!
//! `duplicate` looks at the other side: what is tried again is one message.

use std::collections::{BTreeMap, HashSet};

use super::Finding;
use crate::history::{History, How, Outcome, Repeat};
use crate::payload::OpKey;
use crate::reading::{QueueKey, Reading};

/// A send answered so soon was not given up by its client.
const PROMPT_US: u64 = 150_000;
/// After a fault is over, nodes may take so long to know of it all: who leads, which connections died.
const SETTLE_US: u64 = 1_000_000;

/// Compares the places that acknowledgements name.
pub(super) fn check(history: &History, replicas: &[Reading]) -> Finding {
    let mut finding = Finding::fatal("lost-repeat");
    let held: Vec<(&Reading, HashSet<Place>)> =
        replicas.iter().map(|reading| (reading, places(reading))).collect();
    for (object, sends) in by_object(history) {
        for (at, send) in sends.iter().enumerate() {
            if let Some(why) = lost(history, &sends, at, object, &held) {
                finding.add(|| {
                    let (to, us, how) = (send.to, send.completed_us, send.how);
                    format!(
                        "{object}, sent again ({how:?}) to queue {to}, was acknowledged ({us} us), and {why}"
                    )
                });
            }
        }
        if let Some(missing) = one_way_missing(history, &sends, object, &held) {
            finding.add(|| format!("{object}: all of its {missing} one-way sends are missing"));
        }
    }
    finding
}

/// Sends of each object, in the order they were begun.
pub(super) fn by_object(history: &History) -> BTreeMap<OpKey, Vec<&Repeat>> {
    let mut objects: BTreeMap<OpKey, Vec<&Repeat>> = BTreeMap::new();
    history.repeats.iter().for_each(|repeat| objects.entry(repeat.object).or_default().push(repeat));
    objects.values_mut().for_each(|sends| sends.sort_by_key(|send| send.invoked_us));
    objects
}

/// One stored copy: its object, queue and offset.
type Place = (OpKey, QueueKey, u64);

fn places(reading: &Reading) -> HashSet<Place> {
    reading.messages().filter_map(|(queue, found)| Some((found.key?, queue, found.offset))).collect()
}

/// Why this send is lost, if it is.
fn lost(
    history: &History,
    sends: &[&Repeat],
    at: usize,
    object: OpKey,
    held: &[(&Reading, HashSet<Place>)],
) -> Option<String> {
    let send = sends[at];
    let Outcome::Ok { offset, position } = send.outcome else { return None };
    if !is_message_of_its_own(history, sends, at) {
        return None;
    }
    let same = sends.iter().enumerate().filter(|(other, _)| *other < at).find(|(_, other)| {
        matches!(other.outcome, Outcome::Ok { offset: o, position: p } if (o, p) == (offset, position))
    });
    if let Some((_, earlier)) = same {
        return Some(format!("given the place of an earlier one: offset {offset} of queue {}", earlier.to));
    }
    let queue = QueueKey { topic: object.topic, queue: send.to };
    let missing = held.iter().find(|(reading, places)| {
        offset >= reading.start(queue) && !places.contains(&(object, queue, offset))
    });
    missing.map(|(reading, _)| format!("{} does not hold it at offset {offset}", reading.reader))
}

/// Whether nobody could take it for a second try of one before it.
fn is_message_of_its_own(history: &History, sends: &[&Repeat], at: usize) -> bool {
    let send = sends[at];
    let before = || sends.iter().filter(|other| other.invoked_us < send.completed_us);
    let from_us = before().map(|other| other.invoked_us).min().unwrap_or(send.invoked_us);
    send.resent == 0
        && send.lived
        && is_quiet(history, from_us, send.completed_us)
        && before().all(|other| other.how == How::OneWay || was_answered_at_once(other))
}

fn was_answered_at_once(send: &Repeat) -> bool {
    let took_us = send.completed_us.saturating_sub(send.invoked_us);
    matches!(send.outcome, Outcome::Ok { .. }) && send.lived && send.resent == 0 && took_us <= PROMPT_US
}

/// Whether nothing was broken from one moment to another, nor shortly before.
fn is_quiet(history: &History, from_us: u64, to_us: u64) -> bool {
    let mut broken_from = None;
    for fault in &history.faults {
        match broken_from {
            None if fault.stops_writes => broken_from = Some(fault.at_us),
            Some(began) if fault.is_over() => {
                if began <= to_us && from_us <= fault.at_us.saturating_add(SETTLE_US) {
                    return false;
                }
                broken_from = None;
            }
            _ => {}
        }
    }
    broken_from.is_none_or(|began| to_us < began)
}

/// How many one-way sends there were, if none of them is stored on a replica that still has the first send, hence all after
/// it: old messages expire in the log's order.
fn one_way_missing(
    history: &History,
    sends: &[&Repeat],
    object: OpKey,
    held: &[(&Reading, HashSet<Place>)],
) -> Option<usize> {
    let (one_way, answered): (Vec<&Repeat>, Vec<&Repeat>) =
        sends.iter().partition(|send| send.how == How::OneWay);
    let last = sends.len().checked_sub(1)?;
    let between = sends[0].how != How::OneWay && sends[last].how != How::OneWay && one_way.len() > 1;
    let sure = between && answered.iter().all(|send| was_answered_at_once(send));
    if !sure || !is_message_of_its_own(history, sends, last) {
        return None;
    }
    let Outcome::Ok { offset, .. } = sends[0].outcome else { return None };
    let first = (object, QueueKey { topic: object.topic, queue: sends[0].to }, offset);
    let keep = held.iter().filter(|(_, places)| places.contains(&first));
    let mut stored =
        keep.map(|(reading, _)| reading.messages().filter(|(_, found)| found.key == Some(object)).count());
    stored.any(|stored| stored <= answered.len()).then_some(one_way.len())
}

#[cfg(test)]
mod tests {
    use super::super::sample::{QUEUE, found, key, reading};
    use super::*;
    use crate::history::Fault;

    fn sent(number: u64, how: How, outcome: Outcome) -> Repeat {
        let invoked_us = 10_000_000 + number * 1000;
        let object = key(7);
        let completed_us = invoked_us + 500;
        Repeat { object, to: QUEUE.queue, how, invoked_us, completed_us, resent: 0, lived: true, outcome }
    }

    fn acked(number: u64, offset: u64) -> Repeat {
        sent(number, How::Sync, Outcome::Ok { offset, position: Some(offset * 100) })
    }

    fn one_way(number: u64) -> Repeat {
        sent(number, How::OneWay, Outcome::Unknown { error: "nobody answers".to_owned() })
    }

    fn history(repeats: impl IntoIterator<Item = Repeat>) -> History {
        History { repeats: repeats.into_iter().collect(), ..History::default() }
    }

    fn copies(count: u64) -> [Reading; 1] {
        [reading((0..count).map(|at| found(at, 7)))]
    }

    #[test]
    fn a_send_that_is_given_an_earlier_ones_place_is_lost() {
        let finding = check(&history([acked(0, 0), acked(1, 0), acked(2, 0)]), &copies(1));
        assert_eq!(finding.count, 2);
        assert!(finding.fails());
        assert_eq!(check(&history([acked(0, 0), acked(1, 1), acked(2, 2)]), &copies(3)).count, 0);
    }

    #[test]
    fn a_send_with_a_place_of_its_own_that_is_not_there_is_lost() {
        assert_eq!(check(&history([acked(0, 0), acked(1, 1)]), &copies(1)).count, 1);
    }

    #[test]
    fn an_answer_that_names_another_queue_is_none() {
        let mut elsewhere = acked(1, 0);
        elsewhere.to = 3;
        assert_eq!(check(&history([acked(0, 0), elsewhere]), &copies(1)).count, 1);
    }

    #[test]
    fn a_possible_second_try_may_have_the_first_ones_place() {
        let open = sent(0, How::Sync, Outcome::Unknown { error: "timeout".to_owned() });
        let mut slow = acked(0, 0);
        slow.completed_us += PROMPT_US;
        let again =
            Repeat { invoked_us: slow.completed_us + 1, completed_us: slow.completed_us + 9, ..acked(1, 0) };
        let broken = Repeat { lived: false, ..acked(0, 0) };
        let resent = Repeat { resent: 1, ..acked(0, 0) };
        for (first, second) in
            [(open, acked(1, 0)), (slow, again), (broken, acked(1, 0)), (resent, acked(1, 0))]
        {
            assert_eq!(check(&history([first.clone(), second]), &copies(1)).count, 0, "{first:?}");
        }
    }

    #[test]
    fn what_happens_during_a_fault_or_right_after_proves_nothing() {
        let fault = |at_us, fault: &str, stops_writes| Fault { at_us, fault: fault.to_owned(), stops_writes };
        let with = |faults: Vec<Fault>| History { faults, ..history([acked(0, 0), acked(1, 0)]) };
        let over = |at_us| fault(at_us, Fault::OVER, false);
        assert_eq!(check(&with(vec![fault(9_000_000, "kill", true)]), &copies(1)).count, 0, "still broken");
        let just = vec![fault(1, "kill", true), over(9_500_000)];
        assert_eq!(check(&with(just), &copies(1)).count, 0, "just healed");
        let long = vec![fault(1, "kill", true), over(2), fault(20_000_000, "kill", true)];
        assert_eq!(check(&with(long), &copies(1)).count, 1);
    }

    #[test]
    fn one_way_sends_that_are_all_missing_are_lost() {
        let sends = || [acked(0, 0), one_way(1), one_way(2), one_way(3), acked(4, 1)];
        let finding = check(&history(sends()), &copies(2));
        assert_eq!(finding.count, 1, "{finding:?}");
        assert!(finding.examples[0].contains("3 one-way"), "{finding:?}");
        assert_eq!(check(&history(sends()), &copies(4)).count, 0, "one of them may get lost");
    }
}
