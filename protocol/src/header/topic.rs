//! Topics and groups, by admin tools: codes 17, 215 and 216, 207, 351, 352.

use super::header;
use crate::Name;
use crate::body::TopicConfig;
use crate::flags::PermissionBits;
use crate::names;

header! {
    /// 17.
    CreateTopicHeader {
        /// The topic.
        "topic" => topic: Name;
        /// Its template.
        "defaultTopic" => default_topic: Option<Name>;
        /// Queues consumers see.
        "readQueueNums" => read_queue_nums: u32;
        /// Queues producers see.
        "writeQueueNums" => write_queue_nums: u32;
        /// See [`crate::flags::PermissionBits`].
        "perm" => perm: u32;
        /// `SINGLE_TAG` or `MULTI_TAG`.
        "topicFilterType" => topic_filter_type: Option<String>;
        /// Its system flag.
        "topicSysFlag" => topic_sys_flag: i32 = 0;
        /// Whether it is ordered.
        "order" => order: bool = false;
        /// Changes, such as `+message.type=FIFO,-reserve.time`.
        "attributes" => attributes: Option<String>;
        /// Skips checks.
        "force" => force: Option<bool>;
    }
}

impl CreateTopicHeader {
    /// The same number of queues for consumers and producers, and the usual value in every other field.
    pub fn new(topic: impl Into<Name>, queues: u32, perm: PermissionBits) -> CreateTopicHeader {
        CreateTopicHeader {
            topic: topic.into(),
            default_topic: Some(names::AUTO_CREATE_TOPIC.into()),
            read_queue_nums: queues,
            write_queue_nums: queues,
            perm: perm.0,
            topic_filter_type: Some("SINGLE_TAG".to_owned()),
            topic_sys_flag: 0,
            order: false,
            attributes: None,
            force: None,
        }
    }

    /// The config this header asks for, without its attributes, which are changes to the old ones.
    pub fn topic_config(&self) -> TopicConfig {
        TopicConfig {
            topic_name: self.topic.to_string(),
            read_queue_nums: self.read_queue_nums,
            write_queue_nums: self.write_queue_nums,
            perm: self.perm,
            topic_filter_type: self.topic_filter_type.clone().unwrap_or_else(|| "SINGLE_TAG".to_owned()),
            topic_sys_flag: self.topic_sys_flag,
            order: self.order,
            ..TopicConfig::default()
        }
    }
}

header! {
    /// 215, 216.
    DeleteTopicHeader {
        /// The topic.
        "topic" => topic: Name;
        /// Its cluster, for 216.
        "clusterName" => cluster_name: Option<Name>;
    }
}

header! {
    /// 207.
    DeleteGroupHeader {
        /// The group.
        "groupName" => group_name: Name;
        /// Whether its offsets go too.
        "cleanOffset" => clean_offset: bool = false;
    }
}

header! {
    /// 351.
    GetTopicConfigHeader {
        /// The topic.
        "topic" => topic: Name;
        /// Whether a static topic's mapping is wanted.
        "lo" => logical: Option<bool>;
    }
}

header! {
    /// 352.
    GetGroupConfigHeader {
        /// The group.
        "group" => group: Name;
    }
}
