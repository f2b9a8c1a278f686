//! VIEW_MESSAGE_BY_ID (33): the stored message at a position of the commit log, see [`folio_broker::messages`].

use std::sync::Arc;

use folio_broker::error::BrokerError;
use folio_protocol::header::{Header, ViewMessageHeader};

use crate::forward;
use crate::remoting::Remoting;
use crate::request::Request;

/// 33: answers one message.
pub(crate) fn view(remoting: &Arc<Remoting>, request: Request) {
    let header = match ViewMessageHeader::from_ext(&request.frame.ext) {
        Ok(header) => header,
        Err(error) => return request.reply.fail(error),
    };
    let remoting = remoting.clone();
    tokio::spawn(async move {
        // If the client is gone, none reads the answer.
        let Some(_turn) = request.read_turn().await else { return request.reply.done() };
        match remoting.broker.message_at(header.offset).await {
            // What it holds of the memory of reads is given back when the answer is in its client's queue.
            Ok(found) => request.reply.body(found.message.clone()),
            Err(BrokerError::AskLeader) => forward::forward(&remoting, request),
            Err(error) => request.reply.fail(error),
        }
    });
}
