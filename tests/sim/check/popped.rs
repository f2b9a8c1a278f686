//! Popped messages: by the committed records alone. One that was acknowledged is not popped again and not stored again; one comes again by one
//! record for each time that it was given, one attempt older; and at the end each is acknowledged, dead, in flight,
//! or still to be popped.
//!
//! Whether a command counted is read from a state of the checker's own, to which it applies all commands; what may be is not.

use std::collections::{BTreeMap, BTreeSet};

use folio_engine::record::Record;
use folio_protocol::message::Messages;
use folio_protocol::names;
use folio_protocol::popped::CARRIED_TOPIC;
use folio_raft::group::Group;
use folio_state::{
    AckPopped, BatchId, ChangePopped, Command, NoMessages, Outcome, PopMessages, PopQueue, RevivePopped,
    State,
};

use super::{Checked, violation};

/// The topic that consumers of this kind send to.
pub(crate) const TOPIC: &str = "popped";
/// Their group.
pub(crate) const GROUP: &str = "poppers";
/// Their retry topic.
pub(crate) const RETRY: &str = "%RETRY%poppers_popped";

/// Whether a topic is of these consumers.
pub(crate) fn is_of_poppers(topic: &str) -> bool {
    [TOPIC, CARRIED_TOPIC, "%DLQ%poppers"].contains(&topic)
}

#[derive(Default)]
pub(crate) struct Popped {
    state: State,
    /// Number and attempts of what is stored, by topic and offset.
    stored: BTreeMap<(String, u64), (u64, i32)>,
    /// What is in flight: its batch, and when it becomes visible.
    in_flight: BTreeMap<(String, u64), (BatchId, u64)>,
    numbers: BTreeSet<u64>,
    acked: BTreeSet<u64>,
    dead: BTreeSet<u64>,
    /// Whether retention drops messages that nobody has popped yet.
    pub(crate) expires: bool,
    expired: BTreeSet<u64>,
    told_sent: BTreeSet<u64>,
    told_acked: BTreeSet<u64>,
    /// Messages that came again.
    pub(crate) revived: u64,
}

impl Popped {
    pub(crate) fn sent(&mut self, number: u64) {
        self.told_sent.insert(number);
    }

    pub(crate) fn told_acked(&mut self, number: u64) {
        self.told_acked.insert(number);
    }

    /// Takes in the next committed record.
    pub(crate) fn committed(&mut self, record: &Record) -> Checked {
        let mut expected = BTreeMap::new();
        for command in record.commands() {
            let Ok(command) = Command::decode(&command) else { continue };
            let outcome = self.state.apply_with(command.clone(), &NoMessages);
            let counts = outcome == Outcome::Done;
            match command {
                Command::PopMessages(pop) if counts => self.popped(&pop)?,
                Command::AckPopped(ack) if counts => self.ack(&ack)?,
                Command::ChangePopped(change) if counts => self.changed(&change)?,
                Command::RevivePopped(revive) => {
                    if !counts {
                        return Err(violation("a message comes again once", format!("{revive:?}")));
                    }
                    let (number, times) = self.revived(&revive)?;
                    expected.insert(number, times);
                }
                _ => {}
            }
        }
        self.store(record, expected)
    }

    fn store(&mut self, record: &Record, mut expected: BTreeMap<u64, i32>) -> Checked {
        for (_, message) in Messages::new(record.messages()).filter_map(Result::ok) {
            let topic = message.topic();
            let is_dead = topic == names::dlq_topic(GROUP);
            if topic != TOPIC && topic != RETRY && !is_dead {
                continue;
            }
            let number = message.body().first_chunk().map_or(0, |number| u64::from_le_bytes(*number));
            let times = message.reconsume_times();
            if topic == TOPIC {
                self.numbers.insert(number);
            } else {
                let Some(before) = expected.remove(&number) else {
                    return Err(violation("a message comes again once", format!("{number} in {topic}")));
                };
                if times != before + i32::from(!is_dead) {
                    let seen = format!("{number}: {times} attempts, before {before}");
                    return Err(violation("attempts are counted", seen));
                }
                self.revived += 1;
            }
            if is_dead {
                self.dead.insert(number);
            } else {
                self.stored.insert((topic.to_owned(), message.queue_offset()), (number, times));
            }
        }
        match expected.first_key_value() {
            Some((number, _)) => {
                Err(violation("a message that leaves its batch is stored", format!("{number}")))
            }
            None => Ok(()),
        }
    }

    fn number(&self, queue: &PopQueue, offset: u64) -> Result<(u64, i32), super::Violation> {
        let stored = self.stored.get(&(queue.topic.clone(), offset)).copied();
        stored.ok_or_else(|| violation("what is popped is stored", format!("{offset} of {queue:?}")))
    }

