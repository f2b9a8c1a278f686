//! Topics: create or change (17, 18), delete (215), list (206).
//!
//! Not here: routes (`route`).

use std::sync::Arc;

use folio_broker::topics::{TopicChange, as_changes};
use folio_protocol::body::{TopicConfig, TopicConfigList, TopicList};
use folio_protocol::header::{CreateTopicHeader, DeleteTopicHeader, Header};
use folio_protocol::limits::BODY_OBJECTS_MAX;
use folio_state::Topic;

use super::answers::{decode, json, when_done};
use crate::error::ServerError;
use crate::remoting::Remoting;
use crate::request::Request;

/// 17: creates or changes one topic.
pub(crate) fn update(remoting: &Arc<Remoting>, request: Request) {
    let header = CreateTopicHeader::from_ext(&request.frame.ext).map_err(ServerError::from);
    let changes = header.map(|header| {
        let attributes = header.attributes.clone().unwrap_or_default();
        vec![change_of(&header.topic_config(), attributes)]
    });
    change(remoting, request, changes);
}

/// 18: creates or changes several topics; all are checked before the first is changed.
pub(crate) fn update_list(remoting: &Arc<Remoting>, request: Request) {
    let list = decode(&request.frame.body, BODY_OBJECTS_MAX);
    let changes = list.map(|list: TopicConfigList| {
        let configs = list.topic_config_list.iter();
        configs.map(|config| change_of(config, as_changes(&config.attributes))).collect()
    });
    change(remoting, request, changes);
}

fn change(remoting: &Arc<Remoting>, request: Request, changes: Result<Vec<TopicChange>, ServerError>) {
    match changes {
        Ok(changes) => {
            let (broker, is_operator) = (remoting.broker.clone(), request.is_operator);
            when_done(request, async move { broker.change_topics(changes, is_operator).await });
        }
        Err(error) => request.reply.fail(error),
    }
}

fn change_of(config: &TopicConfig, attributes: String) -> TopicChange {
    let topic = Topic {
        read_queues: config.read_queue_nums,
        write_queues: config.write_queue_nums,
        perm: config.perm,
        order: config.order,
        sys_flag: u32::try_from(config.topic_sys_flag).unwrap_or(0),
        filter_type: config.topic_filter_type.clone(),
        ..Topic::new(config.topic_name.as_str(), 0)
    };
    TopicChange { topic, attributes }
}

/// 215: deletes a topic. A topic that does not exist is deleted too, as upstream.
pub(crate) fn delete(remoting: &Arc<Remoting>, request: Request) {
    match DeleteTopicHeader::from_ext(&request.frame.ext) {
        Ok(header) => {
            let (broker, is_operator) = (remoting.broker.clone(), request.is_operator);
            when_done(request, async move { broker.delete_topic(&header.topic, is_operator).await });
        }
        Err(error) => request.reply.fail(error),
    }
}

/// 216: takes a topic out of the routes. Routes are made of the topics themselves, so there is nothing to
/// do that 215 does not do.
pub(crate) fn delete_route(_remoting: &Arc<Remoting>, request: Request) {
    request.reply.done();
}

/// 206: the names of all topics, of all groups of the node.
pub(crate) fn list(remoting: &Arc<Remoting>, request: Request) {
    let all = remoting.all();
    let topics = all.iter().flat_map(|remoting| remoting.broker.topics());
    let mut topic_list: Vec<String> = topics.map(|topic| topic.name).collect();
    topic_list.sort_unstable();
    topic_list.dedup();
    json(request, &TopicList { broker_addr: None, topic_list });
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_config_becomes_a_topic() {
        let config = TopicConfig {
            topic_name: "orders".to_owned(),
            read_queue_nums: 3,
            write_queue_nums: 2,
            perm: 4,
            topic_sys_flag: -1,
            ..TopicConfig::default()
        };
        let TopicChange { topic, attributes } = change_of(&config, "+message.type=FIFO".to_owned());
        assert_eq!(
            (topic.name.as_str(), topic.read_queues, topic.write_queues, topic.perm),
            ("orders", 3, 2, 4)
        );
        assert_eq!((topic.sys_flag, attributes.as_str()), (0, "+message.type=FIFO"));
    }
}
