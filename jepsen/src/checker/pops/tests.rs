//! Each promise broken once, by hand.

use super::super::sample;
use super::*;
use crate::history::{Delivery, Pop};
use crate::history::{Ended, PopAck, PopChange, PopEnd};

const START_MS: u64 = 1_000_000;
const GROUP: &str = "g";
const ORDERED: &str = "o";

/// When something is asked, ms of the run.
type At = u64;

fn delivery(seq: u64, attempts: u32, at: At) -> Delivery {
    let (popped_ms, is_retry) = (START_MS + at, attempts > 0);
    let (queue, offset, key) = (0, seq, Some(sample::key(seq)));
    Delivery { key, is_retry, queue, offset, attempts, popped_ms, invisible_ms: 1_000 }
}

/// A pop that is asked then and answered ten milliseconds later.
fn pop(at: At, given: impl IntoIterator<Item = (u64, u32)>) -> Pop {
    let given = given.into_iter().map(|(seq, attempts)| delivery(seq, attempts, at)).collect();
    Pop {
        group: GROUP.to_owned(),
        broker: "a".to_owned(),
        queue: -1,
        attempt: None,
        invoked_us: at * 1000,
        completed_us: (at + 10) * 1000,
        completed_ms: START_MS + at + 10,
        given: Some(given),
    }
}

fn ordered(at: At, attempt: &str, given: impl IntoIterator<Item = (u64, u32)>) -> Pop {
    let mut pop = Pop { group: ORDERED.to_owned(), attempt: Some(attempt.to_owned()), ..pop(at, given) };
    pop.given.iter_mut().flatten().for_each(|one| one.is_retry = false);
    pop
}

fn ack(group: &str, (seq, attempts): (u64, u32), at: At, ended: Ended) -> PopAck {
    let (invoked_us, completed_us) = (at * 1000, (at + 5) * 1000);
    PopAck { group: group.to_owned(), key: sample::key(seq), attempts, invoked_us, completed_us, ended }
}

/// A change of what was popped at `popped`, asked for at `at`.
fn change((seq, attempts): (u64, u32), (popped, at): (At, At), invisible_ms: u64, ended: Ended) -> PopChange {
    PopChange {
        group: GROUP.to_owned(),
        key: sample::key(seq),
        attempts,
        queue: 0,
        popped_ms: START_MS + popped,
        invisible_ms,
        invoked_us: at * 1000,
        completed_us: (at + 5) * 1000,
        ended,
        visible_ms: (ended == Ended::Yes).then_some(START_MS + at + invisible_ms),
    }
}

fn history(pops: Vec<Pop>, pop_acks: Vec<PopAck>) -> History {
    History { pops, pop_acks, start_ms: START_MS, ..sample::history([]) }
}

fn broken_by(history: &History, rules: Rules) -> Vec<(&'static str, u64)> {
    let replica = sample::reading((0..4).map(|seq| sample::found(seq, seq)));
    let findings = check(history, &[replica], rules);
    findings.iter().filter(|finding| finding.fails()).map(|finding| (finding.name, finding.count)).collect()
}

fn broken(history: &History) -> Vec<(&'static str, u64)> {
    broken_by(history, Rules::default())
}

/// One message is acknowledged at once, the other one when it has come again.
fn right() -> History {
    let pops = vec![pop(100, [(0, 0), (1, 0)]), pop(1_200, [(1, 1)])];
    let acks = vec![ack(GROUP, (0, 0), 200, Ended::Yes), ack(GROUP, (1, 1), 1_300, Ended::Yes)];
    let ops = vec![sample::acked(0, 0), sample::acked(1, 1), sample::unknown(2)];
    let pop_end = Some(PopEnd { groups: vec![GROUP.to_owned()], from_us: 1_000_000, to_us: 3_000_000 });
    History { ops, pop_end, ..history(pops, acks) }
}

#[test]
fn messages_that_come_until_they_are_acknowledged_are_right() {
    assert_eq!(broken(&right()), []);
    assert_eq!(broken(&History::default()), []);
}

#[test]
fn a_message_that_nobody_sent_is_invented() {
    let mut history = right();
    for one in history.pops[0].given.iter_mut().flatten().take(1) {
        one.key = None;
    }
    history.ops.remove(0);
    assert_eq!(broken(&history), [("invented", 1)]);
}

#[test]
fn a_message_that_a_group_is_never_given_is_lost() {
    let mut history = History { ops: (0..3).map(|seq| sample::acked(seq, seq)).collect(), ..right() };
    assert_eq!(broken(&history), [("unseen", 1)]);
    assert_eq!(broken_by(&history, Rules { expires: true, ..Rules::default() }), []);
    history.pop_end = history.pop_end.map(|end| PopEnd { groups: vec![ORDERED.to_owned()], ..end });
    assert_eq!(broken(&history), [("unseen", 3)], "each group is given everything");
    history.pop_end = None;
    assert_eq!(broken(&history), [], "nobody had the time");
}

