//! What a leader sends, before openraft sees it: taken apart, checked, and compared with what this node has forgotten.

use std::io;
use std::sync::atomic::Ordering;

use bytes::{Buf, Bytes};
use folio_engine::record::{EntryId, Record, RecordHeader, RecordKind};
use openraft::entry::RaftEntry;
use openraft::raft::AppendEntriesRequest;

use super::peer::Peers;
use super::wire::{AppendHead, Frame, Kind, invalid};
use crate::codec::{self, WireLogId};
use crate::group::group_id::GroupId;
use crate::group::standing::Reason;
use crate::types::{LogEntry, TypeConfig, entry_id};

impl Peers {
    /// Takes an append apart: the records stay slices of the frame.
    pub(super) fn parse_append(
        &self,
        frame: &Frame,
        theirs: Option<GroupId>,
    ) -> io::Result<AppendEntriesRequest<TypeConfig>> {
        self.check_group(theirs)?;
        let (head, records) = split_append(frame)?;
        self.notice_loss(&head)?;
        self.may_follow(&head.vote)?;
        self.notice_leader(&head)?;
        let entries = parse_records(records.clone())?;
        self.notice_dispute(&head, &entries)?;
        // peer.I3
        if !records.is_empty() && !self.shared.has_room(1) {
            return Err(io::Error::new(io::ErrorKind::StorageFull, "disk full: records not taken"));
        }
        Ok(AppendEntriesRequest {
            vote: head.vote.vote(),
            prev_log_id: head.prev.map(WireLogId::log_id),
            leader_commit: head.commit.map(WireLogId::log_id),
            entries,
        })
    }

    /// Whether the leader remembers more of this node than that knows (`founding.I5`): then it is noted, before anything is
    /// answered, that this node does not vote; nor does it follow the leader before it knows whom it may follow.
    fn notice_loss(&self, head: &AppendHead) -> io::Result<()> {
        let Some(id) = head.acknowledged else { return Ok(()) };
        let (leaders, own) = (head.vote.vote(), self.shared.log.vote());
        let own = own.map(|bytes| codec::decode_vote(&bytes)).transpose().map_err(io::Error::other)?;
        // A later leader may have taken it back.
        if own.as_ref().is_some_and(|own| *own > leaders) {
            return Ok(());
        }
        let refuses = self.founding.refuses_votes();
        let forgot_vote = own.as_ref().is_none_or(|own| *own < leaders);
        let is_known = refuses && !self.founding.knows_its_vote(own.is_some());
        // One that refuses votes and has its vote may lack entries: it was cut off before them.
        let has_lost = forgot_vote || (!refuses && self.shared.lacks(entry_id(&id.log_id())));
        if is_known || !has_lost {
            // Nothing is answered before that is durable.
            return self.founding.mark();
        }
        tracing::warn!(
            ?id,
            forgot_vote,
            "this node has acknowledged an entry that its log or its vote does not know: no vote until it has caught up"
        );
        self.shared.standing.set(Reason::CatchingUp, true);
        // What it voted since that copy was made is not known either.
        let noted = self.founding.begin_catch_up(true);
        // Once more: it may have caught up with an earlier loss in between.
        self.shared.standing.set(Reason::CatchingUp, true);
        noted
    }

