//! The only user of bincode: what FolioMQ alone reads (peer requests' headers, the vote, memberships, commands, sections of
//! the state). Never a message, the RocketMQ wire or the record frame.
//!
//! | part | size | meaning |
//! |---|---|---|
//! | magic | 2 | `FQ` |
//! | version | 2, little-endian | 1, unless the user of the envelope says another one |
//! | body | rest | bincode 1.3: fixed-width little-endian integers, trailing bytes rejected |
//!
//! Length and checksum of the envelope come from what carries it: a record, a checkpoint file, a vote slot or a peer frame,
//! each with a length and a crc of its own (TCP's, for the peer frame). Decoding is bounded by [`DECODED_BYTES_MAX`].

use bincode::Options;
use serde::Serialize;
use serde::de::DeserializeOwned;

/// Bytes that one value takes at most: those of the largest checkpoint. A decode allocates no more than the slice that it
/// reads.
pub const DECODED_BYTES_MAX: u64 = 4 << 30;

/// Bytes of the envelope before the body.
pub const ENVELOPE_BYTES: usize = 4;

/// The envelope of a version.
pub const fn envelope(version: u8) -> [u8; ENVELOPE_BYTES] {
    [b'F', b'Q', version, 0]
}

/// Bytes that are not what this build writes or reads.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum CodecError {
    /// Not our envelope, or another version's.
    #[error("not a FolioMQ value, or not of this version")]
    Envelope,
    /// The envelope is ours, the body is not.
    #[error("body does not decode or encode: {0}")]
    Body(String),
    /// What a newer build has written.
    #[error(
        "{what} {number} in version {version} is not known to this build, which a newer one has written: install that build"
    )]
    Newer {
        /// What: a command or a section.
        what: &'static str,
        /// Its number.
        number: u16,
        /// The version of its encoding.
        version: u16,
    },
    /// A group that uses more than this build supports.
    #[error(
        "feature level {level} is in use, and this build supports levels up to {supported}: install the build that the group's \
         other nodes run"
    )]
    Level {
        /// The group's level.
        level: u16,
        /// The highest level of this build.
        supported: u16,
    },
}

impl CodecError {
    /// Whether a newer build has written it: then it is whole, and of no use to this build.
    pub fn is_newer(&self) -> bool {
        match self {
            CodecError::Newer { .. } | CodecError::Level { .. } => true,
            CodecError::Envelope | CodecError::Body(_) => false,
        }
    }
}

fn options() -> impl Options {
    bincode::DefaultOptions::new()
        .with_fixint_encoding()
        .with_limit(DECODED_BYTES_MAX)
        .reject_trailing_bytes()
}

fn body_error(error: bincode::Error) -> CodecError {
    CodecError::Body(error.to_string())
}

/// Encodes a value in its envelope. For values that cannot be over the limit of [`decode`].
pub fn encode<T: Serialize>(value: &T) -> Vec<u8> {
    encode_as(1, value)
}

/// The same in the envelope of another version.
pub fn encode_as<T: Serialize>(version: u8, value: &T) -> Vec<u8> {
    let mut out = envelope(version).to_vec();
    // Writing to a vector cannot fail; a value over the limit is a bug of the caller, not of the input.
    encode_body(value, &mut out)
        .unwrap_or_else(|error| panic!("codec.I1: a value of ours does not encode: {error}"));
    out
}

/// Appends a value without an envelope. Fails if it is over the limit of [`decode_body`].
pub fn encode_body<T: Serialize>(value: &T, out: &mut Vec<u8>) -> Result<(), CodecError> {
    options().serialize_into(out, value).map_err(body_error)
}

/// Decodes a value from its envelope.
pub fn decode<T: DeserializeOwned>(bytes: &[u8]) -> Result<T, CodecError> {
    decode_as(1, bytes)
}

/// The same from the envelope of another version.
pub fn decode_as<T: DeserializeOwned>(version: u8, bytes: &[u8]) -> Result<T, CodecError> {
    decode_body(bytes.strip_prefix(&envelope(version)).ok_or(CodecError::Envelope)?)
}

/// Decodes a value without an envelope.
pub fn decode_body<T: DeserializeOwned>(bytes: &[u8]) -> Result<T, CodecError> {
    options().deserialize(bytes).map_err(body_error)
}

/// Bytes of an encoded value, without the envelope.
pub fn encoded_bytes<T: Serialize + ?Sized>(value: &T) -> u64 {
    // Nothing is written, so nothing can fail but the limit.
    options().with_no_limit().serialized_size(value).unwrap_or(u64::MAX)
}
