//! The JSON header, type 0, read and written by hand: it is on the path of every SEND.
//!
//! `{"code":310,"extFields":{"a":"group"},"flag":0,"language":"JAVA","opaque":7,"version":479}`
//!
//! Tolerances, each seen from a real client: ext values may be numbers or booleans; keys may be
//! missing, unknown or null; languages may be unknown; control characters may stand unescaped.
//! Nested values where a text belongs are skipped. Nothing recurses, so depth costs no stack.
//!
//! A header is read in place: fields are parts of the received bytes, and escapes are replaced where they stand.

mod cursor;
mod encode;
mod escape;

use bytes::BytesMut;

use self::cursor::{Cursor, Value};
pub use self::encode::encode;
pub(super) use self::encode::encode_with;
use super::{Frame, FrameError, Serialization};
use crate::code::LanguageCode;
use crate::ext::FieldList;

/// `HEADER_FIELDS_MAX`, in words.
const FIELDS_WANTED: &str = "at most 1024 ext fields";

/// Reads a header; the frame's body stays empty.
pub fn decode(header: &[u8]) -> Result<Frame, FrameError> {
    decode_in_place(BytesMut::from(header))
}

/// The same, and the frame's fields are parts of `header`.
pub(super) fn decode_in_place(mut header: BytesMut) -> Result<Frame, FrameError> {
    // Most headers are ASCII, which is seen sooner.
    if !header.is_ascii() && std::str::from_utf8(&header).is_err() {
        return Err(FrameError::Utf8);
    }
    // A header without a version comes from a client older than versions.
    let mut frame = Frame { version: 0, serialization: Serialization::Json, ..Frame::default() };
    let mut cursor = Cursor::new(&mut header);
    if cursor.header(&mut frame).is_none() {
        return Err(cursor.error());
    }
    if !frame.ext.is_empty() {
        frame.ext.set_text(header);
    }
    Ok(frame)
}

/// `None` is an error, which the cursor tells.
impl Cursor<'_> {
    fn header(&mut self, frame: &mut Frame) -> Option<()> {
        let mut has_ext = false;
        self.object(|cursor, key| {
            let key = cursor.unescape(key)?;
            match cursor.part(key) {
                b"code" => frame.code = cursor.integer()?,
                b"version" => frame.version = cursor.integer()?,
                b"opaque" => frame.opaque = cursor.integer()?,
                b"flag" => frame.flag = cursor.integer()?,
                b"language" => frame.language = cursor.language()?,
                b"remark" => frame.remark = cursor.remark()?,
                // A second object of fields is in nobody's honest header.
                b"extFields" if has_ext => return cursor.fail("one object of ext fields"),
                b"extFields" => {
                    cursor.ext_fields(frame.ext.fields_mut())?;
                    has_ext = true;
                }
                _ => {
                    cursor.value()?;
                }
            }
            Some(())
        })?;
        self.end()
    }

    fn integer(&mut self) -> Option<i32> {
        match self.value()? {
            Value::Text(raw) | Value::Bare(raw) => match self.text(raw.span).parse() {
                Ok(number) => Some(number),
                Err(_) => self.fail("a 32-bit integer"),
            },
            Value::Null => Some(0),
            Value::Nested => self.fail("a 32-bit integer"),
        }
    }

    fn language(&mut self) -> Option<LanguageCode> {
        let language = match self.value()? {
            Value::Text(raw) => LanguageCode::from_name(self.text(raw.span)),
            Value::Bare(raw) => self.text(raw.span).parse().ok().and_then(LanguageCode::from_code),
            Value::Null | Value::Nested => None,
        };
        Some(language.unwrap_or(LanguageCode::Other))
    }

    fn remark(&mut self) -> Option<Option<String>> {
        match self.value()? {
            Value::Text(raw) | Value::Bare(raw) => {
                let span = self.unescape(raw)?;
                Some(Some(self.text(span).to_owned()))
            }
            Value::Null | Value::Nested => Some(None),
        }
    }

    fn ext_fields(&mut self, fields: &mut FieldList) -> Option<()> {
        if self.token() != Some(b'{') {
            return match self.value()? {
                Value::Null => Some(()),
                _ => self.fail("an object of ext fields"),
            };
        }
        self.object(|cursor, key| {
            let key = cursor.unescape(key)?;
            if fields.is_full() {
                return cursor.fail(FIELDS_WANTED);
            }
            if let Value::Text(raw) | Value::Bare(raw) = cursor.value()? {
                fields.push(key, cursor.unescape(raw)?);
            }
            Some(())
        })
    }
}
