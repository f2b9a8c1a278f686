//! Brings a request to who may serve it, as its line in the [table](crate::request_table) says.
//!
//! NameServer ports and broker ports share it: a client may ask any port of any node anything; what is administrative only an
//! operator may ask (`admin.I1`).

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use folio_broker::error::BrokerError;
use folio_protocol::code::ResponseCode;
use folio_raft::proposal::ProposeError;

use crate::admin;
use crate::forward;
use crate::handlers;
use crate::remoting::Remoting;
use crate::request::Request;
use crate::request_table::{self, Class, Entry, Place, name_of};

/// How long a request waits for a new leader to apply what its predecessors acknowledged.
const SETTLE_PATIENCE: Duration = Duration::from_secs(3);

/// Serves a request here, or brings it to the leader if only the leader may serve it.
pub(crate) fn dispatch(remoting: &Arc<Remoting>, mut request: Request) {
    let Some(entry) = request_table::entry(request.frame.code) else { return unsupported(request) };
    // admin.I1: before it is served or forwarded, and once more where it was forwarded to.
    if entry.class == Class::Admin && !request.is_operator {
        return refuse(remoting, request);
    }
    request.is_repeatable = entry.is_repeatable;
    handlers::transactions::note(remoting, &request);
    match entry.place {
        Place::Leader if !remoting.broker.leads() => forward::forward(remoting, request),
        Place::Leader | Place::LeaderIfAbsent => serve(remoting, entry, forward::armed(remoting, request)),
        Place::Settled | Place::Anywhere => serve(remoting, entry, request),
    }
}

/// Serves a request on this node, whoever leads.
pub(crate) fn route(remoting: &Arc<Remoting>, mut request: Request) {
    match request_table::entry(request.frame.code) {
        Some(entry) => {
            request.is_repeatable = entry.is_repeatable;
            serve(remoting, entry, request);
        }
        None => unsupported(request),
    }
}

/// A new leader is asked for what its predecessors acknowledged before it has applied it: it would deny what exists, and
/// tell old offsets (absent.I1).
fn serve(remoting: &Arc<Remoting>, entry: Entry, request: Request) {
    let Some(serve) = entry.serve else { return unsupported(request) };
    if entry.place == Place::Anywhere || !remoting.broker.group.is_settling() {
        return serve(remoting, request);
    }
    let remoting = remoting.clone();
    drop(tokio::spawn(async move {
        let settled = remoting.broker.group.settle(SETTLE_PATIENCE).await;
        if settled && (remoting.broker.leads() || entry.place != Place::Leader) {
            serve(&remoting, request);
        } else {
            request.reply.fail(BrokerError::Propose(ProposeError::NotLeader { leader: None }));
        }
    }));
}

/// Refuses an administrative request of a client that is no operator.
fn refuse(remoting: &Remoting, request: Request) {
    let (code, remote): (i32, SocketAddr) = (request.frame.code, request.remote);
    let admitted = remoting.refusals.lock().entry(code).or_default().admit();
    if let Some(untold) = admitted {
        let name = name_of(code);
        tracing::warn!(
            %remote, untold,
            "administrative request {name} refused: see listen.admin and listen.admin_from"
        );
    }
    request.reply.fail(admin::refusal(&name_of(code), remote));
}

fn unsupported(request: Request) {
    let code = request.frame.code;
    let name = request.frame.request_code().map_or(String::new(), |code| format!(" ({code})"));
    request
        .reply
        .error(ResponseCode::RequestCodeNotSupported, format!(" request type {code}{name} not supported"));
}
