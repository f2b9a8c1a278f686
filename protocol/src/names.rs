//! Names RocketMQ reserves, and the rules a topic's or group's name must meet.
//!
//! Not here: whether a topic exists; that is the server's knowledge.

use crate::limits::{GROUP_BYTES_MAX, RETRY_TOPIC_BYTES_MAX, TOPIC_BYTES_MAX};

/// Prefix of the topic that holds a group's retries.
pub const RETRY_PREFIX: &str = "%RETRY%";
/// Prefix of the topic that holds a group's dead letters.
pub const DLQ_PREFIX: &str = "%DLQ%";
/// Prefix of light message queues.
pub const LMQ_PREFIX: &str = "%LMQ%";
/// Prefix of a client-side namespace, followed by `name%`.
pub const NAMESPACE_PREFIX: &str = "NS%";
/// Prefix of RocketMQ's own topics.
pub const SYSTEM_TOPIC_PREFIX: &str = "rmq_sys_";
/// Suffix of the topic for replies of request-reply: `<cluster>_REPLY_TOPIC`.
pub const REPLY_TOPIC_SUFFIX: &str = "_REPLY_TOPIC";
/// Prefix of the topics POP upstream keeps its checkpoints in.
pub const REVIVE_LOG_PREFIX: &str = "rmq_sys_REVIVE_LOG_";

/// The template of automatically created topics.
pub const AUTO_CREATE_TOPIC: &str = "TBW102";
/// Where delay levels are parked.
pub const SCHEDULE_TOPIC: &str = "SCHEDULE_TOPIC_XXXX";
/// Where timer messages are parked.
pub const TIMER_TOPIC: &str = "rmq_sys_wheel_timer";
/// Where half messages wait.
pub const HALF_TOPIC: &str = "RMQ_SYS_TRANS_HALF_TOPIC";
/// Where the ends of transactions are noted.
pub const HALF_OP_TOPIC: &str = "RMQ_SYS_TRANS_OP_HALF_TOPIC";
/// Where half messages go whose producer never answered.
pub const TRANSACTION_CHECK_MAX_TOPIC: &str = "TRANS_CHECK_MAX_TIME_TOPIC";
/// Message traces.
pub const TRACE_TOPIC: &str = "RMQ_SYS_TRACE_TOPIC";
/// A test topic RocketMQ always has.
pub const SELF_TEST_TOPIC: &str = "SELF_TEST_TOPIC";
/// Obsolete, still reserved.
pub const OFFSET_MOVED_TOPIC: &str = "OFFSET_MOVED_EVENT";
/// The topic of RocketMQ's own benchmarks.
pub const BENCHMARK_TOPIC: &str = "BenchmarkTest";
/// Prefix of the topic a broker keeps its group's membership in.
pub const SYNC_BROKER_MEMBER_PREFIX: &str = "rmq_sys_SYNC_BROKER_MEMBER_";

/// The group of the admin tools.
pub const TOOLS_GROUP: &str = "TOOLS_CONSUMER";
/// The group that consumes half messages upstream.
pub const TRANSACTION_GROUP: &str = "CID_RMQ_SYS_TRANS";
/// The producer group clients use for their own requests.
pub const CLIENT_INNER_PRODUCER_GROUP: &str = "CLIENT_INNER_PRODUCER";

/// Groups RocketMQ creates for itself.
pub const SYSTEM_GROUPS: [&str; 9] = [
    TOOLS_GROUP,
    "FILTERSRV_CONSUMER",
    "SELF_TEST_C_GROUP",
    "SELF_TEST_P_GROUP",
    "CID_ONS-HTTP-PROXY",
    "CID_ONSAPI_OWNER",
    "CID_ONSAPI_PULL",
    "CID_ONSAPI_PERMISSION",
    TRANSACTION_GROUP,
];

/// Topics that always exist and that no user may delete or create.
pub const SYSTEM_TOPICS: [&str; 9] = [
    AUTO_CREATE_TOPIC,
    SCHEDULE_TOPIC,
    BENCHMARK_TOPIC,
    HALF_TOPIC,
    TRACE_TOPIC,
    HALF_OP_TOPIC,
    TRANSACTION_CHECK_MAX_TOPIC,
    SELF_TEST_TOPIC,
    OFFSET_MOVED_TOPIC,
];

/// Topics a client may not send to.
pub const NOT_SENDABLE_TOPICS: [&str; 6] = [
    SCHEDULE_TOPIC,
    HALF_TOPIC,
    HALF_OP_TOPIC,
    TRANSACTION_CHECK_MAX_TOPIC,
    SELF_TEST_TOPIC,
    OFFSET_MOVED_TOPIC,
];

/// Whether `topic` is one of RocketMQ's own.
pub fn is_system_topic(topic: &str) -> bool {
    topic.starts_with(SYSTEM_TOPIC_PREFIX) || SYSTEM_TOPICS.contains(&topic)
}

