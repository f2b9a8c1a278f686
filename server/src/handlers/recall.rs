//! RECALL_MESSAGE (370): a producer takes a delayed message back, see [`folio_broker::broker::Broker::recall`].

use std::sync::Arc;

use folio_protocol::header::{Header, RecallMessageHeader, RecallMessageResponseHeader};

use crate::remoting::Remoting;
use crate::request::Request;

/// 370: recalls a message whose time has not come.
pub(crate) fn recall(remoting: &Arc<Remoting>, request: Request) {
    let header = match RecallMessageHeader::from_ext(&request.frame.ext) {
        Ok(header) => header,
        Err(error) => return request.reply.fail(error),
    };
    let reply = request.reply;
    remoting.broker.recall(&header.topic, &header.recall_handle, move |outcome| match outcome {
        Ok(msg_id) => reply.ok(&RecallMessageResponseHeader { msg_id }, bytes::Bytes::new()),
        Err(error) => reply.fail(error),
    });
}
