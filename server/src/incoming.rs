//! A client's request as it came, and what it sends, if it is a send.

use std::ops::Deref;

use folio_broker::sends::{Content, Outcome, Print};
use folio_protocol::code::{RequestCode, ResponseCode};
use folio_protocol::frame::Frame;
use folio_protocol::header::SendRequest;

/// A request's frame.
#[derive(Debug)]
pub(crate) struct Incoming(pub(crate) Frame);

impl Deref for Incoming {
    type Target = Frame;

    fn deref(&self) -> &Frame {
        &self.0
    }
}

impl Incoming {
    /// Whether it stores messages.
    pub(crate) fn is_send(&self) -> bool {
        use RequestCode::{SendBatchMessage, SendMessage, SendMessageV2};
        matches!(self.request_code(), Some(SendMessage | SendMessageV2 | SendBatchMessage))
    }
}

impl Content for Incoming {
    fn print(&self) -> Option<Print> {
        let header = SendRequest::from_ext(&self.ext).ok()?;
        if header.batch || self.request_code() == Some(RequestCode::SendBatchMessage) {
            return Print::of_batch(header.topic, &self.body);
        }
        let properties = header.properties.unwrap_or_default().as_bytes();
        Some(Print::of_message(header.topic, properties, &self.body))
    }
}

/// What the code of a send's answer says of its message: see the table in `error.rs`.
pub(crate) fn outcome_of(code: i32) -> Outcome {
    match ResponseCode::from_code(code) {
        Some(ResponseCode::Success) => Outcome::Stored,
        Some(ResponseCode::SystemError) | None => Outcome::Unknown,
        Some(_) => Outcome::NotStored,
    }
}
