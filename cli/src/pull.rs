//! Pulls as the command line makes them.

use folio_protocol::Name;
use folio_protocol::body::SUB_ALL;
use folio_protocol::flags::pull_sys_flag;
use folio_protocol::header::PullMessageHeader;

/// The pull of all messages of a queue from an offset on, a number of them at most, that does not wait and commits nothing.
pub(crate) fn pull_header(
    consumer_group: Name,
    topic: Name,
    queue_id: i32,
    (queue_offset, max_msg_nums): (i64, i32),
) -> PullMessageHeader {
    PullMessageHeader {
        consumer_group,
        topic,
        queue_id,
        queue_offset,
        max_msg_nums,
        sys_flag: pull_sys_flag::SUBSCRIPTION,
        commit_offset: 0,
        suspend_timeout_millis: 0,
        subscription: Some(SUB_ALL.to_owned()),
        sub_version: 0,
        expression_type: Some("TAG".to_owned()),
        max_msg_bytes: None,
        request_source: None,
        proxy_forward_client_id: None,
    }
}
