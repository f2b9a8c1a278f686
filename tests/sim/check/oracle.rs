//! What clients were told, against what the log holds: an acknowledged message is there, once, where it was said to be;
//! a refused one is not.

use std::collections::{BTreeMap, BTreeSet};

use folio_engine::record::Record;
use folio_protocol::message::Messages;
use folio_protocol::{half, names, parked};
use folio_raft::proposal::ProposeError;

use super::deleted::Deleted;
use super::moves::Moves;
use super::place::Place;
use super::popped::{self, Popped};
use super::timers::{self, Timers};
use super::transactions::{self, Transactions};
use super::{Checked, Violation, violation};
use crate::client::{Answer, Why};

#[derive(Debug, Clone, PartialEq, Eq)]
enum Told {
    Nothing,
    /// Stored at this queue offset and position.
    Stored(u64, u64),
    Refused(String),
}

#[derive(Default)]
pub(crate) struct Oracle {
    /// By message and copy: an application may send a message again on purpose.
    told: BTreeMap<(u64, u64), Told>,
    /// Messages that were sent more than once for lack of an answer: a refusal of one attempt says nothing of the others.
    repeated: BTreeSet<u64>,
    pub(crate) places: BTreeMap<u64, Vec<Place>>,
    pub(crate) deleted: Deleted,
    pub(crate) moves: Moves,
    pub(crate) timers: Timers,
    pub(crate) transactions: Transactions,
    pub(crate) popped: Popped,
    pub(crate) acknowledged: u64,
    pub(crate) refused: u64,
}

impl Oracle {
    pub(crate) fn sent(&mut self, message: u64, why: Why) {
        match why {
            Why::New => {
                self.told.insert((message, 0), Told::Nothing);
            }
            Why::Again(copy) => {
                self.told.insert((message, copy), Told::Nothing);
            }
            Why::Retry => {
                self.repeated.insert(message);
                if !matches!(self.told.get(&(message, 0)), Some(Told::Stored(..))) {
                    self.told.insert((message, 0), Told::Nothing);
                }
            }
        }
    }

    /// The answer to a proposal of these messages.
    ///
    /// `applied`: whoever answered is still there and was looked at, so what it acknowledged must have been seen.
    pub(crate) fn answered(&mut self, answer: &Answer, applied: bool) -> Checked {
        for (at, message) in answer.messages.iter().enumerate() {
            let told = match &answer.result {
                Ok(receipt) => Told::Stored(receipt.queue_offsets[at], receipt.positions[at]),
                // Whoever hears that the group stopped knows as little as one whose connection broke.
                Err(ProposeError::Unknown(_) | ProposeError::Stopped(_)) => Told::Nothing,
                Err(_) if answer.copy == 0 && self.repeated.contains(message) => Told::Nothing,
                Err(refused) => Told::Refused(refused.to_string()),
            };
            self.note((*message, answer.copy), told, answer.before_is_gone)?;
            self.check(*message)?;
            if applied && answer.result.is_ok() && !self.places.contains_key(message) {
                return Err(violation(
                    "acknowledged is committed",
                    format!("message {message} was acknowledged and no node has applied it"),
                ));
            }
        }
        Ok(())
    }

    fn note(&mut self, (message, copy): (u64, u64), told: Told, before_is_gone: bool) -> Checked {
        if let Told::Stored(..) = told {
            let other = self.of(message).find(|(other, at)| *other != copy && **at == told);
            match other {
                // It cannot be told from a retry of the one before it.
                Some(_) if before_is_gone => return Ok(()),
                Some((other, _)) => {
                    let seen =
                        format!("message {message}: copy {copy} got the place of copy {other}, {told:?}");
                    return Err(violation("sent again is stored again", seen));
                }
                None => self.acknowledged += 1,
            }
        }
        if let Told::Refused(_) = told {
            self.refused += 1;
        }
        // Who was told early was told.
        let known = matches!(self.told.get(&(message, copy)), Some(Told::Stored(..)));
        if told != Told::Nothing || !known {
            self.told.insert((message, copy), told);
        }
        Ok(())
    }

    /// What was told of each copy of a message.
    fn of(&self, message: u64) -> impl Iterator<Item = (u64, &Told)> {
        self.told.range((message, 0)..=(message, u64::MAX)).map(|((_, copy), told)| (*copy, told))
    }

