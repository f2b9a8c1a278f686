//! Topics and groups as admin tools list them: all topics 21, one topic 351, all groups 201, one group 352.
//!
//! From what is applied on this node; what is not there, the leader is asked for. Changing them: `topics.rs`, `groups.rs`.

use std::collections::BTreeMap;
use std::sync::Arc;

use folio_broker::broker::Broker;
use folio_broker::clock::now_ms;
use folio_broker::error::BrokerError;
use folio_protocol::body::{
    self, BodyError, DataVersion, SubscriptionGroupConfig, SubscriptionGroupTable, TopicConfig,
    TopicConfigTable,
};
use folio_protocol::code::ResponseCode;
use folio_protocol::header::{GetGroupConfigHeader, GetTopicConfigHeader, Header};
use folio_state::{ConsumerGroup, Topic};
use serde::Serialize;

use super::absent;
use super::answers::json;
use super::retry_policy;
use crate::error::ServerError;
use crate::remoting::Remoting;
use crate::request::Request;

/// 21. Built-in topics are listed with the created ones, as RocketMQ does.
pub(crate) fn all_topics(remoting: &Arc<Remoting>, request: Request) {
    let broker = &remoting.broker;
    let topics = broker.topics().into_iter().map(|topic| (topic.name.clone(), topic_config(&topic)));
    let topics: BTreeMap<String, TopicConfig> = topics.collect();
    let total = topics.len();
    let table = TopicConfigTable { data_version: version(broker), topic_config_table: topics };
    table_answer(request, "totalTopicNum", total, &table);
}

/// 351.
pub(crate) fn one_topic(remoting: &Arc<Remoting>, request: Request) {
    let name = match GetTopicConfigHeader::from_ext(&request.frame.ext) {
        Ok(header) => header.topic,
        Err(error) => return request.reply.fail(error),
    };
    let wanted = name.clone();
    let find = move |broker: &Broker| broker.topic(&wanted);
    absent::find(remoting, request, find, move |_, request, topic| match topic {
        Some(topic) => json(request, &topic_config(&topic)),
        None => request.reply.fail(BrokerError::TopicNotExist(name.to_string())),
    });
}

/// 201.
pub(crate) fn all_groups(remoting: &Arc<Remoting>, request: Request) {
    let broker = &remoting.broker;
    let groups = broker.consumer_groups().into_iter().map(|group| (group.name.clone(), group_config(&group)));
    let groups: BTreeMap<String, SubscriptionGroupConfig> = groups.collect();
    let total = groups.len();
    let table = SubscriptionGroupTable {
        data_version: version(broker),
        forbidden_table: BTreeMap::new(),
        subscription_group_table: groups,
    };
    table_answer(request, "totalGroupNum", total, &table);
}

/// 352.
pub(crate) fn one_group(remoting: &Arc<Remoting>, request: Request) {
    let name = match GetGroupConfigHeader::from_ext(&request.frame.ext) {
        Ok(header) => header.group,
        Err(error) => return request.reply.fail(error),
    };
    let wanted = name.clone();
    let find = move |broker: &Broker| broker.consumer_group(&wanted);
    absent::find(remoting, request, find, move |_, request, group| match group {
        Some(group) => json(request, &group_config(&group)),
        None => request.reply.fail(BrokerError::GroupNotExist(name.to_string())),
    });
}

/// Grows with every change: it counts what was applied, which is at least what changed.
fn version(broker: &Broker) -> DataVersion {
    let status = broker.group.status();
    DataVersion {
        counter: status.applied.cast_signed(),
        state_version: status.term.cast_signed(),
        timestamp: now_ms().cast_signed(),
    }
}

fn table_answer(request: Request, count_key: &str, count: usize, table: &impl Serialize) {
    match body::encode(table) {
        Ok(body) => {
            let mut frame = request.reply.frame(ResponseCode::Success).with_body(body);
            frame.ext.insert_display(count_key, count);
            request.reply.send(frame);
        }
        Err(BodyError { reason }) => request.reply.fail(ServerError::Internal(reason)),
    }
}

fn topic_config(topic: &Topic) -> TopicConfig {
    TopicConfig {
        attributes: topic.attributes.clone(),
        order: topic.order,
        perm: topic.perm,
        read_queue_nums: topic.read_queues,
        topic_filter_type: topic.filter_type.clone(),
        topic_name: topic.name.clone(),
        topic_sys_flag: signed(topic.sys_flag),
        write_queue_nums: topic.write_queues,
    }
}

fn group_config(group: &ConsumerGroup) -> SubscriptionGroupConfig {
    let mut attributes = group.attributes.clone();
    let group_retry_policy = retry_policy::take(&mut attributes);
    SubscriptionGroupConfig {
        attributes,
        consume_broadcast_enable: group.consume_broadcast_enable,
        consume_enable: group.consume_enable,
        consume_from_min_enable: group.consume_from_min_enable,
        consume_message_orderly: group.consume_message_orderly,
        consume_timeout_minute: signed(group.consume_timeout_minutes),
        group_name: group.name.clone(),
        group_retry_policy,
        group_sys_flag: signed(group.sys_flag),
        notify_consumer_ids_changed_enable: group.notify_consumer_ids_changed,
        retry_max_times: signed(group.retry_max),
        retry_queue_nums: signed(group.retry_queues),
        ..SubscriptionGroupConfig::default()
    }
}

/// Java's ints; what was stored came from one.
fn signed(value: u32) -> i32 {
    i32::try_from(value).unwrap_or(i32::MAX)
}
