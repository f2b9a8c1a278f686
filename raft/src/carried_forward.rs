//! What is needed of the log for longer than it is retained: the leader stores it again at the log's end before its segment is dropped.
//! Retention asks all kinds of it; each has a driver that carries.

use std::io;

use crate::shared::Shared;
use crate::{halves, pending_timers, popped};

/// One kind of messages that are carried forward.
trait CarriedForward: Sync {
    /// Up to where the log holds none that is needed, at most `upto`. It is by what is applied here. May read the disk.
    fn clear_before(&self, shared: &Shared, upto: u64) -> io::Result<u64>;

    /// Asks for what is needed before a position to be carried forward. The leader does it, sooner or later.
    fn want_clear_before(&self, shared: &Shared, position: u64);

    /// Whether something is asked to be carried forward that is not yet.
    fn is_wanted(&self, shared: &Shared) -> bool;
}

/// All kinds.
const ALL: [&dyn CarriedForward; 3] = [&DelayedMessages, &HalfMessages, &PoppedMessages];

/// Up to where nothing in the log is needed any more (`timers.I5`, `transactions.I3`, `pop.I4`). What is needed before `wanted` is asked to be carried
/// forward.
pub(crate) fn clear_before(shared: &Shared, wanted: u64) -> io::Result<u64> {
    let mut all_clear = wanted;
    for kind in ALL {
        let clear = kind.clear_before(shared, wanted)?;
        if clear < wanted {
            kind.want_clear_before(shared, wanted);
        }
        all_clear = all_clear.min(clear);
    }
    Ok(all_clear)
}

/// Whether something is asked to be carried forward that is not yet.
pub(crate) fn is_wanted(shared: &Shared) -> bool {
    ALL.iter().any(|kind| kind.is_wanted(shared))
}

struct DelayedMessages;

impl CarriedForward for DelayedMessages {
    fn clear_before(&self, shared: &Shared, upto: u64) -> io::Result<u64> {
        pending_timers::clear_before(shared, upto).map_err(io::Error::other)
    }

    fn want_clear_before(&self, shared: &Shared, position: u64) {
        pending_timers::want_clear_before(shared, position);
    }

    fn is_wanted(&self, shared: &Shared) -> bool {
        pending_timers::is_wanted(shared)
    }
}

struct HalfMessages;

impl CarriedForward for HalfMessages {
    fn clear_before(&self, shared: &Shared, upto: u64) -> io::Result<u64> {
        Ok(halves::clear_before(shared, upto))
    }

    fn want_clear_before(&self, shared: &Shared, position: u64) {
        halves::want_clear_before(shared, position);
    }

    fn is_wanted(&self, shared: &Shared) -> bool {
        halves::is_wanted(shared)
    }
}

struct PoppedMessages;

impl CarriedForward for PoppedMessages {
    fn clear_before(&self, shared: &Shared, upto: u64) -> io::Result<u64> {
        Ok(popped::clear_before(shared, upto))
    }

    fn want_clear_before(&self, shared: &Shared, position: u64) {
        popped::want_clear_before(shared, position);
    }

    fn is_wanted(&self, shared: &Shared) -> bool {
        popped::is_wanted(shared)
    }
}
