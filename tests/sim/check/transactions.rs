//! Transactions end once: with one message of the real topic, or none; by the committed records alone, and at the end by what each node
//! says is open.
//!
//! A message of a transaction has its number in its body, wherever it is stored.

use std::collections::{BTreeMap, BTreeSet};

use folio_engine::record::Record;
use folio_protocol::half;
use folio_protocol::message::Messages;
use folio_raft::group::Group;
use folio_state::{Command, EndTransaction, Ending};

use super::{Checked, violation};

/// The topic that messages of transactions are sent to.
pub(crate) const TOPIC: &str = "paid";
/// The group of their producers.
pub(crate) const GROUP: &str = "tellers";

#[derive(Default)]
pub(crate) struct Transactions {
    /// Half messages whose senders were told that they are stored.
    told_begun: BTreeMap<u64, u64>,
    /// Transactions whose ends were answered with success, with what was told of them.
    told_ended: BTreeMap<u64, BTreeSet<Option<Told>>>,
    /// Number and place of what is open, by id.
    open: BTreeMap<u64, (u64, u64)>,
    numbers: BTreeMap<u64, u64>,
    ended: BTreeMap<u64, Ending>,
    visible: BTreeSet<u64>,
    pub(crate) committed: u64,
}

/// An ending that can be ordered.
type Told = (bool, bool);

fn order(ending: Ending) -> Told {
    (ending == Ending::Committed, ending == Ending::RolledBack)
}

impl Transactions {
    pub(crate) fn begun(&mut self, number: u64, id: u64) {
        self.told_begun.insert(number, id);
    }

    pub(crate) fn ended(&mut self, id: u64, how: Option<Ending>) {
        self.told_ended.entry(id).or_default().insert(how.map(order));
    }

    /// Takes in the next committed record.
    pub(crate) fn committed(&mut self, record: &Record) -> Checked {
        let mut expected = BTreeMap::new();
        for command in record.commands() {
            if let Ok(Command::EndTransaction(EndTransaction { id, ending, .. })) = Command::decode(&command)
            {
                let Some((number, _)) = self.open.remove(&id) else {
                    let seen = format!("transaction {id}: {ending:?}, before {:?}", self.ended.get(&id));
                    return Err(violation("a transaction ends once", seen));
                };
                self.ended.insert(id, ending);
                expected.insert(number, ending);
            }
        }
        let start = record.messages_position();
        for (at, message) in Messages::new(record.messages()).filter_map(Result::ok) {
            let number = message.body().first_chunk().map_or(0, |number| u64::from_le_bytes(*number));
            let position = start + at as u64;
            match message.topic() {
                half::TOPIC => self.stored(number, half::first_copy(&message), position)?,
                TOPIC
                    if expected.get(&number) != Some(&Ending::Committed) || !self.visible.insert(number) =>
                {
                    let seen = format!("message {number} at {position}: {:?}", expected.get(&number));
                    return Err(violation("what is not committed is not visible", seen));
                }
                half::GIVEN_UP_TOPIC if expected.get(&number) != Some(&Ending::GivenUp) => {
                    let seen = format!("message {number} at {position}: {:?}", expected.get(&number));
                    return Err(violation("what is not given up is kept", seen));
                }
                TOPIC => self.committed += 1,
                _ => {}
            }
        }
        let lost = expected
            .iter()
            .find(|(number, ending)| **ending == Ending::Committed && !self.visible.contains(number));
        match lost {
            Some((number, _)) => {
                Err(violation("a commit comes with its message", format!("message {number} is not there")))
            }
            None => Ok(()),
        }
    }

    fn stored(&mut self, number: u64, copy_of: Option<u64>, position: u64) -> Checked {
        match copy_of {
            None => {
                self.numbers.insert(number, position);
                self.open.insert(position, (number, position));
            }
            Some(id) => {
                if let Some((_, place)) = self.open.get_mut(&id) {
                    *place = position;
                } else if !self.ended.contains_key(&id) {
                    let seen = format!("message {number} of transaction {id} at {position}");
                    return Err(violation("a half message is stored before its copy", seen));
                }
            }
        }
        Ok(())
    }

    /// What producers were told is so.
    pub(crate) fn check_kept(&self) -> Checked {
        if let Some((number, id)) =
            self.told_begun.iter().find(|(number, id)| self.numbers.get(number) != Some(id))
        {
            let seen =
                format!("half message {number} was said to be at {id}: {:?}", self.numbers.get(number));
            return Err(violation("acknowledged is kept", seen));
        }
        for (id, told) in &self.told_ended {
            let really = self.ended.get(id).copied().map(order);
            if really.is_none() || told.iter().any(|told| *told != really) {
                let seen = format!("transaction {id}: told {told:?}, committed {:?}", self.ended.get(id));
                return Err(violation("a transaction ends as its producers were told", seen));
            }
        }
        Ok(())
    }

    /// A node says that the same transactions are open, at the same places, all of which its log holds.
    pub(crate) fn check_node(&self, group: &Group) -> Checked {
        let state = group.state().transactions().clone();
        let open: BTreeMap<u64, u64> = state.of(GROUP).map(|(id, open)| (id, open.position)).collect();
        if !open
            .iter()
            .map(|(id, place)| (*id, *place))
            .eq(self.open.iter().map(|(id, (_, place))| (*id, *place)))
        {
            let seen = format!("node {} has {open:?}, committed are {:?}", group.node_id(), self.open);
            return Err(violation("open transactions are known", seen));
        }
        let start = group.log().state().start_position;
        match open.iter().find(|(_, place)| **place < start) {
            Some((id, place)) => {
                let seen = format!(
                    "transaction {id} lies at {place}, node {}'s log begins at {start}",
                    group.node_id()
                );
                Err(violation("what is open is in the log", seen))
            }
            None => Ok(()),
        }
    }
}
