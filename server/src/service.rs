//! The remoting front door as connections see it.

use std::sync::Arc;

use folio_broker::broker::Broker;
use folio_broker::identity::Identity;
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

/// A broker over a running group behind a front door, set as an operator wants it. Held pulls take of `resources`, whatever
/// the settings say.
pub fn open(
    identity: Identity,
    settings: Settings,
    resources: Arc<Resources>,
    group: Group,
) -> Arc<Remoting> {
    let budget = resources.budget();
    let polls_max = settings.polls_max.min(budget.held_pulls_max());
    let broker = Broker::new(identity, Settings { polls_max, ..settings }, budget.reads().clone(), group);
    Remoting::new(broker, resources, Routes { dispatch: dispatch::dispatch, serve: dispatch::route })
}

/// The connections of a front door; no socket yet.
pub fn listener(net: NetConfig, remoting: &Arc<Remoting>) -> Listener {
    Listener::new(net, remoting.resources.clone(), Arc::new(remoting.clone()))
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
        let attempt = begin_send(&self.broker, channel, &frame);
        if let Some(attempt) = &attempt {
            reply = reply.of_send(attempt.number);
        }
        let (remote, is_operator) = (channel.remote(), channel.is_operator());
        let request =
            Request { frame, remote, is_operator, reply, order: None, attempt, is_repeatable: false };
        dispatch::dispatch(self, request);
    }

    fn is_operators(&self, frame: &Frame) -> bool {
        matches!(frame.code, node_status::NODE_STATUS | members::ADD_NODE | members::REMOVE_NODE)
    }

    fn closed(&self, channel: &Channel) {
        self.broker.closed(channel);
        self.broker.sends.closed(channel.remote(), channel.sends());
    }
}

/// Takes a client's send into its connection's account.
fn begin_send(broker: &Broker, channel: &Channel, frame: &Arc<Incoming>) -> Option<Attempt> {
    if !frame.is_send() || frame.is_oneway() {
        return None;
    }
    let (sends, arrived) = (channel.sends(), broker.stalls.arrival(Instant::now()));
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
