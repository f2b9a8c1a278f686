//! A snapshot from a peer: asked for by its position, a part at a time.
//!
//! The peer reads each part from its file and verifies nothing; the one that asks verifies the whole by its checksum, and
//! that it is of the boundary it is wanted for. A file that changes between two parts fails that, and is asked for again.

use std::io;
use std::time::Duration;

use bytes::{BufMut, Bytes, BytesMut};
use folio_engine::checkpoint::{Checkpoint, CheckpointDamage, Checkpoints};

use crate::codec::{self, CodecError};
use crate::state_machine::SavedState;
use crate::transport::parts::{Assembly, PART_BYTES, PartHead};
use crate::transport::requests::Requests;
use crate::transport::wire::{Kind, SnapshotPartBody, invalid};

/// How long a peer may take for a part.
const PART_TIMEOUT: Duration = Duration::from_secs(5);

/// What a peer answers that is asked for a part of a snapshot. Blocks on the disk.
pub(crate) fn part(checkpoints: &Checkpoints, body: &[u8]) -> io::Result<Bytes> {
    let SnapshotPartBody { position, offset } = codec::decode(body).map_err(io::Error::other)?;
    let found = checkpoints.read_snapshot_part(position, offset, PART_BYTES).map_err(io::Error::other)?;
    let Some((total, part)) = found else {
        return Err(io::Error::other(format!("there is no snapshot of position {position}")));
    };
    let mut answer = BytesMut::from(&codec::encode(&PartHead { offset, total })[..]);
    answer.put(part);
    Ok(answer.freeze())
}

/// The snapshot of `position` as the peer has it. Its content is to be verified.
pub(crate) async fn fetch(requests: &Requests, position: u64) -> io::Result<Bytes> {
    let (mut assembly, mut offset) = (Assembly::default(), 0);
    loop {
        let body = codec::encode(&SnapshotPartBody { position, offset }).into();
        let answer = requests.request(Kind::StoredSnapshot, vec![body], PART_TIMEOUT).await?;
        let (head, part) = answer.split_at_checked(PartHead::BYTES).unwrap_or_default();
        let head: PartHead = codec::decode(head).map_err(io::Error::other)?;
        if part.is_empty() {
            return Err(invalid(format!("an empty part of the snapshot of {position}")));
        }
        assembly.add(head, part)?;
        offset += part.len() as u64;
        if offset == head.total {
            return assembly.take();
        }
    }
}

/// Why a fetched file is not used.
#[derive(Debug, thiserror::Error)]
pub(crate) enum BadCopy {
    /// It is no checkpoint.
    #[error(transparent)]
    Checkpoint(#[from] CheckpointDamage),
    /// The state in it is not readable.
    #[error(transparent)]
    State(#[from] CodecError),
}

/// A fetched file as the checkpoint that it holds, without what is of the peer alone. Takes long for a large one.
pub(crate) fn checkpoint_of(file: &Bytes) -> Result<Checkpoint, BadCopy> {
    let mut checkpoint = Checkpoint::decode(file)?;
    let state = SavedState::decode(&checkpoint.state)?;
    checkpoint.state = state.encode_for_any()?;
    Ok(checkpoint)
}
