//! The remoting front door of one node: what requests are served with.
//!
//! Not here: how they get here (`service.rs`, `dispatch.rs`), what they mean (`handlers/`), what a broker does (the crate
//! `broker`).

use std::collections::BTreeMap;
use std::sync::Arc;

use folio_broker::broker::Broker;
use folio_raft::log_rate_limiter::LogRateLimiter;
use parking_lot::Mutex;

use crate::forwards::Forwards;
use crate::net::Resources;
use crate::request::Request;

/// The front door of one node.
pub struct Remoting {
    /// What is behind it.
    pub broker: Arc<Broker>,
    /// What clients may use of this node.
    pub resources: Arc<Resources>,
    /// Requests under way to the leader.
    pub(crate) forwards: Forwards,
    /// Log lines about administrative requests that were refused, by request code.
    pub(crate) refusals: Mutex<BTreeMap<i32, LogRateLimiter>>,
    pub(crate) routes: Routes,
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
        Arc::new(Self { broker, resources, forwards, refusals: Mutex::default(), routes })
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
