//! openraft's names for entries, votes and memberships, with our terms and nodes. A term has one leader
//! (`leader_id_std`), so an entry is named by term and index, as in a record's header.

use folio_engine::record::EntryId;
use openraft::impls::leader_id_std;
use openraft::vote::RaftLeaderId;

use crate::node_address::NodeAddress;

pub(crate) type LeaderId = leader_id_std::LeaderId<u64, u64>;
pub(crate) type CommittedLeaderId = <LeaderId as RaftLeaderId>::Committed;
pub(crate) type LogId = openraft::LogId<CommittedLeaderId>;
pub(crate) type Vote = openraft::impls::Vote<LeaderId>;
pub(crate) type Membership = openraft::Membership<u64, NodeAddress>;
pub(crate) type StoredMembership = openraft::StoredMembership<CommittedLeaderId, u64, NodeAddress>;

/// An entry id of the log as openraft's log id.
pub(crate) fn log_id(id: EntryId) -> LogId {
    LogId::new(CommittedLeaderId::new(id.term), id.index)
}

/// openraft's log id as an entry id of the log.
pub(crate) fn entry_id(id: &LogId) -> EntryId {
    EntryId { term: id.leader_id.term, index: id.index }
}
