//! Open transactions: which half messages wait for their producers to commit them or roll them back.
//!
//! A half message ([`folio_protocol::half`]) is stored as any message is. What is applied of it opens its transaction
//! ([`Transactions::store`]): the state is a function of the log, and a transaction's id is the position of the message that its
//! producer sent. A copy of it that is stored further on moves the transaction there, if it is still open.
//!
//! What ends a transaction comes with the message that it makes, in one transition ([`EndTransaction`]). What ended lately is
//! remembered, so that who repeats an end is told what became of the first. A transaction whose producer was asked too often is given
//! up: its message goes to a topic of its own, and as long as the state knows of that, the transaction can be resumed, once.
//!
//! How often a producer was asked is state ([`NoteChecks`]), written after the question was handed to the producer's connection. So a
//! new leader goes on counting, and what a leader could not write before it fell is one question that does not count.
//!
//! - `transactions.I1` A transaction ends once: with one message of its real topic, or none.
//! - `transactions.I2` What is remembered is bounded: [`OPEN_MAX`] open ones by what a leader takes, [`ENDED_MAX`] ended ones and
//!   [`GIVEN_UP_MAX`] that were given up for any history of commands; what ended first is forgotten first.

use serde::{Deserialize, Serialize};

use super::features::TRANSACTIONS;
use super::size::{new_map, signed};
use crate::bounds::{OutOfBounds, at_most, check_group_name};
use crate::cow_map::CowMap;
use crate::operation::{Apply, Operation, Outcome, Unmet};
use crate::recent::{Recent, entry_bytes};
use crate::section::{Has, NextOffsets, Section};

/// Open transactions: about 14 MiB of state.
pub const OPEN_MAX: u64 = 262_144;
/// Ended ones that are remembered.
pub const ENDED_MAX: u64 = 65_536;
/// Those that were given up and can be resumed.
pub const GIVEN_UP_MAX: u64 = 65_536;
/// Checks that one command notes.
pub const CHECKS_MAX: usize = 4096;

/// Bytes of an open transaction with its id.
const OPEN_BYTES: i64 = 8 + 8 + 4 + 8 + 8 + 4 + 4 + 8;

/// The value of [`OpenTransaction::immunity_s`] where the producer did not say.
pub const NO_IMMUNITY: u32 = u32::MAX;

/// A transaction that is open.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct OpenTransaction {
    /// Where its half message lies now; 0 for none yet.
    pub position: u64,
    /// The message's length.
    pub bytes: u32,
    /// The queue offset of the half message that the producer sent.
    pub queue_offset: u64,
    /// When that was stored, ms since the epoch.
    pub stored_ms: u64,
    /// For how long its producer does not want to be asked, seconds; or [`NO_IMMUNITY`].
    pub immunity_s: u32,
    /// How often the producer was asked.
    pub checks: u32,
    /// When it was asked last.
    pub checked_ms: u64,
}

/// A half message, as it was stored.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Half {
    /// The transaction's id, if this is not the message that the producer sent.
    pub copy_of: Option<u64>,
    /// The producer's group.
    pub group: String,
    /// Where it lies.
    pub position: u64,
    /// Its length.
    pub bytes: u32,
    /// Its queue offset.
    pub queue_offset: u64,
    /// When it was stored, ms since the epoch.
    pub stored_ms: u64,
    /// As in [`OpenTransaction`].
    pub immunity_s: u32,
}

/// How a transaction ends.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub enum Ending {
    /// Its message is stored in the real topic.
    Committed,
    /// It is not.
    RolledBack,
    /// Its producer was asked too often: the half message goes to a topic of its own.
    GivenUp,
}

type OfGroup = CowMap<u64, OpenTransaction>;

/// See the module.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Transactions {
    groups: CowMap<String, OfGroup>,
    count: u64,
    /// Whether each was committed.
    ended: Recent<bool>,
    given_up: Recent<()>,
}

impl Section for Transactions {
    const TAG: u16 = 9;
    const SINCE: u16 = TRANSACTIONS;
    const DEPENDS_ON_ORDER: bool = true;
}

impl Transactions {
    /// An open transaction of a producer group.
    pub fn get(&self, group: &str, id: u64) -> Option<&OpenTransaction> {
        self.groups.get(group)?.get(&id)
    }

    /// How many are open.
    pub fn count(&self) -> u64 {
        self.count
    }

    /// How one ended, as far as it is remembered.
    pub fn ending(&self, id: u64) -> Option<Ending> {
        if self.given_up.get(id).is_some() {
            return Some(Ending::GivenUp);
        }
        let committed = self.ended.get(id)?;
        Some(if *committed { Ending::Committed } else { Ending::RolledBack })
    }

