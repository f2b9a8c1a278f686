//! Where a topic's queues are: the answer to 105.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

use super::lenient::or_default;

/// A topic's route.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct TopicRouteData {
    /// `brokerA:4;brokerB:4` for an ordered topic.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub order_topic_conf: Option<String>,
    /// Queues, per broker.
    #[serde(deserialize_with = "or_default")]
    pub queue_datas: Vec<QueueData>,
    /// The brokers.
    #[serde(deserialize_with = "or_default")]
    pub broker_datas: Vec<BrokerData>,
    /// Obsolete, but some clients need it to be an object.
    #[serde(deserialize_with = "or_default")]
    pub filter_server_table: BTreeMap<String, Vec<String>>,
}

/// How many queues a topic has on one broker.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct QueueData {
    /// The broker.
    pub broker_name: String,
    /// Queues consumers see.
    pub read_queue_nums: u32,
    /// Queues producers see.
    pub write_queue_nums: u32,
    /// See [`crate::flags::PermissionBits`].
    pub perm: u32,
    /// The topic's system flag.
    pub topic_sys_flag: i32,
}

/// One broker's addresses.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct BrokerData {
    /// The cluster it belongs to.
    pub cluster: String,
    /// Its name.
    pub broker_name: String,
    /// `ip:port` by broker id; 0 is the leader.
    #[serde(deserialize_with = "or_default")]
    pub broker_addrs: BTreeMap<i64, String>,
    /// Its zone.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub zone_name: Option<String>,
    /// Whether a follower may act as the leader.
    pub enable_acting_master: bool,
}
