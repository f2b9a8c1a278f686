//! The remoting front door of one group on one node: what requests are served with.
//!
//! Not here: how they get here (`service.rs`, `dispatch.rs`), what they mean (`handlers/`), what a broker does (the crate
//! `broker`).

use std::collections::BTreeMap;
use std::sync::{Arc, OnceLock, Weak};

use folio_broker::broker::Broker;
use folio_raft::log_rate_limiter::LogRateLimiter;
use parking_lot::Mutex;

use crate::forwards::Forwards;
use crate::net::Resources;
use crate::request::Request;

/// The front door of one group.
pub struct Remoting {
    /// What is behind it.
    pub broker: Arc<Broker>,
    /// What clients may use of this node, all groups together.
    pub resources: Arc<Resources>,
    /// Requests under way to the leader.
    pub(crate) forwards: Forwards,
    /// Log lines about administrative requests that were refused, by request code.
    pub(crate) refusals: Mutex<BTreeMap<i32, LogRateLimiter>>,
    pub(crate) routes: Routes,
    /// Those of all groups of the node, in the order of its configuration; empty on a node with one group.
    siblings: OnceLock<Vec<Weak<Remoting>>>,
}

/// The ways of a request that is handed out again.
#[derive(Clone, Copy)]
pub(crate) struct Routes {
    /// As one that just came: to this node's handler, or to the leader.
    pub(crate) dispatch: fn(&Arc<Remoting>, Request),
    /// To this node's handler, whoever leads.
    pub(crate) serve: fn(&Arc<Remoting>, Request),
}

impl Remoting {
    pub(crate) fn new(broker: Arc<Broker>, resources: Arc<Resources>, routes: Routes) -> Arc<Self> {
        let forwards = Forwards::new(broker.node_id());
        Arc::new(Self {
            broker,
            resources,
            forwards,
            refusals: Mutex::default(),
            routes,
            siblings: OnceLock::new(),
        })
    }

    /// Tells the front doors of a node's groups of each other. Once, before the first connection.
    pub fn join(all: &[Arc<Remoting>]) {
        let siblings = || all.iter().map(Arc::downgrade).collect();
        // A second call would change what connections are told: the first one counts.
        all.iter().filter(|_| all.len() > 1).for_each(|remoting| drop(remoting.siblings.set(siblings())));
    }

    /// Whether the node has other groups.
    pub(crate) fn has_siblings(&self) -> bool {
        self.siblings.get().is_some()
    }

    /// The front doors of all groups of the node, this one among them.
    pub(crate) fn all(self: &Arc<Self>) -> Vec<Arc<Remoting>> {
        match self.siblings.get() {
            Some(all) => all.iter().filter_map(Weak::upgrade).collect(),
            None => vec![self.clone()],
        }
    }

    /// Hands a request out as one that just came.
    pub(crate) fn dispatch(self: &Arc<Self>, request: Request) {
        (self.routes.dispatch)(self, request);
    }

    /// Serves a request on this node, whoever leads.
    pub(crate) fn serve(self: &Arc<Self>, request: Request) {
        (self.routes.serve)(self, request);
    }
}
