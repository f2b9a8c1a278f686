//! Orderly locks: 41 takes or renews queues for one client of a group, 42 gives them back.

use std::collections::HashSet;
use std::sync::Arc;

use folio_broker::error::BrokerError;
use folio_protocol::body::{LockBatchRequest, LockBatchResponse, MessageQueue};
use folio_protocol::limits::LOCK_QUEUES_MAX;
use folio_state::QueueRef;
use folio_state::bounds::{ENTRIES_MAX, at_most};

use super::answers::{self, json, when_done};
use crate::error::ServerError;
use crate::remoting::Remoting;
use crate::request::Request;

/// 41: locks queues; answers those the client holds now.
pub(crate) fn lock(remoting: &Arc<Remoting>, request: Request) {
    let wish = match decode(&request.frame.body) {
        Ok(wish) => wish,
        Err(error) => return request.reply.fail(error),
    };
    let broker = remoting.broker.clone();
    tokio::spawn(async move {
        let queues = queue_refs(&wish.mq_set);
        match broker.lock(wish.consumer_group, wish.client_id, queues).await {
            Ok(held) => json(request, &held_queues(wish.mq_set, held)),
            Err(error) => request.reply.fail(error),
        }
    });
}

/// 42: gives locks back; those of other clients are left alone.
pub(crate) fn unlock(remoting: &Arc<Remoting>, request: Request) {
    match decode(&request.frame.body) {
        Ok(wish) => {
            let queues = queue_refs(&wish.mq_set);
            let (group, client) = (wish.consumer_group, wish.client_id);
            let broker = remoting.broker.clone();
            when_done(request, async move { broker.unlock(group, client, queues).await });
        }
        Err(error) => request.reply.fail(error),
    }
}

fn decode(bytes: &[u8]) -> Result<LockBatchRequest, ServerError> {
    let wish: LockBatchRequest = answers::decode(bytes, LOCK_QUEUES_MAX + 1)?;
    if wish.consumer_group.is_empty() || wish.client_id.is_empty() {
        let text = "a lock needs consumerGroup and clientId".to_owned();
        return Err(BrokerError::InvalidParameter(text).into());
    }
    at_most("queues in one request", wish.mq_set.len(), ENTRIES_MAX).map_err(BrokerError::from)?;
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
