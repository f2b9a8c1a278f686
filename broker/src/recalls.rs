//! Recalling a delayed message (RocketMQ's request 370): it is not delivered, if its time has not come.

use folio_protocol::names;
use folio_protocol::recall::RecallHandle;
use folio_raft::driver::Recall;
use folio_raft::proposal::ProposeError;

use crate::broker::Broker;
use crate::clock::now_ms;
use crate::error::BrokerError;

impl Broker {
    /// Recalls the message that a handle names. `done` is called exactly once, with the message's unique key; it must not block. The checks come
    /// in RocketMQ's order.
    pub fn recall(
        &self,
        topic: &str,
        handle: &str,
        done: impl FnOnce(Result<String, BrokerError>) + Send + 'static,
    ) {
        let handle = match self.check_recall(topic, handle) {
            Ok(handle) => handle,
            Err(error) => return done(Err(error)),
        };
        let RecallHandle { topic, timestamp, unique_key, .. } = handle;
        let due_ms = timestamp.parse().unwrap_or(0);
        let recall = Recall { due_ms, topic, unique_key: unique_key.clone() };
        let reply = move |outcome| match outcome {
            Ok(()) => done(Ok(unique_key)),
            Err(ProposeError::Refused(why)) => {
                done(Err(BrokerError::IllegalOperation(format!("recall failed, {why}"))));
            }
            Err(error) => done(Err(error.into())),
        };
        self.group.recall(recall, Box::new(reply));
    }

    fn check_recall(&self, topic: &str, handle: &str) -> Result<RecallHandle, BrokerError> {
        let illegal = |why: &str| Err(BrokerError::IllegalOperation(why.to_owned()));
        if !self.settings.permission.is_writable() {
            return Err(BrokerError::NotAvailable("recall failed, broker service not available".to_owned()));
        }
        if self.topic(topic).is_none() {
            return Err(BrokerError::RecallTopic(topic.to_owned()));
        }
        if names::is_retry_topic(topic) {
            return illegal("recall failed, a retry of a consumer group is not recalled");
        }
        let Some(handle) = RecallHandle::decode(handle) else { return illegal("recall handle is invalid") };
        if handle.topic != topic {
            return illegal("recall failed, topic not match");
        }
        if handle.broker_name != self.identity.broker_name {
            return illegal("recall failed, broker service not available");
        }
        let left = handle.timestamp.parse::<u64>().ok().and_then(|due| due.checked_sub(now_ms()));
        match left {
            Some(1..) => Ok(handle),
            _ => illegal("recall failed, timestamp invalid"),
        }
    }
}
