//! What a committed command does besides changing the state: what it deletes leaves the consume queues, and the lease
//! clock hears of its stamp.
//!
//! The commands of a transition (crate `folio_engine`, `transition`) come before its messages: consume queues are as of the
//! record before for all of them, and the messages are added to what the commands have left.
//!
//! - `transitions.I1`: no reader, no checkpoint and no snapshot has some of a transition's commands without the others, and
//!   none of the last two has the commands without the messages, or the messages without the commands.
//! - `transitions.I2`: the precondition of each command of a transition holds where the command is applied; its driver has seen
//!   to it ([`crate::driver`]). A transition cannot be refused any more: its messages have their queue offsets. So each replica
//!   applies it all the same, and says that the rule was broken: an error in its log, and a number in its status.

use std::sync::atomic::Ordering;

use folio_engine::planted;
use folio_engine::record::EntryId;
use folio_state::{Command, Outcome, State};

use crate::pending_timers;
use crate::queue_ends::QueueEnds;
use crate::shared::Shared;

/// Applies the command of an entry to what readers of this node see. The consume queues are as of the record before it.
pub(super) fn apply(shared: &Shared, command: Command, id: EntryId) -> Outcome {
    let mut change = Change::begin(shared, id);
    let outcome = change.apply(command);
    change.end();
    outcome
}

/// Applies the commands of a transition to what readers of this node see.
pub(super) fn apply_all(shared: &Shared, commands: Vec<Command>, id: EntryId) {
    let mut change = Change::begin(shared, id);
    for command in commands {
        change.check(&command);
        change.apply(command);
    }
    change.end();
}

/// A change of the state by one entry, under its lock.
struct Change<'a> {
    shared: &'a Shared,
    id: EntryId,
    state: parking_lot::RwLockWriteGuard<'a, State>,
    deletes_in: Vec<String>,
    is_stamped: bool,
}

impl<'a> Change<'a> {
    fn begin(shared: &'a Shared, id: EntryId) -> Change<'a> {
        Change { shared, id, state: shared.state.write(), deletes_in: Vec::new(), is_stamped: false }
    }

    /// Whether what depends on order includes this entry already (`snapshots.I3`).
    fn is_included(&self) -> bool {
        self.id.index <= self.shared.ordered_as_of.load(Ordering::Relaxed)
    }

    /// `transitions.I2`
    fn check(&self, command: &Command) {
        if self.is_included() {
            return;
        }
        if let Err(unmet) = command.precondition(&self.state) {
            self.shared.unmet_preconditions.fetch_add(1, Ordering::Relaxed);
            tracing::error!(entry = %self.id, %unmet, "transitions.I2: a precondition does not hold; please report this");
        }
    }

    fn apply(&mut self, command: Command) -> Outcome {
        self.deletes_in.extend(command.deletes_in());
        self.is_stamped |= command.is_stamped();
        let (queues, included) = (QueueEnds(&self.shared.queues), self.is_included());
        let growth =
            if included && command.depends_on_order() { 0 } else { self.state.growth(&command, &queues) };
        self.shared.state_bytes.fetch_add(growth, Ordering::Relaxed);
        if included {
            self.state.apply_again(command, &queues)
        } else {
            self.state.apply_with(command, &queues)
        }
    }

    fn end(self) {
        let Change { shared, id, state, deletes_in, is_stamped } = self;
        shared.level.set(state.level());
        let stamp_ms = state.lease_clock_ms();
        pending_timers::note(shared, &state);
        drop(state);
        if is_stamped {
            shared.lease_clock.note(stamp_ms, id.term);
        }
        deletes_in.iter().for_each(|topic| delete(shared, topic));
        shared.hooks.state_changed();
    }
}

/// The minimum rises before the command is answered (`min_offsets.I1`); files go with the next checkpoint.
fn delete(shared: &Shared, topic: &str) {
    if planted::is("deleted-comes-back") {
        return;
    }
    let first: Vec<(u32, u64)> = shared.state.read().min_offsets().of(topic).collect();
    let trimmed = shared.queues.raise(topic, &first);
    if !trimmed.is_empty() {
        shared.trimmed.lock().push(trimmed);
    }
}
