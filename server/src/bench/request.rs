//! SEND requests from a template, and the least that must be read of an answer.
//!
//! The bytes are those of a JSON-header SEND_MESSAGE_V2 as a Java client writes it; only the request's number, the
//! queue, the time and the unique key change from one to the next.

use std::fmt::Write as _;

use bytes::{BufMut, BytesMut};
use folio_protocol::limits::FRAME_BYTES_MAX;

/// Everything of a SEND request that stays the same.
pub(super) struct Template {
    before_queue: String,
    body: Vec<u8>,
    /// Unique keys begin with this, one generator each.
    key_prefix: String,
    next_key: u64,
    header: String,
}

impl Template {
    pub(super) fn new(topic: &str, broker: &str, size: usize, generator: usize) -> Template {
        let before_queue = format!(
            "\"language\":\"JAVA\",\"version\":479,\"flag\":0,\"extFields\":{{\"a\":\"folio_bench\",\"b\":\"{topic}\",\
             \"c\":\"TBW102\",\"d\":\"4\",\"f\":\"0\",\"h\":\"0\",\"j\":\"0\",\"k\":\"false\",\"m\":\"false\",\
             \"n\":\"{broker}\",\"e\":\""
        );
        let body = (0..size).map(|at| b'a' + (at % 26) as u8).collect();
        let process = std::process::id();
        Template {
            before_queue,
            body,
            key_prefix: format!("{process:08X}{generator:08X}"),
            next_key: 0,
            header: String::new(),
        }
    }

    /// Appends one request to `out`.
    pub(super) fn encode(&mut self, opaque: u32, queue: u32, now_ms: u128, out: &mut BytesMut) {
        self.next_key += 1;
        let Template { before_queue, key_prefix, next_key, header, body } = self;
        header.clear();
        // Writing to a string cannot fail.
        let _ = write!(
            header,
            "{{\"code\":310,\"opaque\":{opaque},{before_queue}{queue}\",\"g\":\"{now_ms}\",\
             \"i\":\"UNIQ_KEY\\u0001{key_prefix}{next_key:016X}\\u0002WAIT\\u0001true\\u0002\"}}}}"
        );
        out.reserve(8 + header.len() + body.len());
        out.put_u32((4 + header.len() + body.len()) as u32);
        out.put_u32(header.len() as u32);
        out.put_slice(header.as_bytes());
        out.put_slice(body);
    }
}

/// The code and the number of one answer.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Answer {
    pub(super) opaque: u32,
    pub(super) code: i32,
}

/// Takes the next whole answer off `buffer`; an error if these are not RocketMQ's frames.
pub(super) fn next_answer(buffer: &mut BytesMut) -> Result<Option<Answer>, &'static str> {
    let Some(length) = buffer.first_chunk::<4>() else { return Ok(None) };
    let length = u32::from_be_bytes(*length) as usize;
    if !(4..=FRAME_BYTES_MAX).contains(&length) {
        return Err("the server sent a frame of an impossible length");
    }
    if buffer.len() < 4 + length {
        return Ok(None);
    }
    let frame = buffer.split_to(4 + length);
    let word = u32::from_be_bytes([frame[4], frame[5], frame[6], frame[7]]);
    let header = frame.get(8..8 + (word & 0x00FF_FFFF) as usize).ok_or("a header longer than its frame")?;
    let field = |name: &[u8]| number_after(header, name).ok_or("an answer without code or opaque");
    Ok(Some(Answer { opaque: field(b"\"opaque\":")? as u32, code: field(b"\"code\":")? as i32 }))
}

/// The number behind the first `name` in a JSON text.
fn number_after(json: &[u8], name: &[u8]) -> Option<i64> {
    let at = json.windows(name.len()).position(|window| window == name)? + name.len();
    let rest = &json[at..];
    let end = rest.iter().position(|byte| !byte.is_ascii_digit() && *byte != b'-').unwrap_or(rest.len());
    std::str::from_utf8(&rest[..end]).ok()?.parse().ok()
}

#[cfg(test)]
mod tests {
    use super::*;
    use folio_protocol::code::ResponseCode;
    use folio_protocol::frame::{Frame, Serialization};
    use folio_protocol::header::{Header, SendMessageHeader};
    use folio_protocol::properties;

    #[test]
    fn a_request_of_the_template_is_a_send_like_any_clients() {
        let mut out = BytesMut::new();
        let mut template = Template::new("orders", "broker-a", 100, 3);
        template.encode(7, 5, 1_700_000_000_000, &mut out);
        template.encode(8, 6, 1_700_000_000_001, &mut out);
        let first = Frame::decode(&mut out).unwrap().unwrap();
        let second = Frame::decode(&mut out).unwrap().unwrap();
        assert_eq!((first.code, first.opaque, first.body.len()), (310, 7, 100));
        let header = SendMessageHeader::from_ext(&first.ext).unwrap();
        assert_eq!(
            (&*header.topic, header.queue_id, header.born_timestamp),
            ("orders", 5, 1_700_000_000_000)
        );
        let key = |frame: &Frame| {
            let header = SendMessageHeader::from_ext(&frame.ext).unwrap();
            properties::get(header.properties.unwrap().as_bytes(), "UNIQ_KEY").unwrap().to_owned()
        };
        assert_eq!(key(&first).len(), 32);
        assert_ne!(key(&first), key(&second));
        assert!(out.is_empty());
    }

    #[test]
    fn an_answer_is_read_only_when_it_is_whole() {
        let mut bytes = BytesMut::new();
        Frame::response(42, Serialization::Json, ResponseCode::SystemBusy)
            .with_remark("busy")
            .encode(&mut bytes)
            .unwrap();
        let mut part = BytesMut::from(&bytes[..bytes.len() - 1]);
        assert_eq!(next_answer(&mut part), Ok(None));
        assert_eq!(next_answer(&mut bytes), Ok(Some(Answer { opaque: 42, code: 2 })));
        assert_eq!(next_answer(&mut bytes), Ok(None));
        assert!(next_answer(&mut BytesMut::from(&[0xFF; 8][..])).is_err());
    }
}
