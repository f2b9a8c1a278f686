//! The types openraft is parameterised with.
//!
//! One entry is one log record. Before it is in the log an entry holds what is to be written
//! ([`Content::New`]); after it, it holds the record itself ([`Content::Stored`]), whose bytes go to the
//! followers and to `apply` as they are. Terms have one leader each (`leader_id_std`), so a log id is
//! (term, index), as in the record's header.

use std::fmt;

use folio_engine::record::{Draft, Record, RecordKind};
use folio_state::Outcome;
use openraft::entry::{RaftEntry, RaftPayload};
use openraft::raft::responder::Responder as RaftResponder;
use openraft::{EntryPayload, OptionalSend};
use parking_lot::Mutex;

use crate::codec;
use crate::ids::LeaderId;
pub(crate) use crate::ids::{CommittedLeaderId, LogId, Membership, StoredMembership, Vote, entry_id, log_id};
pub use crate::node_address::NodeAddress;

/// openraft with our entry, node and responder types.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, PartialOrd, Ord)]
pub struct TypeConfig;

impl openraft::RaftTypeConfig for TypeConfig {
    type D = Body;
    type R = Applied;
    type NodeId = u64;
    type Node = NodeAddress;
    type Term = u64;
    type LeaderId = LeaderId;
    type Vote = Vote;
    type Payload = EntryPayload<Body, u64, NodeAddress>;
    type Entry = LogEntry;
    type AsyncRuntime = openraft::impls::TokioRuntime;
    type Responder<T>
        = Callback<T>
    where
        T: OptionalSend + 'static;
    type Batch<T>
        = openraft::impls::InlineBatch<T>
    where
        T: OptionalSend + 'static;
    type ErrorSource = openraft::impls::BoxedErrorSource;
}

pub(crate) type Payload = openraft::alias::PayloadOf<TypeConfig>;

/// What a client of the group wants in the log.
pub struct Body {
    pub(crate) draft: Draft,
    /// Set once the leader's log has taken the draft: from then on a failure means "outcome unknown".
    pub(crate) taken: Taken,
    /// Called when the record is durable on the leader alone: only the planted defect `ack-before-majority` asks for it.
    pub(crate) early: Option<Mutex<Early>>,
}

/// Whether the leader's log has taken a draft.
pub(crate) type Taken = std::sync::Arc<std::sync::atomic::AtomicBool>;
pub(crate) type Early = Box<dyn FnOnce(&Record) + Send>;

impl Body {
    pub(crate) fn new(draft: Draft) -> Body {
        Body { draft, taken: Taken::default(), early: None }
    }
}

impl fmt::Debug for Body {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

impl fmt::Display for Body {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "draft of {} bytes", self.draft.len())
    }
}

/// What applying an entry answered to whoever proposed it.
#[derive(Debug)]
pub enum Applied {
    /// Nothing to say: a blank or a membership entry.
    Nothing,
    /// The record with its stamped messages.
    Messages(Record),
    /// The outcome of a command.
    Command(Outcome),
    /// The record with its commands and its stamped messages.
    Transition(Record),
}

impl fmt::Display for Applied {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Applied::Nothing => f.write_str("nothing"),
            Applied::Messages(record) => write!(f, "messages at {}", record.position()),
            Applied::Command(outcome) => write!(f, "{outcome:?}"),
            Applied::Transition(record) => write!(f, "a transition at {}", record.position()),
        }
    }
}

/// What an entry holds before and after it is in the log.
pub(crate) enum Content {
    /// To be written: proposed here, or made by openraft's own tests.
    New(Payload),
    /// In the log, or on its way from the leader's log.
    Stored(Record),
}

/// One Raft entry.
pub struct LogEntry {
    log_id: LogId,
    pub(crate) content: Content,
}

impl LogEntry {
    pub(crate) fn stored(record: Record) -> LogEntry {
        LogEntry { log_id: log_id(record.id()), content: Content::Stored(record) }
    }
}

impl fmt::Debug for LogEntry {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

impl fmt::Display for LogEntry {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match &self.content {
            Content::New(payload) => write!(f, "{}:{payload}", self.log_id),
            Content::Stored(record) => write!(f, "{}:{:?}", self.log_id, record.header.kind),
        }
    }
}

impl RaftEntry for LogEntry {
    type CommittedLeaderId = CommittedLeaderId;
    type Payload = Payload;

    fn new(log_id: LogId, payload: Payload) -> Self {
        LogEntry { log_id, content: Content::New(payload) }
    }

    fn log_id_parts(&self) -> (&CommittedLeaderId, u64) {
        (&self.log_id.leader_id, self.log_id.index)
    }

    fn set_log_id(&mut self, new: LogId) {
        self.log_id = new;
    }

    fn get_membership(&self) -> Option<Membership> {
        match &self.content {
            Content::New(payload) => payload.get_membership(),
            Content::Stored(record) if record.header.kind == RecordKind::Membership => {
                // The record's checksum was verified when it was read or received: a membership that
                // does not decode was written by a version we do not know, and guessing a quorum from
                // it could lose data.
                let decoded = codec::decode_membership(&record.payload());
                Some(decoded.unwrap_or_else(|error| panic!("membership entry {}: {error}", self.log_id)))
            }
            Content::Stored(_) => None,
        }
    }
}

/// A payload that is not in the log yet, as what is to be written there.
pub(crate) fn body_of(payload: Payload) -> Body {
    match payload {
        EntryPayload::Blank => Body::new(Draft::with_payload(RecordKind::Blank, &[])),
        EntryPayload::Normal(body) => body,
        EntryPayload::Membership(membership) => {
            Body::new(Draft::with_payload(RecordKind::Membership, &codec::encode_membership(&membership)))
        }
    }
}

/// A responder that calls a function, once, on the task that applied the entry.
pub struct Callback<T>(Box<dyn FnOnce(T) + Send>);

impl<T> Callback<T> {
    pub(crate) fn new(call: impl FnOnce(T) + Send + 'static) -> Self {
        Callback(Box::new(call))
    }
}

impl<T: OptionalSend + 'static> RaftResponder<TypeConfig, T> for Callback<T> {
    fn on_complete(self, result: T) {
        (self.0)(result);
    }
}
