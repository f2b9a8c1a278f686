//! What a leader sends, before openraft sees it: taken apart, checked, and compared with what this node has forgotten.
//!
//! - `appends.I1`: a record enters the log only if it can be applied: a membership decodes, and so does a command, within its
//!   bounds, and each command of a transition. Every node refuses the same ones, whoever leads, unless its operator has named the entry (`skip_entry`), or it is in
//!   this node's log already.
//! - `appends.I2`: the records of an append follow each other and what is before them, in terms up to the leader's own, and none
//!   is longer than a segment holds. openraft and the log take that for granted, and end a node of which it is not so.
//!
//! A command is decoded once more here than it is applied. Commands are rare beside messages, which are not looked at.

use std::io;
use std::sync::atomic::Ordering;

use bytes::{Buf, Bytes};
use folio_engine::record::{EntryId, Record, RecordHeader, RecordKind};
use folio_state::Command;
use openraft::entry::RaftEntry;
use openraft::raft::AppendEntriesRequest;

use super::peer::{Peer, Peers};
use super::wire::{AppendHead, Frame, Kind, invalid};
use crate::codec::{self, WireLogId};
use crate::group::eligibility::Reason;
use crate::skip_entry::SkipEntry;
use crate::types::{Content, LogEntry, TypeConfig, entry_id};

impl Peers {
    /// Takes an append apart: the records stay slices of the frame.
    pub(super) fn parse_append(
        &self,
        frame: &Frame,
        peer: Peer,
    ) -> io::Result<AppendEntriesRequest<TypeConfig>> {
        self.check_group(peer)?;
        let (head, records) = split_append(frame)?;
        // Before anything of it is believed.
        self.check_append(peer.id, &head)?;
        let entries = parse_records(records.clone(), &self.shared.skip_entry, |id| self.shared.has(id))?;
        check_sequence(&head, &entries, self.shared.log.record_bytes_max())?;
        self.notice_loss(&head)?;
        self.may_follow(&head.vote)?;
        self.notice_leader(&head)?;
        self.notice_dispute(&head, &entries)?;
        // peer.I3
        if !records.is_empty() && !self.shared.has_room(1) && !self.makes_room(&entries, records.len()) {
            return Err(io::Error::new(io::ErrorKind::StorageFull, "disk full: records not taken"));
        }
        if let Some(commit) = &head.commit {
            self.shared.heard_commit.fetch_max(commit.log_id().index, Ordering::AcqRel);
        }
        Ok(AppendEntriesRequest {
            vote: head.vote.vote(),
            prev_log_id: head.prev.map(WireLogId::log_id),
            leader_commit: head.commit.map(WireLogId::log_id),
            entries,
        })
    }

