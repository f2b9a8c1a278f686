//! Which snapshots are known to be damaged.

use std::collections::BTreeSet;
use std::sync::atomic::{AtomicU64, Ordering};

use folio_engine::planted;
use parking_lot::Mutex;
use tokio::sync::Notify;

/// The snapshots found damaged or missing, and not repaired yet.
#[derive(Debug, Default)]
pub(crate) struct Damages {
    pub(super) positions: Mutex<BTreeSet<u64>>,
    pub(super) found: Notify,
    pub(super) repaired: AtomicU64,
}

impl Damages {
    /// Notes that the snapshot at `position` has to be repaired; false if that was known.
    pub(super) fn note(&self, position: u64) -> bool {
        if planted::is("later-start-leads") {
            return false;
        }
        let new = self.positions.lock().insert(position);
        self.found.notify_one();
        new
    }

    pub(super) fn forget(&self, position: u64) {
        self.positions.lock().remove(&position);
    }

    pub(super) fn all(&self) -> BTreeSet<u64> {
        self.positions.lock().clone()
    }

    /// How many there are.
    pub(crate) fn count(&self) -> u64 {
        self.positions.lock().len() as u64
    }

    /// How many were repaired since the start.
    pub(crate) fn repaired(&self) -> u64 {
        self.repaired.load(Ordering::Relaxed)
    }
}
