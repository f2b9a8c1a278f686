//! Pulls of messages that cannot be read here now: rot was found, and is about to be mended.
//!
//! A follower asks the leader instead. The leader waits a moment; stock consumers ask again after the error that comes
//! when that did not help. Nobody is ever told that there is no message, or another offset.

use std::sync::Arc;
use std::time::{Duration, Instant};

use bytes::Bytes;
use folio_protocol::code::ResponseCode;

use super::scan::Batch;
use super::{Pull, expired, read, respond, respond_found};
use crate::broker::Broker;
use crate::error::ServerError;
use crate::forward;
use crate::request::Request;

/// How long a pull waits for what it asks for to be mended: less than any client or forwarding node waits.
const PATIENCE: Duration = Duration::from_secs(2);
/// Pause before what was damaged is read again.
const PAUSE: Duration = Duration::from_millis(50);

/// Answers a pull whose messages could not be read.
pub(super) fn unreadable(broker: &Arc<Broker>, pull: Pull, request: Request, error: ServerError) {
    if expired(broker, &pull) {
        // Retention was faster: the next pull hears where the queue starts now.
        let same = pull.header.queue_offset;
        respond(broker, &pull, request, ResponseCode::PullRetryImmediately, same, Vec::new());
    } else if broker.leads() {
        drop(tokio::spawn(wait(broker.clone(), pull, request, error)));
    } else {
        forward::forward(broker, request);
    }
}

async fn wait(broker: Arc<Broker>, mut pull: Pull, request: Request, mut error: ServerError) {
    let deadline = Instant::now() + PATIENCE;
    while Instant::now() < deadline {
        tokio::time::sleep(PAUSE).await;
        if !broker.leads() || expired(&broker, &pull) {
            return unreadable(&broker, pull, request, error);
        }
        let on = broker.clone();
        // Until it is answered: `disk_reads.I1`.
        let _memory = broker.resources.budget().reads().take(pull.limits.bytes).await;
        let again = tokio::task::spawn_blocking(move || (attempt(&on, &pull), pull)).await;
        // The task does not panic and is not aborted: an error here means the runtime is going down.
        let Ok((read, back)) = again else { return };
        pull = back;
        match read {
            Ok((batch, parts)) => return respond_found(&broker, pull, request, &batch, Ok(parts)),
            Err(still) => error = still,
        }
    }
    request.reply.fail(error);
}

fn attempt(broker: &Broker, pull: &Pull) -> Result<(Batch, Vec<Bytes>), ServerError> {
    let (queue, from) = (pull.queue(), pull.header.queue_offset as u64);
    let batch = read::choose(broker, queue, from, &pull.subject.filter, pull.limits)?;
    let parts = read::bytes(broker, queue, &batch)?;
    Ok((batch, parts))
}
