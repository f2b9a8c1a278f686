//! The frame around the body of a small file that is read and replaced as a whole.
//!
//! | offset | bytes | field (integers little-endian) |
//! |---|---|---|
//! | 0 | 4 | magic |
//! | 4 | 1 | version |
//! | 5 | 3 | zero |
//! | 8 | 8 | bytes of the body, `n` |
//! | 16 | 4 | crc32c of the body |
//! | 20 | 4 | crc32c of bytes 0 to 19 |
//! | 24 | n | the body |

use thiserror::Error;

/// Bytes before the body.
pub(crate) const ENVELOPE_BYTES: usize = 24;

/// What a kind of file says of itself.
pub(crate) struct Envelope {
    /// Its first four bytes.
    pub(crate) magic: [u8; 4],
    /// The version that is written, and the only one that is read.
    pub(crate) version: u8,
    /// What it is, for messages: `a checkpoint`.
    pub(crate) what: &'static str,
}

/// Why a file is not whole, or not of the kind that was expected.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Error)]
pub enum EnvelopeError {
    /// It has so many bytes.
    #[error("it has {0} bytes, less than its envelope")]
    TooShort(usize),
    /// It is another kind of file; the kind that was expected.
    #[error("it does not start with the magic number of {0}")]
    Magic(&'static str),
    /// Another program wrote it.
    #[error("it has version {found}, this program reads version {expected}")]
    Version {
        /// The version of the file.
        found: u8,
        /// The version that is read.
        expected: u8,
    },
    /// Its body was cut short or changed.
    #[error("its length or checksum does not match its content")]
    Checksum,
}

impl Envelope {
    /// Fills in the first [`ENVELOPE_BYTES`] of a file, whose body follows them already.
    pub(crate) fn seal(&self, file: &mut [u8]) {
        let (envelope, body) = file.split_at_mut(ENVELOPE_BYTES);
        envelope.copy_from_slice(&self.around(body));
    }

    /// The body of a file, or what is wrong with it.
    pub(crate) fn open<'a>(&self, file: &'a [u8]) -> Result<&'a [u8], EnvelopeError> {
        let Some((stated, body)) = file.split_first_chunk::<ENVELOPE_BYTES>() else {
            return Err(EnvelopeError::TooShort(file.len()));
        };
        if stated[..4] != self.magic {
            return Err(EnvelopeError::Magic(self.what));
        }
        if stated[4] != self.version {
            return Err(EnvelopeError::Version { found: stated[4], expected: self.version });
        }
        if *stated != self.around(body) {
            return Err(EnvelopeError::Checksum);
        }
        Ok(body)
    }

    fn around(&self, body: &[u8]) -> [u8; ENVELOPE_BYTES] {
        let mut bytes = [0; ENVELOPE_BYTES];
        bytes[..4].copy_from_slice(&self.magic);
        bytes[4] = self.version;
        bytes[8..16].copy_from_slice(&(body.len() as u64).to_le_bytes());
        bytes[16..20].copy_from_slice(&crc32c::crc32c(body).to_le_bytes());
        let crc = crc32c::crc32c(&bytes[..20]);
        bytes[20..].copy_from_slice(&crc.to_le_bytes());
        bytes
    }
}
