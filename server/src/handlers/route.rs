//! Where topics are: route 105, cluster info 106.
//!
//! The leader is broker id 0, the other nodes are 1, 2, ... by node id. While no leader is known the
//! asked node calls itself 0: it takes any request and holds what needs a leader until there is one.
//!
//! A node with several groups joins what each of them says. A topic is in the groups in which it was created.

use std::collections::BTreeMap;
use std::sync::Arc;

use folio_broker::broker::Broker;
use folio_broker::error::BrokerError;
use folio_protocol::body::{self, BrokerData, ClusterInfo, QueueData, TopicRouteData};
use folio_protocol::code::ResponseCode;
use folio_protocol::header::{GetRouteHeader, Header};
use folio_protocol::names;
use folio_state::Topic;

use super::absent;
use super::answers::json;
use crate::answer::Answer;
use crate::error::ServerError;
use crate::forward;
use crate::remoting::Remoting;
use crate::request::Request;

/// 105.
pub(crate) fn route(remoting: &Arc<Remoting>, request: Request) {
    let name = match GetRouteHeader::from_ext(&request.frame.ext) {
        Ok(header) => header.topic,
        Err(error) => return request.reply.fail(error),
    };
    // Another node asks for one group's part.
    if remoting.has_siblings() && !request.is_forwarded() {
        return joined_route(remoting, request, &name);
    }
    let wanted = name.clone();
    let find = move |broker: &Broker| routable(broker, &wanted);
    absent::find(remoting, request, find, move |remoting, request, topic| match topic {
        Some(topic) => json(request, &route_of(&remoting.broker, &topic)),
        None => request.reply.fail(ServerError::NoRoute(name.to_string())),
    });
}

/// The route through all groups in which this node knows the topic; where it knows it in none, the groups' leaders are asked
/// (`absent.I1`).
fn joined_route(remoting: &Arc<Remoting>, request: Request, topic: &str) {
    let all = remoting.all();
    let known = |remoting: &Arc<Remoting>| {
        let broker = &remoting.broker;
        routable(broker, topic).map(|topic| route_of(broker, &topic))
    };
    let routes: Vec<TopicRouteData> = all.iter().filter_map(known).collect();
    if !routes.is_empty() {
        return json(request, &join(routes));
    }
    let topic = topic.to_owned();
    tokio::spawn(async move {
        let (mut routes, mut unsure) = (Vec::new(), None);
        for remoting in &all {
            match forward::by_leader(remoting, &request).await {
                Answer::Frame(frame) if frame.code == ResponseCode::Success.code() => {
                    routes.extend(body::decode::<TopicRouteData>(&frame.body));
                }
                Answer::Frame(frame) if frame.code == ResponseCode::TopicNotExist.code() => {}
                other => unsure = Some(other),
            }
        }
        match unsure {
            _ if !routes.is_empty() => json(request, &join(routes)),
            None => request.reply.fail(ServerError::NoRoute(topic)),
            Some(Answer::Frame(frame)) => request.reply.relay(*frame),
            Some(Answer::NotLeader | Answer::Silence) => request.reply.fail(BrokerError::NoLeader),
        }
    });
}

fn join(routes: Vec<TopicRouteData>) -> TopicRouteData {
    let orders: Vec<String> = routes.iter().filter_map(|route| route.order_topic_conf.clone()).collect();
    let mut joined = TopicRouteData {
        order_topic_conf: (!orders.is_empty()).then(|| orders.join(";")),
        ..TopicRouteData::default()
    };
    for route in routes {
        joined.queue_datas.extend(route.queue_datas);
        joined.broker_datas.extend(route.broker_datas);
    }
    joined
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
    let all = remoting.all();
    let data = |remoting: &Arc<Remoting>| broker_data(&remoting.broker);
    let brokers = all.iter().map(data).map(|data| (data.broker_name.clone(), data));
    let names = all.iter().map(|remoting| remoting.broker.identity.broker_name.clone());
    let info = ClusterInfo {
        broker_addr_table: brokers.collect(),
        cluster_addr_table: BTreeMap::from([(remoting.broker.identity.cluster.clone(), names.collect())]),
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
