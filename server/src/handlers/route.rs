//! Where topics are: route 105, cluster info 106.
//!
//! The leader is broker id 0, the other nodes are 1, 2, ... by node id. While no leader is known the
//! asked node calls itself 0: it takes any request and holds what needs a leader until there is one.

use std::collections::BTreeMap;
use std::sync::Arc;

use folio_broker::broker::Broker;
use folio_protocol::body::{BrokerData, ClusterInfo, QueueData, TopicRouteData};
use folio_protocol::header::{GetRouteHeader, Header};
use folio_protocol::names;
use folio_state::Topic;

use super::absent;
use super::answers::json;
use crate::error::ServerError;
use crate::remoting::Remoting;
use crate::request::Request;

/// 105.
pub(crate) fn route(remoting: &Arc<Remoting>, request: Request) {
    let name = match GetRouteHeader::from_ext(&request.frame.ext) {
        Ok(header) => header.topic,
        Err(error) => return request.reply.fail(error),
    };
    let wanted = name.clone();
    let find = move |broker: &Broker| routable(broker, &wanted);
    absent::find(remoting, request, find, move |remoting, request, topic| match topic {
        Some(topic) => json(request, &route_of(&remoting.broker, &topic)),
        None => request.reply.fail(ServerError::NoRoute(name.to_string())),
    });
}

fn route_of(broker: &Broker, topic: &Topic) -> TopicRouteData {
    let name = &broker.identity.broker_name;
    TopicRouteData {
        order_topic_conf: topic.order.then(|| format!("{name}:{}", topic.write_queues)),
        queue_datas: vec![queue_data(name, topic)],
        broker_datas: vec![broker_data(broker)],
        filter_server_table: BTreeMap::new(),
    }
}

/// 106.
pub(crate) fn cluster_info(remoting: &Arc<Remoting>, request: Request) {
    let broker = &remoting.broker;
    let (cluster, name) = (&broker.identity.cluster, &broker.identity.broker_name);
    let info = ClusterInfo {
        broker_addr_table: BTreeMap::from([(name.clone(), broker_data(broker))]),
        cluster_addr_table: BTreeMap::from([(cluster.clone(), vec![name.clone()])]),
    };
    json(request, &info);
}

/// Topics with a route. A retry topic has one before its group's first heartbeat creates it: consumers
/// ask for it first, and would look again only half a minute later.
fn routable(broker: &Broker, name: &str) -> Option<Topic> {
    let known = broker.topic(name);
    known.or_else(|| {
        let group = names::group_of_retry_topic(name)?;
        names::check_group(group).is_ok().then(|| Topic::new(name, 1))
    })
}

fn queue_data(broker_name: &str, topic: &Topic) -> QueueData {
    QueueData {
        broker_name: broker_name.to_owned(),
        read_queue_nums: topic.read_queues,
        write_queue_nums: topic.write_queues,
        perm: topic.perm,
        topic_sys_flag: topic.sys_flag.cast_signed(),
    }
}

/// This group's nodes as clients shall see them.
fn broker_data(broker: &Broker) -> BrokerData {
    BrokerData {
        cluster: broker.identity.cluster.clone(),
        broker_name: broker.identity.broker_name.clone(),
        broker_addrs: (0..).zip(broker.broker_addresses()).collect(),
        zone_name: None,
        enable_acting_master: false,
    }
}
