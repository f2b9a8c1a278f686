//! A request as parts that may be anything, and its bytes in both serializations.
//!
//! The product's encoder cannot write what is wrong; this one can.

use bytes::{BufMut, Bytes, BytesMut};

/// A header field's value.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Value {
    /// A string.
    Text(Vec<u8>),
    /// In JSON without quotes: a number, null, a list. In the binary header a string.
    Bare(Vec<u8>),
}

impl Value {
    pub(super) fn bytes(&self) -> &[u8] {
        match self {
            Value::Text(bytes) | Value::Bare(bytes) => bytes,
        }
    }
}

/// A request.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Raw {
    pub(super) binary: bool,
    pub(super) code: i32,
    pub(super) version: i32,
    pub(super) opaque: i32,
    pub(super) flag: i32,
    pub(super) fields: Vec<(Vec<u8>, Value)>,
    pub(super) body: Vec<u8>,
}

impl Raw {
    pub(super) fn new(code: i32, fields: &[(&str, &str)]) -> Self {
        let field =
            |(key, value): &(&str, &str)| (key.as_bytes().to_vec(), Value::Text(value.as_bytes().to_vec()));
        let fields = fields.iter().map(field).collect();
        Self { binary: false, code, version: 479, opaque: 0, flag: 0, fields, body: Vec::new() }
    }

    pub(super) fn with_body(mut self, body: impl Into<Vec<u8>>) -> Self {
        self.body = body.into();
        self
    }

    /// The whole frame.
    pub(super) fn encode(&self) -> Bytes {
        let header = if self.binary { self.binary_header() } else { self.json_header() };
        let mut out = BytesMut::with_capacity(8 + header.len() + self.body.len());
        out.put_u32((4 + header.len() + self.body.len()) as u32);
        out.put_u32(u32::from(self.binary) << 24 | header.len() as u32 & 0x00ff_ffff);
        out.put_slice(&header);
        out.put_slice(&self.body);
        out.freeze()
    }

    fn json_header(&self) -> Vec<u8> {
        let Raw { code, version, opaque, flag, .. } = self;
        let mut out = format!(
            "{{\"code\":{code},\"language\":\"JAVA\",\"version\":{version},\"opaque\":{opaque},\"flag\":{flag},\
             \"serializeTypeCurrentRPC\":\"JSON\",\"extFields\":{{"
        )
        .into_bytes();
        for (number, (key, value)) in self.fields.iter().enumerate() {
            if number > 0 {
                out.push(b',');
            }
            put_quoted(&mut out, key);
            out.push(b':');
            match value {
                Value::Text(bytes) => put_quoted(&mut out, bytes),
                Value::Bare(bytes) => out.extend(bytes),
            }
        }
        out.extend(b"}}");
        out
    }

    fn binary_header(&self) -> Vec<u8> {
        let mut list = Vec::new();
        for (key, value) in &self.fields {
            list.put_u16(key.len() as u16);
            list.put_slice(key);
            list.put_u32(value.bytes().len() as u32);
            list.put_slice(value.bytes());
        }
        let mut out = Vec::new();
        out.put_u16(self.code as u16);
        out.put_u8(0);
        out.put_u16(self.version as u16);
        out.put_i32(self.opaque);
        out.put_i32(self.flag);
        out.put_u32(0);
        out.put_u32(list.len() as u32);
        out.put_slice(&list);
        out
    }
}

/// In quotes, with what would end the string escaped; all other bytes as they are, UTF-8 or not.
fn put_quoted(out: &mut Vec<u8>, bytes: &[u8]) {
    out.push(b'"');
    for byte in bytes {
        match byte {
            b'"' | b'\\' => out.extend([b'\\', *byte]),
            0..=31 => out.extend(format!("\\u{byte:04x}").into_bytes()),
            _ => out.push(*byte),
        }
    }
    out.push(b'"');
}

#[cfg(test)]
mod tests {
    use folio_protocol::frame::Frame;

    use super::*;

    #[test]
    fn what_was_not_changed_decodes_in_both_serializations() {
        for binary in [false, true] {
            let mut raw = Raw::new(310, &[("a", "group \"x\""), ("i", "k\u{1}v\u{2}")]).with_body("body");
            (raw.binary, raw.opaque, raw.flag) = (binary, 77, 2);
            let frame = Frame::decode(&mut BytesMut::from(&raw.encode()[..])).unwrap().unwrap();
            assert_eq!((frame.code, frame.opaque, frame.flag), (310, 77, 2));
            assert_eq!((frame.ext.get("a"), frame.ext.get("i")), (Some("group \"x\""), Some("k\u{1}v\u{2}")));
            assert_eq!(&frame.body[..], b"body");
        }
    }

    #[test]
    fn a_bare_value_is_no_string() {
        let mut raw = Raw::new(1, &[]);
        raw.fields.push((b"n".to_vec(), Value::Bare(b"12".to_vec())));
        let bytes = raw.encode();
        let text = String::from_utf8_lossy(&bytes);
        assert!(text.contains("\"n\":12}"), "{text}");
    }
}
