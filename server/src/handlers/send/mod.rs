//! SEND: codes 10 and 310 (one message), 320 (a batch), answered when a majority has them on disk.
//!
//! A send is decoded, checked ([`check`]), given the server's properties ([`stored`]), and proposed; the
//! answer is encoded by the proposal's reply. No task and no map per message; a body stays a slice of the
//! received bytes until it is copied into its log record. A batch is one proposal: its messages lie in one
//! record and have consecutive offsets.
//!
//! Not here: transactions (half messages are refused with NO_PERMISSION, as a broker that rejects them
//! answers) and delayed or timed messages (refused with MESSAGE_ILLEGAL: delivering them early would be a
//! silent error). A retry that a consumer sends itself carries a delay level; it is delivered at once.
//!
//! A send to a missing topic creates it first, through the log, and then goes on; sends that come
//! meanwhile wait for the same creation.

mod check;
mod message;
mod stored;

use std::sync::Arc;

use bytes::Bytes;
use folio_protocol::code::RequestCode;
use folio_protocol::header::{SendAnswer, SendRequest};
use folio_protocol::message::NewMessage;
use folio_protocol::names;
use folio_raft::proposal::{Proposal, Receipt, Repeat};
use folio_state::Topic;
use smallvec::SmallVec;

pub(crate) use self::stored::Stamp;

pub(crate) use self::check::VERSION_WITH_MAX_RECONSUME;
use self::check::{Destination, Route, Rules};
use crate::broker::Broker;
use crate::error::ServerError;
use crate::handlers::topics;
use crate::request::Request;

/// A unique key until it is answered: clients make them of 32 characters, or of 56 where addresses are long.
type UniqueKey = SmallVec<[u8; 64]>;

/// What became of a request that was not refused.
enum Prepared {
    /// Messages to propose, and what the answer says besides their place.
    Store { messages: Vec<NewMessage>, transaction_id: Option<UniqueKey> },
    /// A topic to create first.
    Create(Topic),
}

/// Serves one SEND.
pub(crate) fn send(broker: &Arc<Broker>, request: Request) {
    match prepare(broker, &request) {
        Ok(Prepared::Store { messages, transaction_id }) => {
            propose(broker, messages, transaction_id, request)
        }
        Ok(Prepared::Create(topic)) => create_first(broker.clone(), topic, request),
        Err(error) => request.reply.fail(error),
    }
}

fn prepare(broker: &Arc<Broker>, request: &Request) -> Result<Prepared, ServerError> {
    let frame = &request.frame;
    let header = SendRequest::from_ext(&frame.ext)?;
    let batch = header.batch || frame.request_code() == Some(RequestCode::SendBatchMessage);
    let place = match route(broker, request, &header, batch)? {
        Route::Create(topic) => return Ok(Prepared::Create(topic)),
        Route::Queue(place) => place,
    };
    let draft = message::Draft::new(broker, &header, place, request.remote);
    let (messages, transaction_id) = if batch {
        (draft.batch(&frame.body)?, None)
    } else {
        let (message, unique_key) = draft.single(&frame.body)?;
        (vec![message], Some(unique_key))
    };
    Ok(Prepared::Store { messages, transaction_id })
}

fn route(
    broker: &Broker,
    request: &Request,
    header: &SendRequest<'_>,
    batch: bool,
) -> Result<Route, ServerError> {
    let says_max = request.frame.version >= VERSION_WITH_MAX_RECONSUME;
    let to = Destination {
        topic: header.topic,
        default_topic: header.default_topic,
        default_queues: header.default_topic_queue_nums,
        queue: header.queue_id,
        batch,
        reconsume_times: header.reconsume_times.unwrap_or(0),
        max_reconsume_times: header.max_reconsume_times.filter(|_| says_max),
        producer: request.remote,
    };
    let state = broker.group.state();
    let rules = Rules {
        state: &state,
        identity: &broker.identity,
        broker_writable: broker.settings.permission.is_writable(),
        auto_create: broker.settings.auto_create_topic,
        lease_now_ms: broker.group.lease_now_ms(),
        draw: broker.state.draw(),
    };
    check::route(&rules, &to)
}

fn create_first(broker: Arc<Broker>, topic: Topic, request: Request) {
    tokio::spawn(async move {
        match topics::create_once(&broker, topic).await {
            // The topic is applied here: the checks find it now.
            Ok(()) => send(&broker, request),
            Err(error) => request.reply.refuse(error),
        }
    });
}

fn propose(
    broker: &Arc<Broker>,
    messages: Vec<NewMessage>,
    transaction_id: Option<UniqueKey>,
    request: Request,
) {
    let answerer = broker.clone();
    let repeat = repeat(&request, &messages);
    let reply = request.reply;
    let reply = Box::new(move |outcome| match outcome {
        Ok(receipt) => reply.ok(&answer(&answerer, &receipt, transaction_id.as_ref()), Bytes::new()),
        Err(error) => reply.refuse(error),
    });
    if let Err((proposal, error)) = broker.group.propose(Proposal { messages, repeat, reply }) {
        (proposal.reply)(Err(error));
    }
}

/// A oneway send is never repeated by its client; a redelivered message keeps its key.
fn repeat(request: &Request, messages: &[NewMessage]) -> Repeat {
    let redelivered =
        |message: &NewMessage| names::is_retry_topic(&message.topic) || names::is_dlq_topic(&message.topic);
    match request.attempt {
        Some(attempt) if !messages.iter().any(redelivered) => Repeat::Send(attempt),
        _ => Repeat::Store,
    }
}

fn answer<'a>(
    broker: &'a Broker,
    receipt: &'a Receipt,
    transaction_id: Option<&'a UniqueKey>,
) -> SendAnswer<'a> {
    SendAnswer {
        host: receipt.store_host.unwrap_or(broker.identity.store_host),
        positions: &receipt.positions,
        queue_id: receipt.queue_id as i32,
        queue_offset: receipt.queue_offsets.first().map_or(-1, |offset| *offset as i64),
        transaction_id: transaction_id.and_then(|key| std::str::from_utf8(key).ok()),
        region_id: &broker.settings.region,
        trace_on: broker.settings.trace_on,
    }
}
