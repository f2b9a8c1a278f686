//! What clients were told, against what the log holds: an acknowledged message is there, once, where it was said to be;
//! a refused one is not.

use std::collections::{BTreeMap, BTreeSet};

use folio_engine::record::{HEADER_BYTES, Record, RecordKind};
use folio_protocol::message::Messages;
use folio_raft::proposal::{ProposeError, Receipt};

use super::deleted::Deleted;
use super::{Checked, Violation, violation};

/// Where a message lies.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Place {
    pub(crate) topic: String,
    pub(crate) queue: u32,
    pub(crate) offset: u64,
    pub(crate) position: u64,
}

#[derive(Debug, Clone, PartialEq, Eq)]
enum Told {
    Nothing,
    /// Stored at this queue offset and position.
    Stored(u64, u64),
    Refused(String),
}

#[derive(Default)]
pub(crate) struct Oracle {
    told: BTreeMap<u64, Told>,
    /// Messages that were sent more than once: a refusal of one attempt says nothing of the others.
    repeated: BTreeSet<u64>,
    pub(crate) places: BTreeMap<u64, Place>,
    /// Where messages were that were deleted and stored once more, by a retry.
    former: BTreeMap<u64, Vec<Place>>,
    pub(crate) deleted: Deleted,
    pub(crate) acknowledged: u64,
    pub(crate) refused: u64,
}

impl Oracle {
    pub(crate) fn sent(&mut self, message: u64) {
        self.told.insert(message, Told::Nothing);
    }

    /// The message was sent before.
    pub(crate) fn sent_again(&mut self, message: u64) {
        self.repeated.insert(message);
        if !matches!(self.told.get(&message), Some(Told::Stored(..))) {
            self.told.insert(message, Told::Nothing);
        }
    }

    /// The answer to a proposal of these messages.
    ///
    /// `applied`: whoever answered is still there and was looked at, so what it acknowledged must have been seen.
    pub(crate) fn answered(
        &mut self,
        messages: &[u64],
        answer: &Result<Receipt, ProposeError>,
        applied: bool,
    ) -> Checked {
        for (at, message) in messages.iter().enumerate() {
            let told = match answer {
                Ok(receipt) => Told::Stored(receipt.queue_offsets[at], receipt.positions[at]),
                // Whoever hears that the group stopped knows as little as one whose connection broke.
                Err(ProposeError::Unknown(_) | ProposeError::Stopped(_)) => Told::Nothing,
                Err(_) if self.repeated.contains(message) => Told::Nothing,
                Err(refused) => Told::Refused(refused.to_string()),
            };
            match told {
                Told::Stored(..) => self.acknowledged += 1,
                Told::Refused(_) => self.refused += 1,
                Told::Nothing => {}
            }
            // Who was told early was told.
            if told != Told::Nothing || !matches!(self.told.get(message), Some(Told::Stored(..))) {
                self.told.insert(*message, told);
            }
            if let Some(place) = self.places.get(message) {
                self.check(*message, place)?;
            }
            if applied && answer.is_ok() && !self.places.contains_key(message) {
                return Err(violation(
                    "acknowledged is committed",
                    format!("message {message} was acknowledged and no node has applied it"),
                ));
            }
        }
        Ok(())
    }

    /// Clients were told that these messages are stored as soon as a leader had them: the planted defect.
    pub(crate) fn told_early(&mut self, record: &Record) -> Checked {
        for (message, place) in places(record)? {
            if self.told.get(&message) == Some(&Told::Nothing) {
                self.told.insert(message, Told::Stored(place.offset, place.position));
            }
        }
        Ok(())
    }

    /// A record was committed.
    pub(crate) fn committed(&mut self, record: &Record) -> Checked {
        for (message, place) in places(record)? {
            if let Some(before) = self.places.remove(&message) {
                if before.offset >= self.deleted.begin(&before.topic, before.queue, u64::MAX) {
                    let seen = format!("message {message} is stored at {before:?} and at {place:?}");
                    return Err(violation("stored once", seen));
                }
                self.former.entry(message).or_default().push(before);
            }
            self.check(message, &place)?;
            self.places.insert(message, place);
        }
        self.deleted.committed(record)
    }

    fn check(&self, message: u64, place: &Place) -> Checked {
        match self.told.get(&message) {
            None => Err(violation("nothing is invented", format!("message {message} at {place:?}"))),
            Some(Told::Refused(why)) => {
                let seen = format!("message {message} was refused ({why}) and is at {place:?}");
                Err(violation("refused is not stored", seen))
            }
            Some(Told::Stored(offset, position))
                if (*offset, *position) != (place.offset, place.position)
                    && !self.was_at(message, *offset, *position) =>
            {
                let seen =
                    format!("message {message} was said to be at {offset}, {position} and is at {place:?}");
                Err(violation("acknowledged place", seen))
            }
            Some(_) => Ok(()),
        }
    }

    fn was_at(&self, message: u64, offset: u64, position: u64) -> bool {
        let mut former = self.former.get(&message).into_iter().flatten();
        former.any(|place| (place.offset, place.position) == (offset, position))
    }

    /// Every acknowledged message is committed, also those whose acknowledgement was a node's last deed.
    pub(crate) fn check_kept(&self) -> Checked {
        let lost = self
            .told
            .iter()
            .find(|(message, told)| matches!(told, Told::Stored(..)) && !self.places.contains_key(message));
        match lost {
            Some((message, told)) => {
                Err(violation("acknowledged is kept", format!("message {message}, {told:?}, is in no log")))
            }
            None => Ok(()),
        }
    }

    /// Acknowledged messages with their places.
    pub(crate) fn acknowledged_places(&self) -> impl Iterator<Item = (u64, &Place)> {
        let stored = self.told.iter().filter(|(_, told)| matches!(told, Told::Stored(..)));
        stored.filter_map(|(message, _)| Some((*message, self.places.get(message)?)))
    }
}

/// The messages of a record, by their numbers.
fn places(record: &Record) -> Result<Vec<(u64, Place)>, Violation> {
    let mut places = Vec::new();
    if record.header.kind != RecordKind::Messages {
        return Ok(places);
    }
    let payload = record.payload();
    for found in Messages::new(&payload) {
        let (at, view) = found.map_err(|error| violation("readable messages", error.to_string()))?;
        let Some(number) = view.body().first_chunk() else { continue };
        let place = Place {
            topic: view.topic().to_owned(),
            queue: view.queue_id(),
            offset: view.queue_offset(),
            position: record.position() + (HEADER_BYTES + at) as u64,
        };
        places.push((u64::from_le_bytes(*number), place));
    }
    Ok(places)
}
