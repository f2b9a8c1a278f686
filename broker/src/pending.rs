//! Delayed messages that wait for their time: how many there are of each topic, and which.
//!
//! From the timer index and the state of this node, which has proved that it leads. The index knows hashes of topics: names are those of the topics that there are, or else
//! of a message that is read from the log.

use std::collections::BTreeMap;
use std::sync::Arc;

use folio_engine::timers::{TimerEntry, topic_hash};
use folio_protocol::limits::MESSAGE_BYTES_MAX;
use folio_protocol::message::MessageView;
use folio_protocol::properties::{KEYS, TAGS, UNIQUE_KEY};
use folio_protocol::{names, parked};
use serde::{Deserialize, Serialize};

use crate::broker::Broker;
use crate::error::BrokerError;

/// Messages of one list at most.
const LIST_MAX: usize = 1_000;
/// Topics that are counted apart at most.
const TOPICS_MAX: usize = 65_536;

/// A delayed message that waits for its time.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct PendingTimer {
    /// The topic that it is for.
    pub topic: String,
    /// Its queue there.
    pub queue: u32,
    /// When it is due by the leader's clock, ms since the epoch.
    pub due_ms: u64,
    /// When it was stored, ms since the epoch.
    pub stored_ms: i64,
    /// Where it lies in the log.
    pub position: u64,
    /// Bytes that it takes there.
    pub bytes: u32,
    /// How often it failed before, if it is a retry.
    pub reconsume_times: i32,
    /// Its unique key.
    pub unique_key: String,
    /// Its keys.
    pub keys: String,
    /// Its tag.
    pub tag: String,
    /// By which it is recalled; empty for a retry, which is not.
    pub recall_handle: String,
}

impl Broker {
    /// How many delayed messages of a topic wait for their time. Topics whose names have the same hash are counted together. Goes over the whole
    /// index, apart from the runtime's threads; the leader's to answer, like all of this.
    pub async fn pending_timers(self: &Arc<Self>, topic: &str) -> Result<u64, BrokerError> {
        let hash = topic_hash(topic);
        let counts = self.apart(|broker| broker.count_pending()).await?;
        Ok(counts.get(&hash).map_or(0, |(count, _)| *count))
    }

    /// The same of every topic that has some.
    pub async fn pending_by_topic(self: &Arc<Self>) -> Result<BTreeMap<String, u64>, BrokerError> {
        let _memory = self.node.reads.take(MESSAGE_BYTES_MAX).await;
        self.apart(|broker| broker.name_pending()).await
    }

    /// The delayed messages that are due first, of one topic or of all; `max` and [`LIST_MAX`] at most.
    pub async fn list_pending(
        self: &Arc<Self>,
        topic: Option<String>,
        max: usize,
    ) -> Result<Vec<PendingTimer>, BrokerError> {
        let _memory = self.node.reads.take(MESSAGE_BYTES_MAX).await;
        self.apart(move |broker| broker.find_pending(topic.as_deref(), max.min(LIST_MAX))).await
    }

    /// By the topics' hashes, with the entry that is due first.
    fn count_pending(&self) -> Result<BTreeMap<u32, (u64, TimerEntry)>, BrokerError> {
        let state = self.group.state().timers().clone();
        let mut counts: BTreeMap<u32, (u64, TimerEntry)> = BTreeMap::new();
        let read = self.group.timers().for_each(state.watermark(), |entry| {
            if state.is_pending(entry.key) {
                counts.entry(entry.topic_hash).or_insert((0, *entry)).0 += 1;
            }
            counts.len() <= TOPICS_MAX
        });
        read.map_err(|error| BrokerError::Unreadable(error.to_string()))?;
        if counts.len() > TOPICS_MAX {
            let text = format!("delayed messages wait for more than {TOPICS_MAX} topics");
            return Err(BrokerError::NotAvailable(text));
        }
        Ok(counts)
    }

    fn name_pending(&self) -> Result<BTreeMap<String, u64>, BrokerError> {
        let counts = self.count_pending()?;
        let known: BTreeMap<u32, String> = {
            let state = self.group.state();
            state.topics().map(|topic| (topic_hash(&topic.name), topic.name.clone())).collect()
        };
        let mut named = BTreeMap::new();
        for (hash, (count, first)) in counts {
            // The first may have come, or been recalled, since.
            let name = known.get(&hash).cloned().or_else(|| Some(self.read_pending(&first)?.topic));
            named.insert(name.unwrap_or_else(|| format!("topic with the hash {hash:#010x}")), count);
        }
        Ok(named)
    }

    fn find_pending(&self, topic: Option<&str>, max: usize) -> Result<Vec<PendingTimer>, BrokerError> {
        let (state, hash) = (self.group.state().timers().clone(), topic.map(topic_hash));
        let wanted = |entry: &TimerEntry| {
            hash.is_none_or(|hash| entry.topic_hash == hash) && state.is_pending(entry.key)
        };
        let entries = self.group.timers().due(state.watermark(), u64::MAX, max, wanted);
        let entries = entries.map_err(|error| BrokerError::Unreadable(error.to_string()))?;
        let found = entries.iter().filter_map(|entry| self.read_pending(entry));
        Ok(found.filter(|timer| topic.is_none_or(|topic| timer.topic == topic)).collect())
    }

    /// Reads a message from the log; none where retention has dropped it since, or where it cannot be read now.
    fn read_pending(&self, entry: &TimerEntry) -> Option<PendingTimer> {
        let bytes = self.group.log().bytes(entry.key.position, entry.bytes as usize).ok()?;
        let message = MessageView::parse(&bytes).ok()?;
        if message.topic() != parked::TOPIC || parked::key(&message) != entry.key {
            return None;
        }
        let property = |name| message.property(name).unwrap_or_default().to_owned();
        let (topic, unique_key) = (parked::real_topic(&message)?, property(UNIQUE_KEY));
        let recall_handle = match names::is_retry_topic(topic) {
            true => String::new(),
            false => self.recall_handle(topic, unique_key.as_bytes(), entry.key.due_ms),
        };
        Some(PendingTimer {
            topic: topic.to_owned(),
            queue: message.queue_id(),
            due_ms: entry.key.due_ms,
            stored_ms: message.store_timestamp(),
            position: entry.key.position,
            bytes: entry.bytes,
            reconsume_times: message.reconsume_times(),
            unique_key,
            keys: property(KEYS),
            tag: property(TAGS),
            recall_handle,
        })
    }
}
