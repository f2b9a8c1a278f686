//! The bytes of one connection that were received and are not served yet.
//!
//! | bytes of a buffer | who has them |
//! |---|---|
//! | none | a connection that nothing comes from |
//! | up to 16 KiB | every connection |
//! | up to 256 KiB beyond what it holds | while the share `buffers` has them |
//! | a whole longer frame | once the share `frames` has all of them: frames that begin are completed, one after the other |
//!
//! - `net.I7`: a connection holds no buffer longer than 16 KiB that is not in a share, and an idle one none at all.

use std::io;
use std::sync::Arc;

use bytes::BytesMut;
use folio_protocol::frame::Frame;
use tokio::io::{AsyncRead, AsyncReadExt, Interest};
use tokio::net::tcp::OwnedReadHalf;
use tokio::sync::OwnedSemaphorePermit;

use super::budget::{Budget, Share, Taken};

/// Room made for the first bytes of a connection that was idle.
const FIRST_READ_BYTES: usize = 4 * 1024;
/// The same once a read has filled it: some dozens of small requests at once, and more while reads fill that.
const READ_BYTES: usize = 32 * 1024;
const READ_BYTES_MAX: usize = 256 * 1024;
/// Room below which there is too little, or a quarter of what would be made.
const ROOM_BYTES_MIN: usize = 8 * 1024;
/// What a connection may have without a share.
const BASE_BYTES: usize = 16 * 1024;

/// Where bytes come from.
pub(super) trait Source: AsyncRead + Unpin + Send {
    /// Waits until there may be some, or the end.
    fn readable(&mut self) -> impl Future<Output = io::Result<()>> + Send;
    /// Waits until the peer has closed its side, whatever it sent before.
    fn ended(&mut self) -> impl Future<Output = ()> + Send;
}

impl Source for OwnedReadHalf {
    async fn readable(&mut self) -> io::Result<()> {
        OwnedReadHalf::readable(self).await
    }

    async fn ended(&mut self) {
        // What an orderly end sets besides; nothing else of that kind is asked of the system.
        drop(self.ready(Interest::PRIORITY).await);
    }
}

#[cfg(test)]
impl Source for tokio::io::DuplexStream {
    async fn readable(&mut self) -> io::Result<()> {
        Ok(())
    }

    async fn ended(&mut self) {
        std::future::pending().await
    }
}

/// What came of a read.
pub(super) enum Read {
    /// So many bytes; none: the peer has closed its side.
    Bytes(usize),
    /// The frame that has begun needs a buffer of its own, of so many bytes.
    NeedsFrame(usize),
}

/// See the module.
pub(super) struct ReadBuffer {
    bytes: BytesMut,
    /// To be made when there is too little left.
    room: usize,
    taken: Taken,
    /// Of a long frame.
    frame: Option<(usize, OwnedSemaphorePermit)>,
}

impl ReadBuffer {
    pub(super) fn new(budget: &Arc<Budget>) -> Self {
        let taken = Taken::nothing(budget, Share::Buffers);
        Self { bytes: BytesMut::new(), room: FIRST_READ_BYTES, taken, frame: None }
    }

    pub(super) fn len(&self) -> usize {
        self.bytes.len()
    }

    pub(super) fn is_empty(&self) -> bool {
        self.bytes.is_empty()
    }

    pub(super) fn first(&self) -> Option<u8> {
        self.bytes.first().copied()
    }

    /// The bytes, to take frames off.
    pub(super) fn bytes_mut(&mut self) -> &mut BytesMut {
        &mut self.bytes
    }

    /// The length of the long frame that it was made for.
    pub(super) fn long_frame(&self) -> Option<usize> {
        self.frame.as_ref().map(|(bytes, _)| *bytes)
    }

    /// Reads what there is. May be dropped at any time: nothing is lost.
    pub(super) async fn read(&mut self, source: &mut impl Source) -> io::Result<Read> {
        if self.bytes.capacity() == 0 {
            source.readable().await?;
        }
        if let Some(frame_bytes) = self.make_room() {
            return Ok(Read::NeedsFrame(frame_bytes));
        }
        let read = source.read_buf(&mut self.bytes).await?;
        if self.bytes.len() == self.bytes.capacity() {
            self.room = (2 * self.room).clamp(READ_BYTES, READ_BYTES_MAX);
        } else if self.room > READ_BYTES {
            self.room = READ_BYTES.max(self.room / 2);
        }
        Ok(Read::Bytes(read))
    }

    /// Makes room for a read, or says how long the frame is that needs a share first (net.I7).
    fn make_room(&mut self) -> Option<usize> {
        let (length, free) = (self.bytes.len(), self.bytes.capacity() - self.bytes.len());
        let missing = Frame::length(&self.bytes).map_or(0, |frame| frame.saturating_sub(length));
        let enough = if missing > 0 { missing } else { ROOM_BYTES_MIN.min(self.room / 4) };
        if free >= enough {
            return None;
        }
        let wanted = self.room.max(missing);
        if wanted <= READ_BYTES_MAX {
            if self.bytes.try_reclaim(wanted) {
                return None;
            }
            if self.taken.resize((length + wanted).saturating_sub(BASE_BYTES)) {
                self.replace(length + wanted);
                return None;
            }
        }
        let least = length + missing.max(FIRST_READ_BYTES);
        if least > BASE_BYTES {
            return Some(length + missing);
        }
        self.replace(least);
        self.taken.clear();
        None
    }

