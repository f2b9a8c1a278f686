//! A queue's full name.

use serde::{Deserialize, Serialize};

/// A queue: topic, broker (a Raft group of ours), number.
#[derive(Debug, Clone, Default, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct MessageQueue {
    /// The broker's name.
    pub broker_name: String,
    /// The number within topic and broker.
    pub queue_id: i32,
    /// The topic.
    pub topic: String,
}
