//! What a committed command does besides changing the metadata: what it deletes leaves the consume queues, and the lease
//! clock hears of its stamp.

use std::sync::atomic::Ordering;

use folio_engine::planted;

use crate::command::{Command, Outcome};
use crate::shared::Shared;

/// Applies a command of a term to what readers of this node see. The consume queues are as of the record before it.
pub(super) fn apply(shared: &Shared, command: Command, term: u64) -> Outcome {
    let (deletes_in, is_stamped) = (command.deletes_in(), matches!(command, Command::LockQueues { .. }));
    let (outcome, stamp_ms) = {
        let mut metadata = shared.metadata.write();
        let growth = metadata.growth(&command, &shared.queues);
        shared.metadata_bytes.fetch_add(growth, Ordering::Relaxed);
        (metadata.apply_with(command, &shared.queues), metadata.lease_clock_ms())
    };
    if is_stamped {
        shared.lease_clock.note(stamp_ms, term);
    }
    if let Some(topic) = deletes_in {
        delete(shared, &topic);
    }
    shared.hooks.metadata_changed();
    outcome
}

/// The minimum rises before the command is answered (`min_offsets.I1`); files go with the next checkpoint.
fn delete(shared: &Shared, topic: &str) {
    if planted::is("deleted-comes-back") {
        return;
    }
    let first: Vec<(u32, u64)> = shared.metadata.read().min_offsets().of(topic).collect();
    let trimmed = shared.queues.raise(topic, &first);
    if !trimmed.is_empty() {
        shared.trimmed.lock().push(trimmed);
    }
}
