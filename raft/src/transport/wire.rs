//! Frames between peers.
//!
//! | field | size | meaning |
//! |---|---|---|
//! | length | 4, little-endian | bytes that follow: 9 + body |
//! | kind | 1 | [`Kind`] |
//! | id | 8, little-endian | a request's number, echoed by its answer |
//! | body | rest | by kind; `Append`: length of the head (4), head, then log records back to back |
//!
//! The first frame of a connection is a [`Hello`]; the answer to it says whether the peer may talk. No
//! allocation happens before a length was checked against [`FRAME_BYTES_MAX`].

use std::collections::VecDeque;
use std::io::{self, IoSlice};

use bytes::{Buf, BufMut, Bytes, BytesMut};
use serde::{Deserialize, Serialize};
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt};

use crate::codec::{WireLogId, WireMembership, WireVote};
use crate::group::HandOver;
use crate::group::group_id::GroupId;

/// Bytes of a frame at most: an append of several records of the largest size.
pub(crate) const FRAME_BYTES_MAX: usize = 64 << 20;
/// Bytes before the body, without the length itself.
const HEAD_BYTES: usize = 9;
/// Room made when there is too little left for the next read. Frames are slices of it, so it is not made anew for each.
const READ_BYTES: usize = 256 << 10;
/// Room below which there is too little.
const READ_BYTES_MIN: usize = 16 << 10;

/// What a frame is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[repr(u8)]
pub(crate) enum Kind {
    Hello = 1,
    Append = 2,
    Vote = 3,
    PreVote = 4,
    Transfer = 5,
    Snapshot = 6,
    Call = 7,
    /// Asks what the node is and what its log holds.
    Summary = 8,
    /// Asks for one committed record, as it is stored.
    Record = 9,
    /// Asks whether the node's disk has room.
    Room = 10,
    /// Tells, before the group is founded, that all members' logs were empty.
    AllEmpty = 11,
    /// A part of the checkpoint of the snapshot that follows, see [`super::parts`].
    SnapshotPart = 12,
    /// Asks for a part of a stored snapshot, see [`crate::snapshots`].
    StoredSnapshot = 14,
    /// Asks the leader to append and commit an entry now, see `group::fence`.
    Fence = 13,
    /// The answer to any of the above.
    Answer = 100,
    /// The answer when the peer cannot: its text.
    Failure = 101,
}

impl Kind {
    fn parse(byte: u8) -> Option<Kind> {
        use Kind::*;
        [
            Hello,
            Append,
            Vote,
            PreVote,
            Transfer,
            Snapshot,
            Call,
            Summary,
            Record,
            Room,
            AllEmpty,
            SnapshotPart,
            StoredSnapshot,
            Fence,
            Answer,
            Failure,
        ]
        .into_iter()
        .find(|kind| *kind as u8 == byte)
    }
}

/// What a connection is for.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) enum Purpose {
    /// Pipelined appends, answered in order.
    Replication,
    /// Requests, answered in any order.
    Requests,
}

/// Who connects, and what it believes about the group.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Hello {
    pub(crate) cluster: String,
    pub(crate) group: String,
    pub(crate) segment_bytes: u64,
    pub(crate) from: u64,
    pub(crate) to: u64,
    pub(crate) purpose: Purpose,
    /// The group that the node belongs to. A node that does not know it yet asks for a summary and nothing else.
    pub(crate) group_id: Option<GroupId>,
    /// Where the node listens for peers; empty when it does not know.
    pub(crate) address: String,
}

/// The head of an append; the records follow it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct AppendHead {
    pub(crate) vote: WireVote,
    pub(crate) prev: Option<WireLogId>,
    pub(crate) commit: Option<WireLogId>,
    /// With a heartbeat and with the first append of a stream: the last entry that the receiver has acknowledged to this leader in its term.
    pub(crate) acknowledged: Option<WireLogId>,
}

/// The answer to an append.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) enum AppendAnswer {
    Matching(Option<WireLogId>),
    Conflict(WireLogId),
    HigherVote(WireVote),
}

