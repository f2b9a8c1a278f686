//! The remoting front door as connections see it.
//!
//! Each group of a node has a broker port of its own, as every RocketMQ client expects it of a `brokerName`; a request is for
//! the group of its port. NameServer ports and the operators' port are the first group's. A header field [`GROUP`] of
//! FolioMQ's own tools names another group of the node, at whatever port.

use std::net::IpAddr;
use std::sync::Arc;

use folio_broker::broker::Broker;
use folio_broker::identity::Identity;
use folio_broker::node::NodeContext;
use folio_broker::settings::Settings;
use folio_protocol::code::RequestCode;
use folio_protocol::frame::Frame;
use folio_raft::group::Group;
use folio_raft::proposal::Attempt;
use tokio::time::Instant;

use crate::dispatch;
use crate::error::ServerError;
use crate::forward;
use crate::handlers::{members, node_status};
use crate::incoming::Incoming;
use crate::net::{Channel, Listener, NetConfig, Resources, Service};
use crate::remoting::{Remoting, Routes};
use crate::reply::Reply;
use crate::request::Request;

/// The header's field with the name of the group that a request is for; default: the group of the port.
pub const GROUP: &str = "folioGroup";

/// What the groups of a node share, `host` being the address that the node is reached at.
pub fn node(
    cluster: &str,
    node_id: u64,
    groups: Vec<String>,
    host: IpAddr,
    resources: &Resources,
) -> Arc<NodeContext> {
    NodeContext::new(cluster, node_id, groups, host, resources.budget().reads().clone())
}

/// A broker over the only group of a node behind a front door, set as an operator wants it.
pub fn open(
    identity: Identity,
    settings: Settings,
    resources: Arc<Resources>,
    group: Group,
) -> Arc<Remoting> {
    let groups = vec![identity.broker_name.clone()];
    let node = node(&identity.cluster, identity.node_id, groups, identity.store_host.ip(), &resources);
    open_on(node, identity, settings, resources, group)
}

/// The same of one of the node's groups. Held pulls take of `resources`, whatever the settings say: each group has an equal
/// part of what is the node's.
pub fn open_on(
    node: Arc<NodeContext>,
    identity: Identity,
    settings: Settings,
    resources: Arc<Resources>,
    group: Group,
) -> Arc<Remoting> {
    let part = resources.budget().held_pulls_max() / node.groups.len().max(1);
    let polls_max = settings.polls_max.min(part);
    let broker = Broker::new(node, identity, Settings { polls_max, ..settings }, group);
    Remoting::new(broker, resources, Routes { dispatch: dispatch::dispatch, serve: dispatch::route })
}

/// The connections of a front door; no socket yet.
pub fn listener(net: NetConfig, remoting: &Arc<Remoting>) -> Listener {
    Listener::new(net, remoting.resources.clone(), Arc::new(remoting.clone()))
}

/// The same listener with sockets of another group.
pub fn listener_of(listener: &Listener, remoting: &Arc<Remoting>) -> Listener {
    listener.with(Arc::new(remoting.clone()))
}

impl Service for Arc<Remoting> {
    fn request(&self, channel: &Channel, frame: Frame) {
        let frame = Arc::new(Incoming(detached(frame)));
        let mut reply = Reply::to_client(channel.clone(), &frame);
        // forward.I3: the new leader answers a question for an offset.
        if !channel.takes_requests() && !forward::is_offset_query(&frame) {
            channel.note_refused();
            return reply.fail(ServerError::Stopping);
        }
        let remoting = match named(self, &frame) {
            Ok(remoting) => remoting,
            Err(error) => return reply.fail(error),
        };
        let attempt = begin_send(&remoting.broker, channel, &frame);
        if let Some(attempt) = &attempt {
            reply = reply.of_send(attempt.number);
        }
        let (remote, is_operator) = (channel.remote(), channel.is_operator());
        let request =
            Request { frame, remote, is_operator, reply, order: None, attempt, is_repeatable: false };
        dispatch::dispatch(&remoting, request);
    }

    fn is_operators(&self, frame: &Frame) -> bool {
        matches!(frame.code, node_status::NODE_STATUS | members::ADD_NODE | members::REMOVE_NODE)
    }

    fn closed(&self, channel: &Channel) {
        for remoting in self.all() {
            remoting.broker.closed(channel);
            remoting.broker.sends.closed(channel.remote(), channel.sends());
        }
    }
}

/// The group that a request is for.
fn named(remoting: &Arc<Remoting>, frame: &Frame) -> Result<Arc<Remoting>, ServerError> {
    if !remoting.has_siblings() {
        return Ok(remoting.clone());
    }
    let Some(name) = frame.ext.get(GROUP) else { return Ok(remoting.clone()) };
    let mut all = remoting.all().into_iter();
    all.find(|other| other.broker.identity.broker_name == name)
        .ok_or_else(|| ServerError::NoGroup(name.to_owned(), remoting.broker.node.groups.join(", ")))
}

/// Takes a client's send into its connection's account.
fn begin_send(broker: &Broker, channel: &Channel, frame: &Arc<Incoming>) -> Option<Attempt> {
    if !frame.is_send() || frame.is_oneway() {
        return None;
    }
    let (sends, arrived) = (channel.sends(), broker.node.stalls.arrival(Instant::now()));
    broker.sends.list(channel.remote(), sends);
    let begun = sends.begin(frame.clone(), arrived, broker.known_position());
    let connected = sends.connected();
    Some(Attempt { number: begun.number, arrived, connected, doubts: begun.doubts, here: true })
}

/// A pull has no body. With one it would keep the whole buffer that it came in for as long as it is held.
fn detached(frame: Frame) -> Frame {
    use RequestCode::{LitePullMessage, PullMessage};
    let is_pull = matches!(frame.request_code(), Some(PullMessage | LitePullMessage));
    if is_pull && !frame.body.is_empty() { frame.detached() } else { frame }
}
