//! Orderly locks: 41 takes or renews queues for one client of a group, 42 gives them back.
//!
//! A lock lives 60 s without a renewal (upstream's `rebalance.lockMaxLiveTime`). It is a command in the
//! log, stamped with a clock that goes on from leader to leader: all replicas agree who holds a queue, and a
//! new leader goes on with the locks of the old one, whatever its wall clock says, instead of giving a queue
//! away twice.

use std::collections::HashSet;
use std::sync::Arc;

use folio_protocol::body::{self, LockBatchRequest, LockBatchResponse, MessageQueue};
use folio_protocol::limits::LOCK_QUEUES_MAX;
use folio_state::bounds::{ENTRIES_MAX, at_most};
use folio_state::{Outcome, QueueRef, UnlockQueues};

use super::changes::execute;
use crate::broker::Broker;
use crate::error::ServerError;
use crate::request::Request;

/// How long a lock lives without a renewal; clients renew every 20 s.
const LOCK_TTL_MS: u64 = 60_000;

/// 41: locks queues; answers those the client holds now.
pub(crate) fn lock(broker: &Arc<Broker>, request: Request) {
    let wish = match decode(&request.frame.body) {
        Ok(wish) => wish,
        Err(error) => return request.reply.fail(error),
    };
    let broker = broker.clone();
    tokio::spawn(async move {
        let (group, client) = (wish.consumer_group, wish.client_id);
        let queues = existing(&broker, queue_refs(&wish.mq_set));
        match broker.group.lock_queues(group, client, queues, LOCK_TTL_MS).await {
            Ok(Outcome::Locked(held)) => match body::encode(&held_queues(wish.mq_set, held)) {
                Ok(bytes) => request.reply.body(bytes),
                Err(error) => request.reply.fail(ServerError::Internal(error.to_string())),
            },
            Ok(other) => {
                request.reply.fail(ServerError::Internal(format!("locking queues answered {other:?}")))
            }
            Err(error) => request.reply.refuse(error),
        }
    });
}

/// The queues that exist: a lock on another one would stay in the replicated state.
fn existing(broker: &Broker, mut queues: Vec<QueueRef>) -> Vec<QueueRef> {
    let state = broker.group.state();
    queues.retain(|queue| state.topic(&queue.topic).is_some_and(|topic| queue.queue < topic.queue_count()));
    queues
}

/// 42: gives locks back; those of other clients are left alone.
pub(crate) fn unlock(broker: &Arc<Broker>, request: Request) {
    match decode(&request.frame.body) {
        Ok(wish) => {
            let queues = queue_refs(&wish.mq_set);
            let (group, client) = (wish.consumer_group, wish.client_id);
            execute(broker, vec![UnlockQueues { group, client, queues }.into()], request);
        }
        Err(error) => request.reply.fail(error),
    }
}

fn decode(bytes: &[u8]) -> Result<LockBatchRequest, ServerError> {
    let wish: LockBatchRequest = body::decode_request(bytes, LOCK_QUEUES_MAX + 1)
        .map_err(|error| ServerError::Body(error.to_string()))?;
    if wish.consumer_group.is_empty() || wish.client_id.is_empty() {
        return Err(ServerError::InvalidParameter("a lock needs consumerGroup and clientId".to_owned()));
    }
    at_most("queues in one request", wish.mq_set.len(), ENTRIES_MAX)?;
    Ok(wish)
}

/// The queues a command can name; negative numbers name none.
fn queue_refs(queues: &[MessageQueue]) -> Vec<QueueRef> {
    queues.iter().filter_map(queue_ref).collect()
}

fn queue_ref(queue: &MessageQueue) -> Option<QueueRef> {
    Some(QueueRef { topic: queue.topic.clone(), queue: u32::try_from(queue.queue_id).ok()? })
}

/// Those of the asked queues that are held, under the names the client gave them.
fn held_queues(asked: Vec<MessageQueue>, held: Vec<QueueRef>) -> LockBatchResponse {
    let held: HashSet<QueueRef> = held.into_iter().collect();
    let is_held = |queue: &MessageQueue| queue_ref(queue).is_some_and(|queue| held.contains(&queue));
    LockBatchResponse { lock_ok_mq_set: asked.into_iter().filter(is_held).collect() }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn queue(topic: &str, queue_id: i32) -> MessageQueue {
        MessageQueue { broker_name: "b".to_owned(), queue_id, topic: topic.to_owned() }
    }

    #[test]
    fn only_held_queues_are_answered_under_their_full_names() {
        let asked = vec![queue("t", 0), queue("t", 1), queue("t", -1)];
        assert_eq!(queue_refs(&asked).len(), 2);
        let held = vec![QueueRef { topic: "t".to_owned(), queue: 1 }];
        assert_eq!(held_queues(asked, held).lock_ok_mq_set, [queue("t", 1)]);
    }

    #[test]
    fn a_request_without_group_or_client_is_refused() {
        assert!(decode(br#"{"consumerGroup":"g","clientId":"c","mqSet":[]}"#).is_ok());
        assert!(decode(br#"{"consumerGroup":"g"}"#).is_err());
        assert!(decode(br#"{"clientId":"c"}"#).is_err());
        assert!(decode(b"").is_err());
    }
}
