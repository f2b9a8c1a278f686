//! What operators ask of queues, groups and clients: what is in a topic 202, who is connected 203 and 204, how far a group has
//! come 208, who consumes what 300, 343 and 345.

use std::sync::Arc;

use folio_broker::clients::ClientInfo;
use folio_broker::statistics::{GroupFigures, TopicFigures};
use folio_protocol::body::{
    Connection, ConsumeStats, ConsumerConnection, GroupList, GroupSubscription, MessageQueue, OffsetWrapper,
    ProducerConnection, TopicList, TopicOffset, TopicStats,
};
use folio_protocol::code::ResponseCode;
use folio_protocol::header::{
    GetConsumeStatsHeader, GetConsumerConnectionsHeader, GetProducerConnectionsHeader, GroupHeader,
    GroupTopicHeader, Header, TopicHeader,
};

use super::answers::{encoded, json};
use crate::remoting::Remoting;
use crate::request::Request;

/// 202: each queue of a topic.
pub(crate) fn topic(remoting: &Arc<Remoting>, request: Request) {
    let topic = match TopicHeader::from_ext(&request.frame.ext) {
        Ok(header) => header.topic.to_string(),
        Err(error) => return request.reply.fail(error),
    };
    let broker = remoting.broker.clone();
    tokio::spawn(async move {
        let body = match broker.topic_figures(topic.clone()).await {
            Ok(figures) => topic_stats(&broker.identity.broker_name, &topic, figures).encode(),
            Err(error) => return request.reply.fail(error),
        };
        encoded(request, body);
    });
}

fn topic_stats(broker: &str, topic: &str, figures: TopicFigures) -> TopicStats {
    let queues = figures.queues.into_iter().map(|queue| {
        let offset = TopicOffset {
            last_update_timestamp: queue.stored_ms,
            max_offset: queue.end,
            min_offset: queue.first,
        };
        (queue_of(broker, topic, queue.queue), offset)
    });
    TopicStats { queues: queues.collect(), put_tps: figures.stored_per_second }
}

/// 208: how far a group has come. Where its consumers have pulled beyond that is not known here: the answer has the offset
/// for both.
pub(crate) fn group(remoting: &Arc<Remoting>, request: Request) {
    let header = match GetConsumeStatsHeader::from_ext(&request.frame.ext) {
        Ok(header) => header,
        Err(error) => return request.reply.fail(error),
    };
    let topic = header.topic.filter(|topic| !topic.is_empty()).map(|topic| topic.to_string());
    let (group, broker) = (header.consumer_group.to_string(), remoting.broker.clone());
    tokio::spawn(async move {
        let body = match broker.group_figures(group, topic).await {
            Ok(figures) => consume_stats(&broker.identity.broker_name, figures).encode(),
            Err(error) => return request.reply.fail(error),
        };
        encoded(request, body);
    });
}

fn consume_stats(broker: &str, figures: GroupFigures) -> ConsumeStats {
    let queues = figures.queues.into_iter().map(|lag| {
        let offset = OffsetWrapper {
            broker_offset: lag.end,
            consumer_offset: lag.offset,
            last_timestamp: lag.consumed_ms,
            pull_offset: lag.offset,
        };
        (queue_of(broker, &lag.topic, lag.queue), offset)
    });
    ConsumeStats { queues: queues.collect(), consume_tps: figures.consumed_per_second }
}

fn queue_of(broker: &str, topic: &str, queue: u32) -> MessageQueue {
    MessageQueue { broker_name: broker.to_owned(), queue_id: queue.cast_signed(), topic: topic.to_owned() }
}

/// 203: the members of a consumer group, on all nodes.
pub(crate) fn consumers(remoting: &Arc<Remoting>, request: Request) {
    let group = match GetConsumerConnectionsHeader::from_ext(&request.frame.ext) {
        Ok(header) => header.consumer_group,
        Err(error) => return request.reply.fail(error),
    };
    let Some(view) = remoting.broker.clients.group(&group) else {
        let remark = format!("the consumer group[{group}] not online");
        return request.reply.error(ResponseCode::ConsumerNotOnline, remark);
    };
    let subscriptions = view.subscriptions.into_iter();
    let connections = ConsumerConnection {
        connection_set: view.members.into_values().map(|member| connection(member.client)).collect(),
        consume_from_where: view.consume_from_where,
        consume_type: view.consume_type,
        message_model: view.message_model,
        subscription_table: subscriptions.map(|(topic, data)| (topic, (*data).clone())).collect(),
    };
    json(request, &connections);
}

/// 204: the members of a producer group, on all nodes.
pub(crate) fn producers(remoting: &Arc<Remoting>, request: Request) {
    let group = match GetProducerConnectionsHeader::from_ext(&request.frame.ext) {
        Ok(header) => header.producer_group,
        Err(error) => return request.reply.fail(error),
    };
    let members = remoting.broker.clients.producers(&group);
    if members.is_empty() {
        let remark = format!("the producer group[{group}] not exist");
        return request.reply.error(ResponseCode::SystemError, remark);
    }
    json(request, &ProducerConnection { connection_set: members.into_iter().map(connection).collect() });
}

fn connection(client: ClientInfo) -> Connection {
    let ClientInfo { client_id, address, language, version } = client;
    Connection { client_addr: address, client_id, language, version }
}

/// 300: the groups that consume a topic.
pub(crate) fn groups_of_topic(remoting: &Arc<Remoting>, request: Request) {
    match TopicHeader::from_ext(&request.frame.ext) {
        Ok(header) => {
            let group_list = remoting.broker.groups_of(&header.topic).into_iter().collect();
            json(request, &GroupList { group_list });
        }
        Err(error) => request.reply.fail(error),
    }
}

/// 343: the topics that a group consumes.
pub(crate) fn topics_of_group(remoting: &Arc<Remoting>, request: Request) {
    match GroupHeader::from_ext(&request.frame.ext) {
        Ok(header) => {
            let topic_list = remoting.broker.topics_of(&header.group).into_iter().collect();
            json(request, &TopicList { broker_addr: None, topic_list });
        }
        Err(error) => request.reply.fail(error),
    }
}

/// 345: what a group wants of a topic.
pub(crate) fn subscription(remoting: &Arc<Remoting>, request: Request) {
    let (group, topic) = match GroupTopicHeader::from_ext(&request.frame.ext) {
        Ok(header) => (header.group.to_string(), header.topic.unwrap_or_default().to_string()),
        Err(error) => return request.reply.fail(error),
    };
    let view = remoting.broker.clients.group(&group);
    let subscription_data = view.and_then(|view| view.subscriptions.get(&topic).map(|data| (**data).clone()));
    json(request, &GroupSubscription { group, subscription_data, topic });
}