#[test]
fn a_message_that_comes_after_its_acknowledgement_is_resurrected() {
    let after = |acks| broken(&history(vec![pop(100, [(0, 0)]), pop(1_200, [(0, 1)])], acks));
    assert_eq!(after(vec![ack(GROUP, (0, 0), 200, Ended::Yes)]), [("resurrected", 1)]);
    // Nobody knows, or it was another attempt.
    assert_eq!(after(vec![ack(GROUP, (0, 0), 200, Ended::Unknown)]), []);
    assert_eq!(after(vec![ack(GROUP, (0, 0), 1_050, Ended::Refused)]), []);
    assert_eq!(after(vec![ack(GROUP, (0, 1), 1_300, Ended::Yes)]), []);
    assert_eq!(after(vec![ack(ORDERED, (0, 0), 200, Ended::Yes)]), []);
    // Said when it had come again: that is no less wrong.
    assert_eq!(after(vec![ack(GROUP, (0, 0), 1_300, Ended::Yes)]), [("resurrected", 1)]);
}

#[test]
fn the_same_attempt_after_an_acknowledgement_is_resurrected_too() {
    let pops = vec![pop(100, [(0, 0)]), pop(300, [(0, 0)])];
    let acks = vec![ack(GROUP, (0, 0), 200, Ended::Yes)];
    assert_eq!(broken(&history(pops, acks)), [("resurrected", 1)]);
}

#[test]
fn a_message_that_two_consumers_are_given_as_one_attempt_is_doubled() {
    assert_eq!(broken(&history(vec![pop(100, [(0, 0)]), pop(100, [(0, 0)])], vec![])), [("doubled", 1)]);
    assert_eq!(broken(&history(vec![pop(100, [(0, 0)]), pop(5_000, [(0, 0)])], vec![])), [("doubled", 1)]);
    let of_groups = vec![pop(100, [(0, 0)]), ordered(100, "a", [(0, 0)])];
    assert_eq!(broken(&history(of_groups, vec![])), [], "each group is given it");
}

#[test]
fn a_pop_in_order_that_is_repeated_doubles_nothing() {
    let repeated = |attempt| {
        broken(&history(vec![ordered(100, "a", [(0, 0)]), ordered(150, attempt, [(0, 0)])], vec![]))
    };
    assert_eq!(repeated("a"), []);
    assert_eq!(repeated("b"), [("doubled", 1)]);
}

#[test]
fn a_message_that_comes_again_before_its_time_is_early() {
    let then = |at| history(vec![pop(100, [(0, 0)]), pop(at, [(0, 1)])], vec![]);
    assert_eq!(broken(&then(1_089)), [("early", 1)], "its consumer had it before");
    assert_eq!(broken(&then(1_090)), []);
    assert_eq!(broken_by(&then(900), Rules { clocks_jump: true, ..Rules::default() }), []);
    // Its answer took long.
    let mut late = then(999);
    late.pops[1].completed_ms = START_MS + 2_000;
    assert_eq!(broken(&late), [("early", 1)], "the broker says so");
}

#[test]
fn a_change_says_when_a_message_comes_again() {
    let with = |at, changes| {
        let pops = vec![pop(100, [(0, 0)]), pop(at, [(0, 1)])];
        broken(&History { pop_changes: changes, ..history(pops, vec![]) })
    };
    let wish = |invisible_ms, ended| change((0, 0), (100, 200), invisible_ms, ended);
    assert_eq!(with(700, vec![wish(500, Ended::Yes)]), []);
    assert_eq!(with(1_500, vec![wish(2_000, Ended::Yes)]), [("early", 1)]);
    assert_eq!(with(1_500, vec![wish(2_000, Ended::Unknown)]), [], "it may not have counted");
    assert_eq!(with(700, vec![wish(500, Ended::Unknown)]), [], "it may have counted");
    assert_eq!(with(700, vec![wish(500, Ended::Refused)]), [("early", 1)]);
    assert_eq!(with(700, vec![wish(2_000, Ended::Yes), wish(300, Ended::Unknown)]), []);
}

#[test]
fn one_change_moves_a_whole_batch_in_order() {
    let pops = vec![ordered(100, "a", [(0, 0), (1, 0)]), ordered(700, "b", [(0, 1), (1, 1)])];
    let of_first = PopChange { group: ORDERED.to_owned(), ..change((0, 0), (100, 200), 500, Ended::Yes) };
    assert_eq!(broken(&history(pops.clone(), vec![])), [("early", 2)]);
    assert_eq!(broken(&History { pop_changes: vec![of_first], ..history(pops, vec![]) }), []);
}

