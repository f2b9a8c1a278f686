//! JSON bodies of requests and responses, one file per noun.
//!
//! Written as standard JSON (integer keys quoted, every primitive field present), which every
//! client reads. Read with the tolerances old clients need: fields may be missing, enums may be
//! names or ordinals, numbers may be quoted.

mod client;
mod cluster;
mod group;
mod heartbeat;
mod lenient;
mod lock;
mod pop;
mod queue;
mod route;
mod stats;
mod subscription;
mod timer;
mod topic;

use bytes::Bytes;
use serde::Serialize;
use serde::de::DeserializeOwned;

pub use client::{CheckClientConfig, ConsumerList};
pub use cluster::ClusterInfo;
pub use group::{
    CustomizedRetryPolicy, ExponentialRetryPolicy, GroupRetryPolicy, RetryPolicyKind,
    SubscriptionGroupConfig, SubscriptionGroupList, SubscriptionGroupTable,
};
pub use heartbeat::{ConsumeFromWhere, ConsumeType, ConsumerData, HeartbeatData, MessageModel, ProducerData};
pub use lock::{LockBatchRequest, LockBatchResponse};
pub use pop::{
    BatchAck, BatchAckMessages, MessageQueueAssignment, MessageRequestMode, OffsetSet, QueryAssignment,
    QueryAssignmentResult, SetMessageRequestMode,
};
pub use queue::MessageQueue;
pub use route::{BrokerData, QueueData, TopicRouteData};
pub use stats::{
    Connection, ConsumeStats, ConsumerConnection, GroupList, GroupSubscription, OffsetWrapper,
    ProducerConnection, TopicOffset, TopicStats,
};
pub use subscription::{SUB_ALL, SubscriptionData, TAG};
pub use timer::{TimerMetric, TimerMetrics};
pub use topic::{DataVersion, TopicConfig, TopicConfigList, TopicConfigTable, TopicList};

/// A body that is not the JSON it should be. Refused: the client can mend it.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("the body is not the expected JSON: {reason}")]
pub struct BodyError {
    /// What the parser says, with line and column.
    pub reason: String,
}

/// Writes a body.
pub fn encode<T: Serialize>(body: &T) -> Result<Bytes, BodyError> {
    match serde_json::to_vec(body) {
        Ok(bytes) => Ok(bytes.into()),
        Err(error) => Err(BodyError { reason: error.to_string() }),
    }
}

/// Reads a body of a server. A client's: [`decode_request`].
pub fn decode<T: DeserializeOwned>(bytes: &[u8]) -> Result<T, BodyError> {
    serde_json::from_slice(bytes).map_err(|error| BodyError { reason: error.to_string() })
}

/// Reads a client's body, which may have so many JSON objects: each has a size in memory however short it is written.
pub fn decode_request<T: DeserializeOwned>(bytes: &[u8], objects_max: usize) -> Result<T, BodyError> {
    let objects = bytes.iter().filter(|byte| **byte == b'{').count();
    if objects > objects_max {
        let reason = format!("{objects} objects in the body, the limit is {objects_max}");
        return Err(BodyError { reason });
    }
    decode(bytes)
}

#[cfg(test)]
mod tests;
