//! Open transactions, as operators see them.

use std::sync::Arc;

use folio_protocol::half;
use folio_protocol::ids::OffsetMessageId;
use folio_protocol::limits::MESSAGE_BYTES_MAX;
use folio_protocol::message::MessageView;
use folio_protocol::properties::{KEYS, UNIQUE_KEY};
use folio_state::sections::transactions::OpenTransaction;
use serde::{Deserialize, Serialize};

use crate::broker::Broker;
use crate::error::BrokerError;

/// Transactions of one list at most.
const LIST_MAX: usize = 1_000;

/// A transaction that is open.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct ListedTransaction {
    /// Its producer's group.
    pub group: String,
    /// Its id: where the half message lay that the producer sent.
    pub id: u64,
    /// Where it lies now.
    pub position: u64,
    /// Bytes that it takes there.
    pub bytes: u32,
    /// When it was stored first, ms since the epoch.
    pub stored_ms: u64,
    /// How often the producer was asked.
    pub checks: u32,
    /// When it was asked last, ms since the epoch; 0 for never.
    pub checked_ms: u64,
    /// The topic that the message is for; empty where it cannot be read now.
    pub topic: String,
    /// Its queue there.
    pub queue: u32,
    /// Its unique key.
    pub unique_key: String,
    /// Its keys.
    pub keys: String,
    /// The id by which the half message is looked at.
    pub message_id: String,
}

impl Broker {
    /// The transactions that have been open for longest, of one producer group or of all; `max` and [`LIST_MAX`] at most. The leader's to
    /// answer.
    pub async fn list_transactions(
        self: &Arc<Self>,
        group: Option<String>,
        max: usize,
    ) -> Result<Vec<ListedTransaction>, BrokerError> {
        let _memory = self.node.reads.take(MESSAGE_BYTES_MAX).await;
        self.apart(move |broker| Ok(broker.find_open(group.as_deref(), max.min(LIST_MAX)))).await
    }

    /// Blocks on the disk.
    fn find_open(&self, group: Option<&str>, max: usize) -> Vec<ListedTransaction> {
        let transactions = self.group.state().transactions().clone();
        let groups = transactions.groups().filter(|known| group.is_none_or(|group| group == *known));
        let mut open: Vec<(&str, u64, OpenTransaction)> = groups
            .flat_map(|group| transactions.of(group).take(max).map(move |(id, open)| (group, id, *open)))
            .collect();
        open.sort_unstable_by_key(|(_, id, _)| *id);
        open.truncate(max);
        open.into_iter().map(|(group, id, open)| self.listed(group, id, &open)).collect()
    }

    fn listed(&self, group: &str, id: u64, open: &OpenTransaction) -> ListedTransaction {
        let bytes = self.group.log().bytes(open.position, open.bytes as usize).ok();
        let half = bytes.as_ref().and_then(|bytes| MessageView::parse(bytes).ok());
        // It may have been stored further on, or ended, since.
        let half = half.filter(|half| half.topic() == half::TOPIC && half::transaction(half) == id);
        let property =
            |name| half.as_ref().and_then(|half| half.property(name)).unwrap_or_default().to_owned();
        let message_id = OffsetMessageId { host: self.identity.store_host, position: open.position };
        ListedTransaction {
            group: group.to_owned(),
            id,
            position: open.position,
            bytes: open.bytes,
            stored_ms: open.stored_ms,
            checks: open.checks,
            checked_ms: open.checked_ms,
            topic: half.as_ref().and_then(half::real_topic).unwrap_or_default().to_owned(),
            queue: half.as_ref().and_then(half::real_queue).unwrap_or_default(),
            unique_key: property(UNIQUE_KEY),
            keys: property(KEYS),
            message_id: message_id.to_string(),
        }
    }
}
