//! A snapshot that the leader has sent: verified, and saved, before openraft hears of it.

use std::io;

use bytes::Bytes;
use folio_engine::checkpoint::Checkpoint;
use folio_engine::log::StampBase;
use folio_engine::record::EntryId;

use super::wire::invalid;
use crate::codec;
use crate::shared::Shared;
use crate::state_machine::{Received, SavedState};

/// Whether this node has the entry that a snapshot ends with, and all before it, in its log: then the log is what it
/// goes on with. A new leader does not know that yet when it sends what stands before its own log's beginning. The
/// answer holds whoever leads by now, as the entry is committed; a leader that is past is told so by openraft. Whoever
/// answers waits until the entry is durable.
///
/// openraft looks at what is committed alone: of a snapshot behind which it has entries already it would end.
pub(super) fn needs_nothing_of(
    shared: &Shared,
    base: &StampBase,
    vote: &codec::WireVote,
) -> io::Result<bool> {
    let own = shared.log.vote().map(|bytes| codec::decode_vote(&bytes)).transpose();
    let outvoted = own.map_err(io::Error::other)?.is_some_and(|own| own > vote.vote());
    Ok(!outvoted && base.id.is_some_and(|id| shared.has(id)))
}

/// Verifies a snapshot that ends with the entry `last` and saves it; none if this node needs nothing of it. Blocks on the
/// disk.
pub(super) fn take(
    shared: &Shared,
    file: &Bytes,
    last: Option<EntryId>,
    vote: &codec::WireVote,
) -> io::Result<Option<Received>> {
    let checkpoint = Checkpoint::decode(file).map_err(io::Error::other)?;
    if checkpoint.base.id != last {
        return Err(invalid("a snapshot whose checkpoint is of another entry"));
    }
    if needs_nothing_of(shared, &checkpoint.base, vote)? {
        return Ok(None);
    }
    let saved = SavedState::decode(&checkpoint.state).map_err(io::Error::other)?;
    shared.log.prepare_purge().map_err(io::Error::other)?;
    shared.checkpoints.save_snapshot(&checkpoint).map_err(io::Error::other)?;
    Ok(Some(Received::of(checkpoint.base, saved)))
}
