//! Delayed messages that wait for their time: how many there are of a topic.

use std::sync::Arc;

use folio_engine::timers::{TimersError, topic_hash};

use crate::broker::Broker;
use crate::error::BrokerError;

impl Broker {
    /// How many delayed messages of a topic wait for their time, as applied on this node. Topics whose names have the same hash are counted
    /// together. Goes over the whole index, apart from the runtime's threads.
    pub async fn pending_timers(self: &Arc<Self>, topic: &str) -> Result<u64, BrokerError> {
        let (broker, hash) = (self.clone(), topic_hash(topic));
        let count = tokio::task::spawn_blocking(move || count(&broker, hash)).await;
        let count = count.map_err(|error| BrokerError::Internal(error.to_string()))?;
        count.map_err(|error| BrokerError::Internal(error.to_string()))
    }
}

fn count(broker: &Broker, hash: u32) -> Result<u64, TimersError> {
    let state = broker.group.state().timers().clone();
    let mut count = 0;
    broker.group.timers().for_each(state.watermark(), |entry| {
        count += u64::from(entry.topic_hash == hash && state.is_pending(entry.key));
        true
    })?;
    Ok(count)
}
