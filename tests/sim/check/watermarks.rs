//! `group.I2`: retained <= applied <= committed <= durable <= written, as far as a node says them.

use folio_raft::group::Group;
use folio_raft::status::Status;

use super::{Checked, violation};
use crate::node::SEGMENT_BYTES;

/// Where a log that ends at `end` goes on, in the eyes of a node whose state is that of a snapshot: it begins with the first
/// record of a segment, and the segment before ends in filler.
fn place(end: u64, applied: u64) -> u64 {
    if end.next_multiple_of(SEGMENT_BYTES) == applied { applied } else { end }
}

pub(crate) fn check(group: &Group, status: &Status) -> Checked {
    let log = group.log().state();
    // A snapshot that is being installed moves the log's start first.
    let place = |end| place(end, status.applied_position);
    let line = [status.applied_position, place(log.durable_position), place(log.next_position)];
    let indexes = [status.applied, status.committed];
    if line.is_sorted() && indexes.is_sorted() && log.start_position <= log.next_position {
        return Ok(());
    }
    let seen = format!("node {}: {line:?} {indexes:?} start {}", status.node_id, log.start_position);
    Err(violation("watermark order", seen))
}
