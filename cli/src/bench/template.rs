//! SEND requests made from a prepared frame.
//!
//! A frame is encoded once per queue; for each message its head is copied and three fields of fixed
//! width are written over: opaque, bornTimestamp and UNIQ_KEY. Where they stand is found by encoding
//! frames that differ in one field only, so that it is right for either serialization.
//!
//! Invariant (template.I1): what is written is what [`Frame::encode`] would have written.

use std::ops::Range;

use anyhow::{Result, ensure};
use bytes::{Bytes, BytesMut};
use folio_protocol::Name;
use folio_protocol::code::RequestCode;
use folio_protocol::frame::{Frame, PREFIX_BYTES, Serialization};
use folio_protocol::header::SendMessageHeader;
use folio_protocol::{names, properties};

use super::kind::{Extras, pair};

/// The smallest opaque: with ten digits all of them are of one width.
pub(super) const OPAQUE_MIN: i32 = 1_000_000_000;
/// Characters of a unique key made at an IPv4 address.
pub(super) const UNIQUE_KEY_CHARS: usize = 32;
/// A binary header's code, language and version, which stand before the opaque.
const BINARY_OPAQUE_AT: usize = PREFIX_BYTES + 5;
/// Digits of a JSON opaque, and of a time in ms until the year 2286.
const OPAQUE_DIGITS: usize = 10;
const TIME_DIGITS: usize = 13;

/// What all messages to one queue share.
#[derive(Debug, Clone)]
pub(super) struct Subject {
    pub(super) topic: Name,
    pub(super) producer_group: Name,
    pub(super) broker_name: Name,
    pub(super) queue: u32,
    pub(super) body_bytes: usize,
    pub(super) serialization: Serialization,
    pub(super) extras: Extras,
}

/// A prepared head of a SEND frame.
pub(super) struct Template {
    head: Bytes,
    opaque: Range<usize>,
    born: Range<usize>,
    unique_key: Range<usize>,
    serialization: Serialization,
}

impl Template {
    pub(super) fn new(subject: &Subject) -> Result<Self> {
        // Every byte of a field differs between these pairs, in digits and in binary.
        let key = ["0".repeat(UNIQUE_KEY_CHARS), "F".repeat(UNIQUE_KEY_CHARS)];
        let (opaque, born) = ([1_111_111_111, 2_000_000_000], [1_111_111_111_111, 2_222_222_222_222]);
        let head = subject.head(opaque[0], born[0], &key[0])?;
        let opaque = difference(&head, &subject.head(opaque[1], born[0], &key[0])?);
        let later = subject.head(1_111_111_111, born[1], &key[0])?;
        let other = subject.head(1_111_111_111, born[0], &key[1])?;
        let (born, unique_key) = (difference(&head, &later), difference(&head, &other));
        let serialization = subject.serialization;
        let opaque_bytes = match serialization {
            Serialization::Json => OPAQUE_DIGITS,
            Serialization::Rocketmq => size_of::<i32>(),
        };
        ensure!(
            opaque.len() == opaque_bytes && born.len() == TIME_DIGITS && unique_key.len() == UNIQUE_KEY_CHARS,
            "a request's fields are not where they are expected: {opaque:?} {born:?} {unique_key:?}"
        );
        ensure!(
            serialization == Serialization::Json || opaque.start == BINARY_OPAQUE_AT,
            "the binary header's opaque is not at its place"
        );
        Ok(Self { head, opaque, born, unique_key, serialization })
    }

    /// Appends a request. `opaque` is [`OPAQUE_MIN`] or more, `born_ms` of thirteen digits.
    pub(super) fn put(&self, out: &mut BytesMut, opaque: i32, born_ms: u64, unique_key: &str, body: &[u8]) {
        let start = out.len();
        out.reserve(self.head.len() + body.len());
        out.extend_from_slice(&self.head);
        out.extend_from_slice(body);
        let head = &mut out[start..];
        match self.serialization {
            Serialization::Json => {
                put_digits(&mut head[self.opaque.clone()], u64::from(opaque.unsigned_abs()))
            }
            Serialization::Rocketmq => head[self.opaque.clone()].copy_from_slice(&opaque.to_be_bytes()),
        }
        put_digits(&mut head[self.born.clone()], born_ms);
        head[self.unique_key.clone()].copy_from_slice(unique_key.as_bytes());
    }
}

