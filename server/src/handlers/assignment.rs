//! QUERY_ASSIGNMENT (400): which queues a client is to consume; SET_MESSAGE_REQUEST_MODE (401): whether the clients of a group pull or pop.
//!
//! A client asks one broker about all queues of a topic, so a node with several groups joins them. How the group consumes is what the asked
//! group says.

use std::collections::BTreeSet;
use std::sync::Arc;

use folio_broker::error::BrokerError;
use folio_broker::pop::{Queue, assign};
use folio_protocol::body::{
    MessageModel, MessageQueue, MessageQueueAssignment, MessageRequestMode, QueryAssignment,
    QueryAssignmentResult, SetMessageRequestMode,
};
use folio_protocol::flags::PermissionBits;
use folio_state::RequestMode;

use super::answers::{decode, json, when_done};
use crate::forward;
use crate::remoting::Remoting;
use crate::request::Request;

/// Objects in a body.
const OBJECTS_MAX: usize = 8;

/// 400.
pub(crate) fn query(remoting: &Arc<Remoting>, request: Request) {
    let asked: QueryAssignment = match decode(&request.frame.body, OBJECTS_MAX) {
        Ok(asked) => asked,
        Err(error) => return request.reply.fail(error),
    };
    let queues = queues(remoting, &asked.topic);
    if queues.is_empty() && !remoting.broker.leads() && !request.is_forwarded() {
        // The topic may be news that has not come to this node.
        return forward::forward(remoting, request);
    }
    let broker = &remoting.broker;
    let mode = broker.request_mode(&asked.consumer_group, &asked.topic);
    let part = match asked.message_model {
        _ if queues.is_empty() => None,
        MessageModel::Broadcasting => Some(queues),
        MessageModel::Clustering => {
            let clients = broker.clients.members(&asked.consumer_group);
            assign(queues, clients, (&asked.client_id, &asked.strategy_name), mode)
        }
    };
    let wire = if mode.pops { MessageRequestMode::Pop } else { MessageRequestMode::Pull };
    let assignment = |queue: Queue| MessageQueueAssignment {
        message_queue: MessageQueue {
            broker_name: queue.broker,
            queue_id: queue.queue_id,
            topic: asked.topic.clone(),
        },
        mode: wire,
    };
    let message_queue_assignments = part.map(|part| part.into_iter().map(assignment).collect());
    json(request, &QueryAssignmentResult { message_queue_assignments });
}

/// The queues of a topic that consumers read, of all groups of this node.
fn queues(remoting: &Arc<Remoting>, topic: &str) -> Vec<Queue> {
    let mut all = BTreeSet::new();
    for of in remoting.all() {
        let Some(topic) = of.broker.topic(topic).filter(|topic| PermissionBits(topic.perm).is_readable())
        else {
            continue;
        };
        let broker = &of.broker.identity.broker_name;
        let queue = |number: u32| Queue { broker: broker.clone(), queue_id: number.cast_signed() };
        all.extend((0..topic.read_queues).map(queue));
    }
    all.into_iter().collect()
}

/// 401.
pub(crate) fn set_mode(remoting: &Arc<Remoting>, request: Request) {
    let wish: SetMessageRequestMode = match decode(&request.frame.body, OBJECTS_MAX) {
        Ok(wish) => wish,
        Err(error) => return request.reply.fail(error),
    };
    let Ok(share) = u32::try_from(wish.pop_share_queue_num.max(0)) else {
        let text = format!("popShareQueueNum is {}, expected a number of clients", wish.pop_share_queue_num);
        return request.reply.fail(BrokerError::InvalidParameter(text));
    };
    let mode = RequestMode { pops: wish.mode == MessageRequestMode::Pop, share };
    let broker = remoting.broker.clone();
    when_done(request, async move { broker.set_request_mode(wish.consumer_group, wish.topic, mode).await });
}
