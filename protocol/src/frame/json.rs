//! The JSON header, type 0, read and written by hand: it is on the path of every SEND.
//!
//! `{"code":310,"extFields":{"a":"group"},"flag":0,"language":"JAVA","opaque":7,"version":479}`
//!
//! Tolerances, each seen from a real client: ext values may be numbers or booleans; keys may be
//! missing, unknown or null; languages may be unknown; control characters may stand unescaped.
//! Nested values where a text belongs are skipped. Nothing recurses, so depth costs no stack.

use bytes::{BufMut, BytesMut};

use super::{Frame, FrameError, Serialization};
use crate::code::LanguageCode;
use crate::ext::{ExtFields, Span};
use crate::fields::{Digits, FieldWriter, Fields};

/// Reads a header; the frame's body stays empty.
pub fn decode(header: &[u8]) -> Result<Frame, FrameError> {
    let text = std::str::from_utf8(header).map_err(|_| FrameError::Utf8)?;
    // A header without a version comes from a client older than versions.
    let mut frame = Frame { version: 0, serialization: Serialization::Json, ..Frame::default() };
    let mut cursor = Cursor { text, at: 0 };
    let mut has_ext = false;
    cursor.object(|cursor, key| {
        let key = cursor.unescape(key)?;
        match key.as_ref() {
            "code" => frame.code = cursor.integer()?,
            "version" => frame.version = cursor.integer()?,
            "opaque" => frame.opaque = cursor.integer()?,
            "flag" => frame.flag = cursor.integer()?,
            "language" => frame.language = cursor.language()?,
            "remark" => frame.remark = cursor.remark()?,
            // Each object of fields copies the header once; a second one is nobody's honest header.
            "extFields" if has_ext => return cursor.fail("one object of ext fields"),
            "extFields" => {
                frame.ext = cursor.ext_fields()?;
                has_ext = true;
            }
            _ => {
                cursor.value()?;
            }
        }
        Ok(())
    })?;
    cursor.end()?;
    Ok(frame)
}

/// Writes the header.
pub fn encode(frame: &Frame, out: &mut BytesMut) {
    encode_with(frame, &frame.ext, out);
}

/// The same with `fields` in place of the frame's own.
pub(super) fn encode_with(frame: &Frame, fields: &impl Fields, out: &mut BytesMut) {
    out.put_slice(b"{\"code\":");
    put_integer(frame.code, out);
    out.put_slice(b",\"extFields\":{");
    fields.write(&mut Writer { out, is_first: true });
    out.put_slice(b"},\"flag\":");
    put_integer(frame.flag, out);
    out.put_slice(b",\"language\":\"");
    out.put_slice(frame.language.name().as_bytes());
    out.put_slice(b"\",\"opaque\":");
    put_integer(frame.opaque, out);
    if let Some(remark) = &frame.remark {
        out.put_slice(b",\"remark\":");
        put_text(remark, out);
    }
    out.put_slice(b",\"serializeTypeCurrentRPC\":\"JSON\",\"version\":");
    put_integer(frame.version, out);
    out.put_u8(b'}');
}

struct Writer<'a> {
    out: &'a mut BytesMut,
    is_first: bool,
}

impl FieldWriter for Writer<'_> {
    fn text(&mut self, key: &str, value: &str) {
        if !std::mem::take(&mut self.is_first) {
            self.out.put_u8(b',');
        }
        put_text(key, self.out);
        self.out.put_u8(b':');
        put_text(value, self.out);
    }
}

fn put_integer(value: i32, out: &mut BytesMut) {
    out.put_slice(Digits::of(value.into()).as_bytes());
}

fn put_text(text: &str, out: &mut BytesMut) {
    let bytes = text.as_bytes();
    out.reserve(bytes.len() + 2);
    out.put_u8(b'"');
    // Without an early end the compiler looks at many bytes at once; almost no text has anything to escape.
    if bytes.iter().fold(false, |found, byte| found | is_escaped(*byte)) {
        put_escaped(bytes, out);
    } else {
        out.put_slice(bytes);
    }
    out.put_u8(b'"');
}

fn put_escaped(bytes: &[u8], out: &mut BytesMut) {
    const HEX: &[u8; 16] = b"0123456789abcdef";
    let mut plain = 0;
    while let Some(length) = bytes[plain..].iter().position(|byte| is_escaped(*byte)) {
        let at = plain + length;
        out.put_slice(&bytes[plain..at]);
        plain = at + 1;
        let byte = bytes[at];
        match byte {
            b'"' | b'\\' => out.put_slice(&[b'\\', byte]),
            b'\n' => out.put_slice(b"\\n"),
            b'\r' => out.put_slice(b"\\r"),
            b'\t' => out.put_slice(b"\\t"),
            _ => {
                let [high, low] = [HEX[usize::from(byte >> 4)], HEX[usize::from(byte & 15)]];
                out.put_slice(&[b'\\', b'u', b'0', b'0', high, low]);
            }
        }
    }
    out.put_slice(&bytes[plain..]);
}

