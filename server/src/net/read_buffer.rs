//! The bytes of one connection that were received and are not served yet.
//!
//! | bytes of a buffer | who has them |
//! |---|---|
//! | none | a connection that nothing comes from |
//! | up to 16 KiB | every connection |
//! | up to 256 KiB beyond what it holds | while the share `buffers` has them |
//! | of a longer frame, or where `buffers` is used up: twice what has come of the frame | as `frames` gives them |
//!
//! Requests are slices of the buffer, and keep all of it until they are served: one byte that waits for a leader keeps 256 KiB.
//! A buffer that was replaced stays in the share until nothing keeps it, as far as the requests in flight do not
//! cover it: they do where they fill most of it, as sends do. To copy small requests out of large buffers would cost
//! each send a piece of memory and a copy, and whether others fill the rest is known too late. Where the
//! share is used up small requests are copied all the same: they keep nothing then.
//!
//! - `net.I7`: a connection holds no buffer longer than 16 KiB that is not in a share, and an idle one none at all. Beyond
//!   256 KiB a frame holds no more than twice what has come of it.

use std::collections::VecDeque;
use std::io;
use std::sync::Arc;

use bytes::{Bytes, BytesMut};
use folio_protocol::frame::{Frame, FrameError};
use tokio::io::{AsyncRead, AsyncReadExt, Interest};
use tokio::net::tcp::OwnedReadHalf;

use super::budget::{Budget, Taken};
use super::frames::FrameMemory;
use super::share::Share;

/// Room made for the first bytes of a connection that was idle.
const FIRST_READ_BYTES: usize = 4 * 1024;
/// The same once a read has filled it: some dozens of small requests at once, and more while reads fill that.
const READ_BYTES: usize = 32 * 1024;
pub(super) const READ_BYTES_MAX: usize = 256 * 1024;
/// Room below which there is too little, or a quarter of what would be made.
const ROOM_BYTES_MIN: usize = 8 * 1024;
/// What a connection may have without a share.
const BASE_BYTES: usize = 16 * 1024;

/// Bodies shorter than this are copied while the share is used up.
const COPY_BYTES_MAX: usize = 4 * 1024;
/// Replaced buffers that are looked at when one more is replaced: requests end about in the order they came.
const LOOKED_AT: usize = 4;

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
    /// The length that `bytes` was made with: requests keep all of it.
    allocated: usize,
    old: Old,
    /// What the requests in flight hold, in a share of their own.
    request_bytes: usize,
    /// The share was used up when room was made.
    is_refused: bool,
}

/// Buffers that were replaced and that requests still keep.
#[derive(Default)]
struct Old {
    /// With the length that each was made with.
    buffers: VecDeque<(BytesMut, usize)>,
    bytes: usize,
}

/// What the requests of a connection that has ended keep of its buffers.
pub(super) struct Kept {
    _old: Old,
    _taken: Taken,
}

