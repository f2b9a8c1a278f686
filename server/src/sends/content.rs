//! By what a send is known again: topic, `UNIQ_KEY`, length and checksum of the body, of a batch those of its first message.

use bytes::Bytes;
use folio_protocol::batch::BatchItems;
use folio_protocol::code::RequestCode;
use folio_protocol::frame::Frame;
use folio_protocol::header::SendRequest;
use folio_protocol::message;
use folio_protocol::properties::{self, UNIQUE_KEY};
use folio_raft::proposal::Question;

/// See the module.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Print {
    topic: Box<str>,
    key: Bytes,
    body_bytes: usize,
    body_crc: u32,
}

/// What a request sends; nothing if it cannot be read.
pub(super) fn print(frame: &Frame) -> Option<Print> {
    let header = SendRequest::from_ext(&frame.ext).ok()?;
    let is_batch = header.batch || frame.request_code() == Some(RequestCode::SendBatchMessage);
    if !is_batch {
        let properties = header.properties.unwrap_or_default().as_bytes();
        return Some(of(header.topic, properties, &frame.body));
    }
    let first = BatchItems::new(&frame.body).next()?.ok()?;
    Some(of(header.topic, first.properties, &frame.body[first.body_range]))
}

/// What is asked about.
pub(super) fn asked(question: &Question) -> Print {
    Print {
        topic: (&*question.topic).into(),
        key: question.key.clone(),
        body_bytes: question.body_bytes,
        body_crc: question.body_crc,
    }
}

fn of(topic: &str, properties: &[u8], body: &[u8]) -> Print {
    let key = properties::first(properties, UNIQUE_KEY).unwrap_or_default();
    Print {
        topic: topic.into(),
        key: Bytes::copy_from_slice(key),
        body_bytes: body.len(),
        body_crc: message::body_crc(body),
    }
}
