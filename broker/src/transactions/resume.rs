//! Opens a transaction again that was given up (RocketMQ's request 323): its producer is asked anew.

use std::sync::Arc;

use folio_protocol::half;
use folio_protocol::ids::OffsetMessageId;
use folio_protocol::message::MessageView;
use folio_raft::driver::outcome;
use folio_raft::proposal::ProposeError;
use folio_state::ResumeTransaction;

use crate::broker::Broker;
use crate::clock::now_ms;
use crate::error::BrokerError;
use crate::messages;

impl Broker {
    /// Resumes the transaction of a message of the topic of given up ones, by its offset message id; once for each time that it was given up. Only the leader
    /// can.
    pub async fn resume_transaction(self: &Arc<Self>, message_id: &str) -> Result<(), BrokerError> {
        let id: OffsetMessageId = message_id.parse().map_err(|_| {
            BrokerError::InvalidParameter(format!("{message_id:?} is not the offset message id of a message"))
        })?;
        let position = i64::try_from(id.position).unwrap_or(-1);
        let found = messages::find(self, position).await?.ok_or_else(|| messages::not_found(position))?;
        let message =
            MessageView::parse(&found.message).map_err(|error| BrokerError::Internal(error.to_string()))?;
        let group = half::producer_group(&message);
        let (half::GIVEN_UP_TOPIC, Some(group)) = (message.topic(), group) else {
            return Err(BrokerError::IllegalOperation(format!(
                "the message is of topic {}, only those of {} can be resumed",
                message.topic(),
                half::GIVEN_UP_TOPIC
            )));
        };
        let resume = ResumeTransaction {
            group: group.to_owned(),
            id: half::transaction(&message),
            queue_offset: half::first_queue_offset(&message),
            at_ms: now_ms(),
        };
        let half = half::again(&message, &found.message);
        match outcome(|reply| self.group.resume_transaction(resume, half, reply)).await {
            Err(ProposeError::Refused(why)) => Err(BrokerError::IllegalOperation(why)),
            outcome => Ok(outcome?),
        }
    }
}
