//! Every error of this server as a response code and a text for people: one exhaustive match.
//!
//! What a send's code says of the message, and what RocketMQ's producers do on it:
//!
//! | code | stored? | Java 4.9 and 5 | Go |
//! |---|---|---|---|
//! | 0 SUCCESS | on disk on a majority | | |
//! | 1 SYSTEM_ERROR, remark `[OUTCOME_UNKNOWN]` | perhaps | sends it again | error to the caller |
//! | 2 SYSTEM_BUSY | no | 5.x sends it again | error to the caller |
//! | 14 SERVICE_NOT_AVAILABLE | no | sends it again | error to the caller |
//! | 13, 16, 17, 29 | no, and never will be as it is | 16 and 17: sends it again | error to the caller |
//!
//! RocketMQ says "perhaps" with FLUSH_SLAVE_TIMEOUT (12), which its clients return without raising an error: callers
//! that do not look at the status take it for success. That is why it is not used here.

use folio_broker::clients::Full;
use folio_broker::error::BrokerError;
use folio_protocol::code::ResponseCode;
use folio_protocol::ext::HeaderError;
use folio_protocol::names::NameError;
use folio_protocol::subscription::TagFilterError;
use folio_raft::proposal::ProposeError;
use folio_state::bounds::OutOfBounds;