    /// Whether records are taken on a full disk, too (`room.I2`): they have a place, and none of them is what clients send all the time. A
    /// leader that has room sends those as fast as they come; they would fill the segment, and the vote of the next election would wait
    /// behind the first one that has no place.
    fn makes_room(&self, entries: &[LogEntry], bytes: usize) -> bool {
        let is_rare = |entry: &LogEntry| match &entry.content {
            Content::Stored(record) => match record.header.kind {
                RecordKind::Messages | RecordKind::Command => false,
                RecordKind::Transition => !is_of_pops(record),
                _ => true,
            },
            Content::New(_) => false,
        };
        entries.iter().all(is_rare) && self.shared.log.has_place(bytes as u64)
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
        self.shared.eligibility.set(Reason::CatchingUp, true);
        // What it voted since that copy was made is not known either.
        let noted = self.founding.begin_catch_up(true);
        // Once more: it may have caught up with an earlier loss in between.
        self.shared.eligibility.set(Reason::CatchingUp, true);
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

/// Whether it is a move of what clients pop all the time. A carried message is none.
fn is_of_pops(record: &Record) -> bool {
    record.commands().any(|command| {
        let command = Command::decode(&command);
        matches!(
            command,
            Ok(Command::PopMessages(_)
                | Command::PopAgain(_)
                | Command::AckPopped(_)
                | Command::ChangePopped(_)
                | Command::RevivePopped(_))
        )
    })
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

/// Splits back-to-back records; every length and checksum is checked, and what is no message (`appends.I1`). `is_here`: whether
/// an entry is in this node's log already, where a new leader sends again what both have.
pub(crate) fn parse_records(
    mut bytes: Bytes,
    skip_entry: &SkipEntry,
    is_here: impl Fn(EntryId) -> bool,
) -> io::Result<Vec<LogEntry>> {
    let mut entries = Vec::new();
    while !bytes.is_empty() {
        let header = RecordHeader::parse(&bytes).map_err(|error| invalid(error.to_string()))?;
        if header.length as usize > bytes.len() {
            return Err(invalid(format!("record {} is longer than its frame", header.index)));
        }
        let frame = bytes.split_to(header.length as usize);
        let record = Record::parse(frame).map_err(|error| invalid(error.to_string()))?;
        match record.header.kind {
            // Once it is in the log, nobody could go on without guessing a quorum.
            RecordKind::Membership => {
                codec::decode_membership(&record.payload()).map_err(|error| invalid(error.to_string()))?;
            }
            // Once it is committed, every node would stop at it, at every start.
            RecordKind::Command => admit(skip_entry, &record, &is_here, &record.payload())?,
            RecordKind::Transition => {
                record.commands().try_for_each(|command| admit(skip_entry, &record, &is_here, &command))?;
            }
            RecordKind::Blank | RecordKind::Messages => {}
        }
        entries.push(LogEntry::stored(record));
    }
    Ok(entries)
}

/// `appends.I1`
fn admit(
    skip_entry: &SkipEntry,
    record: &Record,
    is_here: impl Fn(EntryId) -> bool,
    command: &[u8],
) -> io::Result<()> {
    match skip_entry.admit(record.id(), command) {
        Err(why) if !is_here(record.id()) => Err(invalid(why.to_string())),
        _ => Ok(()),
    }
}

/// `appends.I2`
fn check_sequence(head: &AppendHead, entries: &[LogEntry], record_bytes_max: usize) -> io::Result<()> {
    let mut before = head.prev.map(|id| entry_id(&id.log_id()));
    for entry in entries {
        let id = entry_id(&entry.log_id());
        let follows = id.index == before.map_or(0, |before| before.index + 1)
            && id.term >= before.map_or(0, |before| before.term)
            && id.term <= head.vote.term();
        if !follows {
            return Err(invalid(format!("appends.I2: entry {id} behind {before:?}")));
        }
        if let Content::Stored(record) = &entry.content
            && record.frame().len() > record_bytes_max
        {
            let bytes = record.frame().len();
            return Err(invalid(format!(
                "appends.I2: entry {id} has {bytes} bytes, the limit is {record_bytes_max}"
            )));
        }
        before = Some(id);
    }
    Ok(())
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
    use folio_state::{Command, CreateTopic, LockQueues, QueueRef, Topic};

    /// A record as a leader's log has it.
    fn record(kind: RecordKind, id: EntryId, payload: &[u8]) -> Bytes {
        let disk = Arc::new(SimDisk::new());
        let log = CommitLog::open(disk, Path::new("/"), LogConfig::default(), StampBase::default()).unwrap();
        let record = log.append(id, Draft::with_payload(kind, payload)).unwrap();
        log.close();
        record.frame().clone()
    }

    const FIRST: EntryId = EntryId { term: 1, index: 0 };

    fn parsed(kind: RecordKind, payload: &[u8]) -> io::Result<usize> {
        parse_records(record(kind, FIRST, payload), &SkipEntry::default(), |_| false)
            .map(|entries| entries.len())
    }

    /// Found by reading: once it was in the log the node stopped, and at every start again.
    #[test]
    fn t90_a_membership_that_does_not_decode_was_taken_from_a_peer() {
        assert!(parsed(RecordKind::Membership, b"no membership").is_err());
        let whole = codec::encode_membership(&Membership::default());
        assert_eq!(parsed(RecordKind::Membership, &whole).unwrap(), 1);
    }

    /// One such record stopped every node of a cluster, at apply and at every start.
    #[test]
    fn appends_i1_a_garbage_command_was_taken_from_a_peer() {
        for garbage in [&b"garbage"[..], b"", b"FQ\x01\0\xff\xff\xff\xff"] {
            let error = parsed(RecordKind::Command, garbage).unwrap_err();
            assert_eq!(error.kind(), io::ErrorKind::InvalidData);
            assert!(error.to_string().contains("entry 1.0"), "{error}");
        }
        let topic = |name: String| Command::from(CreateTopic(Topic::new(name, 1))).encode();
        assert!(parsed(RecordKind::Command, &topic("t".repeat(1 << 20))).is_err(), "bounds.I1");
        assert_eq!(parsed(RecordKind::Command, &topic("t".into())).unwrap(), 1);
        let has_it =
            parse_records(record(RecordKind::Command, FIRST, b"garbage"), &SkipEntry::default(), |id| {
                id == FIRST
            });
        assert_eq!(has_it.unwrap().len(), 1, "it is in this log already, and replication goes on behind it");
        assert_eq!(parsed(RecordKind::Blank, b"").unwrap(), 1);
    }

    #[test]
    fn appends_i1_each_command_of_a_transition_is_looked_at() {
        let topic = |name: String| Command::from(CreateTopic(Topic::new(name, 1))).encode();
        let taken = |commands: &[Vec<u8>]| {
            let draft = Draft::transition(commands, 0).unwrap();
            parsed(RecordKind::Transition, draft.payload())
        };
        assert_eq!(taken(&[topic("t".into()), topic("u".into())]).unwrap(), 1);
        assert!(taken(&[topic("t".into()), b"garbage".to_vec()]).is_err());
        assert!(taken(&[topic("t".into()), topic("t".repeat(999))]).is_err(), "bounds.I1");
    }

    /// The log ended a node of which a peer said that entry 9 follows entry 3.
    #[test]
    fn appends_i2_records_that_do_not_follow_each_other_were_taken() {
        let id = |term, index| EntryId { term, index };
        let sequence = |leads, prev: Option<EntryId>, ids: &[EntryId]| {
            let head = AppendHead {
                vote: (&crate::types::Vote::new_committed(leads, 1)).into(),
                prev: prev.map(|id| WireLogId::new(id.term, id.index)),
                commit: None,
                acknowledged: None,
            };
            let records =
                ids.iter().map(|id| record(RecordKind::Blank, *id, b"")).collect::<Vec<_>>().concat();
            let entries = parse_records(records.into(), &SkipEntry::default(), |_| false).unwrap();
            check_sequence(&head, &entries, 1 << 20).is_ok()
        };
        assert!(sequence(3, None, &[id(1, 0), id(1, 1), id(3, 2)]));
        assert!(sequence(3, Some(id(2, 7)), &[id(2, 8)]) && sequence(3, Some(id(2, 7)), &[]));
        assert!(!sequence(3, None, &[id(1, 1)]), "a gap at the beginning");
        assert!(!sequence(3, Some(id(2, 7)), &[id(2, 9)]) && !sequence(3, Some(id(2, 7)), &[id(2, 7)]));
        assert!(!sequence(3, Some(id(2, 7)), &[id(1, 8)]), "a term that goes back");
        assert!(!sequence(3, Some(id(2, 7)), &[id(4, 8)]), "a term later than the leader's");
    }

    #[test]
    fn appends_i2_a_record_that_no_segment_holds_was_taken() {
        let entries =
            parse_records(record(RecordKind::Blank, FIRST, &[0; 100]), &SkipEntry::default(), |_| false)
                .unwrap();
        let vote = (&crate::types::Vote::new_committed(1, 1)).into();
        let head = AppendHead { vote, prev: None, commit: None, acknowledged: None };
        assert!(check_sequence(&head, &entries, 100).is_err());
        assert!(check_sequence(&head, &entries, 1_000).is_ok());
    }

    /// What `appends.I1` adds to the path of a command, which also waits for a sync of the disk.
    #[test]
    fn a_command_is_checked_in_microseconds() {
        let queues = |count| (0..count).map(|queue| QueueRef { topic: "orders".into(), queue }).collect();
        for count in [1, 8, 1_000] {
            let (group, client) = ("consumers".into(), "10.0.0.1@1234".into());
            let lock =
                Command::from(LockQueues { group, client, queues: queues(count), now_ms: 1, ttl_ms: 60_000 });
            let payload = lock.encode();
            let (begun, rounds) = (std::time::Instant::now(), 1_000);
            (0..rounds).for_each(|_| SkipEntry::default().admit(FIRST, &payload).unwrap());
            let each = begun.elapsed() / rounds;
            println!("{count} queues, {} bytes: {each:?}", payload.len());
            assert!(each < std::time::Duration::from_millis(10), "{each:?}");
        }
    }
}
