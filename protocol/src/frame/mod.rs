//! Remoting frames: what one request or response is on a connection.
//!
//! | part | bytes | meaning |
//! |---|---|---|
//! | length | 4 | bytes that follow |
//! | header word | 4 | top byte: serialization (0 JSON, 1 binary); the rest: header length |
//! | header | as said | JSON ([`json`]) or binary ([`binary`]) |
//! | body | the rest | raw |
//!
//! A server answers in the serialization of the request. Not here: sockets, correlation of
//! responses, TLS.
//!
//! Invariants: no length is believed before it was compared with a limit (frame.I1); decoding an
//! incomplete frame consumes nothing (frame.I2); a body is a slice of the received bytes, never a
//! copy (frame.I3), and so are the fields of a frame that has a body; a frame without one, which may
//! be kept for long (a pull that waits), keeps none of the received bytes (frame.I4).

pub mod binary;
mod content;
mod error;
pub mod json;

use bytes::{Buf, BufMut, BytesMut};

pub use content::{FLAG_ONEWAY, FLAG_RESPONSE, Frame, Serialization, VERSION};
pub use error::FrameError;

use crate::fields::Fields;
use crate::limits::{FRAME_BYTES_MAX, FRAME_HEADER_BYTES_MAX};

/// Bytes before the header: length and header word.
pub const PREFIX_BYTES: usize = 8;

const LENGTH_BYTES: usize = 4;

impl Frame {
    /// The bytes of the frame that `src` begins with, once its first eight are there; `None` also if they begin none.
    pub fn length(src: &[u8]) -> Option<usize> {
        Some(Prefix::peek(src).ok()??.frame_bytes)
    }

    /// Takes the next frame off `src`; `None` if it is not there yet.
    pub fn decode(src: &mut BytesMut) -> Result<Option<Self>, FrameError> {
        let Some(prefix) = Prefix::peek(src)? else { return Ok(None) };
        if src.len() < prefix.frame_bytes {
            return Ok(None);
        }
        let body_bytes = prefix.frame_bytes - PREFIX_BYTES - prefix.header_bytes;
        src.advance(PREFIX_BYTES);
        let header = if body_bytes > 0 {
            src.split_to(prefix.header_bytes)
        } else {
            let header = BytesMut::from(&src[..prefix.header_bytes]);
            src.advance(prefix.header_bytes);
            header
        };
        let mut frame = match prefix.serialization {
            Serialization::Json => json::decode_in_place(header)?,
            Serialization::Rocketmq => binary::decode_in_place(header)?,
        };
        if body_bytes > 0 {
            frame.body = src.split_to(body_bytes).freeze();
        }
        Ok(Some(frame))
    }

    /// Appends the whole frame to `out`. On error `out` is as it was.
    pub fn encode(&self, out: &mut BytesMut) -> Result<(), FrameError> {
        self.encode_with(&self.ext, out)
    }

    /// The same with `fields` in place of the frame's own: a typed header is written without being
    /// made a list of fields first.
    pub fn encode_with(&self, fields: &impl Fields, out: &mut BytesMut) -> Result<(), FrameError> {
        self.encode_head_with(fields, self.body.len(), out)?;
        out.extend_from_slice(&self.body);
        Ok(())
    }

    /// Appends everything but the body, whose `body_bytes` the caller writes after it (a pull's
    /// answer is many slices of the log). On error `out` is as it was.
    pub fn encode_head(&self, body_bytes: usize, out: &mut BytesMut) -> Result<(), FrameError> {
        self.encode_head_with(&self.ext, body_bytes, out)
    }

    /// The same with `fields` in place of the frame's own.
    pub fn encode_head_with(
        &self,
        fields: &impl Fields,
        body_bytes: usize,
        out: &mut BytesMut,
    ) -> Result<(), FrameError> {
        let start = out.len();
        out.reserve(512);
        out.put_bytes(0, PREFIX_BYTES);
        let serialization = self.write_header(fields, out);
        let header_bytes = out.len() - start - PREFIX_BYTES;
        let frame_bytes = (PREFIX_BYTES + header_bytes).saturating_add(body_bytes);
        if frame_bytes > FRAME_BYTES_MAX || header_bytes > FRAME_HEADER_BYTES_MAX {
            out.truncate(start);
            return Err(FrameError::TooLarge { bytes: frame_bytes });
        }
        // Both fit: frame.I1 has just been checked.
        let length = (frame_bytes - LENGTH_BYTES) as u32;
        let word = u32::from(serialization.byte()) << 24 | header_bytes as u32;
        out[start..start + 4].copy_from_slice(&length.to_be_bytes());
        out[start + 4..start + PREFIX_BYTES].copy_from_slice(&word.to_be_bytes());
        Ok(())
    }

    /// Writes the header, binary if asked for and possible: a binary header has 16 bits for the
    /// code, which POP's codes exceed, and clients read either by the header word.
    fn write_header(&self, fields: &impl Fields, out: &mut BytesMut) -> Serialization {
        if self.serialization == Serialization::Rocketmq && binary::encode_with(self, fields, out) {
            return Serialization::Rocketmq;
        }
        json::encode_with(self, fields, out);
        Serialization::Json
    }
}

/// The first eight bytes, checked.
struct Prefix {
    frame_bytes: usize,
    header_bytes: usize,
    serialization: Serialization,
}

impl Prefix {
    fn peek(src: &[u8]) -> Result<Option<Self>, FrameError> {
        let Some((&length, rest)) = src.split_first_chunk::<LENGTH_BYTES>() else { return Ok(None) };
        let length = i32::from_be_bytes(length);
        let after_length = usize::try_from(length).map_err(|_| FrameError::TooShort(length))?;
        if after_length < LENGTH_BYTES {
            return Err(FrameError::TooShort(length));
        }
        let frame_bytes = LENGTH_BYTES + after_length;
        if frame_bytes > FRAME_BYTES_MAX {
            return Err(FrameError::TooLarge { bytes: frame_bytes });
        }
        let Some(&[kind, a, b, c]) = rest.first_chunk() else { return Ok(None) };
        let header_bytes = u32::from_be_bytes([0, a, b, c]) as usize;
        if header_bytes > after_length - LENGTH_BYTES {
            return Err(FrameError::HeaderLength { header: header_bytes, frame: after_length });
        }
        if header_bytes > FRAME_HEADER_BYTES_MAX {
            return Err(FrameError::HeaderTooLarge(header_bytes));
        }
        let serialization = match kind {
            0 => Serialization::Json,
            1 => Serialization::Rocketmq,
            other => return Err(FrameError::Serialization(other)),
        };
        Ok(Some(Self { frame_bytes, header_bytes, serialization }))
    }
}

#[cfg(test)]
mod tests;