const fn is_escaped(byte: u8) -> bool {
    byte < 0x20 || byte == b'"' || byte == b'\\'
}

/// A string literal's inside, still escaped.
#[derive(Clone, Copy)]
struct Raw<'a> {
    inner: &'a str,
    start: usize,
    escaped: bool,
}

impl Raw<'_> {
    fn span(&self) -> Span {
        // The header is at most 24 bits long.
        Span { start: self.start as u32, end: (self.start + self.inner.len()) as u32 }
    }
}

enum Value<'a> {
    Text(Raw<'a>),
    /// A number, `true` or `false`, as written.
    Bare(Raw<'a>),
    Null,
    Nested,
}

struct Cursor<'a> {
    text: &'a str,
    at: usize,
}

impl<'a> Cursor<'a> {
    fn fail<T>(&self, what: &'static str) -> Result<T, FrameError> {
        Err(FrameError::Json { at: self.at, what })
    }

    fn byte(&self) -> Option<u8> {
        self.text.as_bytes().get(self.at).copied()
    }

    /// The next byte that is no blank.
    fn token(&mut self) -> Option<u8> {
        while let Some(b' ' | b'\t' | b'\r' | b'\n') = self.byte() {
            self.at += 1;
        }
        self.byte()
    }

    fn expect(&mut self, byte: u8, what: &'static str) -> Result<(), FrameError> {
        if self.token() != Some(byte) {
            return self.fail(what);
        }
        self.at += 1;
        Ok(())
    }

    fn end(&mut self) -> Result<(), FrameError> {
        if self.token().is_some() { self.fail("nothing after the object") } else { Ok(()) }
    }

    /// Reads an object, calling `member` with each key, which must consume the value.
    fn object(
        &mut self,
        mut member: impl FnMut(&mut Self, Raw<'a>) -> Result<(), FrameError>,
    ) -> Result<(), FrameError> {
        self.expect(b'{', "an object")?;
        if self.token() == Some(b'}') {
            self.at += 1;
            return Ok(());
        }
        loop {
            let key = self.string()?;
            self.expect(b':', "a colon")?;
            member(self, key)?;
            match self.token() {
                Some(b',') => self.at += 1,
                Some(b'}') => {
                    self.at += 1;
                    return Ok(());
                }
                _ => return self.fail("a comma or the object's end"),
            }
        }
    }

    fn string(&mut self) -> Result<Raw<'a>, FrameError> {
        self.expect(b'"', "a string")?;
        let start = self.at;
        let mut escaped = false;
        while let Some(rest) = self.text.as_bytes().get(self.at..) {
            let Some(found) = rest.iter().position(|byte| *byte == b'"' || *byte == b'\\') else { break };
            self.at += found;
            if rest[found] == b'"' {
                let inner = &self.text[start..self.at];
                self.at += 1;
                return Ok(Raw { inner, start, escaped });
            }
            escaped = true;
            self.at += 2;
        }
        self.fail("the string's end")
    }