#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct VoteBody {
    pub(crate) vote: WireVote,
    pub(crate) last: Option<WireLogId>,
    pub(crate) transfer: bool,
}

#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct VoteAnswer {
    pub(crate) vote: WireVote,
    pub(crate) granted: bool,
    pub(crate) last: Option<WireLogId>,
}

#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct TransferBody {
    pub(crate) from: WireVote,
    pub(crate) to: u64,
    pub(crate) last: Option<WireLogId>,
    pub(crate) why: HandOver,
}

/// The answer to a transfer: why it was refused, if it was.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) enum TransferAnswer {
    Done,
    VoteChanged { expected: WireVote, actual: WireVote },
    LogNotFlushed { expected: Option<WireLogId>, actual: Option<WireLogId> },
}

#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct SnapshotBody {
    pub(crate) vote: WireVote,
    pub(crate) last: Option<WireLogId>,
    pub(crate) membership_log_id: Option<WireLogId>,
    pub(crate) membership: WireMembership,
    /// The checkpoint in its file format; empty if it was sent in parts.
    pub(crate) checkpoint: Vec<u8>,
}

/// Which record is asked for; the answer's body is the record.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct RecordBody {
    pub(crate) index: u64,
    pub(crate) position: u64,
}

/// Which part of which stored snapshot is asked for; the answer's body is a [`super::parts::PartHead`] and the part.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct SnapshotPartBody {
    pub(crate) position: u64,
    pub(crate) offset: u64,
}

/// One frame, its body not looked at.
#[derive(Debug, Clone)]
pub(crate) struct Frame {
    pub(crate) kind: Kind,
    pub(crate) id: u64,
    pub(crate) body: Bytes,
}

/// Reads frames; bodies are slices of the read buffer.
pub(crate) struct FrameReader {
    socket: Box<dyn AsyncRead + Send + Unpin>,
    buffer: BytesMut,
}

impl FrameReader {
    pub(crate) fn new(socket: Box<dyn AsyncRead + Send + Unpin>) -> FrameReader {
        FrameReader { socket, buffer: BytesMut::new() }
    }

    /// The next frame, `None` when the peer closed between two frames. Dropping the future loses nothing.
    pub(crate) async fn next(&mut self) -> io::Result<Option<Frame>> {
        loop {
            if let Some(frame) = self.parse()? {
                return Ok(Some(frame));
            }
            if self.socket.read_buf(&mut self.buffer).await? == 0 {
                let half = !self.buffer.is_empty();
                return if half { Err(io::ErrorKind::UnexpectedEof.into()) } else { Ok(None) };
            }
        }
    }

    fn parse(&mut self) -> io::Result<Option<Frame>> {
        let Some(length) = self.buffer.first_chunk::<4>() else {
            if self.buffer.capacity() - self.buffer.len() < READ_BYTES_MIN {
                self.buffer.reserve(READ_BYTES);
            }
            return Ok(None);
        };
        let length = u32::from_le_bytes(*length) as usize;
        if !(HEAD_BYTES..=FRAME_BYTES_MAX).contains(&length) {
            return Err(invalid(format!("a frame of {length} bytes")));
        }
        if self.buffer.len() < 4 + length {
            if self.buffer.capacity() < 4 + length {
                self.buffer.reserve((4 + length - self.buffer.len()).max(READ_BYTES));
            }
            return Ok(None);
        }
        self.buffer.advance(4);
        let mut frame = self.buffer.split_to(length).freeze();
        let kind = frame.get_u8();
        let kind = Kind::parse(kind).ok_or_else(|| invalid(format!("a frame of unknown kind {kind}")))?;
        let id = frame.get_u64_le();
        Ok(Some(Frame { kind, id, body: frame }))
    }
}

/// Writes frames whose bodies are several pieces, without joining them.
pub(crate) struct FrameWriter {
    socket: Box<dyn AsyncWrite + Send + Unpin>,
}