impl Subject {
    fn head(&self, opaque: i32, born_ms: i64, unique_key: &str) -> Result<Bytes> {
        let mut frame =
            Frame::request(RequestCode::SendMessageV2, &self.header(born_ms, unique_key), Bytes::new());
        (frame.opaque, frame.serialization) = (opaque, self.serialization);
        let mut out = BytesMut::new();
        frame.encode_head(self.body_bytes, &mut out)?;
        Ok(out.freeze())
    }

    fn header(&self, born_ms: i64, unique_key: &str) -> SendMessageHeader {
        let properties = pair(properties::UNIQUE_KEY, unique_key)
            + &pair(properties::WAIT, "true")
            + &self.extras.properties;
        SendMessageHeader {
            producer_group: self.producer_group.clone(),
            topic: self.topic.clone(),
            default_topic: names::AUTO_CREATE_TOPIC.into(),
            // What RocketMQ's own producers ask for.
            default_topic_queue_nums: 4,
            queue_id: self.queue.cast_signed(),
            sys_flag: self.extras.sys_flag,
            born_timestamp: born_ms,
            flag: 0,
            properties: Some(properties),
            reconsume_times: Some(0),
            unit_mode: false,
            max_reconsume_times: None,
            batch: false,
            broker_name: Some(self.broker_name.clone()),
        }
    }
}

/// The bytes in which two frames of one length differ, from the first to the last.
fn difference(a: &[u8], b: &[u8]) -> Range<usize> {
    let differs = |(a, b): (&u8, &u8)| a != b;
    let first = a.iter().zip(b).position(differs).unwrap_or(0);
    let last = a.iter().zip(b).rposition(differs).map_or(0, |at| at + 1);
    if a.len() == b.len() { first..last } else { 0..0 }
}

/// Fills the field with a number's last digits.
fn put_digits(field: &mut [u8], mut number: u64) {
    for digit in field.iter_mut().rev() {
        *digit = b'0' + (number % 10) as u8;
        number /= 10;
    }
}

#[cfg(test)]
mod tests {
    use folio_protocol::header::Header;

    use super::*;

    fn subject(serialization: Serialization) -> Subject {
        Subject {
            // As misleading as a name can be.
            topic: "1111111111111".into(),
            producer_group: "00000000000000000000000000000000".into(),
            broker_name: "1111111111".into(),
            queue: 7,
            body_bytes: 5,
            serialization,
            extras: Extras { properties: pair("TIMER_DELAY_MS", "1111111111111"), sys_flag: 4 },
        }
    }

    #[test]
    fn a_request_from_the_template_is_the_request_the_codec_would_write() {
        let key = "7F0000010A2B00000C0D11223344AABB";
        for serialization in [Serialization::Json, Serialization::Rocketmq] {
            let subject = subject(serialization);
            let template = Template::new(&subject).unwrap();
            let mut out = BytesMut::from(&b"earlier requests"[..]);
            template.put(&mut out, OPAQUE_MIN + 12, 1_790_000_000_123, key, b"hello");
            let written = out.split_off(b"earlier requests".len());

            let mut expected = BytesMut::new();
            let header = subject.header(1_790_000_000_123, key);
            let mut frame = Frame::request(RequestCode::SendMessageV2, &header, Bytes::from_static(b"hello"));
            (frame.opaque, frame.serialization) = (OPAQUE_MIN + 12, serialization);
            frame.encode(&mut expected).unwrap();
            assert_eq!(written, expected);
        }
    }

    #[test]
    fn the_protocol_crate_reads_the_same_header_back() {
        for serialization in [Serialization::Json, Serialization::Rocketmq] {
            let subject = subject(serialization);
            let mut out = BytesMut::new();
            let template = Template::new(&subject).unwrap();
            template.put(&mut out, i32::MAX, 1_790_000_000_123, &"A".repeat(32), b"hello");
            template.put(&mut out, OPAQUE_MIN, 1_790_000_000_124, &"B".repeat(32), b"world");
            let first = Frame::decode(&mut out).unwrap().unwrap();
            let second = Frame::decode(&mut out).unwrap().unwrap();
            assert!(out.is_empty());
            assert_eq!((first.opaque, &first.body[..]), (i32::MAX, &b"hello"[..]));
            assert_eq!((second.opaque, &second.body[..]), (OPAQUE_MIN, &b"world"[..]));
            let header = SendMessageHeader::from_ext(&second.ext).unwrap();
            assert_eq!(header, subject.header(1_790_000_000_124, &"B".repeat(32)));
        }
    }
}