    /// The producer groups with open transactions.
    pub fn groups(&self) -> impl Iterator<Item = &str> {
        self.groups.iter().map(|(name, _)| name.as_str())
    }

    /// The open transactions of a group, by id ascending.
    pub fn of(&self, group: &str) -> impl Iterator<Item = (u64, &OpenTransaction)> {
        let of_group = self.groups.get(group);
        of_group.into_iter().flat_map(|open| open.iter()).map(|(id, open)| (*id, open))
    }

    /// The open transactions whose half messages lie before a position, by position, at most so many. Looks at all.
    pub fn lying_before(&self, upto: u64, max: usize) -> Vec<(&str, u64, OpenTransaction)> {
        let all = self.groups.iter().flat_map(|(name, open)| open.iter().map(|of| (name.as_str(), of)));
        let before = all.filter(|(_, (_, open))| open.position < upto);
        let mut found: Vec<_> = before.map(|(name, (id, open))| (name, *id, *open)).collect();
        found.sort_unstable_by_key(|(_, _, open)| open.position);
        found.truncate(max);
        found
    }

    /// Opens the transaction of a half message that was stored, or moves it there; returns by how many bytes the encoded state grows.
    pub(crate) fn store(&mut self, half: Half) -> i64 {
        let Half { copy_of, group, position, bytes, queue_offset, stored_ms, immunity_s } = half;
        if let Some(id) = copy_of {
            // One that has ended meanwhile stays ended.
            if let Some(open) = self.groups.get_mut(&group).and_then(|open| open.get_mut(&id)) {
                open.position = position;
                open.bytes = bytes;
            }
            return 0;
        }
        let open = OpenTransaction {
            position,
            bytes,
            queue_offset,
            stored_ms,
            immunity_s,
            checks: 0,
            checked_ms: 0,
        };
        let growth = self.growth_of_opening(&group, position);
        self.open(group, position, open);
        growth
    }

    fn open(&mut self, group: String, id: u64, open: OpenTransaction) {
        if self.groups.get_or_default(group).insert(id, open).is_none() {
            self.count += 1;
        }
    }

    fn growth_of_opening(&self, group: &str, id: u64) -> i64 {
        match self.groups.get(group) {
            None => signed(new_map(group)) + OPEN_BYTES,
            Some(open) if open.contains_key(&id) => 0,
            Some(_) => OPEN_BYTES,
        }
    }

    fn growth_of_end(&self, EndTransaction { group, id, ending }: &EndTransaction) -> i64 {
        let closed = match self.groups.get(group) {
            Some(open) if open.contains_key(id) => {
                let is_last = open.len() == 1;
                -OPEN_BYTES - if is_last { signed(new_map(group)) } else { 0 }
            }
            _ => return 0,
        };
        closed
            + match ending {
                Ending::GivenUp => self.given_up.growth(*id, &(), GIVEN_UP_MAX),
                Ending::Committed | Ending::RolledBack => self.ended.growth(*id, &true, ENDED_MAX),
            }
    }

    /// Whether it was open.
    fn end(&mut self, EndTransaction { group, id, ending }: &EndTransaction) -> bool {
        let Some(open) = self.groups.get_mut(group) else { return false };
        if open.remove(id).is_none() {
            return false;
        }
        if open.len() == 0 {
            self.groups.remove(group);
        }
        self.count -= 1;
        // transactions.I2
        match ending {
            Ending::GivenUp => self.given_up.add(*id, (), GIVEN_UP_MAX),
            Ending::Committed | Ending::RolledBack => {
                self.ended.add(*id, *ending == Ending::Committed, ENDED_MAX);
            }
        }
        true
    }
}

/// Ends an open transaction. It comes with the message that it makes, if any, in one transition.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct EndTransaction {
    /// The producer's group.
    pub group: String,
    /// The transaction.
    pub id: u64,
    /// How it ends.
    pub ending: Ending,
}

impl Operation for EndTransaction {
    const KIND: u16 = 112;
    const SINCE: u16 = TRANSACTIONS;
    const DEPENDS_ON_ORDER: bool = true;

    fn check_bounds(&self) -> Result<(), OutOfBounds> {
        check_group_name(&self.group)
    }
}

impl<S: Has<Transactions>> Apply<S> for EndTransaction {
    fn growth(&self, state: &S, _: &dyn NextOffsets) -> i64 {
        Transactions::within(state).growth_of_end(self)
    }

    /// `transactions.I1`
    fn precondition(&self, state: &S) -> Result<(), Unmet> {
        let EndTransaction { group, id, ending } = self;
        match Transactions::within(state).get(group, *id) {
            Some(_) => Ok(()),
            None => Err(Unmet(format!(
                "transactions.I1: transaction {id} of group {group} ends as {ending:?} and is not open"
            ))),
        }
    }

