//! The JSON header, written.

use bytes::{BufMut, BytesMut};

use super::super::Frame;
use crate::fields::{FieldWriter, Fields};

/// Writes the header.
pub fn encode(frame: &Frame, out: &mut BytesMut) {
    encode_with(frame, &frame.ext, out);
}

/// The same with `fields` in place of the frame's own.
pub(in crate::frame) fn encode_with(frame: &Frame, fields: &impl Fields, out: &mut BytesMut) {
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
    out.put_slice(itoa::Buffer::new().format(value).as_bytes());
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
