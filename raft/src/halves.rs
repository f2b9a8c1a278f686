//! Half messages of committed records, as the state takes them ([`folio_state::Half`]), and how far the log is needed for open
//! transactions: what retention asks before it drops a segment.
//!
//! - `transactions.I3` Retention drops no segment that holds the half message of an open transaction.

use std::sync::atomic::Ordering;

use folio_engine::record::Record;
use folio_protocol::half;
use folio_protocol::message::{MessageError, MessageView, peek};
use folio_state::Half;
use folio_state::sections::features::TRANSACTIONS;
use folio_state::sections::transactions::NO_IMMUNITY;

use crate::shared::Shared;

/// Tells the state of the half messages of a record that is applied, as every replica does.
pub(crate) fn apply(shared: &Shared, record: &Record) -> Result<(), MessageError> {
    // Below that level no leader takes one.
    if !record.header.kind.has_messages() || shared.level.get() < TRANSACTIONS {
        return Ok(());
    }
    // snapshots.I3
    if record.header.index <= shared.ordered_as_of.load(Ordering::Relaxed) {
        return Ok(());
    }
    let halves = of(record)?;
    if !halves.is_empty() {
        let growth = shared.state.write().store_halves(halves);
        shared.state_bytes.fetch_add(growth, Ordering::Relaxed);
    }
    Ok(())
}

/// The half messages of a record, in their order.
fn of(record: &Record) -> Result<Vec<Half>, MessageError> {
    let (start, messages) = (record.messages_position(), record.messages());
    let (mut at, mut halves) = (0, Vec::new());
    while at < messages.len() {
        let route = peek(&messages[at..])?;
        if route.topic == half::TOPIC.as_bytes() {
            let message = MessageView::parse(&messages[at..])?;
            halves.push(Half {
                copy_of: half::first_copy(&message),
                group: half::producer_group(&message).unwrap_or_default().to_owned(),
                position: start + at as u64,
                bytes: u32::try_from(route.total_size).unwrap_or(u32::MAX),
                queue_offset: half::first_queue_offset(&message),
                stored_ms: u64::try_from(message.store_timestamp()).unwrap_or(0),
                immunity_s: half::immunity_s(&message).unwrap_or(NO_IMMUNITY),
            });
        }
        at += route.total_size;
    }
    Ok(halves)
}

/// Up to where no open transaction needs the log, at most `upto`. It is by what is applied here: what lies before that is open
/// nowhere else, and never will be again.
pub(crate) fn clear_before(shared: &Shared, upto: u64) -> u64 {
    let transactions = shared.state.read().transactions().clone();
    transactions.lying_before(upto, 1).first().map_or(upto, |(_, _, open)| open.position)
}

/// Asks for what is needed before a position to be stored further on. The leader does it, sooner or later.
pub(crate) fn want_clear_before(shared: &Shared, position: u64) {
    shared.halves_wanted.fetch_max(position, Ordering::Relaxed);
}

/// Whether something is asked to be stored further on that is not yet.
pub(crate) fn is_wanted(shared: &Shared) -> bool {
    let wanted = shared.halves_wanted.load(Ordering::Relaxed);
    wanted > shared.log.state().start_position && clear_before(shared, wanted) < wanted
}