impl FrameWriter {
    pub(crate) fn new(socket: Box<dyn AsyncWrite + Send + Unpin>) -> FrameWriter {
        FrameWriter { socket }
    }

    pub(crate) async fn write(&mut self, kind: Kind, id: u64, parts: Vec<Bytes>) -> io::Result<()> {
        let body: usize = parts.iter().map(Bytes::len).sum();
        if HEAD_BYTES + body > FRAME_BYTES_MAX {
            return Err(invalid(format!("a frame of {body} bytes is too large to send")));
        }
        let mut head = BytesMut::with_capacity(4 + HEAD_BYTES);
        head.put_u32_le((HEAD_BYTES + body) as u32);
        head.put_u8(kind as u8);
        head.put_u64_le(id);
        let mut pieces = Pieces(VecDeque::with_capacity(parts.len() + 1));
        pieces.0.push_back(head.freeze());
        pieces.0.extend(parts.into_iter().filter(|part| !part.is_empty()));
        self.socket.write_all_buf(&mut pieces).await
    }

    /// Nothing will be written any more; what was written still arrives.
    pub(crate) async fn finish(&mut self) -> io::Result<()> {
        self.socket.shutdown().await
    }
}

/// Several pieces as one buffer, so that one system call writes many of them.
struct Pieces(VecDeque<Bytes>);

impl Buf for Pieces {
    fn remaining(&self) -> usize {
        self.0.iter().map(Bytes::len).sum()
    }

    fn chunk(&self) -> &[u8] {
        self.0.front().map_or(&[], |piece| &piece[..])
    }

    fn advance(&mut self, mut count: usize) {
        while count > 0 {
            let Some(front) = self.0.front_mut() else { return };
            let step = count.min(front.len());
            front.advance(step);
            count -= step;
            if front.is_empty() {
                self.0.pop_front();
            }
        }
    }

    fn chunks_vectored<'a>(&'a self, slices: &mut [IoSlice<'a>]) -> usize {
        let mut filled = 0;
        for (slice, piece) in slices.iter_mut().zip(&self.0) {
            *slice = IoSlice::new(piece);
            filled += 1;
        }
        filled
    }
}

pub(crate) fn invalid(what: impl Into<String>) -> io::Error {
    io::Error::new(io::ErrorKind::InvalidData, what.into())
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    /// Every frame of a stream, until its end or the first error.
    fn frames(bytes: Vec<u8>) -> Vec<Frame> {
        let runtime = tokio::runtime::Builder::new_current_thread().build().unwrap();
        let mut reader = FrameReader::new(Box::new(io::Cursor::new(bytes)));
        runtime.block_on(async {
            let mut frames = Vec::new();
            while let Ok(Some(frame)) = reader.next().await {
                frames.push(frame);
            }
            frames
        })
    }

    proptest! {
        #[test]
        fn arbitrary_bytes_from_a_peer_never_panic(bytes in prop::collection::vec(any::<u8>(), 0..300)) {
            frames(bytes);
        }

        #[test]
        fn frames_with_arbitrary_bodies_arrive_whole(bodies in prop::collection::vec(prop::collection::vec(any::<u8>(), 0..40), 0..6)) {
            let mut stream = Vec::new();
            for (id, body) in bodies.iter().enumerate() {
                stream.put_u32_le((HEAD_BYTES + body.len()) as u32);
                stream.put_u8(Kind::Call as u8);
                stream.put_u64_le(id as u64);
                stream.put_slice(body);
            }
            let found = frames(stream);
            prop_assert_eq!(found.len(), bodies.len());
            for (frame, body) in found.iter().zip(&bodies) {
                prop_assert_eq!(&frame.body[..], &body[..]);
                drop(crate::codec::decode::<Hello>(body));
                drop(crate::codec::decode::<AppendHead>(body));
                drop(crate::codec::decode::<VoteBody>(body));
                drop(crate::codec::decode::<TransferBody>(body));
                drop(crate::codec::decode::<SnapshotBody>(body));
            }
        }
    }
}
