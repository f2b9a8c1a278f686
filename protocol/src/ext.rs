//! Ext fields: the named strings a remoting header carries.
//!
//! One text holds all names and values; a field is four numbers into it. The text of a header that was
//! read is the received bytes themselves, and the numbers of up to [`INLINE_FIELDS`] fields lie beside
//! them: nothing is allocated. Keys may repeat on the wire; the last one counts, as in Java.

use std::fmt;
use std::ops::Range;

use bytes::BytesMut;
use smallvec::SmallVec;

use crate::Name;
use crate::fields::{FieldWriter, Fields};
use crate::limits::HEADER_FIELDS_MAX;

/// Fields of the longest header that is common: SEND's fourteen, and what an ACL adds.
const INLINE_FIELDS: usize = 16;

/// Why a typed header could not be read. Refused: the client can mend it.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum HeaderError {
    /// A required field is absent.
    #[error("the header has no field {0}")]
    Missing(&'static str),
    /// A field's value is not of its type.
    #[error("the header field {field} has the value {value:?}, expected {expected}")]
    Invalid {
        /// The field's name on the wire.
        field: &'static str,
        /// What it held, cut to 64 characters.
        value: String,
        /// What it should hold.
        expected: &'static str,
    },
}

/// Ordered (name, value) pairs of a header.
#[derive(Clone, Default)]
pub struct ExtFields {
    /// Each field's parts are UTF-8; what lies between them may be anything.
    text: BytesMut,
    fields: FieldList,
}

/// Where the fields of a header are in its text.
#[derive(Clone, Default)]
pub(crate) struct FieldList(SmallVec<[Field; INLINE_FIELDS]>);

#[derive(Clone, Copy)]
struct Field {
    key: Span,
    value: Span,
}

/// Where a string lies in the text. Frames are at most 16 MiB, escapes included: 32 bits suffice.
#[derive(Clone, Copy)]
pub(crate) struct Span {
    pub(crate) start: u32,
    pub(crate) end: u32,
}

impl Span {
    /// From byte `start` to before byte `end` of a header.
    pub(crate) fn new(start: usize, end: usize) -> Self {
        Self { start: start as u32, end: end as u32 }
    }

    pub(crate) fn range(self) -> Range<usize> {
        self.start as usize..self.end as usize
    }
}

impl FieldList {
    #[inline]
    pub(crate) fn push(&mut self, key: Span, value: Span) {
        self.0.push(Field { key, value });
    }

    /// Whether a header that is read may have no more: a field is larger in memory than on the wire.
    #[inline]
    pub(crate) fn is_full(&self) -> bool {
        self.0.len() >= HEADER_FIELDS_MAX
    }

    /// Where keys and values are.
    pub(crate) fn spans(&self) -> impl Iterator<Item = Span> {
        self.0.iter().flat_map(|field| [field.key, field.value])
    }
}

impl ExtFields {
    /// No fields.
    pub fn new() -> Self {
        Self::default()
    }

    /// The list for fields that lie in a text yet to be [set](Self::set_text).
    pub(crate) fn fields_mut(&mut self) -> &mut FieldList {
        &mut self.fields
    }

    /// The text that the listed fields lie in, each part of UTF-8.
    pub(crate) fn set_text(&mut self, text: BytesMut) {
        self.text = text;
    }

    /// Bytes of memory that they hold.
    pub fn memory_bytes(&self) -> usize {
        let fields = if self.fields.0.spilled() { self.fields.0.capacity() * size_of::<Field>() } else { 0 };
        self.text.len() + fields
    }

    /// Copies the text: what it was a part of is no longer held.
    pub(crate) fn detach(&mut self) {
        self.text = BytesMut::from(&self.text[..]);
    }

    /// How many fields there are.
    pub fn len(&self) -> usize {
        self.fields.0.len()
    }

    /// Bytes of memory that they keep.
    pub(crate) fn bytes(&self) -> usize {
        self.text.len() + self.len() * size_of::<Field>()
    }

    /// Whether there is no field.
    pub fn is_empty(&self) -> bool {
        self.fields.0.is_empty()
    }

    /// The value of the last field called `key`.
    pub fn get(&self, key: &str) -> Option<&str> {
        let field = self.fields.0.iter().rev().find(|field| self.part(field.key) == key.as_bytes())?;
        Some(self.slice(field.value))
    }

