//! What a committed command does besides changing the state: what it deletes leaves the consume queues, and the lease
//! clock hears of its stamp.

use std::sync::atomic::Ordering;

use folio_engine::planted;
use folio_engine::record::EntryId;
use folio_state::{Command, Outcome};

use crate::queue_ends::QueueEnds;
use crate::shared::Shared;

/// Applies the command of an entry to what readers of this node see. The consume queues are as of the record before it.
pub(super) fn apply(shared: &Shared, command: Command, id: EntryId) -> Outcome {
    let (deletes_in, is_stamped) = (command.deletes_in(), command.is_stamped());
    let queues = QueueEnds(&shared.queues);
    let (outcome, stamp_ms) = {
        let mut state = shared.state.write();
        let has_its_locks = id.index <= shared.locks_as_of.load(Ordering::Relaxed);
        let growth = if has_its_locks && command.is_of_locks() { 0 } else { state.growth(&command, &queues) };
        shared.state_bytes.fetch_add(growth, Ordering::Relaxed);
        let outcome = if has_its_locks {
            state.apply_but_for_locks(command, &queues)
        } else {
            state.apply_with(command, &queues)
        };
        shared.level.set(state.level());
        (outcome, state.lease_clock_ms())
    };
    if is_stamped {
        shared.lease_clock.note(stamp_ms, id.term);
    }
    if let Some(topic) = deletes_in {
        delete(shared, &topic);
    }
    shared.hooks.state_changed();
    outcome
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
