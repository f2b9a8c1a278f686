//! Locks of orderly consumers: 41 and 42.

use serde::{Deserialize, Serialize};

use super::lenient::{list, or_default};
use super::queue::MessageQueue;
use crate::limits::LOCK_QUEUES_MAX;

/// Locks, or unlocks, queues for a client.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct LockBatchRequest {
    /// The group the lock counts for.
    pub consumer_group: String,
    /// Who gets it.
    pub client_id: String,
    /// Whether other brokers are left alone.
    pub only_this_broker: bool,
    /// The queues.
    #[serde(deserialize_with = "list::<_, _, LOCK_QUEUES_MAX>")]
    pub mq_set: Vec<MessageQueue>,
}

/// Which queues the client now has.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct LockBatchResponse {
    /// The queues.
    #[serde(rename = "lockOKMQSet", deserialize_with = "or_default")]
    pub lock_ok_mq_set: Vec<MessageQueue>,
}
