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

use folio_broker::error::BrokerError;
use folio_protocol::code::ResponseCode;
use folio_protocol::ext::HeaderError;
use folio_protocol::frame::Frame;
use folio_raft::proposal::ProposeError;

/// How the remark of an unknown outcome begins.
const OUTCOME_UNKNOWN: &str = "[OUTCOME_UNKNOWN]";

/// Whether an answer leaves open what became of the request.
pub(crate) fn is_outcome_unknown(answer: &Frame) -> bool {
    let says_so = |remark: &String| remark.starts_with(OUTCOME_UNKNOWN);
    answer.code == ResponseCode::SystemError.code() && answer.remark.as_ref().is_some_and(says_so)
}

/// What a request can fail with.
#[derive(Debug, PartialEq, Eq, thiserror::Error)]
pub(crate) enum ServerError {
    /// The broker did not serve it.
    #[error(transparent)]
    Broker(#[from] BrokerError),
    /// A typed header could not be read.
    #[error(transparent)]
    Header(#[from] HeaderError),
    /// A body could not be read.
    #[error("the body is malformed: {0}")]
    Body(String),
    /// An answer could not be encoded, or a request came where it cannot be served.
    #[error("{0}")]
    Internal(String),
    /// This node is on its way out; nothing was done.
    #[error("this node is stopping: nothing was changed, ask another node")]
    Stopping,
    /// Too much is being forwarded to the leader already.
    #[error("[FORWARD]system busy, too many requests wait for the leader, try again later")]
    ForwardBusy,
    /// Another node cannot be reached; nothing was done.
    #[error("node {0} cannot be reached from here: nothing was changed")]
    NodeAway(u64),
    /// Another node, mostly the leader, was asked and did not answer.
    #[error("[OUTCOME_UNKNOWN] the request was sent to another node and its answer did not come: {0}")]
    OutcomeUnknown(String),
    /// NameServer's word for a topic without a route.
    #[error("No topic route info in name server for the topic: {0}")]
    NoRoute(String),
    /// The request names a group that the node does not host; those that it does.
    #[error("this node does not host group {0:?}, it hosts {1}")]
    NoGroup(String, String),
    /// Not accepted from there.
    #[error("{0}")]
    NotAccepted(String),
}

impl ServerError {
    /// The response code. Producers try elsewhere on some of them: see the table in the module's header.
    pub(crate) fn code(&self) -> ResponseCode {
        match self {
            Self::Broker(error) => broker_code(error),
            Self::Header(_) | Self::Body(_) | Self::NoGroup(..) => ResponseCode::InvalidParameter,
            Self::Stopping | Self::NodeAway(_) => ResponseCode::ServiceNotAvailable,
            Self::ForwardBusy => ResponseCode::SystemBusy,
            Self::NoRoute(_) => ResponseCode::TopicNotExist,
            Self::NotAccepted(_) => ResponseCode::NoPermission,
            Self::OutcomeUnknown(_) | Self::Internal(_) => ResponseCode::SystemError,
        }
    }

    /// Whether nothing was proposed because this node does not lead.
    pub(crate) fn is_not_leader(&self) -> bool {
        matches!(self, Self::Broker(BrokerError::Propose(ProposeError::NotLeader { .. })))
    }

    /// Whether nobody knows if it was stored.
    pub(crate) fn is_outcome_unknown(&self) -> bool {
        matches!(self, Self::OutcomeUnknown(_) | Self::Broker(BrokerError::Propose(ProposeError::Unknown(_))))
    }

    /// Whether this node stores nothing right now, and the group's next leader may.
    pub(crate) fn is_unavailable(&self) -> bool {
        use ProposeError::{DiskFull, Stopped};
        matches!(self, Self::Broker(BrokerError::Propose(DiskFull | Stopped(_))))
    }
}

fn broker_code(error: &BrokerError) -> ResponseCode {
    match error {
        BrokerError::Name(_) | BrokerError::InvalidParameter(_) => ResponseCode::InvalidParameter,
        BrokerError::Propose(error) => propose_code(error),
        BrokerError::NoLeader | BrokerError::AskLeader | BrokerError::NotLeading(_) => {
            ResponseCode::ServiceNotAvailable
        }
        BrokerError::Overtaken
        | BrokerError::ClientsFull(_)
        | BrokerError::TransactionsFull { .. }
        | BrokerError::InFlightFull(..) => ResponseCode::SystemBusy,
        BrokerError::NotInFlight(_) => ResponseCode::NoMessage,
        BrokerError::TopicNotExist(_) | BrokerError::RecallTopic(_) => ResponseCode::TopicNotExist,
        BrokerError::IllegalOperation(_) => ResponseCode::IllegalOperation,
        BrokerError::NotAvailable(_) => ResponseCode::ServiceNotAvailable,
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
    use folio_raft::proposal::Retry;

    use super::*;

    fn propose(error: ProposeError) -> ServerError {
        BrokerError::Propose(error).into()
    }

    #[test]
    fn not_available_means_nothing_was_stored_and_an_unknown_outcome_says_so() {
        let refused = [
            BrokerError::NoLeader.into(),
            ServerError::Stopping,
            ServerError::NodeAway(2),
            propose(ProposeError::NotLeader { leader: Some(2) }),
            propose(ProposeError::DiskFull),
            propose(ProposeError::Stopped("why".to_owned())),
        ];
        assert!(refused.iter().all(|error| error.code() == ResponseCode::ServiceNotAvailable));
        for error in
            [ServerError::OutcomeUnknown("why".to_owned()), propose(ProposeError::Unknown("why".to_owned()))]
        {
            assert_eq!(error.code(), ResponseCode::SystemError);
            assert!(error.to_string().starts_with("[OUTCOME_UNKNOWN] "), "{error}");
            assert!(error.is_outcome_unknown());
        }
        assert!(refused.iter().all(|error| !error.is_outcome_unknown()));
    }

    /// Producers send again on the codes that say so: where the message may be stored, they must not be told one of these.
    #[test]
    fn a_code_that_says_nothing_was_stored_is_given_only_where_a_retry_repeats_nothing() {
        let text = || "why".to_owned();
        let errors = [
            ProposeError::NotLeader { leader: None },
            ProposeError::Busy,
            ProposeError::DiskFull,
            ProposeError::TooLarge { bytes: 2, limit: 1 },
            ProposeError::StateFull,
            ProposeError::Level { needs: 2, level: 1 },
            ProposeError::Refused(text()),
            ProposeError::Unknown(text()),
            ProposeError::Stopped(text()),
        ];
        let errors = errors.map(BrokerError::Propose).into_iter().chain([
            BrokerError::NoLeader,
            BrokerError::AskLeader,
            BrokerError::NotLeading(text()),
            BrokerError::Overtaken,
            BrokerError::Unreadable(text()),
            BrokerError::Internal(text()),
        ]);
        for error in errors {
            if error.retry() == Retry::MayRepeat {
                assert_eq!(broker_code(&error), ResponseCode::SystemError, "{error}");
            }
        }
    }

    /// What a client sees of each error of the broker.
    #[test]
    fn every_refusal_has_rocketmqs_code() {
        let text = || "why".to_owned();
        for (error, code) in [
            (BrokerError::NoPermission(text()), ResponseCode::NoPermission),
            (BrokerError::InvalidParameter(text()), ResponseCode::InvalidParameter),
            (BrokerError::IllegalMessage(text()), ResponseCode::MessageIllegal),
            (BrokerError::TopicNotExist(text()), ResponseCode::TopicNotExist),
            (BrokerError::GroupNotExist(text()), ResponseCode::SubscriptionGroupNotExist),
            (BrokerError::SubscriptionNotExist, ResponseCode::SubscriptionNotExist),
            (BrokerError::SubscriptionNotLatest, ResponseCode::SubscriptionNotLatest),
            (BrokerError::FilterNotSupported(text()), ResponseCode::SystemError),
            (BrokerError::Overtaken, ResponseCode::SystemBusy),
            (BrokerError::IllegalOperation(text()), ResponseCode::IllegalOperation),
            (BrokerError::RecallTopic(text()), ResponseCode::TopicNotExist),
        ] {
            assert_eq!(ServerError::from(error).code(), code);
        }
        let name = folio_protocol::names::check_topic("a b").expect_err("a space");
        assert_eq!(broker_code(&BrokerError::Name(name)), ResponseCode::InvalidParameter);
        let filter = folio_protocol::subscription::TagFilter::parse("||").expect_err("no tag");
        assert_eq!(
            broker_code(&BrokerError::SubscriptionParse(filter)),
            ResponseCode::SubscriptionParseFailed
        );
    }
}
