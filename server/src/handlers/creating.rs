//! Groups that come into being with a request of theirs.

use std::sync::Arc;

use folio_broker::error::BrokerError;

use crate::remoting::Remoting;
use crate::request::Request;

/// Creates the group that a request names and this leader does not know, and serves the request then:
/// RocketMQ's `autoCreateSubscriptionGroup`. A pull consumer pulls before its first heartbeat.
pub(super) fn create_and_serve(remoting: &Arc<Remoting>, group: String, request: Request) {
    let remoting = remoting.clone();
    tokio::spawn(async move {
        let broker = &remoting.broker;
        match broker.ensure_group(&group).await {
            Ok(()) if broker.has_group(&group) => remoting.serve(request),
            // A name that cannot be created is a group that does not exist.
            Ok(()) | Err(BrokerError::Name(_)) => request.reply.fail(BrokerError::GroupNotExist(group)),
            Err(error) => request.reply.fail(error),
        }
    });
}
