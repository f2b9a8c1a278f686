//! Consumer groups: create or change (200, 225), delete (207).
//!
//! Not here: groups that come into being with their first heartbeat, and who is in a group right now
//! (`clients`).

use std::sync::Arc;

use folio_protocol::body::{self, SubscriptionGroupConfig, SubscriptionGroupList};
use folio_protocol::header::{DeleteGroupHeader, Header};
use folio_protocol::limits::BODY_OBJECTS_MAX;
use folio_protocol::names;
use folio_state::{ConsumerGroup, DeleteGroup, PutGroup};

use super::changes::execute;
use crate::admin;
use crate::broker::Broker;
use crate::error::ServerError;
use crate::request::Request;

/// Queues of a group's retry topic at most.
const RETRY_QUEUES_MAX: u32 = 1_024;

/// 200: creates or changes one group.
pub(crate) fn update(broker: &Arc<Broker>, request: Request) {
    let config = decode(&request.frame.body);
    match config.and_then(|config: SubscriptionGroupConfig| changed_group(broker, &config, &request)) {
        Ok(group) => execute(broker, vec![PutGroup(group).into()], request),
        Err(error) => request.reply.fail(error),
    }
}

/// 225: creates or changes several groups; all are checked before the first is changed.
pub(crate) fn update_list(broker: &Arc<Broker>, request: Request) {
    let commands = decode(&request.frame.body).and_then(|list: SubscriptionGroupList| {
        let groups = list.group_config_list.iter().map(|config| changed_group(broker, config, &request));
        groups.map(|group| group.map(|group| PutGroup(group).into())).collect()
    });
    match commands {
        Ok(commands) => execute(broker, commands, request),
        Err(error) => request.reply.fail(error),
    }
}

/// 207: deletes a group. A group that does not exist is deleted too, as upstream.
pub(crate) fn delete(broker: &Arc<Broker>, request: Request) {
    match DeleteGroupHeader::from_ext(&request.frame.ext) {
        Ok(header) => {
            let (name, clean_offsets) = (header.group_name.to_string(), header.clean_offset);
            execute(broker, vec![DeleteGroup { name, clean_offsets }.into()], request);
        }
        Err(error) => request.reply.fail(error),
    }
}

fn decode<T: serde::de::DeserializeOwned>(bytes: &[u8]) -> Result<T, ServerError> {
    body::decode_request(bytes, BODY_OBJECTS_MAX).map_err(|error| ServerError::Body(error.to_string()))
}

/// The group as it shall be, if who asks may change it so.
fn changed_group(
    broker: &Broker,
    config: &SubscriptionGroupConfig,
    request: &Request,
) -> Result<ConsumerGroup, ServerError> {
    let group = group_of(config)?;
    if !request.is_operator {
        admin::check_group_change(broker.group.state().group(&group.name), &group)?;
    }
    Ok(group)
}

fn group_of(config: &SubscriptionGroupConfig) -> Result<ConsumerGroup, ServerError> {
    names::check_group(&config.group_name)?;
    // RocketMQ reads "none" of anything below one.
    let retry_queues = u32::try_from(config.retry_queue_nums).unwrap_or(0);
    if retry_queues > RETRY_QUEUES_MAX {
        return Err(ServerError::InvalidParameter(format!(
            "group[{}] with {retry_queues} retry queues, the limit is {RETRY_QUEUES_MAX}",
            config.group_name
        )));
    }
    Ok(ConsumerGroup {
        consume_enable: config.consume_enable,
        consume_from_min_enable: config.consume_from_min_enable,
        consume_broadcast_enable: config.consume_broadcast_enable,
        consume_message_orderly: config.consume_message_orderly,
        retry_queues,
        retry_max: u32::try_from(config.retry_max_times).unwrap_or(0),
        consume_timeout_minutes: u32::try_from(config.consume_timeout_minute).unwrap_or(0),
        sys_flag: u32::try_from(config.group_sys_flag).unwrap_or(0),
        notify_consumer_ids_changed: config.notify_consumer_ids_changed_enable,
        attributes: config.attributes.clone(),
        ..ConsumerGroup::new(config.group_name.as_str())
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_config_becomes_a_group() {
        let json = br#"{"groupName":"g","retryMaxTimes":3,"consumeEnable":false}"#;
        let group = decode(json).and_then(|config| group_of(&config)).expect("a group");
        assert_eq!((group.name.as_str(), group.retry_max, group.consume_enable), ("g", 3, false));
        assert_eq!(group.retry_queues, 1, "what is missing has RocketMQ's default");
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

    #[test]
    fn illegal_names_and_bodies_are_refused() {
        let named =
            |name: &str| SubscriptionGroupConfig { group_name: name.to_owned(), ..Default::default() };
        for name in ["", "a b", &"g".repeat(121)] {
            assert!(group_of(&named(name)).is_err(), "{name:?}");
        }
        assert!(decode::<SubscriptionGroupConfig>(b"not json").is_err());
        assert!(group_of(&SubscriptionGroupConfig { retry_queue_nums: 1_025, ..named("g") }).is_err());
    }
}
