//! What retention does not drop is there: no node's log begins behind the last place that retention may drop up to.
//!
//! Where that is depends on how far the longest log reaches; nodes drop their segments at different moments, but none drops
//! more than that. A replica that was given a later start than it should have stands out here, whoever leads.

use folio_raft::status::Status;

use super::{Checked, violation};
use crate::node::SEGMENT_BYTES;

/// The furthest that any log has reached, and what is kept of it.
#[derive(Default)]
pub(crate) struct Retained {
    /// Bytes that retention keeps; `None` for all.
    pub(crate) bytes: Option<u64>,
    end: u64,
}

impl Retained {
    /// To be called with the end of every log before [`Retained::check`].
    pub(crate) fn reached(&mut self, end: u64) {
        self.end = self.end.max(end);
    }

    pub(crate) fn check(&self, status: &Status) -> Checked {
        let droppable = self.bytes.map_or(0, |bytes| self.end.saturating_sub(bytes));
        let latest = droppable - droppable % SEGMENT_BYTES;
        if status.start_position <= latest {
            return Ok(());
        }
        let seen = format!(
            "node {} ({}) begins at {}, retention drops up to {latest} at most",
            status.node_id,
            status.role.name(),
            status.start_position
        );
        Err(violation("retained is served", seen))
    }
}
