//! Frames on a socket: read as slices of one buffer, written without being joined.
//!
//! No allocation happens before a length was checked against [`FRAME_BYTES_MAX`], and until the handshake is done against
//! [`STRANGER_FRAME_BYTES_MAX`]. Frames that are larger than a read share a budget of the node's connections while they arrive.
//!
//! - `peer.I9`: before its handshake is done a caller takes no more memory than a small frame; large frames that have begun at a
//!   node and are not complete have [`ARRIVING_BYTES_MAX`] together.

use std::collections::VecDeque;
use std::io::{self, IoSlice};
use std::sync::Arc;

use bytes::{Buf, BufMut, Bytes, BytesMut};
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt};
use tokio::sync::{OwnedSemaphorePermit, Semaphore};

use super::watchdog::Progress;
use super::wire::{Frame, Kind, invalid};

/// Bytes of a frame at most: an append of several records of the largest size.
pub(crate) const FRAME_BYTES_MAX: usize = 64 << 20;
/// The same before the handshake is done.
pub(crate) const STRANGER_FRAME_BYTES_MAX: usize = 4 << 10;
/// Bytes of large frames that arrive at a node at the same time: one of the largest size and as much besides.
const ARRIVING_BYTES_MAX: usize = 2 * FRAME_BYTES_MAX;
/// What one permit of that budget stands for.
const ARRIVING_UNIT_BYTES: usize = 1 << 10;
/// Bytes before the body, without the length itself.
const HEAD_BYTES: usize = 9;
/// Room made when there is too little left for the next read. Frames are slices of it, so it is not made anew for each.
const READ_BYTES: usize = 256 << 10;
/// Room below which there is too little.
const READ_BYTES_MIN: usize = 16 << 10;

/// The budget of large frames that arrive at one node.
pub(crate) fn arriving_budget() -> Arc<Semaphore> {
    Arc::new(Semaphore::new(ARRIVING_BYTES_MAX / ARRIVING_UNIT_BYTES))
}

/// Reads frames; bodies are slices of the read buffer.
pub(crate) struct FrameReader {
    socket: Box<dyn AsyncRead + Send + Unpin>,
    buffer: BytesMut,
    frame_bytes_max: usize,
    /// What large frames take their bytes from while they arrive.
    budget: Option<Arc<Semaphore>>,
    /// What the frame that arrives has taken.
    taken: Option<OwnedSemaphorePermit>,
    progress: Arc<Progress>,
}

impl FrameReader {
    /// Of a peer that is known.
    pub(crate) fn new(socket: Box<dyn AsyncRead + Send + Unpin>) -> FrameReader {
        let frame_bytes_max = FRAME_BYTES_MAX;
        let (buffer, budget, taken, progress) = Default::default();
        FrameReader { socket, buffer, frame_bytes_max, budget, taken, progress }
    }

    /// Of one that is not known yet: only small frames are taken, and there is room for no more.
    pub(crate) fn of_stranger(socket: Box<dyn AsyncRead + Send + Unpin>) -> FrameReader {
        FrameReader { frame_bytes_max: STRANGER_FRAME_BYTES_MAX, ..FrameReader::new(socket) }
    }

    /// The peer is known now.
    pub(crate) fn trust(&mut self, budget: Option<Arc<Semaphore>>) {
        self.frame_bytes_max = FRAME_BYTES_MAX;
        self.budget = budget;
    }

    /// How far it gets, for a watchdog.
    pub(crate) fn progress(&self) -> Arc<Progress> {
        self.progress.clone()
    }

    /// The next frame, `None` when the peer closed between two frames. Dropping the future loses nothing.
    pub(crate) async fn next(&mut self) -> io::Result<Option<Frame>> {
        loop {
            if let Some(frame) = self.parse()? {
                self.taken = None;
                self.progress.done();
                return Ok(Some(frame));
            }
            self.progress.set_busy(!self.buffer.is_empty());
            self.make_room().await?;
            if self.socket.read_buf(&mut self.buffer).await? == 0 {
                let half = !self.buffer.is_empty();
                return if half { Err(io::ErrorKind::UnexpectedEof.into()) } else { Ok(None) };
            }
        }
    }

    /// Bytes of the frame that arrives, once its length is here.
    fn arriving_bytes(&self) -> io::Result<Option<usize>> {
        let Some(length) = self.buffer.first_chunk::<4>() else { return Ok(None) };
        let length = u32::from_le_bytes(*length) as usize;
        if !(HEAD_BYTES..=self.frame_bytes_max).contains(&length) {
            return Err(invalid(format!("a frame of {length} bytes")));
        }
        Ok(Some(4 + length))
    }

