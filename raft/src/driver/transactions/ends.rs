//! What the driver of transactions is asked for, and what it decides.

use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

use folio_protocol::message::NewMessage;
use folio_state::{CarryTransactions, EndTransaction, Ending, NoteChecks, ResumeTransaction, State};

use super::super::{Decision, Driver, Move};
use crate::proposal::ProposeError;
use crate::shared::Shared;

/// What this driver does.
#[derive(Debug)]
pub(crate) enum Request {
    /// Ends a transaction.
    End(Box<End>),
    /// Notes that producers were asked.
    Note(NoteChecks),
    /// Opens a transaction again; with its half message.
    Resume(ResumeTransaction, Box<NewMessage>),
    /// Half messages that are stored further on, and up to where they lie.
    Carry(u64, Vec<NewMessage>),
}

/// The end of a transaction.
#[derive(Debug, Clone)]
pub struct End {
    /// The producer's group.
    pub group: String,
    /// The transaction.
    pub id: u64,
    /// How it ends.
    pub ending: Ending,
    /// What it stores: the message of the real topic, or the one that was given up. The store timestamp is put when it is proposed.
    pub message: Option<NewMessage>,
}

/// Equal for what must not be under way together.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub(crate) enum Key {
    /// Whatever ends this transaction.
    End(u64),
    Resume(u64),
    Note(String),
    Carry,
}

/// See the module.
pub(crate) struct Transactions {
    shared: Arc<Shared>,
}

impl Transactions {
    pub(crate) fn new(shared: Arc<Shared>) -> Transactions {
        Transactions { shared }
    }

    /// What the end of a transaction comes to that is not open here. An id is a position in the log, so one that lies beyond what is
    /// applied says that this leader was replaced and does not know it yet: it knows nothing of that transaction.
    fn not_open(&self, id: u64) -> Decision {
        if id < self.shared.applied_position.load(Ordering::Acquire) {
            Decision::Done
        } else {
            Decision::Refused(ProposeError::NotLeader { leader: None })
        }
    }
}

impl Driver for Transactions {
    const NAME: &'static str = "the driver of transactions";
    const LOOK_INTERVAL: Duration = Duration::from_secs(1);
    const MAKES_ROOM: bool = true;
    type Request = Request;
    type Key = Key;

    fn key(&self, request: &Request) -> Key {
        match request {
            Request::End(end) => Key::End(end.id),
            Request::Resume(resume, _) => Key::Resume(resume.id),
            Request::Note(note) => Key::Note(note.group.clone()),
            Request::Carry(..) => Key::Carry,
        }
    }

    fn bytes(&self, request: &Request) -> usize {
        let bytes = |messages: &[NewMessage]| messages.iter().map(NewMessage::encoded_len).sum::<usize>();
        match request {
            Request::End(end) => end.message.as_ref().map_or(0, NewMessage::encoded_len) + end.group.len(),
            Request::Note(note) => note.checks.len() * 16,
            Request::Resume(_, message) => message.encoded_len(),
            Request::Carry(_, messages) => bytes(messages),
        }
    }

    fn decide(&self, request: Request, state: &State) -> Decision {
        let transactions = state.transactions();
        let (command, messages) = match request {
            // transactions.I1
            Request::End(end) if transactions.get(&end.group, end.id).is_none() => {
                return self.not_open(end.id);
            }
            Request::End(end) if end.message.is_none() && end.ending != Ending::RolledBack => {
                let why = format!("transaction {} is open, and its end comes without a message", end.id);
                return Decision::Refused(ProposeError::Refused(why));
            }
            Request::End(end) => {
                let End { group, id, ending, message } = *end;
                (EndTransaction { group, id, ending }.into(), Vec::from_iter(message))
            }
            Request::Resume(resume, _) if transactions.ending(resume.id) != Some(Ending::GivenUp) => {
                let why = format!("transaction {} was not given up, or is resumed already", resume.id);
                return Decision::Refused(ProposeError::Refused(why));
            }
            Request::Resume(resume, message) => (resume.into(), vec![*message]),
            Request::Note(note) => (note.into(), Vec::new()),
            Request::Carry(upto, messages) => (CarryTransactions { upto }.into(), messages),
        };
        Decision::Move(Move { commands: vec![command], messages })
    }
}
