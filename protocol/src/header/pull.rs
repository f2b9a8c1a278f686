//! PULL: code 11, and 361 from lite pull consumers.

use super::header;
use crate::Name;

header! {
    /// 11, 361.
    PullMessageHeader {
        /// Who pulls.
        "consumerGroup" => consumer_group: Name;
        /// From which topic.
        "topic" => topic: Name;
        /// From which queue.
        "queueId" => queue_id: i32;
        /// From which offset on.
        "queueOffset" => queue_offset: i64;
        /// At most how many.
        "maxMsgNums" => max_msg_nums: i32;
        /// See [`crate::flags::pull_sys_flag`].
        "sysFlag" => sys_flag: i32;
        /// The consumer offset to store, if the flag says so.
        "commitOffset" => commit_offset: i64 = 0;
        /// How long the server may hold the request.
        "suspendTimeoutMillis" => suspend_timeout_millis: i64 = 0;
        /// The filter expression, if the flag says so.
        "subscription" => subscription: Option<String>;
        /// The subscription's version.
        "subVersion" => sub_version: i64 = 0;
        /// `TAG` or `SQL92`.
        "expressionType" => expression_type: Option<String>;
        /// At most how many bytes.
        "maxMsgBytes" => max_msg_bytes: Option<i32>;
        /// Set by proxies.
        "requestSource" => request_source: Option<i32>;
        /// Set by proxies (the misspelling is the wire's).
        "proxyFrowardClientId" => proxy_forward_client_id: Option<String>;
    }
}

header! {
    /// The answer to a PULL. The first four are needed with every code.
    PullMessageResponseHeader {
        /// 0 for the leader.
        "suggestWhichBrokerId" => suggest_which_broker_id: i64;
        /// Where to pull next.
        "nextBeginOffset" => next_begin_offset: i64;
        /// The queue's first offset.
        "minOffset" => min_offset: i64;
        /// The offset after the queue's last.
        "maxOffset" => max_offset: i64;
        /// For static topics.
        "offsetDelta" => offset_delta: Option<i64>;
        /// The topic's system flag.
        "topicSysFlag" => topic_sys_flag: Option<i32>;
        /// The group's system flag.
        "groupSysFlag" => group_sys_flag: Option<i32>;
        /// Why it is forbidden: 1 broker, 2 group, 3 topic.
        "forbiddenType" => forbidden_type: Option<i32>;
    }
}
