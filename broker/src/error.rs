//! What a call of the broker can fail with. Which response a client is sent for it is the front door's business.

use folio_protocol::names::NameError;
use folio_protocol::subscription::TagFilterError;
use folio_raft::group::AdminError;
use folio_raft::proposal::{ProposeError, Retry};
use folio_state::bounds::OutOfBounds;

use crate::clients::Full;

/// Why a call was not served. [`BrokerError::retry`] says what a retry may do.
#[derive(Debug, PartialEq, Eq, thiserror::Error)]
pub enum BrokerError {
    /// A topic's or group's name breaks the rules.
    #[error(transparent)]
    Name(#[from] NameError),
    /// The group did not store what was proposed, or cannot tell.
    #[error(transparent)]
    Propose(#[from] ProposeError),
    /// No leader could be reached for a while; nothing was proposed.
    #[error("the group has no leader that can be reached right now: nothing was changed, try again")]
    NoLeader,
    /// Only the leader can tell, and this node does not lead.
    #[error("this node does not lead, and only the leader can tell")]
    AskLeader,
    /// The membership was not changed: only the leader can do that, and what it said instead.
    #[error("{0}")]
    NotLeading(String),
    /// The clients of this node have registered as much as they may.
    #[error(transparent)]
    ClientsFull(#[from] Full),
    /// A later commit has come for the same queue; this one was not stored.
    #[error("[COMMIT]a later commit of the group for this queue has come: this one was not stored")]
    Overtaken,
    /// No such topic.
    #[error("topic[{0}] not exist, apply first please!")]
    TopicNotExist(String),
    /// No such consumer group.
    #[error("subscription group [{0}] does not exist")]
    GroupNotExist(String),
    /// Not allowed by a permission bit, or not to this caller.
    #[error("{0}")]
    NoPermission(String),
    /// A value that is of the right type and still impossible.
    #[error("{0}")]
    InvalidParameter(String),
    /// A message that cannot be stored as it is.
    #[error("{0}")]
    IllegalMessage(String),
    /// As many transactions are open as may be, or the state has no room for more.
    #[error("[TRANSACTIONS]system busy, {open} transactions are open or about to be, the limit is {limit}")]
    TransactionsFull {
        /// So many are open.
        open: u64,
        /// So many may be.
        limit: u64,
    },
    /// As many messages are in flight as may be.
    #[error(
        "[POP]system busy, as many messages of topic[{0}] queue {1} are in flight as may be: acknowledge some first"
    )]
    InFlightFull(String, u32),
    /// A popped message whose handle is good no more.
    #[error("{0}")]
    NotInFlight(String),
    /// What cannot be done with what the request names, now or ever.
    #[error("{0}")]
    IllegalOperation(String),
    /// Not served by this broker as it is set.
    #[error("{0}")]
    NotAvailable(String),
    /// A recall for a topic that does not exist.
    #[error("recall failed, the topic[{0}] not exist")]
    RecallTopic(String),
    /// Nothing is stored under the key asked for.
    #[error("{0}")]
    NotFound(String),
    /// A filter expression that is none, or beyond a limit.
    #[error("parse the consumer's subscription failed: {0}")]
    SubscriptionParse(#[from] TagFilterError),
    /// The group's subscription of the topic is not known: its heartbeat is yet to come.
    #[error("the consumer's subscription not exist")]
    SubscriptionNotExist,
    /// The group's heartbeat with the subscription this pull means is yet to come.
    #[error("the consumer's subscription not latest")]
    SubscriptionNotLatest,
    /// A filter language other than tags.
    #[error("The broker does not support consumer to filter message by {0}")]
    FilterNotSupported(String),
    /// What is asked for is stored here and cannot be read now, as it is corrupt; a repair is under way.
    #[error("{0}; try again")]
    Unreadable(String),
    /// Something of ours failed.
    #[error("{0}")]
    Internal(String),
}

impl BrokerError {
    /// What a retry of the call may do.
    pub fn retry(&self) -> Retry {
        match self {
            BrokerError::Propose(error) => error.retry(),
            BrokerError::NoLeader
            | BrokerError::AskLeader
            | BrokerError::NotLeading(_)
            | BrokerError::ClientsFull(_)
            | BrokerError::TransactionsFull { .. }
            | BrokerError::InFlightFull(..)
            | BrokerError::SubscriptionNotExist
            | BrokerError::SubscriptionNotLatest
            | BrokerError::Unreadable(_) => Retry::Safe,
            BrokerError::Name(_)
            | BrokerError::Overtaken
            | BrokerError::TopicNotExist(_)
            | BrokerError::GroupNotExist(_)
            | BrokerError::NoPermission(_)
            | BrokerError::InvalidParameter(_)
            | BrokerError::IllegalMessage(_)
            | BrokerError::IllegalOperation(_)
            | BrokerError::NotAvailable(_)
            | BrokerError::RecallTopic(_)
            | BrokerError::NotFound(_)
            | BrokerError::NotInFlight(_)
            | BrokerError::SubscriptionParse(_)
            | BrokerError::FilterNotSupported(_) => Retry::Useless,
            BrokerError::Internal(_) => Retry::MayRepeat,
        }
    }
}

impl From<OutOfBounds> for BrokerError {
    fn from(error: OutOfBounds) -> BrokerError {
        BrokerError::InvalidParameter(error.to_string())
    }
}

impl From<AdminError> for BrokerError {
    fn from(error: AdminError) -> BrokerError {
        match error {
            AdminError::NotLeader(_) => BrokerError::NotLeading(error.to_string()),
            AdminError::Refused(why) => BrokerError::Internal(why),
        }
    }
}