    /// All fields in their order on the wire.
    pub fn iter(&self) -> impl DoubleEndedIterator<Item = (&str, &str)> {
        self.fields.0.iter().map(|field| (self.slice(field.key), self.slice(field.value)))
    }

    /// All fields with their keys as bytes, which to compare takes no look at whether they are text.
    pub(crate) fn keyed(&self) -> impl Iterator<Item = (&[u8], &str)> {
        // One look at a JSON header is cheaper than one at each field; a binary one has lengths in between.
        let whole = std::str::from_utf8(&self.text).ok();
        self.fields.0.iter().map(move |field| {
            let value = whole.and_then(|whole| whole.get(field.value.range()));
            (self.part(field.key), value.unwrap_or_else(|| self.slice(field.value)))
        })
    }

    /// Sets `key` to `value`, replacing what was there.
    pub fn insert(&mut self, key: &str, value: &str) {
        self.reserve();
        let value = self.push_text(value);
        self.set(key, value);
    }

    /// Sets `key` to the text `value` displays as, without a string in between.
    pub fn insert_display(&mut self, key: &str, value: impl fmt::Display) {
        self.reserve();
        let start = self.text.len();
        // BytesMut refuses only lengths beyond memory.
        let _ = fmt::Write::write_fmt(&mut self.text, format_args!("{value}"));
        let value = Span::new(start, self.text.len());
        self.set(key, value);
    }

    /// Removes `key`; says whether it was there.
    pub fn remove(&mut self, key: &str) -> bool {
        let before = self.fields.0.len();
        let text = &self.text;
        self.fields.0.retain(|field| text[field.key.range()] != *key.as_bytes());
        self.fields.0.len() != before
    }

    /// A field that must be there.
    pub fn required<T: FieldValue>(&self, key: &'static str) -> Result<T, HeaderError> {
        self.optional(key)?.ok_or(HeaderError::Missing(key))
    }

    /// A field that may be absent. An empty number or boolean counts as absent: the binary header
    /// and old C++ clients write it for "none".
    pub fn optional<T: FieldValue>(&self, key: &'static str) -> Result<Option<T>, HeaderError> {
        self.get(key).map_or(Ok(None), |text| parse_field(key, text))
    }

    /// Before the first field: most headers then grow once instead of half a dozen times.
    fn reserve(&mut self) {
        if self.fields.0.is_empty() {
            self.text.reserve(256);
        }
    }

    fn set(&mut self, key: &str, value: Span) {
        let text = &self.text;
        let mut fields = self.fields.0.iter_mut().rev();
        match fields.find(|field| text[field.key.range()] == *key.as_bytes()) {
            Some(field) => field.value = value,
            None => {
                let key = self.push_text(key);
                self.fields.push(key, value);
            }
        }
    }

    /// Appends text that is no part of the header as received.
    fn push_text(&mut self, text: &str) -> Span {
        let start = self.text.len();
        self.text.extend_from_slice(text.as_bytes());
        Span::new(start, self.text.len())
    }

    fn part(&self, span: Span) -> &[u8] {
        &self.text[span.range()]
    }

    fn slice(&self, span: Span) -> &str {
        std::str::from_utf8(self.part(span)).unwrap_or_default()
    }
}

impl fmt::Debug for ExtFields {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        out.debug_map().entries(self.iter()).finish()
    }
}

impl PartialEq for ExtFields {
    /// Same fields in the same order, however they lie in memory.
    fn eq(&self, other: &Self) -> bool {
        self.len() == other.len() && self.iter().eq(other.iter())
    }
}

impl Eq for ExtFields {}

impl Fields for ExtFields {
    fn write(&self, out: &mut impl FieldWriter) {
        self.iter().for_each(|(key, value)| out.text(key, value));
    }
}

impl FieldWriter for ExtFields {
    fn text(&mut self, key: &str, value: &str) {
        self.insert(key, value);
    }
}

impl<'a> FromIterator<(&'a str, &'a str)> for ExtFields {
    fn from_iter<I: IntoIterator<Item = (&'a str, &'a str)>>(fields: I) -> Self {
        let mut ext = Self::new();
        for (key, value) in fields {
            ext.insert(key, value);
        }
        ext
    }
}

