//! The bytes of one connection that were received and are not served yet.
//!
//! | bytes of a buffer | who has them |
//! |---|---|
//! | none | a connection that nothing comes from |
//! | up to 16 KiB | every connection |
//! | up to 256 KiB beyond what it holds | while the share `buffers` has them |
//! | of a longer frame, or where `buffers` is used up: twice what has come of the frame | as `frames` gives them |
//!
//! - `net.I7`: a connection holds no buffer longer than 16 KiB that is not in a share, and an idle one none at all. Beyond
//!   256 KiB a frame holds no more than twice what has come of it.

use std::io;
use std::sync::Arc;

use bytes::BytesMut;
use folio_protocol::frame::Frame;
use tokio::io::{AsyncRead, AsyncReadExt, Interest};
use tokio::net::tcp::OwnedReadHalf;

use super::budget::{Budget, Share, Taken};
use super::frames::FrameMemory;

/// Room made for the first bytes of a connection that was idle.
const FIRST_READ_BYTES: usize = 4 * 1024;
/// The same once a read has filled it: some dozens of small requests at once, and more while reads fill that.
const READ_BYTES: usize = 32 * 1024;
pub(super) const READ_BYTES_MAX: usize = 256 * 1024;
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
    /// The frame that has begun needs more memory than there is.
    NeedsMemory(Step),
}

/// What a frame needs next.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Step {
    /// The length of the frame.
    pub(super) frame_bytes: usize,
    /// Bytes of the buffer to go on with.
    pub(super) bytes: usize,
}

/// The share that a buffer is in.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Holds {
    Buffers,
    Frames,
}

/// See the module.
pub(super) struct ReadBuffer {
    bytes: BytesMut,
    /// To be made when there is too little left.
    room: usize,
    taken: Taken,
    /// Of a long frame.
    frame: Option<FrameMemory>,
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

    /// The length of the frame that has begun, and whose it is what the buffer holds, if others may need that.
    pub(super) fn begun(&self) -> Option<(usize, Holds)> {
        if self.bytes.is_empty() {
            return None;
        }
        let holds = if self.frame.is_some() { Holds::Frames } else { Holds::Buffers };
        (holds == Holds::Frames || self.taken.bytes() > 0).then_some((self.frame_bytes(), holds))
    }

    /// Reads what there is. May be dropped at any time: nothing is lost.
    pub(super) async fn read(&mut self, source: &mut impl Source) -> io::Result<Read> {
        if self.bytes.capacity() == 0 {
            source.readable().await?;
        }
        if let Some(step) = self.make_room() {
            return Ok(Read::NeedsMemory(step));
        }
        let read = source.read_buf(&mut self.bytes).await?;
        if self.bytes.len() == self.bytes.capacity() {
            self.room = (2 * self.room).clamp(READ_BYTES, READ_BYTES_MAX);
        } else if self.room > READ_BYTES {
            self.room = READ_BYTES.max(self.room / 2);
        }
        Ok(Read::Bytes(read))
    }

    /// Makes room for a read, or says what the frame that has begun needs of a share first (net.I7).
    fn make_room(&mut self) -> Option<Step> {
        let (length, free) = (self.bytes.len(), self.bytes.capacity() - self.bytes.len());
        let frame = Frame::length(&self.bytes).filter(|frame| *frame > length);
        let missing = frame.map_or(0, |frame| frame - length);
        let enough = match missing {
            0 => ROOM_BYTES_MIN.min(self.room / 4),
            missing if length + missing > READ_BYTES_MAX => ROOM_BYTES_MIN,
            missing => missing,
        };
        if free >= enough || (self.frame.is_none() && self.share_room(length, missing)) {
            return None;
        }
        if length + missing <= BASE_BYTES {
            self.replace((length + missing.max(FIRST_READ_BYTES)).min(BASE_BYTES));
            self.taken.clear();
            return None;
        }
        // What there is is filled first: an announcement holds nothing.
        if free > 0 {
            return None;
        }
        if length < BASE_BYTES {
            self.replace(BASE_BYTES);
            self.taken.clear();
            return None;
        }
        let frame_bytes = length + missing;
        Some(Step { frame_bytes, bytes: frame_bytes.min(2 * length) })
    }

    /// Makes room of up to 256 KiB, if the share `buffers` has them.
    fn share_room(&mut self, length: usize, missing: usize) -> bool {
        let is_long = length + missing > READ_BYTES_MAX;
        // A long frame begins here: most of what would be made is for what has not come yet.
        if is_long && length > READ_BYTES_MAX / 2 {
            return false;
        }
        let wanted = if is_long { READ_BYTES_MAX - length } else { self.room.max(missing) };
        if wanted > READ_BYTES_MAX {
            return false;
        }
        if self.bytes.try_reclaim(wanted) {
            return true;
        }
        let is_left = self.taken.resize((length + wanted).saturating_sub(BASE_BYTES));
        if is_left {
            self.replace(length + wanted);
        }
        is_left
    }