    /// Room for the next read: for the whole frame where it is a large one, and then only within the budget.
    async fn make_room(&mut self) -> io::Result<()> {
        let is_stranger = self.frame_bytes_max == STRANGER_FRAME_BYTES_MAX;
        let (usual, least) =
            if is_stranger { (STRANGER_FRAME_BYTES_MAX, HEAD_BYTES) } else { (READ_BYTES, READ_BYTES_MIN) };
        let Some(bytes) = self.arriving_bytes()? else {
            if self.buffer.capacity() - self.buffer.len() < least {
                self.buffer.reserve(usual);
            }
            return Ok(());
        };
        if bytes > READ_BYTES
            && self.taken.is_none()
            && let Some(budget) = &self.budget
        {
            let permits = bytes.div_ceil(ARRIVING_UNIT_BYTES) as u32;
            self.taken = Some(budget.clone().acquire_many_owned(permits).await.map_err(io::Error::other)?);
        }
        if self.buffer.capacity() < bytes {
            self.buffer.reserve((bytes - self.buffer.len()).max(usual));
        }
        Ok(())
    }

    fn parse(&mut self) -> io::Result<Option<Frame>> {
        let Some(bytes) = self.arriving_bytes()?.filter(|bytes| self.buffer.len() >= *bytes) else {
            return Ok(None);
        };
        self.buffer.advance(4);
        let mut frame = self.buffer.split_to(bytes - 4).freeze();
        let kind = frame.get_u8();
        let kind = Kind::parse(kind).ok_or_else(|| invalid(format!("a frame of unknown kind {kind}")))?;
        let id = frame.get_u64_le();
        Ok(Some(Frame { kind, id, body: frame }))
    }
}

/// Writes frames whose bodies are several pieces, without joining them.
pub(crate) struct FrameWriter {
    socket: Box<dyn AsyncWrite + Send + Unpin>,
    progress: Arc<Progress>,
}

impl FrameWriter {
    pub(crate) fn new(socket: Box<dyn AsyncWrite + Send + Unpin>) -> FrameWriter {
        FrameWriter { socket, progress: Arc::default() }
    }

    /// How far it gets, for a watchdog.
    pub(crate) fn progress(&self) -> Arc<Progress> {
        self.progress.clone()
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
        self.progress.set_busy(true);
        self.socket.write_all_buf(&mut pieces).await?;
        self.progress.done();
        Ok(())
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

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::transport::wire::{
        AppendHead, Challenge, Credentials, Hello, SnapshotBody, TransferBody, VoteBody,
    };

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

    /// A frame's length, and nothing else of it.
    fn begun(bytes: usize) -> Box<io::Cursor<Vec<u8>>> {
        Box::new(io::Cursor::new((bytes as u32).to_le_bytes().to_vec()))
    }

    /// 60 halves of frames of 16 MiB were a gigabyte, from callers that had not said who they are.
    #[tokio::test]
    async fn peer_i9_a_stranger_sent_frames_of_any_size() {
        let mut reader = FrameReader::of_stranger(begun(STRANGER_FRAME_BYTES_MAX + 1));
        assert_eq!(reader.next().await.unwrap_err().kind(), io::ErrorKind::InvalidData);
        let mut reader = FrameReader::of_stranger(begun(STRANGER_FRAME_BYTES_MAX));
        assert_eq!(reader.next().await.unwrap_err().kind(), io::ErrorKind::UnexpectedEof);
        assert!(reader.buffer.capacity() < 4 * STRANGER_FRAME_BYTES_MAX, "{}", reader.buffer.capacity());
    }

    #[tokio::test(start_paused = true)]
    async fn peer_i9_large_frames_that_arrive_share_a_budget() {
        let budget = arriving_budget();
        let mut half_frames = Vec::new();
        let mut arrive = |bytes: usize| {
            let (near, mut far) = tokio::io::duplex(64);
            let mut reader = FrameReader::of_stranger(Box::new(near));
            reader.trust(Some(budget.clone()));
            half_frames.push(tokio::spawn(async move {
                far.write_all(&(bytes as u32).to_le_bytes()).await.unwrap();
                (reader.next().await.map(drop), far)
            }));
        };
        (0..3).for_each(|_| arrive(FRAME_BYTES_MAX));
        tokio::time::sleep(std::time::Duration::from_secs(1)).await;
        let free = budget.available_permits() * ARRIVING_UNIT_BYTES;
        assert!(free < FRAME_BYTES_MAX, "two have their room, the third waits: {free}");
        half_frames.iter().for_each(tokio::task::JoinHandle::abort);
        for half in half_frames {
            drop(half.await);
        }
        assert_eq!(budget.available_permits() * ARRIVING_UNIT_BYTES, ARRIVING_BYTES_MAX);
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
                drop(crate::codec::decode::<Challenge>(body));
                drop(crate::codec::decode::<Credentials>(body));
                drop(crate::codec::decode::<AppendHead>(body));
                drop(crate::codec::decode::<VoteBody>(body));
                drop(crate::codec::decode::<TransferBody>(body));
                drop(crate::codec::decode::<SnapshotBody>(body));
            }
        }
    }
}
