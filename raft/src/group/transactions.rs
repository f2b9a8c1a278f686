//! What is asked of the driver of transactions ([`crate::driver::transactions`]).

use std::sync::atomic::Ordering;

use folio_protocol::message::NewMessage;
use folio_state::{NoteChecks, ResumeTransaction, STATE_BYTES_MAX};

use super::Group;
use crate::driver::transactions::Request;
use crate::driver::{End, Reply};

impl Group {
    /// Ends a transaction, if it is open (`transactions.I1`). `reply` is called once it has ended and that is applied here, perhaps by another
    /// end than this one: [`Group::state`] says how.
    ///
    /// Never blocks.
    pub fn end_transaction(&self, end: End, reply: Reply) {
        self.ask_transactions(Request::End(Box::new(end)), reply);
    }

    /// Notes that producers were asked what became of transactions.
    pub fn note_checks(&self, note: NoteChecks, reply: Reply) {
        self.ask_transactions(Request::Note(note), reply);
    }

    /// Opens a transaction again that was given up; `half` is its half message.
    pub fn resume_transaction(&self, resume: ResumeTransaction, half: NewMessage, reply: Reply) {
        self.ask_transactions(Request::Resume(resume, Box::new(half)), reply);
    }

    /// Whether the replicated state takes more (`state.I1`).
    pub fn has_state_room(&self) -> bool {
        self.0.shared.state_bytes.load(Ordering::Relaxed) < STATE_BYTES_MAX as i64
    }

    fn ask_transactions(&self, request: Request, reply: Reply) {
        match self.may_propose() {
            Ok(()) => self.0.transactions.ask(request, reply),
            Err(error) => reply(Err(error)),
        }
    }
}
