//! The binary header, type 1.
//!
//! | field | bytes |
//! |---|---|
//! | code | 2 |
//! | language | 1 |
//! | version | 2 |
//! | opaque | 4 |
//! | flag | 4 |
//! | remark | 4 + n; length 0 means none |
//! | ext fields | 4 (bytes of all), then each: 2 + key, 4 + value; an empty value means none |

use bytes::{BufMut, BytesMut};

use super::{Frame, FrameError, Serialization};
use crate::code::LanguageCode;
use crate::ext::{FieldList, Span};
use crate::fields::{FieldWriter, Fields};

/// Reads a header; the frame's body stays empty.
pub fn decode(header: &[u8]) -> Result<Frame, FrameError> {
    decode_in_place(BytesMut::from(header))
}

/// The same, and the frame's fields are parts of `header`.
pub(super) fn decode_in_place(header: BytesMut) -> Result<Frame, FrameError> {
    let mut cursor = Cursor { bytes: &header, at: 0 };
    let code = i32::from(i16::from_be_bytes(cursor.array("code")?));
    let [language] = cursor.array("language")?;
    let version = i32::from(i16::from_be_bytes(cursor.array("version")?));
    let opaque = i32::from_be_bytes(cursor.array("opaque")?);
    let flag = i32::from_be_bytes(cursor.array("flag")?);
    let remark = cursor.long_text("remark")?;
    let remark = if remark.is_empty() { None } else { Some(utf8(remark)?.to_owned()) };
    let ext_bytes = cursor.long_text("ext fields")?.len();
    let (ext_start, ext_end) = (cursor.at - ext_bytes, cursor.at);
    let mut frame = Frame {
        code,
        language: LanguageCode::from_byte(language),
        version,
        opaque,
        flag,
        remark,
        serialization: Serialization::Rocketmq,
        ..Frame::default()
    };
    read_fields(&header[..ext_end], ext_start, frame.ext.fields_mut())?;
    if !frame.ext.is_empty() {
        frame.ext.set_text(header);
    }
    Ok(frame)
}

/// The fields that `header` has from byte `at` to its end.
fn read_fields(header: &[u8], at: usize, fields: &mut FieldList) -> Result<(), FrameError> {
    let mut cursor = Cursor { bytes: header, at };
    while cursor.at < header.len() {
        let key = cursor.short_text("key")?.len();
        let key = Span::new(cursor.at - key, cursor.at);
        let value = cursor.long_text("value")?.len();
        if fields.is_full() {
            return Err(FrameError::Binary("at most 1024 ext fields"));
        }
        if value > 0 {
            fields.push(key, Span::new(cursor.at - value, cursor.at));
        }
    }
    // Lengths first: a header that is cut is told as such.
    for span in fields.spans() {
        utf8(&header[span.range()])?;
    }
    Ok(())
}

/// Writes the header, or nothing and `false` if a number or a key does not fit.
pub fn encode(frame: &Frame, out: &mut BytesMut) -> bool {
    encode_with(frame, &frame.ext, out)
}

/// The same with `fields` in place of the frame's own.
pub(super) fn encode_with(frame: &Frame, fields: &impl Fields, out: &mut BytesMut) -> bool {
    let (Ok(code), Ok(version)) = (i16::try_from(frame.code), i16::try_from(frame.version)) else {
        return false;
    };
    let header = out.len();
    out.put_i16(code);
    out.put_u8(frame.language.byte());
    out.put_i16(version);
    out.put_i32(frame.opaque);
    out.put_i32(frame.flag);
    put_long_text(frame.remark.as_deref().unwrap_or(""), out);
    let start = out.len();
    out.put_u32(0);
    let mut writer = Writer { out, fits: true };
    fields.write(&mut writer);
    if !writer.fits {
        out.truncate(header);
        return false;
    }
    let ext_bytes = (out.len() - start - 4) as u32;
    out[start..start + 4].copy_from_slice(&ext_bytes.to_be_bytes());
    true
}

struct Writer<'a> {
    out: &'a mut BytesMut,
    /// Whether every key so far has a length of 16 bits.
    fits: bool,
}

impl FieldWriter for Writer<'_> {
    fn text(&mut self, key: &str, value: &str) {
        self.fits &= key.len() <= i16::MAX as usize;
        self.out.put_u16(key.len() as u16);
        self.out.put_slice(key.as_bytes());
        put_long_text(value, self.out);
    }
}

/// A text past 4 GiB would wrap its length, but the frame's limit refuses it afterwards.
fn put_long_text(text: &str, out: &mut BytesMut) {
    out.put_u32(text.len() as u32);
    out.put_slice(text.as_bytes());
}

fn utf8(bytes: &[u8]) -> Result<&str, FrameError> {
    std::str::from_utf8(bytes).map_err(|_| FrameError::Utf8)
}

struct Cursor<'a> {
    bytes: &'a [u8],
    at: usize,
}

impl<'a> Cursor<'a> {
    fn take(&mut self, count: usize, what: &'static str) -> Result<&'a [u8], FrameError> {
        let end = self.at.checked_add(count).ok_or(FrameError::Binary(what))?;
        let taken = self.bytes.get(self.at..end).ok_or(FrameError::Binary(what))?;
        self.at = end;
        Ok(taken)
    }

    fn array<const N: usize>(&mut self, what: &'static str) -> Result<[u8; N], FrameError> {
        let taken = self.take(N, what)?;
        taken.try_into().map_err(|_| FrameError::Binary(what))
    }

    fn short_text(&mut self, what: &'static str) -> Result<&'a [u8], FrameError> {
        let length = i16::from_be_bytes(self.array(what)?);
        self.take(usize::try_from(length).map_err(|_| FrameError::Binary(what))?, what)
    }

    fn long_text(&mut self, what: &'static str) -> Result<&'a [u8], FrameError> {
        let length = i32::from_be_bytes(self.array(what)?);
        self.take(usize::try_from(length).map_err(|_| FrameError::Binary(what))?, what)
    }
}
