//! Why bytes are no frame, or a frame no bytes.

use crate::limits::{FRAME_BYTES_MAX, FRAME_HEADER_BYTES_MAX};

/// After a decode error the connection is useless:
/// nobody knows where the next frame starts.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum FrameError {
    /// The length word is negative or leaves no room for a header word.
    #[error("a frame of length {0} is too short for its header word")]
    TooShort(i32),
    /// Longer than a frame may be.
    #[error("a frame of {bytes} bytes, the limit is {FRAME_BYTES_MAX}")]
    TooLarge {
        /// Bytes with the length word.
        bytes: usize,
    },
    /// The header is longer than the frame.
    #[error("a header of {header} bytes in a frame of {frame} bytes")]
    HeaderLength {
        /// The header's length.
        header: usize,
        /// The frame's length word.
        frame: usize,
    },
    /// A header longer than one may be.
    #[error("a header of {0} bytes, the limit is {FRAME_HEADER_BYTES_MAX}")]
    HeaderTooLarge(usize),
    /// A serialization nobody defined.
    #[error("unknown header serialization {0}, expected 0 (JSON) or 1 (ROCKETMQ)")]
    Serialization(u8),
    /// The header is not UTF-8 where it must be.
    #[error("the header is not UTF-8")]
    Utf8,
    /// Malformed JSON header.
    #[error("malformed JSON header at byte {at}: {what}")]
    Json {
        /// Byte in the header.
        at: usize,
        /// What was expected there.
        what: &'static str,
    },
    /// Malformed binary header.
    #[error("malformed binary header: {0}")]
    Binary(&'static str),
}
