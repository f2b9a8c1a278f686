//! What openraft is handed as a snapshot, and what that makes of the state machine.

use folio_engine::log::StampBase;
use folio_state::State;
use openraft::storage::{Snapshot, SnapshotMeta};

use super::saved::SavedState;
use crate::ids::CommittedLeaderId;
use crate::node_address::NodeAddress;

pub(crate) type SnapshotOf = Snapshot<CommittedLeaderId, u64, NodeAddress, SnapshotContent>;
pub(crate) type SnapshotMetaOf = SnapshotMeta<CommittedLeaderId, u64, NodeAddress>;

/// A snapshot as openraft hands it around.
#[derive(Debug, Clone)]
pub(crate) enum SnapshotContent {
    /// Saved here under this position: read, and verified, by whoever needs its bytes.
    Stored(u64),
    /// Received from the leader, verified and saved.
    Received(Box<Received>),
}

/// What a snapshot makes of the state machine.
#[derive(Debug, Clone)]
pub(crate) struct Received {
    pub(crate) base: StampBase,
    pub(crate) state: State,
    pub(crate) ordered_as_of: Option<u64>,
}

impl Received {
    pub(crate) fn of(base: StampBase, saved: SavedState) -> Received {
        let SavedState { state, ordered_as_of, .. } = saved;
        Received { base, state, ordered_as_of }
    }
}

/// What retention wants to drop the log up to.
#[derive(Debug, Clone)]
pub(crate) struct Wanted {
    pub(crate) position: u64,
    pub(crate) meta: SnapshotMetaOf,
}
