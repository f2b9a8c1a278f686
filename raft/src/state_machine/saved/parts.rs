//! What a checkpoint or snapshot holds, decoded.

use folio_state::State;

use crate::codec::WireLogId;
use crate::dedup::Start;
use crate::ids::{StoredMembership, entry_id};
use crate::terms::Terms;

/// A checkpoint's state, decoded.
#[derive(Default)]
pub(crate) struct SavedState {
    pub(crate) membership: StoredMembership,
    pub(crate) state: State,
    /// The first record that the window of repeats needs (see [`crate::dedup`]).
    pub(crate) dedup_from: Option<Start>,
    /// What is known of the terms up to here.
    pub(crate) terms: Option<Terms>,
    /// The entry after which what depends on order is as it is here, where that is a later one than the rest's
    /// (`snapshots.I3`).
    pub(crate) ordered_as_of: Option<u64>,
}

/// The terms of an earlier or later form: their first entries, ascending.
pub(super) fn terms(firsts: Vec<WireLogId>) -> Option<Terms> {
    Terms::restore(firsts.iter().map(|first| entry_id(&first.log_id())).collect())
}
