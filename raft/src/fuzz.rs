//! What the fuzz targets of `raft/fuzz` call: the decoders of what peers send and of what is in votes, records and
//! checkpoints, none of which is public. Only compiled with `--cfg fuzzing`.

use bytes::Bytes;
use folio_state::{Command, State};
use futures_util::FutureExt;
use openraft::entry::RaftEntry;
use serde::Serialize;
use serde::de::DeserializeOwned;

use crate::codec;
use crate::group::log_summary::LogSummary;
use crate::skip_entry::SkipEntry;
use crate::state_machine::SavedState;
use crate::transport::appends::{parse_records, split_append};
use crate::transport::frames::FrameReader;
use crate::transport::wire::{
    AppendAnswer, Challenge, Credentials, Frame, GroupHello, Hello, Kind, RecordBody, SnapshotBody,
    SnapshotPartBody, TransferAnswer, TransferBody, VoteAnswer, VoteBody,
};

/// Decodes a value of which only the body is given; what decodes encodes to the same bytes.
fn body<T: DeserializeOwned + Serialize>(bytes: &[u8]) -> Option<T> {
    let framed = [b"FQ\x01\0", bytes].concat();
    let value: T = codec::decode(&framed).ok()?;
    // Sets and maps come back sorted and without repeats: then the second time is the same.
    let encoded = codec::encode(&value);
    let again: T = match codec::decode(&encoded) {
        Ok(again) => again,
        Err(error) => panic!("own bytes do not decode: {error}"),
    };
    assert_eq!(codec::encode(&again), encoded);
    Some(value)
}

fn request(frame: &Frame) {
    // As it comes, and with the envelope that no mutation finds.
    match frame.kind {
        Kind::Hello => drop((codec::decode::<Hello>(&frame.body), body::<Hello>(&frame.body))),
        Kind::GroupHello => drop((codec::decode::<GroupHello>(&frame.body), body::<GroupHello>(&frame.body))),
        Kind::Challenge => drop(body::<Challenge>(&frame.body)),
        Kind::Credentials => drop(body::<Credentials>(&frame.body)),
        Kind::Append => {
            if let Ok((_, records)) = split_append(frame) {
                self::records(records);
            }
        }
        Kind::Vote | Kind::PreVote => drop(body::<VoteBody>(&frame.body)),
        Kind::Transfer => drop(body::<TransferBody>(&frame.body)),
        Kind::Snapshot => {
            if let Some(snapshot) = body::<SnapshotBody>(&frame.body) {
                drop(folio_engine::Checkpoint::decode(&snapshot.checkpoint.into()));
                drop(snapshot.membership.membership());
            }
        }
        Kind::Record => drop(body::<RecordBody>(&frame.body)),
        Kind::StoredSnapshot => drop(body::<SnapshotPartBody>(&frame.body)),
        Kind::AllEmpty => drop(body::<Option<u64>>(&frame.body)),
        Kind::Summary | Kind::Room | Kind::Call | Kind::Fence | Kind::SnapshotPart | Kind::Failure => {}
        Kind::Answer => {
            drop(body::<AppendAnswer>(&frame.body));
            drop(body::<VoteAnswer>(&frame.body));
            drop(body::<TransferAnswer>(&frame.body));
            drop(body::<LogSummary>(&frame.body));
            let _ = body::<codec::WireVote>(&frame.body);
        }
    }
}

fn records(bytes: Bytes) {
    for entry in parse_records(bytes, &SkipEntry::default(), |_| false).unwrap_or_default() {
        drop((entry.log_id(), entry.get_membership()));
    }
}

/// Frames off a peer's connection, each of them taken for what it says it is.
pub fn frames(stream: &[u8]) {
    let mut reader = FrameReader::new(Box::new(std::io::Cursor::new(stream.to_vec())));
    while let Some(Ok(Some(frame))) = reader.next().now_or_never() {
        request(&frame);
    }
}

/// Records back to back, as the body of an append has them.
pub fn append(records: &[u8]) {
    self::records(Bytes::copy_from_slice(records));
}

/// Votes, memberships and commands as records and slots have them; a command is applied.
pub fn stored(bytes: &[u8]) {
    let framed = [b"FQ\x01\0", bytes].concat();
    if let Ok(vote) = codec::decode_vote(&framed) {
        assert_eq!(codec::encode_vote(&vote), framed);
    }
    if let Ok(membership) = codec::decode_membership(&framed) {
        let again = codec::decode_membership(&codec::encode_membership(&membership));
        assert_eq!(again.ok(), Some(membership));
    }
    for envelope in [b"FQ\x01\0", b"FQ\x02\0"] {
        if let Ok(command) = Command::decode(&[envelope, bytes].concat()) {
            assert_eq!(Command::decode(&command.encode()).as_ref(), Ok(&command));
            drop(State::default().apply(command));
        }
    }
}

/// The state inside a checkpoint or a snapshot.
pub fn state(bytes: &[u8]) {
    for version in 1..=4 {
        if let Ok(saved) = SavedState::decode(&[&[b'F', b'Q', version, 0], bytes].concat()) {
            drop(saved.encode());
        }
    }
}