impl ReadBuffer {
    pub(super) fn new(budget: &Arc<Budget>) -> Self {
        let taken = Taken::nothing(budget, Share::Buffers);
        Self {
            bytes: BytesMut::new(),
            room: FIRST_READ_BYTES,
            taken,
            frame: None,
            allocated: 0,
            old: Old::default(),
            request_bytes: 0,
            is_refused: false,
        }
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

    /// So much do the requests in flight hold.
    pub(super) fn cover_requests(&mut self, bytes: usize) {
        self.request_bytes = bytes;
    }

    /// The next frame, if it is there.
    pub(super) fn take_frame(&mut self) -> Result<Option<Frame>, FrameError> {
        let frame = Frame::decode(&mut self.bytes)?;
        Ok(frame.map(|frame| if self.is_refused { copied(frame) } else { frame }))
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
            self.replace_by_base((length + missing.max(FIRST_READ_BYTES)).min(BASE_BYTES));
            return None;
        }
        // What there is is filled first: an announcement holds nothing.
        if free > 0 {
            return None;
        }
        if length < BASE_BYTES {
            self.replace_by_base(BASE_BYTES);
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
        self.old.reclaim(LOOKED_AT);
        let mut is_left = self.hold_room(length + wanted);
        if !is_left {
            self.old.reclaim(usize::MAX);
            is_left = self.hold_room(length + wanted);
        }
        self.is_refused = !is_left;
        if is_left {
            self.replace(length + wanted);
            // Nothing may keep the one before.
            let kept = (length + wanted).saturating_sub(BASE_BYTES) + self.kept_bytes(0);
            let less = self.taken.resize(kept.min(self.taken.bytes()));
            assert!(less, "budget.I1: less is always possible");
        }
        is_left
    }

    /// Takes what a buffer of this length needs, with what old ones need; also the present one is among these soon.
    fn hold_room(&mut self, capacity: usize) -> bool {
        let wanted = capacity.saturating_sub(BASE_BYTES) + self.kept_bytes(self.allocated);
        self.taken.resize(wanted)
    }

    /// Bytes of old buffers, and of so many besides, that the requests in flight do not cover.
    fn kept_bytes(&self, more: usize) -> usize {
        (self.old.bytes + more).saturating_sub(self.request_bytes)
    }

    fn replace(&mut self, capacity: usize) {
        let mut bytes = BytesMut::with_capacity(capacity);
        bytes.extend_from_slice(&self.bytes);
        self.old
            .add(std::mem::replace(&mut self.bytes, bytes), std::mem::replace(&mut self.allocated, capacity));
    }

    fn replace_by_base(&mut self, capacity: usize) {
        self.replace(capacity);
        self.keep_old();
    }

    /// Gives back what the buffer does not need, which is none or what each connection may have.
    fn keep_old(&mut self) {
        let kept = self.kept_bytes(0).min(self.taken.bytes());
        let less = self.taken.resize(kept);
        assert!(less, "budget.I1: less is always possible");
    }

    /// What the long frame that has begun holds, to become more.
    pub(super) fn take_memory(&mut self) -> Option<FrameMemory> {
        self.frame.take()
    }

    /// Becomes the buffer of a long frame.
    pub(super) fn hold_frame(&mut self, bytes: usize, memory: FrameMemory) {
        self.replace_by_base(bytes);
        self.frame = Some(memory);
    }

    /// Frames were taken off, and what they hold is covered: a long frame's bytes are its request's now.
    pub(super) fn after_frames(&mut self) {
        if self.frame.is_some() && self.bytes.is_empty() {
            (self.bytes, self.allocated) = (BytesMut::new(), 0);
            self.frame = None;
        }
    }

    /// Nothing came for a while: gives the buffer back if it is empty, and what the frame that has begun does not need if
    /// that is short (net.I7). Says whether it holds nothing.
    pub(super) fn release(&mut self) -> bool {
        self.old.reclaim(usize::MAX);
        if self.bytes.is_empty() {
            self.replace(0);
            self.frame = None;
            self.keep_old();
            self.room = FIRST_READ_BYTES;
        } else if self.taken.bytes() > 0 && self.frame.is_none() && self.is_base_enough() {
            self.replace_by_base(BASE_BYTES);
        }
        self.bytes.is_empty() && self.old.buffers.is_empty()
    }

    /// The connection has ended: what its requests keep.
    pub(super) fn end(&mut self) -> Option<Kept> {
        self.bytes.clear();
        self.replace(0);
        self.old.reclaim(usize::MAX);
        let kept = self.kept_bytes(0).min(self.taken.bytes());
        let is_kept = kept > 0 && self.taken.resize(kept);
        is_kept.then(|| Kept { _old: std::mem::take(&mut self.old), _taken: self.taken.split() })
    }

    /// Whether the frame that has begun fits what every connection may have.
    pub(super) fn is_base_enough(&self) -> bool {
        self.bytes.len().max(self.frame_bytes()) <= BASE_BYTES
    }

    fn frame_bytes(&self) -> usize {
        Frame::length(&self.bytes).unwrap_or(0)
    }
}

impl Old {
    fn add(&mut self, mut bytes: BytesMut, allocated: usize) {
        bytes.clear();
        // No request keeps it.
        if bytes.try_reclaim(allocated) {
            return;
        }
        self.bytes += allocated;
        self.buffers.push_back((bytes, allocated));
    }

    /// Looks at so many of them, and drops what nothing keeps any more.
    fn reclaim(&mut self, looked_at: usize) {
        for _ in 0..looked_at.min(self.buffers.len()) {
            let Some((bytes, allocated)) = self.buffers.pop_front() else { return };
            self.bytes -= allocated;
            self.add(bytes, allocated);
        }
    }
}

/// The same frame in memory of its own, if it is short.
fn copied(frame: Frame) -> Frame {
    if frame.body.is_empty() || frame.body.len() >= COPY_BYTES_MAX {
        return frame;
    }
    let body = Bytes::copy_from_slice(&frame.body);
    frame.detached().with_body(body)
}

#[cfg(test)]
mod tests;
