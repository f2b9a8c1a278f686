//! VIEW_MESSAGE_BY_ID (33): the stored message at a position of the commit log, see [`folio_broker::messages`].

use std::sync::Arc;

use folio_broker::messages::{find, not_found};
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
        let broker = &remoting.broker;
        let _turn = match request.channel() {
            Some(channel) => match channel.read_turn().await {
                Some(turn) => Some(turn),
                // Nobody reads the answer.
                None => return request.reply.done(),
            },
            None => None,
        };
        match find(broker, header.offset).await {
            // What it holds of the memory of reads is given back when the answer is in its client's queue.
            Ok(Some(found)) => request.reply.body(found.message.clone()),
            Ok(None) if broker.leads() => request.reply.fail(not_found(header.offset)),
            Err(error) if broker.leads() => request.reply.fail(error),
            // It may be younger than what this node has applied, or whole there.
            Ok(None) | Err(_) => forward::forward(&remoting, request),
        }
    });
}
