//! What is asked of the driver of what is popped ([`crate::driver::popped`]).

use bytes::Bytes;
use folio_engine::planted;
use folio_state::{AckPopped, ChangePopped, PopAgain, PopMessages, PopQueue};

use super::Group;
use crate::driver::popped::Request;
use crate::driver::{Counted, Reply, answered};
use crate::popped::{self, Unread};

impl Group {
    /// Gives messages of one queue to a group. `reply` is called once that is over: [`Group::state`] has the batch, or another one was
    /// first, or the group's offset was changed.
    ///
    /// Never blocks.
    pub fn pop(&self, pop: PopMessages, reply: Reply) {
        self.ask_popped(Request::Pop(Box::new(pop)), reply);
    }

    /// Gives what is left of an ordered batch again.
    pub fn pop_again(&self, again: PopAgain, reply: Reply) {
        self.ask_popped(Request::Again(Box::new(again)), reply);
    }

    /// Takes an acknowledgement. `reply` is called once the message is not in flight by that handle any more, or that failed. If it was not this
    /// one that `counted`, the state says what became of it.
    pub fn ack_popped(&self, ack: AckPopped, counted: Counted, reply: Reply) {
        let reply = if planted::is("popped-ack-lost") {
            counted.set();
            answered(reply)
        } else {
            reply
        };
        self.ask_popped(Request::Ack(Box::new(ack), counted), reply);
    }

    /// Changes when a message becomes visible. `counted` and `reply` as for an acknowledgement.
    pub fn change_popped(&self, change: ChangePopped, counted: Counted, reply: Reply) {
        self.ask_popped(Request::Change(Box::new(change), counted), reply);
    }

    /// The stored bytes of a message that a group may be given, or is; `None` if the log has none. Blocks on the disk.
    pub fn popped_message(&self, queue: &PopQueue, offset: u64) -> Result<Option<Bytes>, Unread> {
        popped::read(&self.0.shared, queue, offset)
    }

    /// Messages that lie before are popped no more: retention lets them go.
    pub fn pop_floor(&self) -> u64 {
        popped::floor(&self.0.shared)
    }

    fn ask_popped(&self, request: Request, reply: Reply) {
        match self.may_propose() {
            Ok(()) => self.0.popped.ask(request, reply),
            Err(error) => reply(Err(error)),
        }
    }
}