    fn value(&mut self) -> Result<Value<'a>, FrameError> {
        match self.token() {
            Some(b'"') => Ok(Value::Text(self.string()?)),
            Some(b'{' | b'[') => self.skip_nested(),
            Some(_) => self.bare(),
            None => self.fail("a value"),
        }
    }

    fn bare(&mut self) -> Result<Value<'a>, FrameError> {
        let start = self.at;
        while let Some(b'a'..=b'z' | b'A'..=b'Z' | b'0'..=b'9' | b'+' | b'-' | b'.') = self.byte() {
            self.at += 1;
        }
        match &self.text[start..self.at] {
            "" => self.fail("a value"),
            "null" => Ok(Value::Null),
            inner => Ok(Value::Bare(Raw { inner, start, escaped: false })),
        }
    }

    /// Skips an object or array nobody reads, minding only brackets and strings.
    fn skip_nested(&mut self) -> Result<Value<'a>, FrameError> {
        let mut depth = 0usize;
        while let Some(byte) = self.byte() {
            match byte {
                b'"' => {
                    self.string()?;
                    continue;
                }
                b'{' | b'[' => depth += 1,
                b'}' | b']' => depth -= 1,
                _ => {}
            }
            self.at += 1;
            if depth == 0 {
                return Ok(Value::Nested);
            }
        }
        self.fail("the value's end")
    }

    fn integer(&mut self) -> Result<i32, FrameError> {
        match self.value()? {
            Value::Text(raw) | Value::Bare(raw) => match raw.inner.parse() {
                Ok(number) => Ok(number),
                Err(_) => self.fail("a 32-bit integer"),
            },
            Value::Null => Ok(0),
            Value::Nested => self.fail("a 32-bit integer"),
        }
    }

    fn language(&mut self) -> Result<LanguageCode, FrameError> {
        Ok(match self.value()? {
            Value::Text(raw) => LanguageCode::from_name(raw.inner).unwrap_or(LanguageCode::Other),
            Value::Bare(raw) => {
                raw.inner.parse().ok().and_then(LanguageCode::from_code).unwrap_or(LanguageCode::Other)
            }
            Value::Null | Value::Nested => LanguageCode::Other,
        })
    }

    fn remark(&mut self) -> Result<Option<String>, FrameError> {
        match self.value()? {
            Value::Text(raw) => Ok(Some(self.unescape(raw)?.into_owned())),
            Value::Bare(raw) => Ok(Some(raw.inner.to_owned())),
            Value::Null | Value::Nested => Ok(None),
        }
    }

    fn ext_fields(&mut self) -> Result<ExtFields, FrameError> {
        if self.token() != Some(b'{') {
            return match self.value()? {
                Value::Null => Ok(ExtFields::new()),
                _ => self.fail("an object of ext fields"),
            };
        }
        // Fields are spans of the header's own text; only unescaped ones are appended to it.
        let mut ext = ExtFields::over_escaped(self.text);
        self.object(|cursor, key| {
            let key = cursor.field_text(&mut ext, key)?;
            if let Value::Text(raw) | Value::Bare(raw) = cursor.value()? {
                let value = cursor.field_text(&mut ext, raw)?;
                ext.push_span(key, value);
            }
            Ok(())
        })?;
        Ok(ext)
    }

    fn field_text(&self, ext: &mut ExtFields, raw: Raw<'a>) -> Result<Span, FrameError> {
        if !raw.escaped {
            return Ok(raw.span());
        }
        let span = ext.push_with(|out| unescape(raw.inner, out));
        span.ok_or(FrameError::Json { at: raw.start, what: "valid escapes" })
    }

    fn unescape(&self, raw: Raw<'a>) -> Result<std::borrow::Cow<'a, str>, FrameError> {
        if !raw.escaped {
            return Ok(raw.inner.into());
        }
        let mut out = String::with_capacity(raw.inner.len());
        let done = unescape(raw.inner, &mut out);
        done.map(|()| out.into()).ok_or(FrameError::Json { at: raw.start, what: "valid escapes" })
    }
}

/// Appends the text a string literal's inside stands for; `None` if an escape is malformed. A lone
/// surrogate, which no UTF-8 can carry, becomes U+FFFD.
fn unescape(inner: &str, out: &mut String) -> Option<()> {
    let mut rest = inner;
    while let Some(at) = rest.find('\\') {
        out.push_str(&rest[..at]);
        let kind = *rest.as_bytes().get(at + 1)?;
        rest = rest.get(at + 2..)?;
        match kind {
            b'"' | b'\\' | b'/' => out.push(char::from(kind)),
            b'b' => out.push('\u{8}'),
            b'f' => out.push('\u{c}'),
            b'n' => out.push('\n'),
            b'r' => out.push('\r'),
            b't' => out.push('\t'),
            b'u' => rest = unescape_unit(rest, out)?,
            _ => return None,
        }
    }
    out.push_str(rest);
    Some(())
}

/// Reads what follows `\u`, and the second half of a surrogate pair; returns the rest.
fn unescape_unit<'a>(rest: &'a str, out: &mut String) -> Option<&'a str> {
    let (first, rest) = hex_unit(rest)?;
    let pair = rest.strip_prefix("\\u").and_then(hex_unit);
    if let (0xD800..=0xDBFF, Some((second @ 0xDC00..=0xDFFF, rest))) = (first, pair) {
        let scalar = 0x10000 + ((first - 0xD800) << 10) + (second - 0xDC00);
        out.push(char::from_u32(scalar)?);
        return Some(rest);
    }
    out.push(char::from_u32(first).unwrap_or(char::REPLACEMENT_CHARACTER));
    Some(rest)
}

fn hex_unit(text: &str) -> Option<(u32, &str)> {
    let digits = text.get(..4)?;
    let is_hex = digits.bytes().all(|byte| byte.is_ascii_hexdigit());
    let unit = u32::from_str_radix(digits, 16).ok()?;
    is_hex.then_some((unit, &text[4..]))
}
