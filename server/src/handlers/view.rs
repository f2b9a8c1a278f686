//! VIEW_MESSAGE_BY_ID (33): the stored message at a position of the commit log.
//!
//! Any replica answers for what it has applied. A position comes from a client and may be anything, so it
//! is believed only if a whole message with a right checksum starts there, says that it starts there, and
//! the consume queue of its topic points back at it.

use std::sync::Arc;

use bytes::Bytes;
use folio_engine::log::CommitLog;
use folio_engine::queues::ConsumeQueues;
use folio_protocol::header::{Header, ViewMessageHeader};
use folio_protocol::limits::MESSAGE_BYTES_MAX;
use folio_protocol::message::{MESSAGE_BYTES_MIN, MessageView};

use crate::broker::Broker;
use crate::error::ServerError;
use crate::forward;
use crate::request::Request;

/// Bytes of TOTALSIZE, which a message starts with.
const TOTAL_SIZE_BYTES: usize = 4;

/// 33: answers one message.
pub(crate) fn view(broker: &Arc<Broker>, request: Request) {
    let header = match ViewMessageHeader::from_ext(&request.frame.ext) {
        Ok(header) => header,
        Err(error) => return request.reply.fail(error),
    };
    let broker = broker.clone();
    tokio::spawn(async move {
        match find(&broker, header.offset).await {
            Some(message) => request.reply.body(message),
            None if broker.leads() => request.reply.fail(not_found(header.offset)),
            // It may be younger than what this node has applied.
            None => forward::forward(&broker, request),
        }
    });
}

/// What a client is told that asked for a position without a message.
pub(super) fn not_found(position: i64) -> ServerError {
    ServerError::Internal(format!("can not find message by the offset, {position}"))
}

/// The message that starts at this position, if one does. Reads from the disk, apart from the runtime's
/// threads.
pub(super) async fn find(broker: &Arc<Broker>, position: i64) -> Option<Bytes> {
    let position = u64::try_from(position).ok()?;
    let broker = broker.clone();
    let found = tokio::task::spawn_blocking(move || {
        let end = broker.group.status().applied_position;
        read(broker.group.log(), broker.group.queues(), position, end)
    });
    // The task does not panic and is not aborted: an error here means the runtime is going down.
    found.await.ok().flatten()
}

fn read(log: &CommitLog, queues: &ConsumeQueues, position: u64, end: u64) -> Option<Bytes> {
    let room = usize::try_from(end.checked_sub(position)?).ok()?;
    if room < MESSAGE_BYTES_MIN {
        return None;
    }
    let total = log.bytes(position, TOTAL_SIZE_BYTES).ok()?;
    let total = u32::from_be_bytes(total.first_chunk().copied()?) as usize;
    if !(MESSAGE_BYTES_MIN..=MESSAGE_BYTES_MAX.min(room)).contains(&total) {
        return None;
    }
    let bytes = log.bytes(position, total).ok()?;
    let message = MessageView::parse(&bytes).ok()?;
    message.verify_body_crc().ok()?;
    let units = queues.units(message.topic(), message.queue_id(), message.queue_offset(), 1).ok()?;
    let points_back = units.first().is_some_and(|unit| unit.position == position);
    (message.physical_offset() == position && points_back).then_some(bytes)
}
