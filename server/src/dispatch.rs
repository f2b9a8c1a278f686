//! Brings a request to who may serve it, as its line in the [table](crate::request_table) says.
//!
//! NameServer ports and broker ports share it: a client may ask any port of any node anything; what is administrative only an
//! operator may ask (`admin.I1`).

use std::sync::Arc;
use std::time::Duration;

use folio_protocol::code::ResponseCode;
use folio_raft::proposal::ProposeError;

use crate::admin;
use crate::broker::Broker;
use crate::forward;
use crate::request::Request;
use crate::request_table::{self, Entry, Place};

/// How long a request waits for a new leader to apply what its predecessors acknowledged.
const SETTLE_PATIENCE: Duration = Duration::from_secs(3);

/// Serves a request here, or brings it to the leader if only the leader may serve it.
pub(crate) fn dispatch(broker: &Arc<Broker>, request: Request) {
    // admin.I1: before it is served or forwarded, and once more where it was forwarded to.
    if admin::is_refused(&request) {
        return admin::refuse(broker, request);
    }
    let Some(entry) = request_table::entry(request.frame.code) else { return unsupported(request) };
    match entry.place {
        Place::Leader if !broker.leads() => forward::forward(broker, request),
        Place::Leader | Place::LeaderIfAbsent => serve(broker, entry, forward::armed(broker, request)),
        Place::Settled | Place::Anywhere => serve(broker, entry, request),
    }
}

/// Serves a request on this node, whoever leads.
pub(crate) fn route(broker: &Arc<Broker>, request: Request) {
    match request_table::entry(request.frame.code) {
        Some(entry) => serve(broker, entry, request),
        None => unsupported(request),
    }
}

/// A new leader is asked for what its predecessors acknowledged before it has applied it: it would deny what exists, and
/// tell old offsets (absent.I1).
fn serve(broker: &Arc<Broker>, entry: Entry, request: Request) {
    let Some(serve) = entry.serve else { return unsupported(request) };
    if entry.place == Place::Anywhere || !broker.group.is_settling() {
        return serve(broker, request);
    }
    let broker = broker.clone();
    drop(tokio::spawn(async move {
        let settled = broker.group.settle(SETTLE_PATIENCE).await;
        if settled && (broker.leads() || entry.place != Place::Leader) {
            serve(&broker, request);
        } else {
            request.reply.refuse(ProposeError::NotLeader { leader: None });
        }
    }));
}

fn unsupported(request: Request) {
    let code = request.frame.code;
    let name = request.frame.request_code().map_or(String::new(), |code| format!(" ({code})"));
    request
        .reply
        .error(ResponseCode::RequestCodeNotSupported, format!(" request type {code}{name} not supported"));
}
