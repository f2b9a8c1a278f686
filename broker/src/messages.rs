//! One stored message, found by its position in the commit log.
//!
//! Any replica answers for what it has applied. A position comes from a client and may be anything, so it
//! is believed only if a whole message with a right checksum starts there, says that it starts there, and
//! the consume queue of its topic points back at it.

use std::sync::Arc;
use std::time::{Duration, Instant};

use bytes::Bytes;
use folio_engine::log::{CommitLog, ReadError};
use folio_engine::queues::{ConsumeQueues, QueuesError};
use folio_protocol::limits::MESSAGE_BYTES_MAX;
use folio_protocol::message::{MESSAGE_BYTES_MIN, MessageView};

use crate::broker::Broker;
use crate::error::BrokerError;
use crate::reads::ReadMemory;

/// Bytes of TOTALSIZE, which a message starts with.
const TOTAL_SIZE_BYTES: usize = 4;
/// How long to wait for the repair of a message that is found corrupt.
const REPAIR_TIMEOUT: Duration = Duration::from_secs(2);
/// Pause before it is looked at again.
const REPAIR_PAUSE: Duration = Duration::from_millis(50);

impl Broker {
    /// The message that starts at this position. A follower that has none there, or cannot read it, fails with
    /// [`BrokerError::AskLeader`]: it may be younger than what this node has applied, or whole at the leader.
    pub async fn message_at(self: &Arc<Self>, position: i64) -> Result<Found, BrokerError> {
        let found = find(self, position).await.and_then(|found| found.ok_or_else(|| not_found(position)));
        found.map_err(|error| if self.leads() { error } else { BrokerError::AskLeader })
    }
}

/// The error for a position without a message.
pub(crate) fn not_found(position: i64) -> BrokerError {
    BrokerError::Internal(format!("can not find message by the offset, {position}"))
}

/// A message of the log, and the memory that it is read into (`disk_reads.I1`).
pub struct Found {
    /// As it is stored.
    pub message: Bytes,
    pub(crate) _memory: ReadMemory,
}

/// The message that starts at this position, if one does. Reads from the disk, apart from the runtime's
/// threads; the leader waits a moment for what is damaged.
pub(crate) async fn find(broker: &Arc<Broker>, position: i64) -> Result<Option<Found>, BrokerError> {
    let Ok(position) = u64::try_from(position) else { return Ok(None) };
    let deadline = Instant::now() + REPAIR_TIMEOUT;
    loop {
        match look(broker, position).await {
            Err(_) if broker.leads() && Instant::now() < deadline => tokio::time::sleep(REPAIR_PAUSE).await,
            found => return found,
        }
    }
}

/// Its length first: so much memory is waited for.
async fn look(broker: &Arc<Broker>, position: u64) -> Result<Option<Found>, BrokerError> {
    let end = broker.group.status().applied_position;
    let Some(bytes) = apart(broker, move |on| length(on.group.log(), position, end)).await? else {
        return Ok(None);
    };
    let memory = broker.node.reads.take(bytes).await;
    let message = apart(broker, move |on| read(on.group.log(), on.group.queues(), position, bytes)).await?;
    Ok(message.map(|message| Found { message, _memory: memory }))
}

/// The message that starts at this position, into memory that the caller has taken; none also where it has more than
/// `bytes_max` bytes. Blocks on the disk.
pub(crate) fn message_within(
    on: &Broker,
    position: u64,
    bytes_max: usize,
) -> Result<Option<Bytes>, BrokerError> {
    let (log, end) = (on.group.log(), on.group.applied_position());
    match length(log, position, end)? {
        Some(bytes) if bytes <= bytes_max => read(log, on.group.queues(), position, bytes),
        _ => Ok(None),
    }
}

/// Runs what may wait for the disk.
async fn apart<T: Send + 'static>(
    broker: &Arc<Broker>,
    read: impl FnOnce(&Broker) -> Result<Option<T>, BrokerError> + Send + 'static,
) -> Result<Option<T>, BrokerError> {
    let on = broker.clone();
    // The task does not panic and is not aborted: an error here means the runtime is going down.
    tokio::task::spawn_blocking(move || read(&on)).await.unwrap_or(Ok(None))
}

/// The length of the message that may start there.
fn length(log: &CommitLog, position: u64, end: u64) -> Result<Option<usize>, BrokerError> {
    let room = end.checked_sub(position).and_then(|room| usize::try_from(room).ok()).unwrap_or(0);
    if room < MESSAGE_BYTES_MIN {
        return Ok(None);
    }
    let Some(total) = stored(log, position, TOTAL_SIZE_BYTES)? else { return Ok(None) };
    let total = total.first_chunk().map_or(0, |total| u32::from_be_bytes(*total) as usize);
    Ok((MESSAGE_BYTES_MIN..=MESSAGE_BYTES_MAX.min(room)).contains(&total).then_some(total))
}

fn read(
    log: &CommitLog,
    queues: &ConsumeQueues,
    position: u64,
    total: usize,
) -> Result<Option<Bytes>, BrokerError> {
    let Some(bytes) = stored(log, position, total)? else { return Ok(None) };
    let Ok(message) = MessageView::parse(&bytes) else { return Ok(None) };
    if message.physical_offset() != position || message.verify_body_crc().is_err() {
        return Ok(None);
    }
    let points_back = match queues.units(message.topic(), message.queue_id(), message.queue_offset(), 1) {
        Err(error @ QueuesError::Damaged { .. }) => return Err(BrokerError::Unreadable(error.to_string())),
        units => units.is_ok_and(|units| units.first().is_some_and(|unit| unit.position == position)),
    };
    Ok(points_back.then_some(bytes))
}

/// Bytes of the log; `None` where no record holds them.
fn stored(log: &CommitLog, position: u64, length: usize) -> Result<Option<Bytes>, BrokerError> {
    match log.bytes(position, length) {
        Err(ReadError::Rot { position, .. } | ReadError::Misplaced { position, .. })
            if log.is_damaged(position) =>
        {
            Err(BrokerError::Unreadable(format!("the record at position {position} is damaged")))
        }
        read => Ok(read.ok()),
    }
}
