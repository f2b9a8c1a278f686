//! Topic configs and lists: 17, 18, 21, 206, 351.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

use super::lenient::{list, map, or_default};
use crate::flags::PermissionBits;
use crate::limits::{ATTRIBUTES_MAX, CONFIGS_MAX};

/// How a topic is set up on one broker.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct TopicConfig {
    /// Attributes such as `message.type`.
    #[serde(deserialize_with = "map::<_, _, ATTRIBUTES_MAX>")]
    pub attributes: BTreeMap<String, String>,
    /// Whether it is ordered.
    pub order: bool,
    /// See [`PermissionBits`].
    pub perm: u32,
    /// Queues consumers see.
    pub read_queue_nums: u32,
    /// `SINGLE_TAG` or `MULTI_TAG`.
    pub topic_filter_type: String,
    /// The name.
    pub topic_name: String,
    /// Its system flag.
    pub topic_sys_flag: i32,
    /// Queues producers see.
    pub write_queue_nums: u32,
}

impl Default for TopicConfig {
    /// As RocketMQ's: 16 queues, readable and writable.
    fn default() -> Self {
        Self {
            attributes: BTreeMap::new(),
            order: false,
            perm: PermissionBits::READ_WRITE.0,
            read_queue_nums: 16,
            topic_filter_type: "SINGLE_TAG".to_owned(),
            topic_name: String::new(),
            topic_sys_flag: 0,
            write_queue_nums: 16,
        }
    }
}

/// 18: several topics at once.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct TopicConfigList {
    /// Their configs.
    #[serde(deserialize_with = "list::<_, _, CONFIGS_MAX>")]
    pub topic_config_list: Vec<TopicConfig>,
}

/// 21: all topics of a broker.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct TopicConfigTable {
    /// When they changed last.
    pub data_version: DataVersion,
    /// Configs by name.
    #[serde(deserialize_with = "or_default")]
    pub topic_config_table: BTreeMap<String, TopicConfig>,
}

/// Which version of a table this is.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct DataVersion {
    /// Counts changes.
    pub counter: i64,
    /// Distinguishes reigns of a leader.
    pub state_version: i64,
    /// When it changed, ms.
    pub timestamp: i64,
}

/// Topic names.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct TopicList {
    /// A broker that has them.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub broker_addr: Option<String>,
    /// The names.
    #[serde(deserialize_with = "or_default")]
    pub topic_list: Vec<String>,
}