/// Whether clients may send to `topic`.
pub fn is_sendable_topic(topic: &str) -> bool {
    !NOT_SENDABLE_TOPICS.contains(&topic)
}

/// Whether `group` is one of RocketMQ's own.
pub fn is_system_group(group: &str) -> bool {
    group.starts_with("CID_RMQ_SYS_") || SYSTEM_GROUPS.contains(&group)
}

/// Whether `topic` holds a group's retries.
pub fn is_retry_topic(topic: &str) -> bool {
    topic.starts_with(RETRY_PREFIX)
}

/// Whether `topic` holds a group's dead letters.
pub fn is_dlq_topic(topic: &str) -> bool {
    topic.starts_with(DLQ_PREFIX)
}

/// The topic of a group's retries.
pub fn retry_topic(group: &str) -> String {
    format!("{RETRY_PREFIX}{group}")
}

/// The topic of a group's dead letters.
pub fn dlq_topic(group: &str) -> String {
    format!("{DLQ_PREFIX}{group}")
}

/// The group a `%RETRY%` topic belongs to.
pub fn group_of_retry_topic(topic: &str) -> Option<&str> {
    topic.strip_prefix(RETRY_PREFIX)
}

/// The group a `%DLQ%` topic belongs to.
pub fn group_of_dlq_topic(topic: &str) -> Option<&str> {
    topic.strip_prefix(DLQ_PREFIX)
}

/// Why a name was refused. Refused: the caller can mend it.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum NameError {
    /// Nothing but blanks.
    #[error("the specified {kind} is blank")]
    Blank {
        /// `topic` or `group`.
        kind: &'static str,
    },
    /// A character outside `^[%|a-zA-Z0-9_-]+$`.
    #[error("the specified {kind} contains illegal characters, allowing only ^[%|a-zA-Z0-9_-]+$")]
    Character {
        /// `topic` or `group`.
        kind: &'static str,
    },
    /// Too long.
    #[error("the specified {kind} is longer than {kind} max length: {max}")]
    Length {
        /// `topic` or `group`.
        kind: &'static str,
        /// The longest that is taken.
        max: usize,
    },
}

/// Checks a topic's name by RocketMQ's rules; retry and dead letter topics may be longer.
pub fn check_topic(topic: &str) -> Result<(), NameError> {
    let max =
        if is_retry_topic(topic) || is_dlq_topic(topic) { RETRY_TOPIC_BYTES_MAX } else { TOPIC_BYTES_MAX };
    check("topic", topic, max)
}

/// Checks a group's name by RocketMQ's rules.
pub fn check_group(group: &str) -> Result<(), NameError> {
    check("group", group, GROUP_BYTES_MAX)
}

fn check(kind: &'static str, name: &str, max: usize) -> Result<(), NameError> {
    if name.trim().is_empty() {
        return Err(NameError::Blank { kind });
    }
    if !name.bytes().all(is_allowed) {
        return Err(NameError::Character { kind });
    }
    if name.len() > max {
        return Err(NameError::Length { kind, max });
    }
    Ok(())
}

fn is_allowed(byte: u8) -> bool {
    byte.is_ascii_alphanumeric() || [b'%', b'|', b'_', b'-'].contains(&byte)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_of_every_allowed_character_pass() {
        assert_eq!(check_topic("%RETRY%a|B-9_z"), Ok(()));
        assert_eq!(check_group("please_rename-1"), Ok(()));
    }

    #[test]
    fn blank_foreign_and_long_names_are_refused() {
        assert_eq!(check_topic("  "), Err(NameError::Blank { kind: "topic" }));
        assert_eq!(check_topic("a.b"), Err(NameError::Character { kind: "topic" }));
        assert_eq!(check_group("中"), Err(NameError::Character { kind: "group" }));
        assert_eq!(check_topic(&"a".repeat(127)), Ok(()));
        assert_eq!(check_topic(&"a".repeat(128)), Err(NameError::Length { kind: "topic", max: 127 }));
        assert_eq!(check_group(&"a".repeat(121)), Err(NameError::Length { kind: "group", max: 120 }));
    }

    #[test]
    fn a_retry_topic_has_room_for_the_longest_group() {
        let topic = retry_topic(&"g".repeat(GROUP_BYTES_MAX));
        assert_eq!(check_topic(&topic), Ok(()));
        assert_eq!(group_of_retry_topic(&topic).map(str::len), Some(GROUP_BYTES_MAX));
        assert_eq!(check_topic(&dlq_topic(&"g".repeat(GROUP_BYTES_MAX))), Ok(()));
    }

    #[test]
    fn system_topics_are_known_by_name_or_prefix() {
        assert!(is_system_topic("TBW102") && is_system_topic("rmq_sys_wheel_timer"));
        assert!(!is_system_topic("orders"));
        assert!(!is_sendable_topic(HALF_TOPIC) && is_sendable_topic(TRACE_TOPIC));
        assert!(is_system_group(TRANSACTION_GROUP) && !is_system_group("orders"));
    }
}
