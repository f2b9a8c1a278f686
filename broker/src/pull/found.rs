//! Answers to pulls whose messages were chosen: with the messages, or where these cannot be read here now. Then corruption was found,
//! and its repair is under way.
//!
//! A follower lets the leader be asked instead. The leader waits a moment; stock consumers ask again after the error that comes
//! when that did not help. Nobody is ever told that there is no message, or another offset.

use std::sync::Arc;
use std::time::{Duration, Instant};

use bytes::Bytes;

use super::read;
use super::respond::{Pull, Puller, Status, expired, respond};
use super::scan::Batch;
use crate::broker::Broker;
use crate::error::BrokerError;

/// How long a pull waits for the repair of what it asks for: less than any client or forwarding node waits.
const REPAIR_TIMEOUT: Duration = Duration::from_secs(2);
/// Pause before what was corrupt is read again.
const PAUSE: Duration = Duration::from_millis(50);

/// Answers with what was read.
pub(super) fn respond_found(
    broker: &Arc<Broker>,
    pull: Pull,
    puller: impl Puller,
    batch: &Batch,
    parts: Result<Vec<Bytes>, BrokerError>,
) {
    let next = batch.next as i64;
    match parts {
        Ok(parts) if batch.messages > 0 => {
            respond(broker, &pull, puller, Status::Found, next, parts);
        }
        Ok(_) => respond(broker, &pull, puller, Status::AskAgain, next, Vec::new()),
        Err(error) => unreadable(broker, pull, puller, error),
    }
}

/// Answers a pull whose messages could not be read.
pub(super) fn unreadable(broker: &Arc<Broker>, pull: Pull, puller: impl Puller, error: BrokerError) {
    if expired(broker, &pull) {
        // Retention was faster: the next pull hears where the queue starts now.
        let same = pull.offset;
        respond(broker, &pull, puller, Status::AskAgain, same, Vec::new());
    } else if broker.leads() {
        drop(tokio::spawn(wait(broker.clone(), pull, puller, error)));
    } else {
        puller.answer(Err(BrokerError::AskLeader));
    }
}

async fn wait(broker: Arc<Broker>, mut pull: Pull, puller: impl Puller, mut error: BrokerError) {
    let deadline = Instant::now() + REPAIR_TIMEOUT;
    while Instant::now() < deadline {
        tokio::time::sleep(PAUSE).await;
        if !broker.leads() || expired(&broker, &pull) {
            return unreadable(&broker, pull, puller, error);
        }
        let on = broker.clone();
        // Until it is answered: `disk_reads.I1`.
        let _memory = broker.node.reads.take(pull.limits.bytes).await;
        let again = tokio::task::spawn_blocking(move || (attempt(&on, &pull), pull)).await;
        // The task does not panic and is not aborted: an error here means the runtime is going down.
        let Ok((read, back)) = again else { return };
        pull = back;
        match read {
            Ok((batch, parts)) => return respond_found(&broker, pull, puller, &batch, Ok(parts)),
            Err(still) => error = still,
        }
    }
    puller.answer(Err(error));
}

fn attempt(broker: &Broker, pull: &Pull) -> Result<(Batch, Vec<Bytes>), BrokerError> {
    let (queue, from) = (pull.queue(), pull.offset as u64);
    let batch = read::choose(broker, queue, from, &pull.subject.filter, pull.limits)?;
    let parts = read::bytes(broker, queue, &batch)?;
    Ok((batch, parts))
}