/// What a request can fail with.
#[derive(Debug, PartialEq, Eq, thiserror::Error)]
pub enum ServerError {
    /// The broker did not serve it.
    #[error(transparent)]
    Broker(#[from] BrokerError),
    /// A typed header could not be read.
    #[error(transparent)]
    Header(#[from] HeaderError),
    /// A body could not be read.
    #[error("the body is malformed: {0}")]
    Body(String),
    /// A topic's or group's name breaks the rules.
    #[error(transparent)]
    Name(#[from] NameError),
    /// The group did not store what was proposed, or cannot tell.
    #[error(transparent)]
    Propose(#[from] ProposeError),
    /// No leader could be reached for a while; nothing was proposed.
    #[error("the group has no leader that can be reached right now: nothing was changed, try again")]
    NoLeader,
    /// This node is on its way out; nothing was done.
    #[error("this node is stopping: nothing was changed, ask another node")]
    Stopping,
    /// Too much is being forwarded to the leader already.
    #[error("[FORWARD]system busy, too many requests wait for the leader, try again later")]
    ForwardBusy,
    /// The clients of this node have registered as much as they may.
    #[error(transparent)]
    ClientsFull(#[from] Full),
    /// A later commit has come for the same queue; this one was not stored.
    #[error("[COMMIT]a later commit of the group for this queue has come: this one was not stored")]
    Overtaken,
    /// Another node cannot be reached; nothing was done.
    #[error("node {0} cannot be reached from here: nothing was changed")]
    NodeAway(u64),
    /// Another node, mostly the leader, was asked and did not answer.
    #[error("[OUTCOME_UNKNOWN] the request was sent to another node and its answer did not come: {0}")]
    OutcomeUnknown(String),
    /// No such topic.
    #[error("topic[{0}] not exist, apply first please!")]
    TopicNotExist(String),
    /// NameServer's word for a topic without a route.
    #[error("No topic route info in name server for the topic: {0}")]
    NoRoute(String),
    /// No such consumer group.
    #[error("subscription group [{0}] does not exist")]
    GroupNotExist(String),
    /// Not allowed by a permission bit.
    #[error("{0}")]
    NoPermission(String),
    /// A value that is of the right type and still impossible.
    #[error("{0}")]
    InvalidParameter(String),
    /// A message that cannot be stored as it is.
    #[error("{0}")]
    IllegalMessage(String),
    /// Nothing is stored under the key asked for.
    #[error("{0}")]
    NotFound(String),
    /// A filter expression that is none, or beyond a limit.
    #[error("parse the consumer's subscription failed: {0}")]
    SubscriptionParse(#[from] TagFilterError),
    /// Nobody has said what the group wants of the topic: its heartbeat is yet to come.
    #[error("the consumer's subscription not exist")]
    SubscriptionNotExist,
    /// The group's heartbeat with the subscription this pull means is yet to come.
    #[error("the consumer's subscription not latest")]
    SubscriptionNotLatest,
    /// A filter language other than tags.
    #[error("The broker does not support consumer to filter message by {0}")]
    FilterNotSupported(String),
    /// What is asked for is stored here and cannot be read now, as it is damaged; it is about to be mended.
    #[error("{0}; try again")]
    Unreadable(String),
    /// Something of ours failed.
    #[error("{0}")]
    Internal(String),
}

impl ServerError {
    /// The response code. Producers try elsewhere on some of them: see the table in the module's header.
    pub fn code(&self) -> ResponseCode {
        match self {
            Self::Broker(error) => broker_code(error),
            Self::Header(_) | Self::Body(_) | Self::Name(_) | Self::InvalidParameter(_) => {
                ResponseCode::InvalidParameter
            }
            Self::Propose(error) => propose_code(error),
            Self::NoLeader | Self::Stopping | Self::NodeAway(_) => ResponseCode::ServiceNotAvailable,
            Self::ForwardBusy | Self::Overtaken | Self::ClientsFull(_) => ResponseCode::SystemBusy,
            Self::TopicNotExist(_) | Self::NoRoute(_) => ResponseCode::TopicNotExist,
            Self::GroupNotExist(_) => ResponseCode::SubscriptionGroupNotExist,
            Self::NoPermission(_) => ResponseCode::NoPermission,
            Self::IllegalMessage(_) => ResponseCode::MessageIllegal,
            Self::NotFound(_) => ResponseCode::QueryNotFound,
            Self::SubscriptionParse(_) => ResponseCode::SubscriptionParseFailed,
            Self::SubscriptionNotExist => ResponseCode::SubscriptionNotExist,
            Self::SubscriptionNotLatest => ResponseCode::SubscriptionNotLatest,
            Self::OutcomeUnknown(_)
            | Self::Unreadable(_)
            | Self::Internal(_)
            | Self::FilterNotSupported(_) => ResponseCode::SystemError,
        }
    }
}

impl From<OutOfBounds> for ServerError {
    fn from(error: OutOfBounds) -> ServerError {
        ServerError::InvalidParameter(error.to_string())
    }
}

fn broker_code(error: &BrokerError) -> ResponseCode {
    match error {
        BrokerError::Name(_) | BrokerError::InvalidParameter(_) => ResponseCode::InvalidParameter,
        BrokerError::Propose(error) => propose_code(error),
        BrokerError::NoLeader | BrokerError::AskLeader | BrokerError::NotLeading(_) => {
            ResponseCode::ServiceNotAvailable
        }
        BrokerError::Overtaken | BrokerError::ClientsFull(_) => ResponseCode::SystemBusy,
        BrokerError::TopicNotExist(_) => ResponseCode::TopicNotExist,
        BrokerError::GroupNotExist(_) => ResponseCode::SubscriptionGroupNotExist,
        BrokerError::NoPermission(_) => ResponseCode::NoPermission,
        BrokerError::IllegalMessage(_) => ResponseCode::MessageIllegal,
        BrokerError::NotFound(_) => ResponseCode::QueryNotFound,
        BrokerError::SubscriptionParse(_) => ResponseCode::SubscriptionParseFailed,
        BrokerError::SubscriptionNotExist => ResponseCode::SubscriptionNotExist,
        BrokerError::SubscriptionNotLatest => ResponseCode::SubscriptionNotLatest,
        BrokerError::Unreadable(_) | BrokerError::Internal(_) | BrokerError::FilterNotSupported(_) => {
            ResponseCode::SystemError
        }
    }
}

fn propose_code(error: &ProposeError) -> ResponseCode {
    match error {
        ProposeError::Busy => ResponseCode::SystemBusy,
        ProposeError::TooLarge { .. } | ProposeError::Refused(_) => ResponseCode::MessageIllegal,
        ProposeError::OutOfBounds(_) => ResponseCode::InvalidParameter,
        ProposeError::Unknown(_) | ProposeError::StateFull | ProposeError::Level { .. } => {
            ResponseCode::SystemError
        }
        ProposeError::NotLeader { .. } | ProposeError::DiskFull | ProposeError::Stopped(_) => {
            ResponseCode::ServiceNotAvailable
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn not_available_means_nothing_was_stored_and_an_unknown_outcome_says_so() {
        let refused = [
            ServerError::NoLeader,
            ServerError::Stopping,
            ServerError::NodeAway(2),
            ServerError::Propose(ProposeError::NotLeader { leader: Some(2) }),
            ServerError::Propose(ProposeError::DiskFull),
            ServerError::Propose(ProposeError::Stopped("why".to_owned())),
        ];
        assert!(refused.iter().all(|error| error.code() == ResponseCode::ServiceNotAvailable));
        for error in [
            ServerError::OutcomeUnknown("why".to_owned()),
            ServerError::Propose(ProposeError::Unknown("why".to_owned())),
        ] {
            assert_eq!(error.code(), ResponseCode::SystemError);
            assert!(error.to_string().starts_with("[OUTCOME_UNKNOWN] "), "{error}");
        }
    }
}
