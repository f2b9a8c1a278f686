//! A snapshot's checkpoint on its way to a peer: in parts, as one frame does not hold the largest.
//!
//! The sender asks for each part with a request of its own and waits for its answer; the snapshot's request then carries no
//! checkpoint and means the parts that came before it on the same connection. One that fits a part is sent with the request
//! itself. The connection is used for nothing else: votes and heartbeats do not wait for it.
//!
//! Not here: what the bytes are; they have a checksum of their own, which is verified when they are all there.
//!
//! Invariants: `parts.I1`: parts are taken in order, each exactly where the one before it ended, or the first one anew.
//! `parts.I2`: what is held is what has arrived, at most [`CHECKPOINT_BYTES_MAX`], until the connection ends.

use std::io;

use bytes::{Bytes, BytesMut};
use folio_engine::checkpoint::CHECKPOINT_BYTES_MAX;
use serde::{Deserialize, Serialize};

use super::wire::invalid;

/// Bytes of a part: a fraction of what a frame may have, and a fraction of a second on any network.
pub(crate) const PART_BYTES: usize = 4 << 20;

/// Where a part belongs; its bytes follow the head in the frame.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct PartHead {
    /// Bytes before it.
    pub(crate) offset: u64,
    /// Bytes of the whole.
    pub(crate) total: u64,
}

impl PartHead {
    /// Bytes of an encoded head.
    pub(crate) const BYTES: usize = 20;
}

/// The parts of one checkpoint, each with its head.
pub(crate) fn parts(whole: &Bytes) -> impl Iterator<Item = (PartHead, Bytes)> {
    let total = whole.len();
    (0..total).step_by(PART_BYTES).map(move |offset| {
        let head = PartHead { offset: offset as u64, total: total as u64 };
        (head, whole.slice(offset..total.min(offset + PART_BYTES)))
    })
}

/// What has arrived on one connection.
#[derive(Default)]
pub(crate) struct Assembly {
    total: u64,
    bytes: BytesMut,
}

impl Assembly {
    /// Takes the next part.
    pub(crate) fn add(&mut self, head: PartHead, part: &[u8]) -> io::Result<()> {
        if head.total > CHECKPOINT_BYTES_MAX {
            return Err(invalid(format!("a snapshot of {} bytes", head.total)));
        }
        if head.offset == 0 {
            *self = Assembly { total: head.total, bytes: BytesMut::new() };
        }
        let at = self.bytes.len() as u64;
        if (head.offset, head.total) != (at, self.total) {
            return Err(invalid(format!(
                "parts.I1: a part at {} of a snapshot, {at} bytes are here",
                head.offset
            )));
        }
        if part.len() as u64 > self.total - at {
            return Err(invalid("parts.I2: a part that goes beyond its snapshot"));
        }
        self.bytes.extend_from_slice(part);
        Ok(())
    }

    /// All parts as one, if they are all there; nothing is held afterwards.
    pub(crate) fn take(&mut self) -> io::Result<Bytes> {
        let Assembly { total, bytes } = std::mem::take(self);
        if total == 0 || bytes.len() as u64 != total {
            return Err(invalid(format!("{} of the {total} bytes of a snapshot are here", bytes.len())));
        }
        Ok(bytes.freeze())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_checkpoint_larger_than_any_frame_arrives_in_parts() {
        let whole = Bytes::from((0..70 << 20).map(|at: u32| (at % 251) as u8).collect::<Vec<u8>>());
        assert!(whole.len() > crate::transport::frames::FRAME_BYTES_MAX);
        let mut assembly = Assembly::default();
        for (head, part) in parts(&whole) {
            assert_eq!(crate::codec::encode(&head).len(), PartHead::BYTES);
            assert!(part.len() <= PART_BYTES);
            assembly.add(head, &part).unwrap();
        }
        assert!(assembly.take().unwrap() == whole);
        assert!(assembly.take().is_err(), "parts.I2");
    }

    #[test]
    fn parts_that_do_not_belong_together_are_refused() {
        let head = |offset, total| PartHead { offset, total };
        let mut assembly = Assembly::default();
        assert!(assembly.add(head(4, 8), b"abcd").is_err(), "the first one is missing");
        assembly.add(head(0, 8), b"abcd").unwrap();
        assert!(assembly.add(head(0, CHECKPOINT_BYTES_MAX + 1), b"abcd").is_err(), "parts.I2");
        for (wrong, bytes) in
            [(head(3, 8), &b"x"[..]), (head(5, 8), b"x"), (head(4, 9), b"x"), (head(4, 8), b"abcde")]
        {
            assert!(assembly.add(wrong, bytes).is_err(), "{wrong:?}");
        }
        assembly.add(head(4, 8), b"abc").unwrap();
        assert!(assembly.take().is_err(), "one byte is missing");
        assembly.add(head(0, 4), b"abcd").unwrap();
        assembly.add(head(0, 2), b"xy").unwrap();
        assert_eq!(assembly.take().unwrap()[..], b"xy"[..], "begun anew");
    }
}
