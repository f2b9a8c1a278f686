//! Reading the messages of one answer: consume queue first, then the log.

use bytes::Bytes;
use folio_engine::log::{ReadError, Span, Ungathered};
use folio_protocol::subscription::TagFilter;

use super::scan::{Batch, Limits};
use crate::broker::Broker;
use crate::error::BrokerError;

/// Units looked at for one answer at most, filtered ones included (`maxFilterMessageSize`, 16000 bytes).
const SCAN_MAX: u64 = 800;
/// Units fetched at a time where many may be filtered.
const CHUNK: usize = 128;
/// Messages further than this behind the end of the log are likely not in memory: the size of the log's cache.
const COLD_BYTES: u64 = 32 << 20;

/// Chooses the messages from `offset` on that go into one answer.
pub(crate) fn choose(
    broker: &Broker,
    (topic, queue): (&str, u32),
    offset: u64,
    filter: &TagFilter,
    limits: Limits,
) -> Result<Batch, BrokerError> {
    let mut batch = Batch::new(offset);
    let chunk = if *filter == TagFilter::All { limits.messages } else { CHUNK };
    while !batch.full && batch.messages < limits.messages && batch.next - offset < SCAN_MAX {
        let units = broker.group.queues().units(topic, queue, batch.next, chunk);
        let units = units.map_err(|error| BrokerError::Unreadable(error.to_string()))?;
        batch.extend(&units, filter, limits);
        if units.len() < chunk {
            break;
        }
    }
    Ok(batch)
}

/// How far behind the end of the log messages are.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Age {
    /// In memory.
    Fresh,
    /// Their reader may wait for the disk.
    Recent,
    /// The same, and clients that write come first.
    Cold,
}

/// The age of the messages chosen.
pub(super) fn age(broker: &Broker, batch: &Batch) -> Age {
    let end = broker.group.log().state().next_position;
    match batch.runs.first() {
        Some(run) if broker.cold_reads.is_cold(run.position, end) => Age::Cold,
        Some(run) if end.saturating_sub(run.position) > COLD_BYTES => Age::Recent,
        _ => Age::Fresh,
    }
}

/// Whether what was chosen is in memory.
pub(crate) fn is_fresh(broker: &Broker, batch: &Batch) -> bool {
    age(broker, batch) == Age::Fresh
}

/// The bytes of the chosen messages (`pull.I1`).
pub(crate) fn bytes(
    broker: &Broker,
    (topic, queue): (&str, u32),
    batch: &Batch,
) -> Result<Vec<Bytes>, BrokerError> {
    let distrust = |offsets| broker.group.queues().distrust(topic, queue, offsets);
    let spans: Vec<Span> = batch.runs.iter().map(|run| (run.position, run.bytes)).collect();
    let pieces = broker.group.log().gather(&spans).map_err(|Ungathered { span, error }| {
        if let (ReadError::Beyond { .. } | ReadError::Crossing { .. }, Some(run)) =
            (&error, batch.runs.get(span))
        {
            // No record lies like that: it is the units that are wrong.
            distrust(run.first..run.first + run.messages);
        }
        BrokerError::Unreadable(error.to_string())
    })?;
    let mut left = pieces.iter();
    let mut rest: &[u8] = &[];
    for run in &batch.runs {
        if rest.is_empty() {
            rest = left.next().map_or(&[], |piece| piece);
        }
        let bytes = rest.split_off(..run.bytes.min(rest.len())).unwrap_or_default();
        if let Some(offset) = run.stranger(bytes, (topic, queue)) {
            distrust(offset..offset + 1);
            let text = format!("topic {topic} queue {queue} offset {offset}: another message lies there");
            return Err(BrokerError::Unreadable(text));
        }
    }
    Ok(pieces)
}
