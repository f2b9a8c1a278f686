//! Topics and groups as admin tools list them: all topics 21, one topic 351, all groups 201, one group 352.
//!
//! From what is applied on this node; what is not there, the leader is asked for. Changing them: `topics.rs`, `groups.rs`.

use std::collections::BTreeMap;
use std::sync::Arc;

use folio_broker::system;
use folio_protocol::body::{
    self, BodyError, DataVersion, SubscriptionGroupConfig, SubscriptionGroupTable, TopicConfig,
    TopicConfigTable,
};
use folio_protocol::code::ResponseCode;
use folio_protocol::header::{GetGroupConfigHeader, GetTopicConfigHeader, Header};
use folio_state::{ConsumerGroup, Topic};
use serde::Serialize;

use crate::broker::{Broker, now_ms};
use crate::error::ServerError;
use crate::handlers::absent;
use crate::request::Request;

/// 21. Built-in topics are listed with the created ones, as RocketMQ does.
pub(crate) fn all_topics(broker: &Arc<Broker>, request: Request) {
    let built_in = system::names(&broker.identity);
    let built_in = built_in.iter().filter_map(|name| system::topic(name, &broker.identity));
    let mut topics: BTreeMap<String, TopicConfig> =
        built_in.map(|topic| (topic.name.clone(), topic_config(&topic))).collect();
    topics.extend(broker.group.state().topics().map(|topic| (topic.name.clone(), topic_config(topic))));
    let total = topics.len();
    let table = TopicConfigTable { data_version: version(broker), topic_config_table: topics };
    table_answer(request, "totalTopicNum", total, &table);
}

/// 351.
pub(crate) fn one_topic(broker: &Arc<Broker>, request: Request) {
    let name = match GetTopicConfigHeader::from_ext(&request.frame.ext) {
        Ok(header) => header.topic,
        Err(error) => return request.reply.fail(error),
    };
    let wanted = name.clone();
    let find = move |broker: &Broker| broker.topic(&wanted);
    absent::find(broker, request, find, move |_, request, topic| match topic {
        Some(topic) => body_answer(request, &topic_config(&topic)),
        None => request.reply.fail(ServerError::TopicNotExist(name.to_string())),
    });
}

/// 201.
pub(crate) fn all_groups(broker: &Arc<Broker>, request: Request) {
    let groups: BTreeMap<String, SubscriptionGroupConfig> =
        broker.group.state().groups().map(|group| (group.name.clone(), group_config(group))).collect();
    let total = groups.len();
    let table = SubscriptionGroupTable {
        data_version: version(broker),
        forbidden_table: BTreeMap::new(),
        subscription_group_table: groups,
    };
    table_answer(request, "totalGroupNum", total, &table);
}

/// 352.
pub(crate) fn one_group(broker: &Arc<Broker>, request: Request) {
    let name = match GetGroupConfigHeader::from_ext(&request.frame.ext) {
        Ok(header) => header.group,
        Err(error) => return request.reply.fail(error),
    };
    let wanted = name.clone();
    let find = move |broker: &Broker| broker.group.state().group(&wanted).map(group_config);
    absent::find(broker, request, find, move |_, request, config| match config {
        Some(config) => body_answer(request, &config),
        None => request.reply.fail(ServerError::GroupNotExist(name.to_string())),
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

fn body_answer(request: Request, body: &impl Serialize) {
    match body::encode(body) {
        Ok(body) => request.reply.body(body),
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
    SubscriptionGroupConfig {
        attributes: group.attributes.clone(),
        consume_broadcast_enable: group.consume_broadcast_enable,
        consume_enable: group.consume_enable,
        consume_from_min_enable: group.consume_from_min_enable,
        consume_message_orderly: group.consume_message_orderly,
        consume_timeout_minute: signed(group.consume_timeout_minutes),
        group_name: group.name.clone(),
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
