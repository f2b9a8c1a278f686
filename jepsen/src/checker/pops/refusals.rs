//! An acknowledgement by the latest handle of a message counts, as long as its invisible time lasts.

use std::collections::HashSet;

use super::super::delays::DRIFT_MS;
use super::super::{Finding, Rules};
use super::flights::{Flights, Story};
use super::given::Given;
use super::windows::Windows;
use crate::history::{Ended, History, PopAck};

pub(super) fn check(
    history: &History,
    flights: &Flights<'_>,
    windows: &Windows<'_>,
    rules: Rules,
) -> Finding {
    let mut finding = Finding::fatal("refused");
    if rules.clocks_jump {
        return finding;
    }
    let unanswered = history.pops.iter().filter(|pop| pop.given.is_none());
    let unanswered: HashSet<&str> = unanswered.filter_map(|pop| pop.attempt.as_deref()).collect();
    for (group, key, story) in flights.all() {
        for ack in story.acks.iter().filter(|ack| ack.ended == Ended::Refused) {
            let Some(given) = latest(story, ack, &unanswered) else { continue };
            let (at_us, until_ms) = (ack.completed_us, windows.visible_ms(story, given).earliest);
            if history.day_ms(at_us) + DRIFT_MS < until_ms {
                let what = given.said();
                finding.add(|| {
                    format!("{key} of {group}: {what}, in flight until {until_ms} ms; its acknowledgement was refused at {at_us} us")
                });
            }
        }
    }
    finding
}

/// The delivery whose handle is acknowledged, if no other handle can have replaced it: one that was made by a try whose answer was lost.
fn latest<'s, 'a>(story: &'s Story<'a>, ack: &PopAck, unanswered: &HashSet<&str>) -> Option<&'s Given<'a>> {
    let mut same = story.given.iter().filter(|given| given.one.attempts == ack.attempts);
    let given = same.next().filter(|_| same.next().is_none())?;
    let is_repeated = given.pop.attempt.as_deref().is_some_and(|attempt| unanswered.contains(attempt));
    let changes = story.changes.iter().filter(|change| change.attempts == ack.attempts);
    let may_be_changed = changes.into_iter().any(|change| change.ended == Ended::Unknown);
    (!is_repeated && !may_be_changed).then_some(given)
}
