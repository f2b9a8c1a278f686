//! A leader's help for a node that has forgotten something: an entry of its term, made now and committed.
//!
//! `catch_up.rs` says what such an entry proves. It is a blank entry, which changes nothing.

use std::io;
use std::time::Duration;

use folio_engine::record::EntryId;

use crate::codec::{self, WireLogId};
use crate::shared::Shared;
use crate::state_machine::Raft;
use crate::types::entry_id;

/// How long a fence may take to be committed. The node that asked asks again.
const COMMIT_TIMEOUT: Duration = Duration::from_secs(2);
/// How long the node that asks waits: a little longer.
pub(super) const ANSWER_TIMEOUT: Duration = Duration::from_millis(2_500);

/// Appends a fence and waits until it is committed. Fails on a node that does not lead.
pub(crate) async fn answer(raft: &Raft, shared: &Shared) -> io::Result<Vec<u8>> {
    if !shared.has_room(1) {
        return Err(io::Error::new(io::ErrorKind::StorageFull, "disk full: no fence can be appended"));
    }
    let written = tokio::time::timeout(COMMIT_TIMEOUT, raft.write_blank()).await;
    let written = written.map_err(|_| io::Error::other("the fence is not committed yet"))?;
    let response = written.map_err(|error| io::Error::other(error.to_string()))?;
    Ok(codec::encode(&WireLogId::from(&response.log_id)))
}

/// The entry that an answer names.
pub(super) fn parse(body: &[u8]) -> io::Result<EntryId> {
    let id: WireLogId = codec::decode(body).map_err(io::Error::other)?;
    Ok(entry_id(&id.log_id()))
}