    fn apply(self, state: &mut S, _: &dyn NextOffsets) -> Outcome {
        if Transactions::within_mut(state).end(&self) { Outcome::Done } else { Outcome::NotFound }
    }
}

/// Notes that producers were asked what became of these transactions. Those that have ended meanwhile are passed over.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct NoteChecks {
    /// The producer group.
    pub group: String,
    /// Each transaction, and how often its producer was asked by now.
    pub checks: Vec<(u64, u32)>,
    /// When, by the leader's clock, ms since the epoch.
    pub at_ms: u64,
}

impl Operation for NoteChecks {
    const KIND: u16 = 113;
    const SINCE: u16 = TRANSACTIONS;
    const DEPENDS_ON_ORDER: bool = true;

    fn check_bounds(&self) -> Result<(), OutOfBounds> {
        check_group_name(&self.group)?;
        at_most("checks", self.checks.len(), CHECKS_MAX)
    }
}

impl<S: Has<Transactions>> Apply<S> for NoteChecks {
    fn growth(&self, _: &S, _: &dyn NextOffsets) -> i64 {
        0
    }

    fn apply(self, state: &mut S, _: &dyn NextOffsets) -> Outcome {
        let transactions = Transactions::within_mut(state);
        let Some(of_group) = transactions.groups.get_mut(&self.group) else { return Outcome::NotFound };
        for (id, times) in self.checks {
            if let Some(open) = of_group.get_mut(&id) {
                open.checks = times;
                open.checked_ms = self.at_ms;
            }
        }
        Outcome::Done
    }
}

/// Half messages are stored once more, because what lies before a position is to be dropped. It comes with these messages, in one
/// transition. It changes nothing itself: what is applied of the messages moves the transactions that are still open.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct CarryTransactions {
    /// Nothing that is open is to lie before this position.
    pub upto: u64,
}

impl Operation for CarryTransactions {
    const KIND: u16 = 114;
    const SINCE: u16 = TRANSACTIONS;
    const DEPENDS_ON_ORDER: bool = true;

    fn check_bounds(&self) -> Result<(), OutOfBounds> {
        Ok(())
    }
}

impl<S: Has<Transactions>> Apply<S> for CarryTransactions {
    fn growth(&self, _: &S, _: &dyn NextOffsets) -> i64 {
        0
    }

    fn apply(self, _: &mut S, _: &dyn NextOffsets) -> Outcome {
        Outcome::Done
    }
}

/// Opens a transaction again that was given up. It comes with its half message, in one transition.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct ResumeTransaction {
    /// The producer's group.
    pub group: String,
    /// The transaction.
    pub id: u64,
    /// The queue offset of the half message that its producer sent.
    pub queue_offset: u64,
    /// When it is resumed, ms since the epoch.
    pub at_ms: u64,
}

impl Operation for ResumeTransaction {
    const KIND: u16 = 115;
    const SINCE: u16 = TRANSACTIONS;
    const DEPENDS_ON_ORDER: bool = true;

    fn check_bounds(&self) -> Result<(), OutOfBounds> {
        check_group_name(&self.group)
    }
}

impl<S: Has<Transactions>> Apply<S> for ResumeTransaction {
    fn growth(&self, state: &S, _: &dyn NextOffsets) -> i64 {
        let transactions = Transactions::within(state);
        if transactions.given_up.get(self.id).is_none() {
            return 0;
        }
        transactions.growth_of_opening(&self.group, self.id) - entry_bytes(&())
    }

    /// `transactions.I1`
    fn precondition(&self, state: &S) -> Result<(), Unmet> {
        let ResumeTransaction { group, id, .. } = self;
        if Transactions::within(state).given_up.get(*id).is_some() {
            return Ok(());
        }
        Err(Unmet(format!(
            "transactions.I1: transaction {id} of group {group} is resumed and was not given up"
        )))
    }

    fn apply(self, state: &mut S, _: &dyn NextOffsets) -> Outcome {
        let transactions = Transactions::within_mut(state);
        if transactions.given_up.remove(self.id).is_none() {
            return Outcome::NotFound;
        }
        let open = OpenTransaction {
            position: 0,
            bytes: 0,
            queue_offset: self.queue_offset,
            stored_ms: self.at_ms,
            immunity_s: NO_IMMUNITY,
            checks: 0,
            checked_ms: 0,
        };
        transactions.open(self.group, self.id, open);
        Outcome::Done
    }
}

#[cfg(test)]
mod tests;