    /// What a pop passes over has been dropped by retention before it was popped.
    fn passed_over(&mut self, pop: &PopMessages) -> Checked {
        for offset in pop.from.unwrap_or(0)..pop.id.start {
            if !self.expires {
                return Err(violation("a pop passes over nothing", format!("{offset}: {pop:?}")));
            }
            let (number, _) = self.number(&pop.queue, offset)?;
            self.expired.insert(number);
        }
        Ok(())
    }

    fn popped(&mut self, pop: &PopMessages) -> Checked {
        self.passed_over(pop)?;
        for diff in &pop.diffs {
            let offset = pop.id.start + u64::from(*diff);
            let (number, _) = self.number(&pop.queue, offset)?;
            if self.acked.contains(&number) {
                return Err(violation("acknowledged messages do not come", format!("{number}: {pop:?}")));
            }
            let key = (pop.queue.topic.clone(), offset);
            if let Some(before) = self.in_flight.insert(key, (pop.id, pop.visible_ms)) {
                let seen = format!("{number}: {pop:?}, before {before:?}");
                return Err(violation("a message is in flight once", seen));
            }
        }
        Ok(())
    }

    fn leaves(&mut self, queue: &PopQueue, offset: u64, id: BatchId) -> Checked {
        match self.in_flight.remove(&(queue.topic.clone(), offset)) {
            Some((known, _)) if known == id => Ok(()),
            other => {
                let seen = format!("{offset} of {queue:?} by {id:?}: {other:?}");
                Err(violation("a message leaves the batch that it is in", seen))
            }
        }
    }

    fn ack(&mut self, ack: &AckPopped) -> Checked {
        self.leaves(&ack.queue, ack.offset, ack.id)?;
        let (number, _) = self.number(&ack.queue, ack.offset)?;
        self.acked.insert(number);
        Ok(())
    }

    fn changed(&mut self, change: &ChangePopped) -> Checked {
        self.leaves(&change.queue, change.offset, change.id)?;
        let id = BatchId { start: change.offset, popped_ms: change.popped_ms };
        self.in_flight.insert((change.queue.topic.clone(), change.offset), (id, change.visible_ms));
        Ok(())
    }

    fn revived(&mut self, revive: &RevivePopped) -> Result<(u64, i32), super::Violation> {
        self.leaves(&revive.queue, revive.offset, revive.id)?;
        self.number(&revive.queue, revive.offset)
    }

    /// What consumers were told is so, and nothing is lost.
    pub(crate) fn check_kept(&self) -> Checked {
        if let Some(number) = self.told_sent.difference(&self.numbers).next() {
            return Err(violation("acknowledged is kept", format!("message {number} to be popped")));
        }
        if let Some(number) = self.told_acked.difference(&self.acked).next() {
            return Err(violation(
                "an acknowledgement that is answered is kept",
                format!("message {number}"),
            ));
        }
        let mut known: BTreeSet<u64> = self.acked.union(&self.dead).copied().collect();
        known.extend(&self.expired);
        for ((topic, offset), (number, _)) in &self.stored {
            let queue = PopQueue { group: GROUP.into(), topic: topic.clone(), queue: 0 };
            let is_ahead = self.state.offset_as_stored(&queue).is_none_or(|next| *offset >= next);
            if is_ahead || self.in_flight.contains_key(&(topic.clone(), *offset)) {
                known.insert(*number);
            }
        }
        match self.numbers.difference(&known).next() {
            Some(number) => Err(violation("no popped message is lost", format!("message {number}"))),
            None => Ok(()),
        }
    }

    /// A node says that the same messages are in flight, all of which its log holds.
    pub(crate) fn check_node(&self, group: &Group) -> Checked {
        let popped = group.state().popped().clone();
        let mut in_flight = BTreeMap::new();
        for (queue, id, batch) in popped.batches() {
            let each =
                batch.in_flight(id).map(|offset| ((queue.topic.clone(), offset), (id, batch.visible_ms)));
            in_flight.extend(each);
        }
        if in_flight != self.in_flight {
            let seen =
                format!("node {} has {in_flight:?}, committed are {:?}", group.node_id(), self.in_flight);
            return Err(violation("what is in flight is known", seen));
        }
        let start = group.log().state().start_position;
        match popped.lowest_before(start) {
            Some(position) => {
                let seen = format!("position {position}, node {}'s log begins at {start}", group.node_id());
                Err(violation("what is in flight is in the log", seen))
            }
            None => Ok(()),
        }
    }
}
