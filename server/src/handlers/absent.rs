//! What to say of a topic or a group that this node does not know.
//!
//! A replica is behind for a moment, and whoever was told "created" may ask it next: clients give up at
//! once on a topic that a NameServer denies. So only a leader that has applied everything acknowledged
//! denies anything; every other node asks it, and a leader that has yet to apply what its predecessors acknowledged
//! keeps what depends on it waiting (`dispatch.rs`).
//!
//! - `absent.I1`: a topic or group that somebody was told is created is denied by no node.

use std::sync::Arc;

use crate::broker::Broker;
use crate::forward;
use crate::request::Request;

/// Answers with what `find` finds here. What is not found is looked for once more where that is certain: here if this node
/// leads, else there.
pub(crate) fn find<T>(
    broker: &Arc<Broker>,
    request: Request,
    find: impl Fn(&Broker) -> Option<T> + Send + 'static,
    answer: impl FnOnce(&Broker, Request, Option<T>) + Send + 'static,
) {
    match find(broker) {
        Some(found) => answer(broker, request, Some(found)),
        None if broker.leads() => surely(broker, request, move |broker, request| {
            let found = find(broker);
            answer(broker, request, found);
        }),
        None => forward::forward(broker, request),
    }
}

/// Serves a request once this node has proved that it leads and has applied everything acknowledged.
pub(crate) fn surely(
    broker: &Arc<Broker>,
    request: Request,
    serve: impl FnOnce(&Arc<Broker>, Request) + Send + 'static,
) {
    let broker = broker.clone();
    drop(tokio::spawn(async move {
        match broker.group.confirm().await {
            Ok(()) => serve(&broker, request),
            Err(error) => request.reply.refuse(error),
        }
    }));
}
