//! What became of each message in each group.

use std::collections::HashMap;

use super::given::Given;
use crate::history::{Ended, History, PopAck, PopChange};
use crate::payload::OpKey;

/// One message in one group.
#[derive(Default)]
pub(super) struct Story<'a> {
    /// How it was given, the first attempt first.
    pub(super) given: Vec<Given<'a>>,
    /// How it was acknowledged.
    pub(super) acks: Vec<&'a PopAck>,
    /// How its invisible time was changed, in the order of the wishes.
    pub(super) changes: Vec<&'a PopChange>,
}

/// All of them.
pub(super) struct Flights<'a>(HashMap<&'a str, HashMap<OpKey, Story<'a>>>);

impl<'a> Flights<'a> {
    pub(super) fn of(history: &'a History) -> Self {
        let mut all = Self(HashMap::new());
        for pop in &history.pops {
            for one in pop.given.iter().flatten() {
                let Some(key) = one.key else { continue };
                all.story_of(&pop.group, key).given.push(Given { pop, one });
            }
        }
        for ack in &history.pop_acks {
            all.story_of(&ack.group, ack.key).acks.push(ack);
        }
        for change in &history.pop_changes {
            all.story_of(&change.group, change.key).changes.push(change);
        }
        for story in all.0.values_mut().flat_map(HashMap::values_mut) {
            story
                .given
                .sort_by_key(|given| (given.one.attempts, given.one.popped_ms, given.pop.completed_us));
            story.changes.sort_by_key(|change| change.invoked_us);
        }
        all
    }

    fn story_of(&mut self, group: &'a str, key: OpKey) -> &mut Story<'a> {
        self.0.entry(group).or_default().entry(key).or_default()
    }

    pub(super) fn story(&self, group: &str, key: OpKey) -> Option<&Story<'a>> {
        self.0.get(group)?.get(&key)
    }

    /// Every group, message and story.
    pub(super) fn all(&self) -> impl Iterator<Item = (&'a str, OpKey, &Story<'a>)> {
        self.0.iter().flat_map(|(group, stories)| stories.iter().map(|(key, story)| (*group, *key, story)))
    }
}

impl Story<'_> {
    /// Whether SUCCESS had been said before for an earlier attempt, or before this pop was asked.
    pub(super) fn is_acked_before(&self, given: &Given<'_>) -> bool {
        let mut acked = self.acks.iter().filter(|ack| ack.ended == Ended::Yes);
        acked.any(|ack| ack.attempts < given.one.attempts || ack.completed_us < given.pop.invoked_us)
    }

    /// Whether an acknowledgement of that attempt, or an earlier one, may have counted.
    pub(super) fn may_be_acked(&self, attempts: u32) -> bool {
        self.acks.iter().any(|ack| ack.attempts <= attempts && ack.ended != Ended::Refused)
    }
    /// How often an acknowledgement of that attempt was refused.
    pub(super) fn refusals(&self, attempts: u32) -> usize {
        let of_attempt = self.acks.iter().filter(|ack| ack.attempts == attempts);
        of_attempt.filter(|ack| ack.ended == Ended::Refused).count()
    }
}
