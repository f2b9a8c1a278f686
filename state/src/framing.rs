//! How sections are written one after the other, in checkpoints and snapshots.
//!
//! | part | size | meaning |
//! |---|---|---|
//! | magic | 2 | `FQ` |
//! | version | 2, little-endian | 4: sections; 1 to 3 are [`crate::format1`] |
//! | sections | rest | each: tag (2), version (2), bytes of the body (8), body; all little-endian |
//!
//! Tags ascend, so no section is there twice. Tags below 0x8000 are of the replicated state, those from 0x8000 on of what a
//! node keeps beside it (`framing.I1`: sections are written by tag ascending, each once). A reader that does not know a tag refuses the whole: to leave a section out would lose state.

use crate::codec::{CodecError, ENVELOPE_BYTES, envelope};

/// The version in the envelope.
pub const FRAMING_VERSION: u8 = 4;
/// Bytes before a section's body.
pub const HEADER_BYTES: usize = 12;

/// Writes sections.
#[derive(Debug)]
pub struct Writer {
    out: Vec<u8>,
    last_tag: Option<u16>,
}

impl Default for Writer {
    fn default() -> Self {
        Writer { out: envelope(FRAMING_VERSION).to_vec(), last_tag: None }
    }
}

impl Writer {
    /// Appends a section, whose body `encode` appends.
    pub fn section(
        &mut self,
        tag: u16,
        version: u16,
        encode: impl FnOnce(&mut Vec<u8>) -> Result<(), CodecError>,
    ) -> Result<(), CodecError> {
        assert!(self.last_tag < Some(tag), "framing.I1: section {tag} after {:?}", self.last_tag);
        self.last_tag = Some(tag);
        self.out.extend(tag.to_le_bytes());
        self.out.extend(version.to_le_bytes());
        let length_at = self.out.len();
        self.out.extend([0; 8]);
        encode(&mut self.out)?;
        let length = (self.out.len() - length_at - 8) as u64;
        self.out[length_at..length_at + 8].copy_from_slice(&length.to_le_bytes());
        Ok(())
    }

    /// All sections, with the envelope.
    pub fn finish(self) -> Vec<u8> {
        self.out
    }
}

/// A section that was read. Its body is not looked at yet.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Framed<'a> {
    /// Which section it is.
    pub tag: u16,
    /// How its body is encoded.
    pub version: u16,
    /// The encoded section.
    pub body: &'a [u8],
}

impl Framed<'_> {
    /// The error of a reader that does not know this section.
    pub fn unknown(&self) -> CodecError {
        CodecError::Newer { what: "section", number: self.tag, version: self.version }
    }
}

/// The sections in `bytes`, in their order. [`CodecError::Envelope`] where they are in another format.
pub fn sections(bytes: &[u8]) -> Result<Vec<Framed<'_>>, CodecError> {
    let mut rest = bytes.strip_prefix(&envelope(FRAMING_VERSION)).ok_or(CodecError::Envelope)?;
    let mut sections: Vec<Framed<'_>> = Vec::new();
    while !rest.is_empty() {
        let broken = || CodecError::Body(format!("section {} does not end", sections.len() + 1));
        let (header, behind) = rest.split_first_chunk::<HEADER_BYTES>().ok_or_else(broken)?;
        let [t0, t1, v0, v1, length @ ..] = *header;
        let length = usize::try_from(u64::from_le_bytes(length)).map_err(|_| broken())?;
        let (body, behind) = behind.split_at_checked(length).ok_or_else(broken)?;
        let (tag, version) = (u16::from_le_bytes([t0, t1]), u16::from_le_bytes([v0, v1]));
        if sections.last().is_some_and(|last| last.tag >= tag) {
            return Err(CodecError::Body(format!("section {tag} is not in its place")));
        }
        sections.push(Framed { tag, version, body });
        rest = behind;
    }
    Ok(sections)
}

/// Bytes of a state without sections.
pub const EMPTY_BYTES: usize = ENVELOPE_BYTES;

#[cfg(test)]
mod tests {
    use super::*;

    fn written(sections: &[(u16, &[u8])]) -> Vec<u8> {
        let mut writer = Writer::default();
        for (tag, body) in sections {
            writer
                .section(*tag, 7, |out| {
                    out.extend(*body);
                    Ok(())
                })
                .unwrap();
        }
        writer.finish()
    }

    #[test]
    fn golden_bytes_of_framed_sections() {
        let bytes = written(&[(1, b"ab"), (0x8001, b"")]);
        let golden = b"FQ\x04\0\
            \x01\0\x07\0\x02\0\0\0\0\0\0\0ab\
            \x01\x80\x07\0\0\0\0\0\0\0\0\0";
        assert_eq!(bytes, golden);
        let read = sections(&bytes).unwrap();
        assert_eq!(read[0], Framed { tag: 1, version: 7, body: b"ab" });
        assert_eq!(read[1], Framed { tag: 0x8001, version: 7, body: b"" });
    }

    #[test]
    fn what_is_cut_twice_there_or_of_another_format_is_refused() {
        let bytes = written(&[(1, b"ab"), (2, b"c")]);
        for cut in EMPTY_BYTES + 1..bytes.len() {
            let whole_first = cut == EMPTY_BYTES + HEADER_BYTES + 2;
            assert_eq!(sections(&bytes[..cut]).is_ok(), whole_first, "{cut}");
        }
        let twice = [&bytes[..], &bytes[EMPTY_BYTES..]].concat();
        assert!(sections(&twice).is_err());
        assert_eq!(sections(b"FQ\x03\0").unwrap_err(), CodecError::Envelope);
        assert_eq!(sections(&written(&[])).unwrap(), []);
    }

    proptest::proptest! {
        #[test]
        fn arbitrary_bytes_never_panic(bytes in proptest::collection::vec(proptest::prelude::any::<u8>(), 0..64)) {
            let _ = sections(&[&envelope(FRAMING_VERSION)[..], &bytes].concat());
        }
    }
}
