//! `group.I2`: retained <= applied <= committed <= durable <= written, as far as a node says them.

use folio_raft::group::Group;
use folio_raft::status::Status;

use super::{Checked, violation};

pub(crate) fn check(group: &Group, status: &Status) -> Checked {
    let log = group.log().state();
    // A snapshot that is being installed moves the log's start first.
    let line = [status.applied_position, log.durable_position, log.next_position];
    let indexes = [status.applied, status.committed];
    if line.is_sorted() && indexes.is_sorted() && log.start_position <= log.next_position {
        return Ok(());
    }
    let seen = format!("node {}: {line:?} {indexes:?} start {}", status.node_id, log.start_position);
    Err(violation("watermark order", seen))
}
