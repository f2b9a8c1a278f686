//! SEND: codes 10 and 310 (one message), 320 (a batch), answered when a majority has them on disk.
//!
//! The answer is encoded by the broker's callback: no task and no copy per message.

use std::sync::Arc;

use bytes::Bytes;
use folio_broker::send::{Checked, Prepared, Sent, ToSend};
use folio_broker::settings::Settings;
use folio_protocol::code::RequestCode;
use folio_protocol::header::{SendAnswer, SendRequest};
use folio_state::Topic;

use crate::error::ServerError;
use crate::remoting::Remoting;
use crate::reply::Reply;
use crate::request::Request;

/// From this wire version (V3_4_9) on, a client says itself how often a message may be retried.
pub(super) const VERSION_WITH_MAX_RECONSUME: i32 = 121;

/// Serves one SEND.
pub(crate) fn send(remoting: &Arc<Remoting>, request: Request) {
    match check(remoting, &request) {
        Ok(Checked::Store(prepared)) => store(remoting, prepared, request.reply),
        Ok(Checked::Create(topic)) => create_first(remoting.clone(), topic, request),
        Err(error) => request.reply.fail(error),
    }
}

fn check(remoting: &Remoting, request: &Request) -> Result<Checked, ServerError> {
    let frame = &request.frame;
    let header = SendRequest::from_ext(&frame.ext)?;
    let says_max = frame.version >= VERSION_WITH_MAX_RECONSUME;
    let wish = ToSend {
        topic: header.topic,
        default_topic: header.default_topic,
        default_queues: header.default_topic_queue_nums,
        queue: header.queue_id,
        sys_flag: header.sys_flag,
        born_timestamp: header.born_timestamp,
        flag: header.flag,
        properties: header.properties.unwrap_or_default(),
        reconsume_times: header.reconsume_times.unwrap_or(0),
        max_reconsume_times: header.max_reconsume_times.filter(|_| says_max),
        batch: header.batch || frame.request_code() == Some(RequestCode::SendBatchMessage),
        body: &frame.body,
        client: request.remote,
        attempt: request.attempt,
    };
    Ok(remoting.broker.check_send(&wish)?)
}

fn create_first(remoting: Arc<Remoting>, topic: Topic, request: Request) {
    tokio::spawn(async move {
        match remoting.broker.create_for_sender(topic).await {
            // The topic is applied here: the checks find it now.
            Ok(()) => send(&remoting, request),
            Err(error) => request.reply.fail(error),
        }
    });
}

fn store(remoting: &Remoting, prepared: Prepared, reply: Reply) {
    let answerer = remoting.broker.clone();
    remoting.broker.send(prepared, move |outcome| match outcome {
        Ok(sent) => reply.ok(&answer(&answerer.settings, &sent), Bytes::new()),
        Err(error) => reply.fail(error),
    });
}

fn answer<'a>(settings: &'a Settings, sent: &'a Sent<'_>) -> SendAnswer<'a> {
    let receipt = sent.receipt;
    SendAnswer {
        host: sent.store_host,
        positions: &receipt.positions,
        queue_id: sent.queue as i32,
        queue_offset: receipt.queue_offsets.first().map_or(-1, |offset| *offset as i64),
        transaction_id: sent.unique_key,
        recall_handle: sent.recall_handle.as_deref(),
        region_id: &settings.region,
        trace_on: settings.trace_on,
    }
}