#[test]
fn a_message_that_does_not_come_again_in_a_calm_cluster_is_late() {
    let end = |to: At| Some(PopEnd { groups: Vec::new(), from_us: 2_000_000, to_us: to * 1000 });
    let mut history = history(vec![pop(100, [(0, 0)])], vec![]);
    assert_eq!(broken(&history), [], "the run ended before");
    history.pop_end = end(12_000);
    assert_eq!(broken(&history), []);
    history.pop_end = end(12_001);
    assert_eq!(broken(&history), [("late", 1)]);
    history.pop_acks = vec![ack(GROUP, (0, 0), 1_050, Ended::Refused)];
    assert_eq!(broken(&history), [("late", 1)], "it was said to come again");
    history.pop_acks = vec![ack(GROUP, (0, 0), 200, Ended::Unknown)];
    assert_eq!(broken(&history), []);
    history.pop_acks.clear();
    history.pops.push(pop(12_001, [(0, 1)]));
    history.pop_acks = vec![ack(GROUP, (0, 1), 12_020, Ended::Yes)];
    assert_eq!(broken(&history), [("late", 1)]);
    history.pops[1] = pop(12_001, [(0, 2)]);
    history.pop_acks = vec![ack(GROUP, (0, 2), 12_020, Ended::Yes)];
    assert_eq!(broken(&history), [], "it came in between, to somebody who did not get the answer");
}

#[test]
fn an_acknowledgement_in_time_that_is_refused_is_named() {
    let refused = |at, changes: Vec<PopChange>| {
        let history = history(vec![pop(100, [(0, 0)])], vec![ack(GROUP, (0, 0), at, Ended::Refused)]);
        broken(&History { pop_changes: changes, ..history })
    };
    assert_eq!(refused(900, vec![]), [("refused", 1)]);
    assert_eq!(refused(1_095, vec![]), []);
    let wish = |invisible_ms, ended| vec![change((0, 0), (100, 200), invisible_ms, ended)];
    assert_eq!(refused(900, wish(500, Ended::Yes)), []);
    assert_eq!(refused(1_500, wish(5_000, Ended::Yes)), [("refused", 1)]);
    assert_eq!(refused(900, wish(5_000, Ended::Unknown)), [], "another handle may have replaced it");
}

#[test]
fn a_pop_in_order_whose_answer_was_lost_may_have_replaced_a_handle() {
    let given = vec![ordered(100, "a", [(0, 0)])];
    let acks = vec![ack(ORDERED, (0, 0), 200, Ended::Refused)];
    assert_eq!(broken(&history(given.clone(), acks.clone())), [("refused", 1)]);
    let lost = Pop { given: None, ..ordered(90, "a", []) };
    assert_eq!(broken(&history([vec![lost], given].concat(), acks)), []);
}

#[test]
fn a_dead_letter_does_not_come_again() {
    let pop_end = Some(PopEnd { to_us: 60_000_000, ..PopEnd::default() });
    let history = History { pop_end, ..history(vec![pop(100, [(0, 16)])], vec![]) };
    assert_eq!(broken(&history), []);
}

#[test]
fn a_later_message_before_an_earlier_one_is_acknowledged_is_out_of_order() {
    let then =
        |acks| broken(&history(vec![ordered(100, "a", [(0, 0), (1, 0)]), ordered(300, "b", [(2, 0)])], acks));
    let acked = |seq, ended| ack(ORDERED, (seq, 0), 200, ended);
    assert_eq!(then(vec![acked(0, Ended::Yes), acked(1, Ended::Yes)]), []);
    assert_eq!(then(vec![acked(0, Ended::Yes), acked(1, Ended::Unknown)]), []);
    assert_eq!(
        then(vec![acked(0, Ended::Yes), acked(1, Ended::Refused)]),
        [("out-of-order", 1), ("refused", 1)]
    );
    assert_eq!(then(vec![acked(1, Ended::Yes)]), [("out-of-order", 1)]);
    let all = vec![ordered(100, "a", [(0, 0)]), ordered(300, "b", [(1, 0)]), ordered(400, "c", [(2, 0)])];
    let acks = vec![ack(ORDERED, (1, 0), 350, Ended::Yes)];
    assert_eq!(broken(&history(all, acks)), [("out-of-order", 1)], "named once");
    let too_late = ack(ORDERED, (1, 0), 400, Ended::Yes);
    assert_eq!(then(vec![acked(0, Ended::Yes), too_late]), [("out-of-order", 1)]);
}

#[test]
fn a_message_that_is_passed_over_is_out_of_order() {
    let first = vec![ordered(100, "a", [(1, 0)])];
    assert_eq!(broken(&history(first.clone(), vec![])), [("out-of-order", 1)]);
    assert_eq!(broken_by(&history(first, vec![]), Rules { expires: true, ..Rules::default() }), []);
    let acks = |seq| vec![ack(ORDERED, (seq, 0), 200, Ended::Yes)];
    let left = vec![ordered(100, "a", [(0, 0), (1, 0), (2, 0)]), ordered(1_200, "b", [(0, 1), (2, 1)])];
    assert_eq!(broken(&history(left.clone(), acks(1))), [], "what is left of a batch");
    assert_eq!(broken(&history(left, vec![])), [("out-of-order", 1)]);
    let turned = vec![ordered(100, "a", [(1, 0), (0, 0)])];
    assert_eq!(broken(&history(turned, vec![])), [("out-of-order", 1)]);
}
