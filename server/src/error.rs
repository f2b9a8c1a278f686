//! Every error of this server as a response code and a text for people: one exhaustive match.

use folio_protocol::code::ResponseCode;
use folio_protocol::ext::HeaderError;
use folio_protocol::names::NameError;
use folio_raft::proposal::ProposeError;

/// What a request can fail with.
#[derive(Debug, thiserror::Error)]
pub enum ServerError {
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
    /// Too much is being forwarded to the leader already.
    #[error("[FORWARD]system busy, too many requests wait for the leader, try again later")]
    ForwardBusy,
    /// The leader was asked and did not answer.
    #[error("outcome unknown: the request was sent to the leader and its answer did not come: {0}")]
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
    /// Something of ours failed.
    #[error("{0}")]
    Internal(String),
}

impl ServerError {
    /// The response code. Producers try elsewhere on some of them: see `protocol.md` 1.5.
    pub fn code(&self) -> ResponseCode {
        match self {
            Self::Header(_) | Self::Body(_) | Self::Name(_) | Self::InvalidParameter(_) => {
                ResponseCode::InvalidParameter
            }
            Self::Propose(error) => propose_code(error),
            Self::NoLeader | Self::OutcomeUnknown(_) => ResponseCode::ServiceNotAvailable,
            Self::ForwardBusy => ResponseCode::SystemBusy,
            Self::TopicNotExist(_) | Self::NoRoute(_) => ResponseCode::TopicNotExist,
            Self::GroupNotExist(_) => ResponseCode::SubscriptionGroupNotExist,
            Self::NoPermission(_) => ResponseCode::NoPermission,
            Self::Internal(_) => ResponseCode::SystemError,
        }
    }
}

fn propose_code(error: &ProposeError) -> ResponseCode {
    match error {
        ProposeError::Busy => ResponseCode::SystemBusy,
        ProposeError::TooLarge { .. } | ProposeError::Refused(_) => ResponseCode::MessageIllegal,
        ProposeError::NotLeader { .. }
        | ProposeError::DiskFull
        | ProposeError::Unknown(_)
        | ProposeError::Stopped(_) => ResponseCode::ServiceNotAvailable,
    }
}