    fn replace(&mut self, capacity: usize) {
        let mut bytes = BytesMut::with_capacity(capacity);
        bytes.extend_from_slice(&self.bytes);
        self.bytes = bytes;
    }

    /// Becomes the buffer of a long frame.
    pub(super) fn hold_frame(&mut self, bytes: usize, permit: OwnedSemaphorePermit) {
        self.replace(bytes);
        self.taken.clear();
        self.frame = Some((bytes, permit));
    }

    /// Frames were taken off, and what they hold is covered: a long frame's bytes are its request's now.
    pub(super) fn after_frames(&mut self) {
        if self.frame.is_some() && self.bytes.is_empty() {
            self.bytes = BytesMut::new();
            self.frame = None;
        }
    }

    /// Nothing came for a while: gives the buffer back if it is empty (net.I7). Says whether it holds none.
    pub(super) fn release(&mut self) -> bool {
        if self.bytes.is_empty() {
            self.bytes = BytesMut::new();
            self.frame = None;
            self.taken.clear();
            self.room = FIRST_READ_BYTES;
        }
        self.bytes.is_empty()
    }
}

#[cfg(test)]
mod tests {
    use tokio::io::AsyncWriteExt;

    use super::super::budget::MEMORY_BYTES_MIN;
    use super::*;

    fn frame(body: usize) -> BytesMut {
        let mut out = BytesMut::new();
        Frame::default().with_body(vec![0; body]).encode(&mut out).expect("a frame");
        out
    }

    /// Reads these bytes; the length of the frame that needs a share before they are all read.
    async fn fed(buffer: &mut ReadBuffer, bytes: &[u8]) -> Option<usize> {
        let (mut client, mut server) = tokio::io::duplex(32 << 20);
        client.write_all(bytes).await.expect("room");
        let mut left = bytes.len();
        while left > 0 {
            match buffer.read(&mut server).await.expect("readable") {
                Read::Bytes(read) => left -= read,
                Read::NeedsFrame(bytes) => return Some(bytes),
            }
        }
        None
    }

    #[tokio::test]
    async fn i7_half_a_frame_holds_no_more_than_came_of_it_and_is_in_a_share() {
        let budget = Budget::new(MEMORY_BYTES_MIN);
        let mut buffer = ReadBuffer::new(&budget);
        let whole = frame(10 << 20);
        assert_eq!(fed(&mut buffer, &whole[..100]).await, None);
        assert_eq!(fed(&mut buffer, &whole[100..]).await, Some(whole.len()));
        assert!(buffer.bytes.capacity() <= BASE_BYTES, "{}", buffer.bytes.capacity());
        let permit = budget.frame(whole.len()).await.expect("it is left");
        buffer.hold_frame(whole.len(), permit);
        assert!(budget.frame_bytes() >= whole.len());
        assert_eq!(fed(&mut buffer, &whole[100..]).await, None);
        assert_eq!(Frame::decode(buffer.bytes_mut()).expect("a frame").expect("whole").body.len(), 10 << 20);
        buffer.after_frames();
        assert_eq!(budget.frame_bytes(), 0);
    }

    #[tokio::test]
    async fn i7_an_idle_connection_keeps_no_buffer() {
        let budget = Budget::new(MEMORY_BYTES_MIN);
        let mut buffer = ReadBuffer::new(&budget);
        let several = [frame(1_000), frame(60_000), frame(60_000)].concat();
        assert_eq!(fed(&mut buffer, &several).await, None);
        assert!(budget.used(Share::Buffers) > 0);
        assert!(!buffer.release(), "something is in it");
        while Frame::decode(buffer.bytes_mut()).expect("frames").is_some() {}
        assert!(buffer.release());
        assert_eq!((budget.used(Share::Buffers), buffer.bytes.capacity()), (0, 0));
    }

    #[tokio::test]
    async fn a_share_that_is_used_up_leaves_small_requests_a_buffer() {
        let budget = Budget::new(MEMORY_BYTES_MIN);
        let all = budget.take(Share::Buffers, budget.limit(Share::Buffers)).expect("it is left");
        let mut buffer = ReadBuffer::new(&budget);
        let small = frame(9_000);
        assert_eq!(fed(&mut buffer, &small).await, None);
        assert!(buffer.bytes.capacity() <= BASE_BYTES);
        assert!(Frame::decode(buffer.bytes_mut()).expect("a frame").is_some());
        let large = frame(40_000);
        assert_eq!(fed(&mut buffer, &large).await, Some(large.len()));
        drop(all);
        let mut buffer = ReadBuffer::new(&budget);
        assert_eq!(fed(&mut buffer, &large).await, None);
    }
}