    fn replace(&mut self, capacity: usize) {
        let mut bytes = BytesMut::with_capacity(capacity);
        bytes.extend_from_slice(&self.bytes);
        self.bytes = bytes;
    }

    /// What the long frame that has begun holds, to become more.
    pub(super) fn take_memory(&mut self) -> Option<FrameMemory> {
        self.frame.take()
    }

    /// Becomes the buffer of a long frame.
    pub(super) fn hold_frame(&mut self, bytes: usize, memory: FrameMemory) {
        self.replace(bytes);
        self.taken.clear();
        self.frame = Some(memory);
    }

    /// Frames were taken off, and what they hold is covered: a long frame's bytes are its request's now.
    pub(super) fn after_frames(&mut self) {
        if self.frame.is_some() && self.bytes.is_empty() {
            self.bytes = BytesMut::new();
            self.frame = None;
        }
    }

    /// Nothing came for a while: gives the buffer back if it is empty, and what the frame that has begun does not need if
    /// that is short (net.I7). Says whether it holds nothing.
    pub(super) fn release(&mut self) -> bool {
        if self.bytes.is_empty() {
            self.bytes = BytesMut::new();
            self.frame = None;
            self.taken.clear();
            self.room = FIRST_READ_BYTES;
        } else if self.taken.bytes() > 0 && self.is_base_enough() {
            self.replace(BASE_BYTES);
            self.taken.clear();
        }
        self.bytes.is_empty()
    }

    /// Whether the frame that has begun fits what every connection may have.
    pub(super) fn is_base_enough(&self) -> bool {
        self.bytes.len().max(self.frame_bytes()) <= BASE_BYTES
    }

    fn frame_bytes(&self) -> usize {
        Frame::length(&self.bytes).unwrap_or(0)
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

    /// Reads these bytes; the first step of memory that the frame needs before they are all read.
    async fn fed(buffer: &mut ReadBuffer, bytes: &[u8]) -> Option<Step> {
        let (mut client, mut server) = tokio::io::duplex(32 << 20);
        client.write_all(bytes).await.expect("room");
        let mut left = bytes.len();
        while left > 0 {
            match buffer.read(&mut server).await.expect("readable") {
                Read::Bytes(read) => left -= read,
                Read::NeedsMemory(step) => return Some(step),
            }
        }
        None
    }

    #[tokio::test]
    async fn i7_half_a_frame_holds_no_more_than_twice_what_came_of_it_and_is_in_a_share() {
        let budget = Budget::new(MEMORY_BYTES_MIN);
        let mut buffer = ReadBuffer::new(&budget);
        let whole = frame(10 << 20);
        let (mut client, mut server) = tokio::io::duplex(32 << 20);
        client.write_all(&whole).await.expect("room");
        let mut steps = Vec::new();
        while buffer.len() < whole.len() {
            match buffer.read(&mut server).await.expect("readable") {
                Read::Bytes(_) => {}
                Read::NeedsMemory(step) => {
                    assert_eq!(
                        (step.frame_bytes, step.bytes),
                        (whole.len(), whole.len().min(2 * buffer.len()))
                    );
                    steps.push(step.bytes);
                    let from = std::net::Ipv4Addr::LOCALHOST.into();
                    let memory = buffer.take_memory();
                    let memory = memory.unwrap_or_else(|| budget.frames().begin(from, step.frame_bytes));
                    assert!(!memory.grow(step.bytes).await, "it is left");
                    buffer.hold_frame(step.bytes, memory);
                }
            }
            let held = budget.frame_bytes() + budget.used(Share::Buffers) + BASE_BYTES;
            assert!(
                buffer.bytes.capacity() <= held
                    && buffer.bytes.capacity() <= READ_BYTES_MAX.max(2 * buffer.len())
            );
        }
        assert_eq!(steps[..3], [512 << 10, 1 << 20, 2 << 20]);
        assert_eq!(Frame::decode(buffer.bytes_mut()).expect("a frame").expect("whole").body.len(), 10 << 20);
        buffer.after_frames();
        assert_eq!((budget.frame_bytes(), budget.used(Share::Buffers)), (0, 0));
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
        let step = fed(&mut buffer, &large).await.expect("the share is used up");
        assert_eq!(step, Step { frame_bytes: large.len(), bytes: 32 * 1024 });
        drop(all);
        let mut buffer = ReadBuffer::new(&budget);
        assert_eq!(fed(&mut buffer, &large).await, None);
    }
}
