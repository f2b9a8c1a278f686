//! Where topics are: route 105, cluster info 106.
//!
//! The leader is broker id 0, the other nodes are 1, 2, ... by node id. While no leader is known the
//! asked node calls itself 0: it takes any request and holds what needs a leader until there is one.

use std::collections::BTreeMap;
use std::sync::Arc;

use folio_protocol::body::{self, BodyError, BrokerData, ClusterInfo, QueueData, TopicRouteData};
use folio_protocol::header::{GetRouteHeader, Header};
use folio_protocol::names;
use folio_state::Topic;

use crate::broker::Broker;
use crate::error::ServerError;
use crate::handlers::absent;
use crate::request::Request;

/// 105.
pub(crate) fn route(broker: &Arc<Broker>, request: Request) {
    let name = match GetRouteHeader::from_ext(&request.frame.ext) {
        Ok(header) => header.topic,
        Err(error) => return request.reply.fail(error),
    };
    let wanted = name.clone();
    let find = move |broker: &Broker| routable(broker, &wanted);
    absent::find(broker, request, find, move |broker, request, topic| match topic {
        Some(topic) => found(broker, request, &topic),
        None => request.reply.fail(ServerError::NoRoute(name.to_string())),
    });
}

fn found(broker: &Broker, request: Request, topic: &Topic) {
    let name = &broker.identity.broker_name;
    let order_topic_conf = topic.order.then(|| format!("{name}:{}", topic.write_queues));
    let route = TopicRouteData {
        order_topic_conf,
        queue_datas: vec![queue_data(name, topic)],
        broker_datas: vec![broker.broker_data()],
        filter_server_table: BTreeMap::new(),
    };
    answer(request, &route);
}

/// 106.
pub(crate) fn cluster_info(broker: &Arc<Broker>, request: Request) {
    let (cluster, name) = (&broker.identity.cluster, &broker.identity.broker_name);
    let info = ClusterInfo {
        broker_addr_table: BTreeMap::from([(name.clone(), broker.broker_data())]),
        cluster_addr_table: BTreeMap::from([(cluster.clone(), vec![name.clone()])]),
    };
    answer(request, &info);
}

fn answer(request: Request, body: &impl serde::Serialize) {
    match body::encode(body) {
        Ok(body) => request.reply.body(body),
        Err(BodyError { reason }) => request.reply.fail(ServerError::Internal(reason)),
    }
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

impl Broker {
    /// This group's nodes as clients shall see them.
    pub(crate) fn broker_data(&self) -> BrokerData {
        let status = self.group.status();
        let leader = status.leader.unwrap_or(self.node_id());
        let mut ids: Vec<u64> = status.members.keys().copied().filter(|id| *id != leader).collect();
        ids.insert(0, leader);
        let reached = ids.into_iter().filter_map(|id| {
            let founding = status.members.get(&id).map(|address| address.broker.clone());
            self.broker_address(id, founding)
        });
        BrokerData {
            cluster: self.identity.cluster.clone(),
            broker_name: self.identity.broker_name.clone(),
            broker_addrs: (0..).zip(reached).collect(),
            zone_name: None,
            enable_acting_master: false,
        }
    }

    /// Where clients reach a node's broker port: its own word counts more than the membership's.
    fn broker_address(&self, node: u64, founding: Option<String>) -> Option<String> {
        if node == self.node_id() {
            return Some(self.identity.addresses.broker.clone());
        }
        let told = self.clients.addresses_of(node).map(|addresses| addresses.broker);
        told.or(founding).filter(|address| !address.is_empty())
    }
}
