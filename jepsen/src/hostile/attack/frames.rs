//! Frames that are none, or whose header is far larger than any client's.

use std::time::Duration;

use bytes::{BufMut, Bytes, BytesMut};

use super::Attack;
use crate::hostile::lane::Flood;
use crate::hostile::site::Site;
use crate::hostile::tally::Floor;
use crate::nemesis::Doing;

/// Connections at once.
const LANES: u32 = 16;
/// Entries of a giant header. With these, each header but one is just below a megabyte, which a node takes.
const ENTRIES: u32 = 70_000;
/// How deep a header's objects lie in each other.
const DEPTH: usize = 180_000;
/// Bytes of a header's value.
const VALUE_BYTES: usize = 1_000_000;
/// Characters of one that are written with six bytes each.
const ESCAPES: usize = 160_000;
/// Bytes of the value in the one header that is as large as a frame may be.
const LARGEST_BYTES: usize = 15 << 20;

pub(super) fn all() -> Vec<Box<dyn Attack>> {
    vec![
        Box::new(Bad {
            name: "bad-frames",
            about: "thousands of connections that send what is no frame",
            pause: Duration::ZERO,
            make: bad_frames,
        }),
        Box::new(Bad {
            name: "giant-lengths",
            about: "lengths of frames and headers that nothing follows, of up to 4 GiB",
            pause: Duration::ZERO,
            make: giant_lengths,
        }),
        Box::new(Bad {
            name: "header-flood",
            about: "headers of a megabyte and more: 70,000 fields, nested 180,000 deep, one value",
            pause: Duration::from_millis(20),
            make: giant_headers,
        }),
    ]
}

/// One frame for each connection; a node closes it or answers.
struct Bad {
    name: &'static str,
    about: &'static str,
    pause: Duration,
    make: fn() -> Vec<Bytes>,
}

impl Attack for Bad {
    fn name(&self) -> &'static str {
        self.name
    }

    fn about(&self) -> &'static str {
        self.about
    }

    fn floor(&self) -> Floor {
        Floor { opened: 32, frames: 32, bytes: 0, heard: 16 }
    }

    fn run<'a>(&'a self, site: &'a Site) -> Doing<'a, ()> {
        Box::pin(async move {
            let frames = (self.make)();
            let ports = site.nodes().iter().flat_map(|node| [node.broker.clone(), node.namesrv.clone()]);
            let targets: Vec<String> = ports.collect();
            // A second write after a bad frame meets a closed connection; it is what ends a lane.
            let flood = Flood { each: 2, pause: self.pause, ..Flood::new(LANES, 2) };
            flood
                .run(site, &targets, move |lane, n| frames[(lane + n) as usize % frames.len()].clone())
                .await;
            Ok(())
        })
    }
}

/// A frame with this header, whatever it is, in this serialization.
fn with_header(serialization: u8, header: &[u8]) -> Bytes {
    let mut out = BytesMut::with_capacity(8 + header.len());
    out.put_u32(4 + header.len() as u32);
    out.put_u32(u32::from(serialization) << 24 | header.len() as u32 & 0x00ff_ffff);
    out.put_slice(header);
    out.freeze()
}

/// Two words: a length and a header word.
fn words(length: u32, header: u32) -> Bytes {
    let mut out = BytesMut::new();
    out.put_u32(length);
    out.put_u32(header);
    out.freeze()
}

fn bad_frames() -> Vec<Bytes> {
    let http = b"GET / HTTP/1.1\r\nHost: broker\r\n\r\n";
    let tls = b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03";
    let mut frames = vec![
        Bytes::from_static(http),
        Bytes::from_static(tls),
        words(0, 0),
        words(3, 0),
        words(u32::MAX, 0),
        words(4, 0x00ff_ffff),
        words(8, 7 << 24 | 4),
    ];
    let headers: [&[u8]; 8] = [
        b"",
        b"{",
        b"null",
        b"[]",
        b"{\"code\":\"x\"}",
        b"{\"code\":1e999,\"opaque\":-9999999999999}",
        b"{\"code\":10,\"extFields\":[1,2]}",
        b"{\"code\":10,\"remark\":\"\xff\xfe\"}",
    ];
    frames.extend(headers.iter().map(|header| with_header(0, header)));
    frames.extend(headers.iter().map(|header| with_header(1, header)));
    frames
}