    /// Whether the leader's log differs from this node's within what is applied here (`rewind.I1`): then it is noted how far they
    /// agree at most, and this node stops. Asked of what a leader sends again; otherwise nothing is read for it.
    fn notice_dispute(&self, head: &AppendHead, entries: &[LogEntry]) -> io::Result<()> {
        let applied = self.shared.applied_index.load(Ordering::Acquire);
        let ids = head.prev.map(WireLogId::log_id).into_iter().chain(entries.iter().map(RaftEntry::log_id));
        let ids = ids.map(|id| entry_id(&id)).take_while(|id| id.index <= applied);
        let last = EntryId { term: self.shared.applied_term.load(Ordering::Acquire), index: applied };
        // Most appends follow what was applied last.
        let Some(disputed) = ids.filter(|id| *id != last).find(|id| self.shared.lacks(*id)) else {
            return Ok(());
        };
        let own = self.shared.log.vote().map(|bytes| codec::decode_vote(&bytes)).transpose();
        if own.map_err(io::Error::other)?.is_some_and(|own| own > head.vote.vote()) {
            return Ok(());
        }
        tracing::error!(%disputed, "the leader's log differs from what is applied here: this node stops, and starts from an older state");
        crate::group::rewind::note(&*self.host.disk, &self.data_dir, disputed.index.saturating_sub(1))?;
        let raft = self.raft()?.clone();
        tokio::spawn(async move { drop(raft.shutdown().await) });
        Err(io::Error::other("this node has applied what its leader does not have: it starts again"))
    }

    /// `founding.I4`
    pub(super) fn may_follow(&self, leader: &codec::WireVote) -> io::Result<()> {
        let vote = leader.vote();
        if self.founding.may_follow(vote.leader_id.term, self.shared.log.vote().is_some()) {
            return Ok(());
        }
        Err(io::Error::other("this node has lost its vote and does not know yet whom it may follow"))
    }
}

/// The head of an append, and its records.
pub(crate) fn split_append(frame: &Frame) -> io::Result<(AppendHead, Bytes)> {
    let mut body = frame.body.clone();
    if frame.kind != Kind::Append || body.len() < 4 {
        return Err(invalid(format!("a {:?} frame of {} bytes as an append", frame.kind, body.len())));
    }
    let head_bytes = body.get_u32_le() as usize;
    if head_bytes > body.len() {
        return Err(invalid("an append whose head is longer than its frame"));
    }
    let head = codec::decode(&body.split_to(head_bytes)).map_err(|error| invalid(error.to_string()))?;
    Ok((head, body))
}

/// Splits back-to-back records; every length and checksum is checked.
pub(crate) fn parse_records(mut bytes: Bytes) -> io::Result<Vec<LogEntry>> {
    let mut entries = Vec::new();
    while !bytes.is_empty() {
        let header = RecordHeader::parse(&bytes).map_err(|error| invalid(error.to_string()))?;
        if header.length as usize > bytes.len() {
            return Err(invalid(format!("record {} is longer than its frame", header.index)));
        }
        let frame = bytes.split_to(header.length as usize);
        let record = Record::parse(frame).map_err(|error| invalid(error.to_string()))?;
        if record.header.kind == RecordKind::Membership {
            // Once it is in the log, nobody could go on without guessing a quorum.
            codec::decode_membership(&record.payload()).map_err(|error| invalid(error.to_string()))?;
        }
        entries.push(LogEntry::stored(record));
    }
    Ok(entries)
}

#[cfg(test)]
mod tests {
    use std::path::Path;
    use std::sync::Arc;

    use folio_engine::disk::sim::SimDisk;
    use folio_engine::record::Draft;
    use folio_engine::{CommitLog, LogConfig, StampBase};

    use super::*;
    use crate::types::Membership;

    fn membership_record(payload: &[u8]) -> Bytes {
        let disk = Arc::new(SimDisk::new());
        let log = CommitLog::open(disk, Path::new("/"), LogConfig::default(), StampBase::default()).unwrap();
        let draft = Draft::with_payload(RecordKind::Membership, payload);
        let record = log.append(EntryId { term: 1, index: 0 }, draft).unwrap();
        log.close();
        record.frame().clone()
    }

    /// Found by reading: once it was in the log the node stopped, and at every start again.
    #[test]
    fn t90_a_membership_that_does_not_decode_was_taken_from_a_peer() {
        assert!(parse_records(membership_record(b"no membership")).is_err());
        let whole = codec::encode_membership(&Membership::default());
        assert_eq!(parse_records(membership_record(&whole)).unwrap().len(), 1);
    }
}
