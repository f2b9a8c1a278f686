//! One node's broker: what every handler needs, in one place.
//!
//! Not here: what requests mean (`handlers/`), how they get here (`net/`, `dispatch.rs`).

use std::collections::BTreeSet;
use std::sync::Arc;
use std::time::{SystemTime, UNIX_EPOCH};

use folio_broker::clients::{ClientTable, Notice};
use folio_broker::identity::Identity;
use folio_broker::old_reads::OldReads;
use folio_broker::polls::PollTable;
use folio_broker::sends::SendTable;
use folio_broker::settings::Settings;
use folio_broker::stalls::Stalls;
use folio_broker::system;
use folio_protocol::code::RequestCode;
use folio_protocol::frame::Frame;
use folio_raft::group::Group;
use folio_raft::proposal::Attempt;
use folio_raft::status::{Role, Status};
use folio_state::Topic;
use tokio::sync::watch;
use tokio::time::Instant;

use crate::dispatch;
use crate::error::ServerError;
use crate::forward::{self, Forwards};
use crate::gossip::Gossip;
use crate::handlers::pull::closed;
use crate::handlers::{HandlerState, Parked, members, node_status};
use crate::incoming::Incoming;
use crate::net::{Channel, NetConfig, Resources, Service};
use crate::reply::Reply;
use crate::request::Request;

/// The broker of one group on one node.
pub struct Broker {
    /// Names and addresses.
    pub identity: Identity,
    /// The replicated group.
    pub group: Group,
    /// What an operator may set.
    pub settings: Settings,
    /// Pulls that wait for a message.
    pub polls: PollTable<Parked>,
    /// Reads of old messages.
    pub old_reads: OldReads,
    /// What the handlers keep between requests.
    pub state: HandlerState,
    /// Who is connected, here and at the other nodes.
    pub clients: ClientTable,
    /// How far the other nodes have heard who is connected here.
    pub gossip: Gossip,
    /// Requests under way to the leader.
    pub forwards: Forwards,
    /// What became of the sends of this node's clients.
    pub sends: SendTable,
    /// What clients may use of this node.
    pub resources: Arc<Resources>,
    pub(crate) stalls: Stalls,
    status: watch::Receiver<Status>,
}

impl Broker {
    /// A broker over a running group.
    pub fn new(identity: Identity, group: Group) -> Arc<Self> {
        Self::with_settings(identity, Settings::default(), Resources::new(&NetConfig::default()), group)
    }

    /// A broker over a running group, set as an operator wants it.
    pub fn with_settings(
        identity: Identity,
        settings: Settings,
        resources: Arc<Resources>,
        group: Group,
    ) -> Arc<Self> {
        let clients = ClientTable::new(identity.addresses.clone());
        let status = group.watch();
        let old_reads = OldReads::new(settings.old_reads.clone(), group.clone());
        let state = HandlerState::new(&identity, &settings);
        let polls = PollTable::new(settings.polls_max.min(resources.budget().held_pulls_max()));
        let node_id = identity.node_id;
        Arc::new(Self {
            identity,
            group,
            settings,
            polls,
            old_reads,
            state,
            clients,
            gossip: Gossip::default(),
            forwards: Forwards::new(node_id),
            sends: SendTable::default(),
            resources,
            stalls: Stalls::new(),
            status,
        })
    }

    /// This node in the group.
    pub fn node_id(&self) -> u64 {
        self.identity.node_id
    }

    /// Whether this node takes proposals.
    pub fn leads(&self) -> bool {
        self.status.borrow().role == Role::Leader
    }

    /// The nodes of the group besides this one.
    pub fn other_members(&self) -> BTreeSet<u64> {
        let status = self.status.borrow();
        status.members.keys().copied().filter(|id| *id != self.node_id()).collect()
    }

    /// Where everything ends that this node knows to be stored.
    fn known_position(&self) -> u64 {
        self.group.applied_position().max(self.forwards.known_position())
    }

    /// Takes a client's send into its connection's account.
    fn begin_send(&self, channel: &Channel, frame: &Arc<Incoming>) -> Option<Attempt> {
        if !frame.is_send() || frame.is_oneway() {
            return None;
        }
        let (sends, arrived) = (channel.sends(), self.stalls.arrival(Instant::now()));
        self.sends.list(channel.remote(), sends);
        let begun = sends.begin(frame.clone(), arrived, self.known_position());
        let connected = sends.connected();
        Some(Attempt { number: begun.number, arrived, connected, doubts: begun.doubts, here: true })
    }

    /// A topic by name: created ones, and those RocketMQ has without anybody creating them.
    pub fn topic(&self, name: &str) -> Option<Topic> {
        let created = self.group.state().topic(name).cloned();
        created.or_else(|| system::topic(name, &self.identity))
    }
}

impl Service for Arc<Broker> {
    fn request(&self, channel: &Channel, frame: Frame) {
        let frame = Arc::new(Incoming(detached(frame)));
        let mut reply = Reply::to_client(channel.clone(), &frame);
        // forward.I3: the new leader answers a question for an offset.
        if !channel.takes_requests() && !forward::is_offset_query(&frame) {
            channel.note_refused();
            return reply.fail(ServerError::Stopping);
        }
        let remote = channel.remote();
        let attempt = self.begin_send(channel, &frame);
        if let Some(attempt) = &attempt {
            reply = reply.of_send(attempt.number);
        }
        let is_operator = channel.is_operator();
        dispatch::dispatch(self, Request { frame, remote, is_operator, reply, order: None, attempt });
    }

    fn is_operators(&self, frame: &Frame) -> bool {
        matches!(frame.code, node_status::NODE_STATUS | members::ADD_NODE | members::REMOVE_NODE)
    }

    fn closed(&self, channel: &Channel) {
        Notice::tell(self.clients.closed(channel.id()));
        closed(&self.polls, channel.id());
        self.sends.closed(channel.remote(), channel.sends());
    }
}

/// A pull has no body. With one it would keep the whole buffer that it came in for as long as it is held.
fn detached(frame: Frame) -> Frame {
    use RequestCode::{LitePullMessage, PullMessage};
    let is_pull = matches!(frame.request_code(), Some(PullMessage | LitePullMessage));
    if is_pull && !frame.body.is_empty() { frame.detached() } else { frame }
}

/// Milliseconds since the epoch, by this node's clock.
pub fn now_ms() -> u64 {
    SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, |since| since.as_millis() as u64)
}
