//! Popped messages: which messages a consumer group was given by POP, and which of them it has not acknowledged.
//!
//! For each queue that a group pops from ([`PopQueue`]) there is a *cursor*, the next offset to be popped, and the *batches* in flight
//! ([`Batch`]). A batch is what one pop was given of one queue: its first offset and pop time, which are in the handle ([`BatchId`]), the other
//! offsets, a bit for each message that was acknowledged, a bit for each that left the batch in another way, and when it becomes visible. So a
//! message in flight takes four bytes and its part of 69. The cursor is the group's offset in that queue ([`crate::State::offset`]), from the first
//! pop until the group commits an offset: then that counts, and the next pop begins there.
//!
//! | command | effect |
//! |---|---|
//! | [`PopMessages`] | moves the cursor from where the leader saw it, and adds a batch |
//! | [`PopAgain`] | an ordered batch is given again, what is left of it |
//! | [`AckPopped`] | one message is handled |
//! | [`ChangePopped`] | one message gets a batch of its own, with another time |
//! | [`RevivePopped`] | one message left: it comes with what is stored of it, a retry or a dead letter, in one transition |
//! | [`CarryPopped`] | messages in flight are stored further on; it comes with them. What is applied of them says where they lie ([`CarriedMessage`]) |
//! | [`SetRequestMode`] | whether the clients of a group pull or pop |
//!
//! In an ordered batch ([`InOrder`]) the cursor stands at the first message that is not acknowledged, and while the batch is there nothing else is
//! popped from its queue, by a pop without order neither. It does not come again by itself: the next pop gets it, once it is visible, or at once if it has the same attempt id.
//!
//! Each command says what the leader decided, times included. One that finds another state, since an offset was committed or a topic was
//! deleted meanwhile, changes nothing, and who asked looks what became of it.
//!
//! - `pop.I1` An offset of a queue is in flight in one batch at most. An acknowledged one never is again, until the group goes back.
//! - `pop.I2` A message leaves its batch once: acknowledged, changed, or revived with what is stored of it.
//! - `pop.I3` Batches are bounded by what a leader takes: [`BATCHES_MAX`] in all, of which no queue of a group has more than
//!   an eighth of what the others leave, and [`IN_FLIGHT_MAX`] messages for each group and queue.
//! - `pop.I4` Retention drops no segment that holds a message in flight.
//! - `pop.I5` Once the leader has said that a message is acknowledged, no handle of it, however old, makes it come again.

mod batch;
mod commands;
mod edit;
mod modes;
mod set_mode;
mod table;

pub use batch::{
    ATTEMPT_BYTES_MAX, BATCH_MESSAGES_MAX, BATCH_SPAN_MAX, BATCHES_MAX, Batch, BatchId, Carried,
    CarriedMessage, IN_FLIGHT_MAX, InOrder, NOWHERE, PopQueue,
};
pub use commands::{AckPopped, CarryPopped, ChangePopped, PopAgain, PopMessages, RevivePopped};
pub use modes::RequestMode;
pub use set_mode::SetRequestMode;
pub use table::{Popped, Popping};

#[cfg(test)]
mod tests;
