//! Consumer groups: create or change (200, 225), delete (207).
//!
//! Not here: groups that come into being with their first heartbeat, and who is in a group right now
//! (`clients`).

use std::sync::Arc;

use folio_protocol::body::{SubscriptionGroupConfig, SubscriptionGroupList};
use folio_protocol::header::{DeleteGroupHeader, Header};
use folio_protocol::limits::BODY_OBJECTS_MAX;
use folio_state::ConsumerGroup;

use super::answers::{decode, when_done};
use super::retry_policy;
use crate::error::ServerError;
use crate::remoting::Remoting;
use crate::request::Request;

/// 200: creates or changes one group.
pub(crate) fn update(remoting: &Arc<Remoting>, request: Request) {
    let config = decode(&request.frame.body, BODY_OBJECTS_MAX);
    let group = config.and_then(|config: SubscriptionGroupConfig| group_of(&config));
    change(remoting, request, group.map(|group| vec![group]));
}

/// 225: creates or changes several groups; all are checked before the first is changed.
pub(crate) fn update_list(remoting: &Arc<Remoting>, request: Request) {
    let list = decode(&request.frame.body, BODY_OBJECTS_MAX);
    let groups = |list: SubscriptionGroupList| list.group_config_list.iter().map(group_of).collect();
    change(remoting, request, list.and_then(groups));
}

fn change(remoting: &Arc<Remoting>, request: Request, groups: Result<Vec<ConsumerGroup>, ServerError>) {
    match groups {
        Ok(groups) => {
            let (broker, is_operator) = (remoting.broker.clone(), request.is_operator);
            when_done(request, async move { broker.change_groups(groups, is_operator).await });
        }
        Err(error) => request.reply.fail(error),
    }
}

/// 207: deletes a group. A group that does not exist is deleted too, as upstream.
pub(crate) fn delete(remoting: &Arc<Remoting>, request: Request) {
    match DeleteGroupHeader::from_ext(&request.frame.ext) {
        Ok(header) => {
            let (name, clean_offsets) = (header.group_name.to_string(), header.clean_offset);
            let (broker, is_operator) = (remoting.broker.clone(), request.is_operator);
            when_done(request, async move { broker.delete_group(name, clean_offsets, is_operator).await });
        }
        Err(error) => request.reply.fail(error),
    }
}

fn group_of(config: &SubscriptionGroupConfig) -> Result<ConsumerGroup, ServerError> {
    // RocketMQ reads "none" of anything below one.
    let unsigned = |number: i32| u32::try_from(number).unwrap_or(0);
    let mut attributes = config.attributes.clone();
    retry_policy::keep(&config.group_retry_policy, &mut attributes)?;
    Ok(ConsumerGroup {
        consume_enable: config.consume_enable,
        consume_from_min_enable: config.consume_from_min_enable,
        consume_broadcast_enable: config.consume_broadcast_enable,
        consume_message_orderly: config.consume_message_orderly,
        retry_queues: unsigned(config.retry_queue_nums),
        retry_max: unsigned(config.retry_max_times),
        consume_timeout_minutes: unsigned(config.consume_timeout_minute),
        sys_flag: unsigned(config.group_sys_flag),
        notify_consumer_ids_changed: config.notify_consumer_ids_changed_enable,
        attributes,
        ..ConsumerGroup::new(config.group_name.as_str())
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_config_becomes_a_group() {
        let json = br#"{"groupName":"g","retryMaxTimes":3,"consumeEnable":false}"#;
        let config = decode(json, BODY_OBJECTS_MAX).expect("a config");
        let group = group_of(&config).expect("a group");
        assert_eq!((group.name.as_str(), group.retry_max, group.consume_enable), ("g", 3, false));
        assert_eq!(group.retry_queues, 1, "what is missing has RocketMQ's default");
        assert!(decode::<SubscriptionGroupConfig>(b"not json", BODY_OBJECTS_MAX).is_err());
    }

    #[test]
    fn negative_numbers_mean_none() {
        let config = SubscriptionGroupConfig {
            group_name: "g".to_owned(),
            retry_queue_nums: -1,
            retry_max_times: -1,
            ..SubscriptionGroupConfig::default()
        };
        let group = group_of(&config).expect("a group");
        assert_eq!((group.retry_queues, group.retry_max), (0, 0));
    }
}
