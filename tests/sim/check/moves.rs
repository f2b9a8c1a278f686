//! What consumers sent back is moved once for each group, and never lost once a consumer was told so.
//!
//! Moved messages say in their body which group sent back which position. One that waits is moved when it is parked: what becomes of it then is
//! for `check::timers`. What allows another move (a group that goes back, or
//! that is deleted with its offsets) is computed here once more, from the committed records alone.

use std::collections::BTreeMap;

use folio_engine::record::{Record, RecordKind};
use folio_protocol::message::Messages;
use folio_protocol::names;
use folio_protocol::parked;
use folio_raft::proposal::ProposeError;
use folio_raft::status::Status;
use folio_state::sections::features::TRANSITIONS;
use folio_state::{Command, CommitOffsets, DeleteGroup, RaiseLevel};

use super::place::Place;
use super::popped;
use super::{Checked, violation};

/// A consumer group, and the position of what it sent back.
pub(crate) type Key = (String, u64);

/// What is known of one move.
#[derive(Default)]
struct Move {
    /// Where the message lies that was sent back.
    place: Option<Place>,
    /// Moves since the group may send it back again.
    made: u64,
    ever: u64,
    /// Requests that are not answered.
    asked: u64,
    /// A request may have made it, for all that its consumer knows.
    doubtful: bool,
    told: bool,
}

#[derive(Default)]
pub(crate) struct Moves {
    moves: BTreeMap<Key, Move>,
    /// By group, topic and queue.
    offsets: BTreeMap<(String, String, u32), u64>,
    level: u16,
    pub(crate) made: u64,
}

impl Moves {
    /// A consumer sends back what lies there.
    pub(crate) fn asked(&mut self, group: &str, place: &Place) {
        let of = self.moves.entry((group.to_owned(), place.position)).or_default();
        of.place = Some(place.clone());
        of.asked += 1;
    }

    /// `applied`: whoever answered is still there and was looked at.
    pub(crate) fn answered(
        &mut self,
        key: &Key,
        answer: &Result<(), ProposeError>,
        applied: bool,
    ) -> Checked {
        let of = self.moves.entry(key.clone()).or_default();
        of.asked -= 1;
        match answer {
            Ok(()) => of.told = true,
            Err(ProposeError::Unknown(_) | ProposeError::Stopped(_)) => of.doubtful = true,
            Err(_) => {}
        }
        if of.told && of.ever == 0 && applied {
            return Err(violation("a move is kept", format!("{key:?} was moved, and no node has it")));
        }
        if of.ever > 0 && of.asked == 0 && !of.told && !of.doubtful {
            return Err(violation("refused is not moved", format!("{key:?}: {answer:?}")));
        }
        Ok(())
    }

    /// Takes in the next committed record.
    pub(crate) fn committed(&mut self, record: &Record) -> Checked {
        if record.header.kind == RecordKind::Transition && self.level < TRANSITIONS {
            let seen = format!("entry {} is a transition, the level is {}", record.id(), self.level);
            return Err(violation("nothing above the level is written", seen));
        }
        let mut commands: Vec<Vec<u8>> = record.commands().map(|command| command.to_vec()).collect();
        if record.header.kind == RecordKind::Command {
            commands.push(record.payload().to_vec());
        }
        let mut is_of_timers = false;
        for command in commands {
            let command = Command::decode(&command);
            let command = command.map_err(|error| violation("readable commands", error.to_string()))?;
            is_of_timers |= matches!(&command, Command::FireTimers(_) | Command::CarryTimers(_));
            self.command(command);
        }
        // Delivered or carried forward: it was moved before.
        if is_of_timers {
            return Ok(());
        }
        for (_, view) in Messages::new(record.messages()).filter_map(Result::ok) {
            let topic =
                if view.topic() == parked::TOPIC { parked::real_topic(&view) } else { Some(view.topic()) };
            if let Some(key) = topic.and_then(|topic| key_of(topic, view.body())) {
                self.moved(key)?;
            }
        }
        Ok(())
    }

    fn moved(&mut self, key: Key) -> Checked {
        self.made += 1;
        let of = self.moves.entry(key.clone()).or_default();
        (of.made, of.ever) = (of.made + 1, of.ever + 1);
        let (made, ever) = (of.made, of.ever);
        if of.place.is_none() {
            return Err(violation("nothing is invented", format!("{key:?} was moved")));
        }
        if made > 1 {
            let seen = format!("{key:?} is moved {made} times, {ever} times in all");
            return Err(violation("a move is made once", seen));
        }
        Ok(())
    }

    fn command(&mut self, command: Command) {
        match command {
            Command::CommitOffsets(CommitOffsets(commits)) => {
                for commit in commits {
                    let queue = (commit.group.clone(), commit.topic.clone(), commit.queue);
                    let before = self.offsets.insert(queue, commit.offset);
                    if before.is_some_and(|before| commit.offset < before) {
                        self.allow(&commit.group, |place| {
                            (place.topic.as_str(), place.queue) == (commit.topic.as_str(), commit.queue)
                                && place.offset >= commit.offset
                        });
                    }
                }
            }
            Command::RaiseLevel(RaiseLevel { level }) => self.level = self.level.max(level),
            Command::DeleteGroup(DeleteGroup { name, clean_offsets: true }) => {
                self.offsets.retain(|(group, ..), _| *group != name);
                self.allow(&name, |_| true);
            }
            _ => {}
        }
    }

    /// The group may send these back again.
    fn allow(&mut self, group: &str, which: impl Fn(&Place) -> bool) {
        for (_, of) in self.moves.iter_mut().filter(|((of, _), _)| of == group) {
            if of.place.as_ref().is_some_and(&which) {
                of.made = 0;
            }
        }
    }

    /// A node sees by itself what is moved twice (`transitions.I2`).
    pub(crate) fn look(status: &Status) -> Checked {
        match status.unmet_preconditions {
            0 => Ok(()),
            unmet => {
                let seen = format!("node {} applied {unmet} that were not to be proposed", status.node_id);
                Err(violation("preconditions hold", seen))
            }
        }
    }

    /// Every move that a consumer was told of is committed, also those whose answer was a node's last deed.
    pub(crate) fn check_kept(&self) -> Checked {
        match self.moves.iter().find(|(_, of)| of.told && of.ever == 0) {
            Some((key, _)) => {
                Err(violation("a move is kept", format!("{key:?} was moved, and is in no log")))
            }
            None => Ok(()),
        }
    }
}

/// What a moved message is the retry of.
fn key_of(topic: &str, body: &[u8]) -> Option<Key> {
    // What was popped comes again in a topic of its own.
    let group = names::group_of_retry_topic(topic).filter(|_| topic != popped::RETRY)?;
    Some((group.to_owned(), u64::from_le_bytes(*body.first_chunk()?)))
}