/// A type a field's text can be read as and written from.
pub trait FieldValue: Sized {
    /// What an error says was expected.
    const EXPECTED: &'static str;
    /// Whether an empty text is a value of its own, or no value.
    const EMPTY_IS_NONE: bool = true;

    /// Reads the text; `None` if it is not of this type.
    fn parse(text: &str) -> Option<Self>;
    /// Writes the value under `key`.
    fn put(&self, key: &str, out: &mut impl FieldWriter);
}

/// Reads one field's text: `None` if it counts as absent.
pub(crate) fn parse_field<T: FieldValue>(field: &'static str, text: &str) -> Result<Option<T>, HeaderError> {
    if text.is_empty() && T::EMPTY_IS_NONE {
        return Ok(None);
    }
    match T::parse(text) {
        Some(value) => Ok(Some(value)),
        None => {
            Err(HeaderError::Invalid { field, value: text.chars().take(64).collect(), expected: T::EXPECTED })
        }
    }
}

macro_rules! integers {
    ($($kind:ty: $expected:literal),+) => {$(
        impl FieldValue for $kind {
            const EXPECTED: &'static str = $expected;
            fn parse(text: &str) -> Option<Self> {
                text.parse().ok()
            }
            fn put(&self, key: &str, out: &mut impl FieldWriter) {
                out.number(key, i64::from(*self));
            }
        }
    )+};
}
integers!(i32: "a 32-bit integer", i64: "a 64-bit integer", u32: "an unsigned 32-bit integer");

impl FieldValue for bool {
    const EXPECTED: &'static str = "true, false, 1 or 0";
    fn parse(text: &str) -> Option<Self> {
        match text {
            "1" => Some(true),
            "0" => Some(false),
            _ if text.eq_ignore_ascii_case("true") => Some(true),
            _ if text.eq_ignore_ascii_case("false") => Some(false),
            _ => None,
        }
    }
    fn put(&self, key: &str, out: &mut impl FieldWriter) {
        out.text(key, if *self { "true" } else { "false" });
    }
}

impl FieldValue for String {
    const EXPECTED: &'static str = "a text";
    const EMPTY_IS_NONE: bool = false;
    fn parse(text: &str) -> Option<Self> {
        Some(text.to_owned())
    }
    fn put(&self, key: &str, out: &mut impl FieldWriter) {
        out.text(key, self);
    }
}

impl FieldValue for Name {
    const EXPECTED: &'static str = "a name";
    const EMPTY_IS_NONE: bool = false;
    fn parse(text: &str) -> Option<Self> {
        Some(Name::from(text))
    }
    fn put(&self, key: &str, out: &mut impl FieldWriter) {
        out.text(key, self);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_missing_or_wrong_field_is_named() {
        let ext: ExtFields = [("queueId", "x"), ("batch", "maybe")].into_iter().collect();
        assert_eq!(ext.required::<i32>("topic"), Err(HeaderError::Missing("topic")));
        let error = ext.required::<i32>("queueId").expect_err("x is no number");
        assert_eq!(
            error.to_string(),
            "the header field queueId has the value \"x\", expected a 32-bit integer"
        );
        assert!(matches!(ext.optional::<bool>("batch"), Err(HeaderError::Invalid { field: "batch", .. })));
    }

    #[test]
    fn booleans_are_words_or_digits() {
        let ext: ExtFields = [("a", "1"), ("b", "0"), ("c", "TRUE"), ("d", "")].into_iter().collect();
        assert_eq!(ext.required("a"), Ok(true));
        assert_eq!(ext.required("b"), Ok(false));
        assert_eq!(ext.required("c"), Ok(true));
        assert_eq!(ext.optional::<bool>("d"), Ok(None));
    }

    #[test]
    fn insert_replaces_and_remove_removes() {
        let mut ext = ExtFields::new();
        ext.insert("a", "1");
        ext.insert_display("b", -5);
        ext.insert("a", "2");
        assert_eq!(ext.iter().collect::<Vec<_>>(), [("a", "2"), ("b", "-5")]);
        assert!(ext.remove("a") && !ext.remove("a"));
        assert_eq!(ext.get("a"), None);
    }
}
