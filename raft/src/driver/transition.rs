//! A transition in the making: the moves of one record.

use folio_engine::counters::topic_is_storable;
use folio_engine::record::{Draft, HEADER_BYTES};
use folio_engine::transition::{COMMANDS_BYTES_MAX, COMMANDS_MAX, HEAD_BYTES, LENGTH_BYTES};
use folio_protocol::message::NewMessage;
use folio_state::Command;

use crate::proposal::ProposeError;

/// Bytes at which a record of moves is closed.
const RECORD_BYTES: usize = 512 << 10;
/// Moves at which it is closed.
const RECORD_MOVES: usize = 1000;

/// What one move changes and stores, both or neither.
#[derive(Debug, Clone, Default)]
pub(crate) struct Move {
    /// In this order, before the messages.
    pub(crate) commands: Vec<Command>,
    /// The store timestamp is put when they are encoded.
    pub(crate) messages: Vec<NewMessage>,
}

/// A move as it goes into a record: its commands encoded, its messages checked.
#[derive(Debug)]
pub(super) struct Part {
    commands: Vec<Vec<u8>>,
    messages: Vec<NewMessage>,
    commands_bytes: usize,
    bytes: usize,
}

impl Part {
    /// Refuses what no log takes, and what a record of that length does not hold alone.
    pub(super) fn new(wish: Move, record_bytes_max: usize) -> Result<Part, ProposeError> {
        wish.commands.iter().try_for_each(Command::check_bounds)?;
        if wish.commands.is_empty() {
            return Err(ProposeError::Refused("a move that changes nothing".into()));
        }
        if let Some(why) = unstorable(&wish.messages) {
            return Err(ProposeError::Refused(why));
        }
        let commands: Vec<Vec<u8>> = wish.commands.iter().map(Command::encode).collect();
        let commands_bytes = commands.iter().map(|command| LENGTH_BYTES + command.len()).sum();
        let of_messages: usize = wish.messages.iter().map(NewMessage::encoded_len).sum();
        let part =
            Part { commands, messages: wish.messages, commands_bytes, bytes: commands_bytes + of_messages };
        if !Transition::default().takes(&part, record_bytes_max) {
            let bytes = HEADER_BYTES + HEAD_BYTES + part.bytes;
            return Err(ProposeError::TooLarge { bytes, limit: record_bytes_max });
        }
        Ok(part)
    }
}

/// See the module.
#[derive(Debug, Default)]
pub(super) struct Transition {
    commands: Vec<Vec<u8>>,
    messages: Vec<NewMessage>,
    commands_bytes: usize,
    bytes: usize,
    moves: usize,
}

impl Transition {
    /// Whether nothing is to be added any more.
    pub(super) fn is_full(&self, record_bytes_max: usize) -> bool {
        self.moves >= RECORD_MOVES || self.bytes >= RECORD_BYTES.min(record_bytes_max / 2)
    }

    /// Whether a move fits, too.
    pub(super) fn takes(&self, part: &Part, record_bytes_max: usize) -> bool {
        self.commands.len() + part.commands.len() <= COMMANDS_MAX
            && self.commands_bytes + part.commands_bytes <= COMMANDS_BYTES_MAX
            && HEADER_BYTES + HEAD_BYTES + self.bytes + part.bytes <= record_bytes_max
    }

    pub(super) fn add(&mut self, part: Part) {
        self.commands.extend(part.commands);
        self.messages.extend(part.messages);
        self.commands_bytes += part.commands_bytes;
        self.bytes += part.bytes;
        self.moves += 1;
    }

    /// The record's payload, its messages stored at that time.
    pub(super) fn draft(mut self, store_timestamp: i64) -> Draft {
        let room = self.bytes - self.commands_bytes;
        let draft = Draft::transition(&self.commands, room);
        let mut draft =
            draft.unwrap_or_else(|error| panic!("driver.I3: a transition is out of bounds: {error}"));
        for message in &mut self.messages {
            message.store_timestamp = store_timestamp;
            if let Err(error) = message.encode(draft.payload_mut()) {
                panic!("driver.I3: a message that passed its check does not encode: {error}");
            }
        }
        draft.messages = self.messages.len() as u32;
        draft
    }
}

/// Why the log would refuse messages: found here, where only their sender suffers.
pub(crate) fn unstorable(messages: &[NewMessage]) -> Option<String> {
    messages.iter().find_map(|message| match message.check() {
        Err(error) => Some(error.to_string()),
        Ok(()) if !topic_is_storable(message.topic.as_bytes()) => {
            Some(format!("illegal topic {:?}", message.topic))
        }
        Ok(()) => None,
    })
}

#[cfg(test)]
mod tests {
    use bytes::Bytes;
    use folio_state::{DeleteTopic, PutTopic, Topic};

    use super::*;

    fn message(body: usize) -> NewMessage {
        NewMessage { body: Bytes::from(vec![0; body]), ..crate::storage_suite::message("orders", 0) }
    }

    fn a_move(name: &str, body: usize) -> Move {
        Move { commands: vec![DeleteTopic { name: name.into() }.into()], messages: vec![message(body)] }
    }

    #[test]
    fn driver_i3_a_record_holds_what_fits_and_no_more() {
        const LIMIT: usize = 4096;
        let part = |body| Part::new(a_move("t", body), LIMIT);
        assert!(matches!(part(LIMIT), Err(ProposeError::TooLarge { limit: LIMIT, .. })));
        let mut transition = Transition::default();
        let mut added = 0;
        while transition.takes(&part(500).unwrap(), LIMIT) {
            assert!(!transition.is_full(2 * LIMIT));
            transition.add(part(500).unwrap());
            added += 1;
        }
        assert!(added == 6 && transition.is_full(LIMIT));
        let expected = HEADER_BYTES + HEAD_BYTES + transition.bytes;
        let draft = transition.draft(7);
        assert_eq!((draft.messages, draft.len()), (6, expected));
        assert!(draft.len() <= LIMIT);
    }

    #[test]
    fn what_no_log_takes_is_refused_where_it_comes_in() {
        let refused = |wish| Part::new(wish, 1 << 20).unwrap_err();
        let long = PutTopic(Topic::new("t".repeat(999), 1)).into();
        let out_of_bounds = refused(Move { commands: vec![long], messages: Vec::new() });
        assert!(matches!(out_of_bounds, ProposeError::OutOfBounds(_)), "{out_of_bounds}");
        let mut nowhere = a_move("t", 1);
        nowhere.messages[0].topic = "../t".into();
        assert!(matches!(refused(nowhere), ProposeError::Refused(_)));
        let nothing = refused(Move {
            commands: vec![DeleteTopic { name: "t".into() }.into(); COMMANDS_MAX + 1],
            messages: vec![],
        });
        assert!(matches!(nothing, ProposeError::TooLarge { .. }));
    }
}
