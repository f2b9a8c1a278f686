//! By what a send is known again: topic, `UNIQ_KEY`, length and checksum of the body, of a batch those of its first message.

use std::fmt::Debug;

use bytes::Bytes;
use folio_protocol::batch::BatchItems;
use folio_protocol::message;
use folio_protocol::properties::{self, UNIQUE_KEY};
use folio_raft::proposal::Question;

/// A send as its client wrote it. It is read again only where its client may have given it up.
pub trait Content: Debug + Send + Sync {
    /// What it sends; nothing if it cannot be read.
    fn print(&self) -> Option<Print>;
}

/// See the module.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Print {
    topic: Box<str>,
    key: Bytes,
    body_bytes: usize,
    body_crc: u32,
}

impl Print {
    /// Of one message.
    pub fn of_message(topic: &str, properties: &[u8], body: &[u8]) -> Print {
        let key = properties::first(properties, UNIQUE_KEY).unwrap_or_default();
        Print {
            topic: topic.into(),
            key: Bytes::copy_from_slice(key),
            body_bytes: body.len(),
            body_crc: message::body_crc(body),
        }
    }

    /// Of a batch with this body.
    pub fn of_batch(topic: &str, body: &Bytes) -> Option<Print> {
        let first = BatchItems::new(body).next()?.ok()?;
        Some(Print::of_message(topic, first.properties, &body[first.body_range]))
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
}
