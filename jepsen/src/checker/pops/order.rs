//! A group that consumes in order: what it is given of a queue comes after all before it was acknowledged, or together with it.

use std::collections::{BTreeMap, BTreeSet};

use super::super::{Finding, Rules};
use super::flights::Flights;
use super::given::ATTEMPTS_MAX;
use crate::history::{Ended, History, Outcome, Pop};
use crate::payload::OpKey;
use crate::reading::Reading;

/// The messages of each queue by their offsets, as far as anybody knows.
type Queues = BTreeMap<u32, BTreeMap<u64, OpKey>>;

/// A message of a queue in one group, in the order of offsets.
struct Place {
    offset: u64,
    key: OpKey,
    /// When it was first asked for what may have acknowledged it.
    handled_us: u64,
    /// The latest such of it and all before.
    all_handled_us: u64,
}

pub(super) fn check(history: &History, flights: &Flights<'_>, replicas: &[Reading], rules: Rules) -> Finding {
    let mut finding = Finding::fatal("out-of-order");
    let ordered: Vec<&Pop> = history.pops.iter().filter(|pop| pop.attempt.is_some()).collect();
    let groups: BTreeSet<&str> = ordered.iter().map(|pop| pop.group.as_str()).collect();
    let queues = if groups.is_empty() { Queues::new() } else { queues(history, replicas) };
    for group in groups {
        let places = places(group, &queues, flights, rules);
        // What is left out once is left out of all that comes after.
        let mut named = BTreeSet::new();
        for pop in ordered.iter().filter(|pop| pop.group == group) {
            for (queue, offsets) in given(pop) {
                let Some(places) = places.get(&queue) else { continue };
                if !offsets.is_sorted() {
                    finding.add(|| format!("{group} was given {offsets:?} of queue {queue}, in that order"));
                }
                let before = left_out(places, &offsets, pop.completed_us);
                if let Some(before) = before.filter(|before| named.insert(before.key)) {
                    let (key, at, us) = (before.key, before.offset, pop.completed_us);
                    finding.add(|| {
                        format!(
                            "{group} was given {offsets:?} of queue {queue} at {us} us, and {key} at offset {at} was not \
                             acknowledged by then"
                        )
                    });
                }
            }
        }
    }
    finding
}

fn queues(history: &History, replicas: &[Reading]) -> Queues {
    let mut queues = Queues::new();
    let mut add = |queue: u32, offset: u64, key: OpKey| {
        queues.entry(queue).or_default().insert(offset, key);
    };
    for op in &history.ops {
        if let Outcome::Ok { offset, .. } = op.outcome {
            add(op.key.queue, offset, op.key);
        }
    }
    for (queue, found) in replicas.iter().flat_map(Reading::messages) {
        if let Some(key) = found.key {
            add(queue.queue, found.offset, key);
        }
    }
    for one in history.pops.iter().filter_map(|pop| pop.given.as_ref()).flatten() {
        if let Some(key) = one.key.filter(|_| !one.is_retry) {
            add(one.queue, one.offset, key);
        }
    }
    queues
}

fn places(group: &str, queues: &Queues, flights: &Flights<'_>, rules: Rules) -> BTreeMap<u32, Vec<Place>> {
    let handled_us = |key: OpKey| {
        let Some(story) = flights.story(group, key).filter(|story| !story.given.is_empty()) else {
            // What expired before is never given.
            return if rules.expires { 0 } else { u64::MAX };
        };
        if story.given.iter().any(|given| given.one.attempts >= ATTEMPTS_MAX) {
            return 0;
        }
        let acks = story.acks.iter().filter(|ack| ack.ended != Ended::Refused);
        acks.map(|ack| ack.invoked_us).min().unwrap_or(u64::MAX)
    };
    let of_queue = |messages: &BTreeMap<u64, OpKey>| {
        let mut all_handled_us = 0;
        let place = |(offset, key): (&u64, &OpKey)| {
            let handled_us = handled_us(*key);
            all_handled_us = handled_us.max(all_handled_us);
            Place { offset: *offset, key: *key, handled_us, all_handled_us }
        };
        messages.iter().map(place).collect()
    };
    queues.iter().map(|(queue, messages)| (*queue, of_queue(messages))).collect()
}

/// What a pop gave of each queue, in its order.
fn given(pop: &Pop) -> BTreeMap<u32, Vec<u64>> {
    let mut of_queues: BTreeMap<u32, Vec<u64>> = BTreeMap::new();
    for one in pop.given.iter().flatten() {
        of_queues.entry(one.queue).or_default().push(one.offset);
    }
    of_queues
}

/// The first message before one of these that was not acknowledged by then, and is not one of these.
fn left_out<'p>(places: &'p [Place], offsets: &[u64], at_us: u64) -> Option<&'p Place> {
    let (first, last) = (*offsets.iter().min()?, *offsets.iter().max()?);
    let from = places.partition_point(|place| place.offset < first);
    let before = &places[..from];
    let is_all_handled = before.last().is_none_or(|place| place.all_handled_us <= at_us);
    let not_handled = |place: &&Place| place.handled_us > at_us;
    if !is_all_handled {
        return before.iter().find(not_handled);
    }
    let between = places[from..].iter().take_while(|place| place.offset < last);
    between.filter(|place| !offsets.contains(&place.offset)).find(not_handled)
}
