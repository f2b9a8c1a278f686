//! Walks over the text of a JSON header, value by value.
//!
//! What it gives are places in the text, not copies. Nearly all of its steps are inlined: it is called some thirty
//! times for each SEND, and results that go through memory cost more than the steps.

use super::escape::{find, unescape};
use crate::ext::Span;
use crate::frame::FrameError;

/// A longer key is looked for by the general way.
const PLAIN_KEY_MAX: usize = 32;

/// A string literal's inside, still escaped, or a bare value.
#[derive(Clone, Copy)]
pub(super) struct Raw {
    pub(super) span: Span,
    escaped: bool,
}

/// A value of any kind.
pub(super) enum Value {
    Text(Raw),
    /// A number, `true` or `false`, as written.
    Bare(Raw),
    Null,
    Nested,
}

/// Stands in a header, which is UTF-8 and stays it. A step that fails gives `None` and notes why.
pub(super) struct Cursor<'a> {
    bytes: &'a mut [u8],
    at: usize,
    expected: &'static str,
}

impl<'a> Cursor<'a> {
    pub(super) fn new(header: &'a mut [u8]) -> Self {
        Self { bytes: header, at: 0, expected: "" }
    }

    /// Why the last step failed.
    pub(super) fn error(&self) -> FrameError {
        FrameError::Json { at: self.at, what: self.expected }
    }

    /// Fails, where the cursor stands.
    pub(super) fn fail<T>(&mut self, expected: &'static str) -> Option<T> {
        self.expected = expected;
        None
    }

    #[inline]
    fn byte(&self) -> Option<u8> {
        self.bytes.get(self.at).copied()
    }

    /// The next byte that is no blank.
    #[inline]
    pub(super) fn token(&mut self) -> Option<u8> {
        while let Some(b' ' | b'\t' | b'\r' | b'\n') = self.byte() {
            self.at += 1;
        }
        self.byte()
    }

    fn expect(&mut self, byte: u8, what: &'static str) -> Option<()> {
        if self.token() != Some(byte) {
            return self.fail(what);
        }
        self.at += 1;
        Some(())
    }

    /// Sees that nothing follows.
    pub(super) fn end(&mut self) -> Option<()> {
        if self.token().is_some() { self.fail("nothing after the object") } else { Some(()) }
    }

    /// Reads an object, calling `member` with each key, which must consume the value.
    #[inline]
    pub(super) fn object(&mut self, mut member: impl FnMut(&mut Self, Raw) -> Option<()>) -> Option<()> {
        self.expect(b'{', "an object")?;
        if self.token() == Some(b'}') {
            self.at += 1;
            return Some(());
        }
        loop {
            let key = match self.plain_key() {
                Some(span) => Raw { span, escaped: false },
                None => self.key()?,
            };
            member(self, key)?;
            match self.token() {
                Some(b',') => self.at += 1,
                Some(b'}') => {
                    self.at += 1;
                    return Some(());
                }
                _ => return self.fail("a comma or the object's end"),
            }
        }
    }

    fn key(&mut self) -> Option<Raw> {
        self.expect(b'"', "a string")?;
        let key = self.string()?;
        self.expect(b':', "a colon")?;
        Some(key)
    }

    /// Takes a short key and its colon as almost every client writes them, without escapes and blanks.
    #[inline(always)]
    fn plain_key(&mut self) -> Option<Span> {
        let text = self.bytes.get(self.at..)?.strip_prefix(b"\"")?;
        let length = text.iter().take(PLAIN_KEY_MAX).position(|byte| *byte == b'"' || *byte == b'\\')?;
        if !text[length..].starts_with(b"\":") {
            return None;
        }
        let start = self.at + 1;
        self.at = start + length + 2;
        Some(Span::new(start, start + length))
    }

    /// What follows the quote that begins a string.
    #[inline(always)]
    fn string(&mut self) -> Option<Raw> {
        let start = self.at;
        let mut escaped = false;
        while let Some(rest) = self.bytes.get(self.at..) {
            let Some(found) = find(rest, b'"', b'\\') else { break };
            self.at += found;
            if rest[found] == b'"' {
                let span = Span::new(start, self.at);
                self.at += 1;
                return Some(Raw { span, escaped });
            }
            escaped = true;
            self.at += 2;
        }
        self.fail("the string's end")
    }

    /// Reads a value of any kind.
    #[inline(always)]
    pub(super) fn value(&mut self) -> Option<Value> {
        match self.token() {
            Some(b'"') => {
                self.at += 1;
                self.string().map(Value::Text)
            }
            Some(b'{' | b'[') => self.skip_nested(),
            Some(_) => self.bare(),
            None => self.fail("a value"),
        }
    }

    fn bare(&mut self) -> Option<Value> {
        let start = self.at;
        while let Some(b'a'..=b'z' | b'A'..=b'Z' | b'0'..=b'9' | b'+' | b'-' | b'.') = self.byte() {
            self.at += 1;
        }
        match &self.bytes[start..self.at] {
            b"" => self.fail("a value"),
            b"null" => Some(Value::Null),
            _ => Some(Value::Bare(Raw { span: Span::new(start, self.at), escaped: false })),
        }
    }

    /// Skips an object or array nobody reads, minding only brackets and strings.
    fn skip_nested(&mut self) -> Option<Value> {
        let mut depth = 0usize;
        while let Some(byte) = self.byte() {
            self.at += 1;
            match byte {
                b'"' => {
                    self.string()?;
                }
                b'{' | b'[' => depth += 1,
                b'}' | b']' => depth -= 1,
                _ => {}
            }
            if depth == 0 {
                return Some(Value::Nested);
            }
        }
        self.fail("the value's end")
    }

    /// Replaces the escapes where they stand; what becomes free behind them is not read any more.
    #[inline(always)]
    pub(super) fn unescape(&mut self, raw: Raw) -> Option<Span> {
        if raw.escaped { self.unescape_span(raw.span) } else { Some(raw.span) }
    }

    fn unescape_span(&mut self, span: Span) -> Option<Span> {
        let start = span.start as usize;
        let text = &mut self.bytes[span.range()];
        let Some(length) = unescape(text) else {
            self.at = start;
            return self.fail("valid escapes");
        };
        // Not half a character: the header stays UTF-8.
        text[length..].fill(b' ');
        Some(Span::new(start, start + length))
    }

    pub(super) fn part(&self, span: Span) -> &[u8] {
        &self.bytes[span.range()]
    }

    pub(super) fn text(&self, span: Span) -> &str {
        std::str::from_utf8(self.part(span)).unwrap_or_default()
    }
}
