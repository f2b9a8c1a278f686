//! What to say of a topic or a group that this node does not know.
//!
//! A replica is behind for a moment, and whoever was told "created" may ask it next: clients give up at
//! once on a topic that a NameServer denies. So only a leader that has applied everything acknowledged
//! denies anything; every other node asks it, and a leader that has yet to apply what its predecessors acknowledged
//! keeps what depends on it waiting (`dispatch.rs`).
//!
//! - `absent.I1`: a topic or group that somebody was told is created is denied by no node.

use std::sync::Arc;

use folio_broker::broker::Broker;
use folio_broker::error::BrokerError;

use crate::forward;
use crate::remoting::Remoting;
use crate::request::Request;

/// Answers with what `find` finds here. What is not found is looked for once more where that is certain: here if this node
/// leads, else there.
pub(super) fn find<T>(
    remoting: &Arc<Remoting>,
    request: Request,
    find: impl Fn(&Broker) -> Option<T> + Send + 'static,
    answer: impl FnOnce(&Remoting, Request, Option<T>) + Send + 'static,
) {
    match find(&remoting.broker) {
        Some(found) => answer(remoting, request, Some(found)),
        None if remoting.broker.leads() => surely(remoting, request, move |remoting, request| {
            let found = find(&remoting.broker);
            answer(remoting, request, found);
        }),
        None => forward::forward(remoting, request),
    }
}

/// Serves a request once this node has proved that it leads and has applied everything acknowledged.
fn surely(
    remoting: &Arc<Remoting>,
    request: Request,
    serve: impl FnOnce(&Arc<Remoting>, Request) + Send + 'static,
) {
    let remoting = remoting.clone();
    drop(tokio::spawn(async move {
        match remoting.broker.group.confirm().await {
            Ok(()) => serve(&remoting, request),
            Err(error) => request.reply.fail(BrokerError::Propose(error)),
        }
    }));
}
