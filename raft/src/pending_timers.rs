//! Which delayed messages are pending, by the timer index and the replicated state of this node: what retention asks before it drops a
//! segment, and what log and index have to know of the state.
//!
//! What is needed of old segments for other reasons is asked and carried forward in the same way: [`clear_before`] is the place.

use std::sync::atomic::Ordering;

use folio_engine::log::StampBase;
use folio_engine::timers::{Gone, TimerEntry, TimersError, TimersPoint};
use folio_protocol::parked::TimerKey;
use folio_state::State;
use folio_state::sections::features::TIMERS;

use crate::shared::Shared;

/// Tells the log of this node what the state says of timers: it parks nothing below the watermark (`timers.I2`).
pub(crate) fn note(shared: &Shared, state: &State) {
    let watermark = state.timers().watermark();
    if watermark != TimerKey::default() {
        shared.log.raise_due_floor(watermark.due_ms);
    }
}

/// What is not pending any more, by a state that is saved.
pub(crate) fn gone(state: &State) -> Gone {
    Gone { watermark: state.timers().watermark(), start: state.timers().carried() }
}

/// Where the timer index stands with a checkpoint.
pub(crate) fn point(base: &StampBase) -> TimersPoint {
    TimersPoint { id: base.id, position: base.position, crc: base.prev_crc }
}

/// Up to where nothing in the log is needed any more, at most `upto`: no pending message lies before (`timers.I5`). It is by what is applied
/// here, and what is not pending now never will be again. Reads the disk.
pub(crate) fn clear_before(shared: &Shared, upto: u64) -> Result<u64, TimersError> {
    if shared.level.get() < TIMERS {
        return Ok(upto);
    }
    let state = shared.state.read().timers().clone();
    if state.carried() >= upto {
        return Ok(upto);
    }
    let is_pending = |entry: &TimerEntry| state.is_pending(entry.key);
    let first = shared.timers.lying(state.watermark(), (state.carried(), upto), 1, is_pending)?;
    Ok(first.first().map_or(upto, |entry| entry.key.position))
}

/// Asks for what is needed before a position to be carried forward. The leader does it, sooner or later.
pub(crate) fn want_clear_before(shared: &Shared, position: u64) {
    shared.carry_wanted.fetch_max(position, Ordering::Relaxed);
}

/// Whether something is asked to be carried forward that is not yet.
pub(crate) fn is_wanted(shared: &Shared) -> bool {
    let wanted = shared.carry_wanted.load(Ordering::Relaxed);
    wanted > shared.log.state().start_position && wanted > shared.state.read().timers().carried()
}

/// Nothing before this position is needed any more, so nothing is to be carried.
pub(crate) fn is_clear_before(shared: &Shared, position: u64) {
    let _ = shared.carry_wanted.compare_exchange(position, 0, Ordering::Relaxed, Ordering::Relaxed);
}
