//! Messages that may be on disk only: read apart from the runtime's threads, once there is memory for them.
//!
//! A pull waits for its client first, which may have much to read already, then for its turn if its messages are old
//! ([`crate::cold_reads`]), then for memory (`disk_reads.I1`): what waits for a client keeps nothing that others wait for.

use std::sync::Arc;

use super::found::respond_found;
use super::read::{self, Age};
use super::respond::{Pull, Puller};
use super::scan::Batch;
use crate::broker::Broker;
use crate::cold_reads::{ColdRead, UnderWay};
use crate::connection::{Connection, Reader};
use crate::reads::{ReadMemory, ReadTurn};

/// What a read needs: held until the answer is in its client's queue. `None` where it is not needed.
struct Needs {
    _turn: Option<ReadTurn>,
    _old: Option<UnderWay>,
    _memory: ReadMemory,
}

/// Reads and answers the messages chosen.
pub(super) fn found(broker: Arc<Broker>, pull: Pull, puller: impl Puller, batch: Batch, age: Age) {
    if let Some(needs) = try_begin(&broker, &puller, &batch, age) {
        return read_and_answer(broker, pull, puller, batch, needs);
    }
    drop(tokio::spawn(async move {
        match begin(&broker, &pull, &puller, &batch, age).await {
            Some(needs) => read_and_answer(broker, pull, puller, batch, needs),
            // Nobody reads it.
            None => puller.gone(),
        }
    }));
}

/// What it needs, if it need not wait.
fn try_begin(broker: &Broker, puller: &impl Puller, batch: &Batch, age: Age) -> Option<Needs> {
    let turn = puller.connection().map(|connection| connection.try_read_turn());
    let _turn = if let Some(turn) = turn { Some(turn?) } else { None };
    let _memory = broker.node.reads.try_take(batch.bytes)?;
    // Last: what it takes of the pace of old reads is not given back.
    let _old = if age == Age::Cold { Some(broker.cold_reads.try_begin(batch.bytes)?) } else { None };
    Some(Needs { _turn, _old, _memory })
}

/// Waits for what it needs; `None` if the client is gone meanwhile.
async fn begin(broker: &Broker, pull: &Pull, puller: &impl Puller, batch: &Batch, age: Age) -> Option<Needs> {
    let _turn = match puller.connection() {
        Some(connection) => Some(connection.read_turn().await?),
        None => None,
    };
    loop {
        let _old =
            if age == Age::Cold { Some(broker.cold_reads.begin(cold_read(pull, batch)).await) } else { None };
        let _memory = broker.node.reads.take(batch.bytes).await;
        match puller.connection() {
            Some(connection) if !connection.is_open() => return None,
            // Other answers came first.
            Some(connection) if connection.is_behind() => {
                drop((_old, _memory));
                connection.catch_up().await;
            }
            Some(_) | None => return Some(Needs { _turn, _old, _memory }),
        }
    }
}

fn cold_read(pull: &Pull, batch: &Batch) -> ColdRead {
    let position = batch.runs.first().map_or(0, |run| run.position);
    let consumer = (pull.group.clone(), pull.topic.clone());
    ColdRead { consumer, position, bytes: batch.bytes }
}

/// Where the disk may be waited for.
fn read_and_answer(broker: Arc<Broker>, pull: Pull, puller: impl Puller, batch: Batch, needs: Needs) {
    drop(tokio::task::spawn_blocking(move || {
        let parts = read::bytes(&broker, pull.queue(), &batch);
        respond_found(&broker, pull, puller, &batch, parts);
        drop(needs);
    }));
}
