//! CONSUMER_SEND_MSG_BACK (36): a consumer could not handle a message, see [`folio_broker::send_back`].

use std::sync::Arc;

use folio_broker::send_back::ToSendBack;
use folio_protocol::header::{ConsumerSendBackHeader, Header};

use super::send::VERSION_WITH_MAX_RECONSUME;
use crate::remoting::Remoting;
use crate::request::Request;

/// 36: stores a message again.
pub(crate) fn send_back(remoting: &Arc<Remoting>, request: Request) {
    let header = match ConsumerSendBackHeader::from_ext(&request.frame.ext) {
        Ok(header) => header,
        Err(error) => return request.reply.fail(error),
    };
    let says_max = request.frame.version >= VERSION_WITH_MAX_RECONSUME;
    let wish = ToSendBack {
        offset: header.offset,
        group: header.group,
        delay_level: header.delay_level,
        max_reconsume_times: header.max_reconsume_times.filter(|_| says_max),
    };
    let (broker, reply) = (remoting.broker.clone(), request.reply);
    tokio::spawn(async move {
        let done = move |outcome| match outcome {
            Ok(()) => reply.done(),
            Err(error) => reply.fail(error),
        };
        broker.send_back(&wish, done).await;
    });
}