fn giant_lengths() -> Vec<Bytes> {
    let lengths = [16 << 20, (16 << 20) - 4, (16 << 20) - 5, 1 << 30, 0x7fff_ffff, 0x8000_0000, u32::MAX];
    let headers = [0, 4, 0x00ff_ffff, 0x01ff_ffff, 0xffff_ffff];
    lengths.iter().flat_map(|length| headers.iter().map(|header| words(*length, *header))).collect()
}

fn giant_headers() -> Vec<Bytes> {
    let fields: Vec<String> = (0..ENTRIES).map(|number| format!("\"k{number}\":\"v\"")).collect();
    let many = format!("{{\"code\":105,\"opaque\":1,\"extFields\":{{{}}}}}", fields.join(","));
    let deep = format!("{{\"code\":105,\"opaque\":1,\"deep\":{}", "{\"a\":".repeat(DEPTH));
    let lists = format!("{{\"code\":105,\"opaque\":1,\"deep\":{}", "[".repeat(DEPTH));
    let valued = |bytes: usize| {
        let value = "v".repeat(bytes);
        format!("{{\"code\":105,\"opaque\":1,\"extFields\":{{\"topic\":\"{value}\"}}}}")
    };
    let (large, largest) = (valued(VALUE_BYTES), valued(LARGEST_BYTES));
    let escapes = "\\u0041".repeat(ESCAPES);
    let escaped = format!("{{\"code\":105,\"opaque\":1,\"extFields\":{{\"topic\":\"{escapes}\"}}}}");
    let mut frames: Vec<Bytes> = [many, deep, lists, large, escaped, largest]
        .iter()
        .map(|text| with_header(0, text.as_bytes()))
        .collect();
    frames.push(with_header(1, &binary_header(ENTRIES)));
    frames
}

/// A binary header with so many fields.
fn binary_header(fields: u32) -> Bytes {
    let mut list = BytesMut::new();
    for number in 0..fields {
        let key = format!("k{number}");
        list.put_u16(key.len() as u16);
        list.put_slice(key.as_bytes());
        list.put_u32(1);
        list.put_u8(b'v');
    }
    let mut out = BytesMut::new();
    out.put_u16(105);
    out.put_u8(0);
    out.put_u16(479);
    out.put_u32(1);
    out.put_u32(0);
    out.put_u32(0);
    out.put_u32(list.len() as u32);
    out.put_slice(&list);
    out.freeze()
}

#[cfg(test)]
mod tests {
    use folio_protocol::frame::Frame;

    use super::*;

    #[test]
    fn giant_headers_fit_a_frame() {
        for frame in giant_headers() {
            assert!(frame.len() < 16 << 20, "{} bytes", frame.len());
            assert!(frame.len() > 1 << 17, "{} bytes", frame.len());
            let is_taken = frame.len() < 1 << 20;
            assert!(is_taken || frame.len() > LARGEST_BYTES, "{} bytes", frame.len());
        }
    }

    #[test]
    fn a_binary_header_decodes_with_all_its_fields() {
        let mut bytes = BytesMut::from(&with_header(1, &binary_header(100))[..]);
        let frame = Frame::decode(&mut bytes).expect("a frame").expect("whole");
        assert_eq!(frame.ext.get("k99"), Some("v"));
    }

    #[test]
    fn no_bad_frame_is_a_good_one() {
        for bytes in bad_frames() {
            let mut buffer = BytesMut::from(&bytes[..]);
            let decoded = Frame::decode(&mut buffer);
            let harmless = !matches!(decoded, Ok(Some(Frame { code: 10.., .. })));
            assert!(harmless, "{bytes:?}: {decoded:?}");
        }
    }
}
