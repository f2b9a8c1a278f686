//! Requests to a node that is named: an operator asks the node at hand about another one, or for what only the leader does.
//!
//! Asked once: what came of it is told as it is. Not counted among the requests under way: an operator's arrive however
//! many of clients' wait.

use std::sync::Arc;
use std::time::Duration;

use super::{ask, encode_request, origin_of};
use crate::answer::Asked;
use crate::error::ServerError;
use crate::remoting::Remoting;
use crate::request::Request;

/// Asks another node, and relays its answer.
pub(crate) fn to_node(remoting: &Arc<Remoting>, node: u64, patience: Duration, request: Request) {
    let bytes = encode_request(None, &origin_of(&request), &request.frame);
    let (remoting, reply) = (remoting.clone(), request.reply);
    tokio::spawn(async move {
        match ask(&remoting, node, bytes, patience).await {
            Asked::Answered(frame) => reply.relay(*frame),
            Asked::Silent => reply.done(),
            Asked::NotProposed => reply.fail(ServerError::NodeAway(node)),
            Asked::Unknown(why) => reply.fail(ServerError::OutcomeUnknown(why)),
        }
    });
}
