//! What was popped comes until it is acknowledged, to one consumer of a group at a time, and never again after that.
//!
//! | name | what breaks it |
//! |---|---|
//! | `invented` | a message nobody sent |
//! | `unseen` | lost: an acknowledged message was never given to a group, though all was to be popped at the end |
//! | `resurrected` | a message was given to a group to which SUCCESS had been said for an acknowledgement of it |
//! | `doubled` | a message was given to a group twice as the same attempt; only a pop in order that is repeated with its attempt id may be |
//! | `early` | a message was given again before its invisible time was over |
//! | `late` | a message that nobody acknowledged did not come again, though all was to be popped at the end, or only after [`LATE_MS`] of that |
//! | `refused` | an acknowledgement by the latest handle of a message was refused before its invisible time was over |
//! | `out-of-order` | a group in order was given a message while an earlier one of the queue was neither acknowledged nor given with it |
//!
//! A broker counts how often it has given a message. So deliveries of one message have an order without any clock: two as the same attempt were in flight
//! together, and after an attempt that was acknowledged there is no later one. What depends on times is judged where no clock jumps. Nodes and clients are on
//! one machine and have one clock: a handle says when its message was popped, and for how long.

mod flights;
mod given;
mod order;
mod refusals;
mod windows;

use super::{Finding, Rules};
use crate::history::{History, Outcome};
use crate::reading::Reading;
use flights::{Flights, Story};
use given::{ATTEMPTS_MAX, Given};
use windows::Windows;

/// How late a message may come again once nothing is broken any more and consumers only acknowledge, ms.
const LATE_MS: u64 = 10_000;
pub(super) fn check(history: &History, replicas: &[Reading], rules: Rules) -> Vec<Finding> {
    let (flights, windows) = (Flights::of(history), Windows::of(history));
    let mut findings = vec![
        invented(history),
        unseen(history, &flights, rules),
        order::check(history, &flights, replicas, rules),
        refusals::check(history, &flights, &windows, rules),
    ];
    findings.extend(again(history, &flights, &windows, rules));
    findings
}

fn invented(history: &History) -> Finding {
    let mut finding = Finding::fatal("invented");
    for pop in &history.pops {
        for one in pop.given.iter().flatten().filter(|one| one.key.is_none()) {
            finding.add(|| {
                let (group, broker) = (&pop.group, &pop.broker);
                format!("{broker} gave {group} a message of queue {} at offset {}", one.queue, one.offset)
            });
        }
    }
    finding
}

/// What was stored and is not given is lost, unless it expired before.
fn unseen(history: &History, flights: &Flights<'_>, rules: Rules) -> Finding {
    let mut finding = Finding::fatal("unseen");
    let Some(end) = history.pop_end.as_ref().filter(|_| !rules.expires && !rules.clocks_jump) else {
        return finding;
    };
    let was_stored = |outcome: &Outcome| matches!(outcome, Outcome::Ok { .. });
    for key in history.ops.iter().filter(|op| was_stored(&op.outcome)).map(|op| op.key) {
        for group in &end.groups {
            if flights.story(group, key).is_none_or(|story| story.given.is_empty()) {
                finding.add(|| format!("{key}, acknowledged, was never given to {group}"));
            }
        }
    }
    finding
}

/// What is wrong with deliveries of messages that were given before, or should have been given again.
fn again(history: &History, flights: &Flights<'_>, windows: &Windows<'_>, rules: Rules) -> [Finding; 4] {
    let names = ["resurrected", "doubled", "early", "late"];
    let [mut resurrected, mut doubled, mut early, mut late] = names.map(Finding::fatal);
    for (group, key, story) in flights.all() {
        let what = |given: &Given<'_>| format!("{key} of {group}: {}", given.said());
        for given in story.given.iter().filter(|given| story.is_acked_before(given)) {
            resurrected
                .add(|| format!("{}, after an acknowledgement of it was answered with SUCCESS", what(given)));
        }
        for pair in story.given.windows(2) {
            let [first, then] = pair else { continue };
            if story.is_acked_before(then) {
                continue;
            }
            let visible_ms = windows.visible_ms(story, first);
            if first.one.attempts == then.one.attempts {
                if !first.is_repeated_by(then) {
                    doubled.add(|| format!("{}; as the same attempt {}", what(first), then.said()));
                }
            } else if !rules.clocks_jump && then.is_before(visible_ms.earliest) {
                let earliest = visible_ms.earliest;
                early.add(|| format!("{}, visible at {earliest} ms; then {}", what(first), then.said()));
            }
        }
        // What expired before anybody could be given it does not come again.
        if !rules.clocks_jump && !rules.outran {
            check_late(history, (story, windows), &what, &mut late);
        }
    }
    [resurrected, doubled, early, late]
}

/// What nobody acknowledged comes again soon where nothing is broken.
fn check_late(
    history: &History,
    (story, windows): (&Story<'_>, &Windows<'_>),
    what: &dyn Fn(&Given<'_>) -> String,
    late: &mut Finding,
) {
    let Some(end) = &history.pop_end else { return };
    let (from_ms, to_ms) = (history.day_ms(end.from_us), history.day_ms(end.to_us));
    for (at, given) in story.given.iter().enumerate() {
        let attempts = given.one.attempts;
        let then = story.given.get(at + 1);
        // A pop in between was answered, and nobody got the answer.
        let is_next = then.is_none_or(|then| then.one.attempts == attempts + 1);
        let is_over = then.is_none() && (story.may_be_acked(attempts) || attempts >= ATTEMPTS_MAX);
        if !is_next || is_over {
            continue;
        }
        let due_ms = windows.visible_ms(story, given).latest.max(from_ms);
        let came_ms = then.map_or(to_ms, |then| then.one.popped_ms);
        if came_ms > due_ms + LATE_MS {
            late.add(|| match then {
                Some(_) => format!("{}; it came {} ms after it was due", what(given), came_ms - due_ms),
                None => {
                    let (what, refused) = (what(given), story.refusals(attempts));
                    format!("{what}; it was due at {due_ms} ms and did not come by {to_ms} ms; acknowledgements refused: {refused}")
                }
            });
        }
    }
}

#[cfg(test)]
mod tests;
