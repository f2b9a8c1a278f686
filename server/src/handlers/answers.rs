//! Reading bodies and giving answers, as several handlers do.

use bytes::Bytes;
use folio_broker::error::BrokerError;
use folio_protocol::body::{self, BodyError};
use folio_protocol::ext::HeaderError;
use folio_protocol::frame::Frame;
use serde::Serialize;
use serde::de::DeserializeOwned;

use crate::error::ServerError;
use crate::request::Request;

/// A request's body in JSON.
pub(super) fn decode<T: DeserializeOwned>(bytes: &[u8], objects_max: usize) -> Result<T, ServerError> {
    body::decode_request(bytes, objects_max).map_err(|BodyError { reason }| ServerError::Body(reason))
}

/// How many of something a request wants at most, by that field of its header; below 0 is none.
pub(super) fn wanted(frame: &Frame, field: &'static str) -> Result<Option<usize>, HeaderError> {
    let max = frame.ext.optional::<i64>(field)?;
    Ok(max.map(|max| usize::try_from(max).unwrap_or(0)))
}

/// Answers with a body in JSON.
pub(super) fn json(request: Request, body: &impl Serialize) {
    encoded(request, body::encode(body));
}

/// Answers with a body that was encoded.
pub(super) fn encoded(request: Request, body: Result<Bytes, BodyError>) {
    match body {
        Ok(body) => request.reply.body(body),
        Err(BodyError { reason }) => request.reply.fail(ServerError::Internal(reason)),
    }
}

/// Answers once a call of the broker has ended that has no result.
pub(super) fn when_done(
    request: Request,
    call: impl Future<Output = Result<(), BrokerError>> + Send + 'static,
) {
    tokio::spawn(async move {
        match call.await {
            Ok(()) => request.reply.done(),
            Err(error) => request.reply.fail(error),
        }
    });
}
