//! Consumer group configs: 200, 201, 225, 352.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

use super::lenient::{list, map, or_default, wire_enums};
use super::topic::DataVersion;
use crate::limits::{ATTRIBUTES_MAX, CONFIGS_MAX, RETRY_TIMES_MAX};

/// How a consumer group is set up on one broker.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct SubscriptionGroupConfig {
    /// Attributes.
    #[serde(deserialize_with = "map::<_, _, ATTRIBUTES_MAX>")]
    pub attributes: BTreeMap<String, String>,
    /// Where it consumes.
    pub broker_id: i64,
    /// Whether it may broadcast.
    pub consume_broadcast_enable: bool,
    /// Whether it may consume.
    pub consume_enable: bool,
    /// Whether it may start at the first message.
    pub consume_from_min_enable: bool,
    /// Whether it consumes in order.
    pub consume_message_orderly: bool,
    /// How long a message may take.
    pub consume_timeout_minute: i32,
    /// Its name.
    pub group_name: String,
    /// How long retries wait.
    #[serde(deserialize_with = "or_default")]
    pub group_retry_policy: GroupRetryPolicy,
    /// Its system flag.
    pub group_sys_flag: i32,
    /// Whether members hear of changes.
    pub notify_consumer_ids_changed_enable: bool,
    /// How often a message is retried before it is a dead letter.
    pub retry_max_times: i32,
    /// Queues of the retry topic; none: failures are dropped.
    pub retry_queue_nums: i32,
    /// Where it consumes when it lags.
    pub which_broker_when_consume_slowly: i64,
}

impl Default for SubscriptionGroupConfig {
    /// As RocketMQ's.
    fn default() -> Self {
        Self {
            attributes: BTreeMap::new(),
            broker_id: 0,
            consume_broadcast_enable: true,
            consume_enable: true,
            consume_from_min_enable: true,
            consume_message_orderly: false,
            consume_timeout_minute: 15,
            group_name: String::new(),
            group_retry_policy: GroupRetryPolicy::default(),
            group_sys_flag: 0,
            notify_consumer_ids_changed_enable: true,
            retry_max_times: 16,
            retry_queue_nums: 1,
            which_broker_when_consume_slowly: 1,
        }
    }
}

/// How long retries wait, for gRPC clients.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct GroupRetryPolicy {
    /// Which of the two counts.
    #[serde(rename = "type")]
    pub kind: RetryPolicyKind,
    /// Doubling times.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub exponential_retry_policy: Option<ExponentialRetryPolicy>,
    /// Listed times.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub customized_retry_policy: Option<CustomizedRetryPolicy>,
}

wire_enums! {
    /// Which retry policy counts.
    RetryPolicyKind, default Customized {
        /// Doubling times.
        Exponential = "EXPONENTIAL";
        /// Listed times.
        Customized = "CUSTOMIZED";
    }
}

/// Doubling times, in ms.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct ExponentialRetryPolicy {
    /// The first.
    pub initial: i64,
    /// The longest.
    pub max: i64,
    /// From one to the next.
    pub multiplier: i64,
}

impl Default for ExponentialRetryPolicy {
    /// As RocketMQ's: 5 s, doubling, up to 2 h.
    fn default() -> Self {
        Self { initial: 5_000, max: 7_200_000, multiplier: 2 }
    }
}

/// Listed times, in ms.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct CustomizedRetryPolicy {
    /// One for each retry; the last one repeats.
    #[serde(deserialize_with = "list::<_, _, RETRY_TIMES_MAX>")]
    pub next: Vec<i64>,
}

impl Default for CustomizedRetryPolicy {
    /// As RocketMQ's: the eighteen delay levels.
    fn default() -> Self {
        const SECONDS: [i64; 18] =
            [1, 5, 10, 30, 60, 120, 180, 240, 300, 360, 420, 480, 540, 600, 1_200, 1_800, 3_600, 7_200];
        Self { next: SECONDS.iter().map(|seconds| seconds * 1_000).collect() }
    }
}

/// 225: several groups at once.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct SubscriptionGroupList {
    /// Their configs.
    #[serde(deserialize_with = "list::<_, _, CONFIGS_MAX>")]
    pub group_config_list: Vec<SubscriptionGroupConfig>,
}

/// 201: all groups of a broker.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct SubscriptionGroupTable {
    /// When they changed last.
    pub data_version: DataVersion,
    /// Forbidden bits by group and topic.
    #[serde(deserialize_with = "or_default")]
    pub forbidden_table: BTreeMap<String, BTreeMap<String, i32>>,
    /// Configs by name.
    #[serde(deserialize_with = "or_default")]
    pub subscription_group_table: BTreeMap<String, SubscriptionGroupConfig>,
}