    /// Clients were told that these messages are stored as soon as a leader had them: the planted defect.
    pub(crate) fn told_early(&mut self, record: &Record) -> Checked {
        for (message, place) in places(record)? {
            if self.told.get(&(message, 0)) == Some(&Told::Nothing) {
                self.told.insert((message, 0), Told::Stored(place.offset, place.position));
            }
        }
        Ok(())
    }

    /// A record was committed.
    pub(crate) fn committed(&mut self, record: &Record) -> Checked {
        for (message, place) in places(record)? {
            self.places.entry(message).or_default().push(place);
            self.check(message)?;
        }
        self.moves.committed(record)?;
        self.timers.committed(record)?;
        self.transactions.committed(record)?;
        self.popped.committed(record)?;
        self.deleted.committed(record)
    }

    /// Where a message lies agrees with what its clients were told.
    fn check(&self, message: u64) -> Checked {
        let Some(places) = self.places.get(&message) else { return Ok(()) };
        let (sent, last) = (self.of(message).count(), places.last());
        let refusals = self.of(message).filter_map(|(_, told)| match told {
            Told::Refused(why) => Some(why),
            _ => None,
        });
        let refusals: Vec<&String> = refusals.collect();
        if sent == 0 {
            return Err(violation("nothing is invented", format!("message {message} at {last:?}")));
        }
        // What was deleted with its topic may be stored once more, by a retry.
        let live = places.iter().filter(|place| !self.deleted.is_gone(place)).count();
        if live > sent {
            return Err(violation(
                "stored once",
                format!("message {message}, sent {sent} times, is at {places:?}"),
            ));
        }
        if live > sent - refusals.len() {
            let seen = format!("message {message} was refused ({refusals:?}) and is at {places:?}");
            return Err(violation("refused is not stored", seen));
        }
        // Of one copy that is not stored yet nothing can be said.
        let lies = |offset: u64, position: u64| {
            places.iter().any(|place| (place.offset, place.position) == (offset, position))
        };
        let elsewhere = self.of(message).find_map(|(_, told)| match told {
            Told::Stored(offset, position) if !lies(*offset, *position) => Some((*offset, *position)),
            _ => None,
        });
        match elsewhere {
            Some(said) if live == sent => {
                let seen = format!("message {message} was said to be at {said:?} and is at {places:?}");
                Err(violation("acknowledged place", seen))
            }
            _ => Ok(()),
        }
    }

    /// Every acknowledged message is committed, also those whose acknowledgement was a node's last deed.
    pub(crate) fn check_kept(&self) -> Checked {
        self.moves.check_kept()?;
        self.timers.check_kept()?;
        self.transactions.check_kept()?;
        self.popped.check_kept()?;
        let lost = self.told.iter().find(|((message, _), told)| self.place(*message, told) == Some(None));
        match lost {
            Some(((message, _), told)) => {
                Err(violation("acknowledged is kept", format!("message {message}, {told:?}, is in no log")))
            }
            None => Ok(()),
        }
    }

    /// Where a message is that its client was told to be stored; nothing, twice, for another one.
    fn place(&self, message: u64, told: &Told) -> Option<Option<&Place>> {
        let Told::Stored(_, position) = told else { return None };
        let mut places = self.places.get(&message).into_iter().flatten();
        Some(places.find(|place| place.position == *position))
    }

    /// Acknowledged messages with their places.
    pub(crate) fn acknowledged_places(&self) -> impl Iterator<Item = (u64, &Place)> {
        self.told.iter().filter_map(|((message, _), told)| Some((*message, self.place(*message, told)??)))
    }
}

/// The messages of a record that clients sent, by their numbers.
fn places(record: &Record) -> Result<Vec<(u64, Place)>, Violation> {
    let mut places = Vec::new();
    for found in Messages::new(record.messages()) {
        let (at, view) = found.map_err(|error| violation("readable messages", error.to_string()))?;
        let others = [parked::TOPIC, timers::TOPIC, half::TOPIC, half::GIVEN_UP_TOPIC, transactions::TOPIC];
        let of_others = names::is_retry_topic(view.topic())
            || popped::is_of_poppers(view.topic())
            || others.contains(&view.topic());
        let sent = view.body().first_chunk().filter(|_| !of_others);
        let Some(number) = sent else { continue };
        let place = Place {
            topic: view.topic().to_owned(),
            queue: view.queue_id(),
            offset: view.queue_offset(),
            position: record.messages_position() + at as u64,
        };
        places.push((u64::from_le_bytes(*number), place));
    }
    Ok(places)
}
