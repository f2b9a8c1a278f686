//! The listening side: what peers ask of this node.
//!
//! - `peer.I1`: a connection speaks only after a hello for this cluster, group, node and segment size.
//! - `peer.I2`: a node that lost its log (`group::founding`) refuses votes until it has caught up.
//! - `peer.I3`: records are taken only while the disk has room for them; the leader retries later.

use std::io;
use std::sync::atomic::Ordering;
use std::sync::{Arc, OnceLock};

use bytes::{Buf, Bytes};
use folio_engine::record::{Record, RecordHeader, RecordKind};
use futures_util::StreamExt;
use openraft::entry::RaftEntry;
use openraft::raft::{
    AppendEntriesRequest, AppendEntriesResponse, StreamAppendError, TransferLeaderRequest, VoteRequest,
};
use openraft::storage::Snapshot;
use parking_lot::Mutex;
use tokio::sync::{Semaphore, mpsc};
use tokio::task::JoinSet;
use tokio::time::timeout;

use super::incoming_snapshot;
use super::parts::{Assembly, PartHead};
use super::requests::CONNECT_TIMEOUT;
use super::wire::{
    AppendAnswer, AppendHead, Frame, FrameReader, FrameWriter, Hello, Kind, Purpose, RecordBody,
    SnapshotBody, TransferAnswer, TransferBody, VoteAnswer, VoteBody, invalid,
};
use crate::codec::{self, WireLogId};
use crate::group::founding::Founding;
use crate::group::standing::Reason;
use crate::host::{Host, Listener, Socket};
use crate::shared::{Shared, UnansweredCall};
use crate::state_machine::{SnapshotContent, SnapshotMetaOf};
use crate::types::{LogEntry, LogId, Raft, StoredMembership, TypeConfig, entry_id};

/// Appends that wait for the core at most, per connection.
const APPENDS_WAITING: usize = 64;
/// Requests of one connection that are worked on at once.
const REQUESTS_AT_ONCE: usize = 256;

/// Everything a peer connection needs of this node.
pub(crate) struct Peers {
    /// Set once the log is read: until then only what needs the files alone is answered.
    pub(crate) raft: Arc<OnceLock<Raft>>,
    pub(crate) host: Host,
    pub(crate) shared: Arc<Shared>,
    pub(crate) founding: Arc<Founding>,
    /// What a peer must say to be let in, `from` and `purpose` aside.
    pub(crate) expect: Hello,
    /// Hears from whom a connection came that has ended.
    pub(crate) ended: mpsc::Sender<u64>,
}

impl Peers {
    /// Accepts peers until the listener's task is aborted, and ends their connections then: a peer would go on asking a group
    /// that has stopped.
    pub(crate) async fn listen(self: Arc<Self>, mut listener: Box<dyn Listener>) {
        let mut connections = JoinSet::new();
        loop {
            while connections.try_join_next().is_some() {}
            match listener.accept().await {
                Ok(socket) => {
                    let (peers, from) = (self.clone(), socket.peer.clone());
                    connections.spawn(async move {
                        if let Err(error) = peers.serve(socket).await {
                            tracing::debug!(%from, %error, "peer connection ended");
                        }
                    });
                }
                Err(error) => {
                    tracing::warn!(%error, "cannot accept a peer's connection");
                    tokio::time::sleep(std::time::Duration::from_millis(100)).await;
                }
            }
        }
    }

    fn raft(&self) -> io::Result<&Raft> {
        self.raft.get().ok_or_else(|| io::Error::other("this node is still starting"))
    }

    async fn serve(self: Arc<Self>, socket: Socket) -> io::Result<()> {
        let from = socket.peer;
        let (mut reader, mut writer) = (FrameReader::new(socket.reader), FrameWriter::new(socket.writer));
        let first = timeout(CONNECT_TIMEOUT, reader.next()).await.map_err(|_| io::ErrorKind::TimedOut)??;
        let Some(Frame { kind: Kind::Hello, body, .. }) = first else { return Err(invalid("no hello")) };
        let hello: Hello = codec::decode(&body).map_err(|error| invalid(error.to_string()))?;
        if let Err(reason) = self.check(&hello) {
            tracing::warn!(%from, node = hello.from, reason, "peer refused");
            return writer.write(Kind::Failure, 0, vec![reason.into()]).await;
        }
        writer.write(Kind::Answer, 0, Vec::new()).await?;
        let ended = self.ended.clone();
        let served = match hello.purpose {
            Purpose::Replication => self.serve_replication(reader, writer).await,
            Purpose::Requests => self.serve_requests(hello.from, reader, writer).await,
        };
        let _ = ended.try_send(hello.from);
        served
    }

    /// `peer.I1`
    fn check(&self, hello: &Hello) -> Result<(), String> {
        let expect = &self.expect;
        let names = (&hello.cluster, &hello.group) == (&expect.cluster, &expect.group);
        if !names {
            return Err(format!(
                "this is group {} of cluster {}, the peer looks for {} of {}",
                expect.group, expect.cluster, hello.group, hello.cluster
            ));
        }
        if hello.to != expect.to {
            return Err(format!("this is node {}, the peer looks for node {}", expect.to, hello.to));
        }
        if hello.segment_bytes != expect.segment_bytes {
            return Err(format!(
                "segments here are {} bytes, the peer's are {}: they must be the same on every node of a group",
                expect.segment_bytes, hello.segment_bytes
            ));
        }
        Ok(())
    }

    async fn serve_replication(&self, mut reader: FrameReader, mut writer: FrameWriter) -> io::Result<()> {
        let (appends, waiting) = mpsc::channel::<AppendEntriesRequest<TypeConfig>>(APPENDS_WAITING);
        let waiting = futures_util::stream::unfold(waiting, |mut waiting| async {
            waiting.recv().await.map(|request| (request, waiting))
        });
        let mut answers = Box::pin(self.raft()?.stream_append(waiting));
        let (failures, mut failed) = mpsc::channel::<String>(1);
        // Owns `appends`: when the peer has sent its last append, the stream of answers ends after the last
        // answer.
        let (own, input) = (self, &mut reader);
        let read = async move {
            let mut broken = false;
            while let Some(frame) = input.next().await? {
                match own.parse_append(&frame) {
                    // Read and dropped: the peer is about to hear of the first failure.
                    _ if broken => {}
                    // Nobody takes it any more once the stream of answers has ended.
                    Ok(request) => drop(appends.send(request).await),
                    Err(error) => {
                        broken = true;
                        let _ = failures.send(error.to_string()).await;
                    }
                }
            }
            io::Result::Ok(())
        };
        let write = async {
            let mut id = 0;
            loop {
                id += 1;
                tokio::select! {
                    biased;
                    answer = answers.next() => match answer {
                        Some(Ok(answer)) => {
                            let answer = append_answer(answer);
                            writer.write(Kind::Answer, id, vec![codec::encode(&answer).into()]).await?;
                        }
                        Some(Err(fatal)) => {
                            return writer.write(Kind::Failure, id, vec![fatal.to_string().into()]).await;
                        }
                        None => return Ok(()),
                    },
                    Some(failure) = failed.recv() => {
                        return writer.write(Kind::Failure, id, vec![failure.into()]).await;
                    }
                }
            }
        };
        tokio::pin!(read);
        {
            tokio::pin!(write);
            tokio::select! {
                // The peer closes its side when it has nothing more to send: it still waits for the answers.
                ended = &mut read => return ended.and(write.await),
                ended = &mut write => ended?,
            }
        }
        // The last answer is on its way. Closing now, with appends unread, would reset the connection and
        // could take that answer along: read on until the peer has it and closes.
        writer.finish().await?;
        timeout(CONNECT_TIMEOUT, read).await.map_err(|_| io::ErrorKind::TimedOut)?
    }

    /// Takes an append apart: the records stay slices of the frame.
    fn parse_append(&self, frame: &Frame) -> io::Result<AppendEntriesRequest<TypeConfig>> {
        let (head, records) = split_append(frame)?;
        self.may_follow(&head.vote)?;
        self.notice_loss(&head)?;
        // peer.I3
        if !records.is_empty() && !self.shared.log.has_room(1) {
            return Err(io::Error::new(io::ErrorKind::StorageFull, "disk full: records not taken"));
        }
        Ok(AppendEntriesRequest {
            vote: head.vote.vote(),
            prev_log_id: head.prev.map(WireLogId::log_id),
            leader_commit: head.commit.map(WireLogId::log_id),
            entries: parse_records(records)?,
        })
    }

    /// Whether the leader remembers an entry of this node's that is not in its log (`founding.I5`): then it is noted, before
    /// anything is answered, that this node does not vote.
    fn notice_loss(&self, head: &AppendHead) -> io::Result<()> {
        let Some(id) = head.acknowledged else { return Ok(()) };
        let own = self.shared.log.vote().map(|bytes| codec::decode_vote(&bytes)).transpose();
        // A later leader may have taken it back.
        let outvoted = own.map_err(io::Error::other)?.is_some_and(|own| own > head.vote.vote());
        if outvoted || self.founding.refuses_votes() || !self.shared.lacks(entry_id(&id.log_id())) {
            return Ok(());
        }
        tracing::warn!(
            ?id,
            "this node has acknowledged an entry that its log lacks: no vote until it has caught up"
        );
        self.shared.standing.set(Reason::CatchingUp, true);
        self.founding.begin_catch_up()
    }

    /// `founding.I4`
    fn may_follow(&self, leader: &codec::WireVote) -> io::Result<()> {
        let vote = leader.vote();
        if self.founding.may_follow(vote.leader_id.term, self.shared.log.vote().is_some()) {
            return Ok(());
        }
        Err(io::Error::other("this node has lost its vote and does not know yet whom it may follow"))
    }

    async fn serve_requests(
        self: Arc<Self>,
        from: u64,
        mut reader: FrameReader,
        mut writer: FrameWriter,
    ) -> io::Result<()> {
        let (answers, mut waiting) =
            mpsc::channel::<(Kind, u64, Bytes, Option<UnansweredCall>)>(REQUESTS_AT_ONCE);
        let slots = Arc::new(Semaphore::new(REQUESTS_AT_ONCE));
        let assembly = Arc::<Mutex<Assembly>>::default();
        let read = async {
            while let Some(frame) = reader.next().await? {
                let (peers, answers, assembly) = (self.clone(), answers.clone(), assembly.clone());
                let call = (frame.kind == Kind::Call).then(|| UnansweredCall::new(&self.shared));
                let Ok(slot) = slots.clone().acquire_owned().await else { break };
                tokio::spawn(async move {
                    let id = frame.id;
                    let answer = match peers.answer(from, frame, &assembly).await {
                        Ok(body) => (Kind::Answer, id, body, call),
                        Err(error) => (Kind::Failure, id, error.to_string().into(), call),
                    };
                    let _ = answers.send(answer).await;
                    drop(slot);
                });
            }
            io::Result::Ok(())
        };
        let write = async {
            while let Some((kind, id, body, call)) = waiting.recv().await {
                writer.write(kind, id, vec![body]).await?;
                drop(call);
            }
            io::Result::Ok(())
        };
        // A peer that closes its side waits for nothing any more: what is still being worked on goes nowhere.
        tokio::select! { ended = read => ended, ended = write => ended }
    }

    async fn answer(&self, from: u64, frame: Frame, assembly: &Mutex<Assembly>) -> io::Result<Bytes> {
        match frame.kind {
            Kind::Append => self.append(&frame).await,
            Kind::Vote => self.vote(&frame.body, false).await,
            Kind::PreVote => self.vote(&frame.body, true).await,
            Kind::Transfer => self.transfer(&frame.body).await,
            Kind::Snapshot => self.snapshot(&frame.body, assembly).await,
            Kind::SnapshotPart => {
                let (head, part) = frame.body.split_at_checked(PartHead::BYTES).unwrap_or_default();
                let head: PartHead = codec::decode(head).map_err(io::Error::other)?;
                assembly.lock().add(head, part).map(|()| Bytes::new())
            }
            Kind::Call => Ok(self.shared.hooks.call(from, frame.body).await),
            Kind::Room => Ok(crate::group::room::answer(&self.shared)),
            Kind::Summary => {
                Ok(codec::encode(&crate::group::summary(&self.shared, &self.founding, self.raft.get()))
                    .into())
            }
            Kind::Record => self.record(&frame.body),
            Kind::StoredSnapshot => {
                let shared = self.shared.clone();
                let part = self
                    .host
                    .blocking(move || crate::snapshots::fetch::part(&shared.checkpoints, &frame.body));
                part.await?
            }
            Kind::AllEmpty => {
                let start = codec::decode(&frame.body).map_err(io::Error::other)?;
                let told = crate::group::all_empty(&self.shared, &self.founding, start);
                told.map(|()| Bytes::new())
            }
            Kind::Hello | Kind::Answer | Kind::Failure => Err(invalid("not a request")),
        }
    }

    async fn append(&self, frame: &Frame) -> io::Result<Bytes> {
        let request = self.parse_append(frame)?;
        let prev = request.prev_log_id;
        let last = request.entries.last().map(RaftEntry::log_id).or(prev);
        let answer = match self.raft()?.append_entries(request).await.map_err(io::Error::other)? {
            AppendEntriesResponse::Success => AppendAnswer::Matching(last.as_ref().map(Into::into)),
            AppendEntriesResponse::PartialSuccess(last) => {
                AppendAnswer::Matching(last.as_ref().map(Into::into))
            }
            AppendEntriesResponse::HigherVote(vote) => AppendAnswer::HigherVote((&vote).into()),
            AppendEntriesResponse::Conflict => match prev {
                Some(prev) => AppendAnswer::Conflict((&prev).into()),
                None => return Err(invalid("a conflict with nothing before it")),
            },
        };
        Ok(codec::encode(&answer).into())
    }

    /// A record for a peer whose own copy is damaged. Only what is applied here, and hence committed: there is no other
    /// record that could ever stand at its position.
    fn record(&self, body: &[u8]) -> io::Result<Bytes> {
        let asked: RecordBody = codec::decode(body).map_err(io::Error::other)?;
        if asked.index > self.shared.applied_index.load(Ordering::Acquire) {
            return Err(io::Error::other(format!("entry {} is not applied here yet", asked.index)));
        }
        let read = self.shared.log.read(asked.index, asked.index + 1, 1).map_err(io::Error::other)?;
        match read.first() {
            Some(record) if record.position() == asked.position => Ok(record.frame().clone()),
            _ => Err(io::Error::other(format!(
                "no record of entry {} at position {}",
                asked.index, asked.position
            ))),
        }
    }

    async fn vote(&self, body: &[u8], pre_vote: bool) -> io::Result<Bytes> {
        let wire: VoteBody = codec::decode(body).map_err(io::Error::other)?;
        // peer.I2
        if self.founding.refuses_votes() {
            return Err(io::Error::other(
                "this node's log is empty or incomplete: it does not vote until it has caught up",
            ));
        }
        let mut request = VoteRequest::new(wire.vote.vote(), wire.last.map(WireLogId::log_id));
        request.leadership_transfer = wire.transfer;
        let answered =
            if pre_vote { self.raft()?.pre_vote(request).await } else { self.raft()?.vote(request).await };
        let response = answered.map_err(io::Error::other)?;
        let answer = VoteAnswer {
            vote: (&response.vote).into(),
            granted: response.vote_granted,
            last: response.last_log_id.as_ref().map(Into::into),
        };
        Ok(codec::encode(&answer).into())
    }

    async fn transfer(&self, body: &[u8]) -> io::Result<Bytes> {
        use openraft::raft::TransferLeaderError as Refused;
        let wire: TransferBody = codec::decode(body).map_err(io::Error::other)?;
        // To lead, a node votes for itself.
        if !self.shared.standing.may_lead() {
            let why = self.shared.standing.reasons().join("; ");
            return Err(io::Error::other(format!("this node does not stand for election: {why}")));
        }
        let request = TransferLeaderRequest::new(wire.from.vote(), wire.to, wire.last.map(WireLogId::log_id));
        let answer = match self.raft()?.handle_transfer_leader(request).await.map_err(io::Error::other)? {
            Ok(()) => TransferAnswer::Done,
            Err(Refused::VoteChanged { expected, actual }) => {
                TransferAnswer::VoteChanged { expected: (&expected).into(), actual: (&actual).into() }
            }
            Err(Refused::LogNotFlushed { expected, actual }) => TransferAnswer::LogNotFlushed {
                expected: expected.as_ref().map(Into::into),
                actual: actual.as_ref().map(Into::into),
            },
        };
        Ok(codec::encode(&answer).into())
    }

    /// Saves a snapshot durably, tells the log where to start anew, and only then hands it to openraft:
    /// whatever the moment of a crash, the log's start and a snapshot of the state there are both on disk.
    async fn snapshot(&self, body: &[u8], assembly: &Mutex<Assembly>) -> io::Result<Bytes> {
        let wire: SnapshotBody = codec::decode(body).map_err(io::Error::other)?;
        self.may_follow(&wire.vote)?;
        let file = if wire.checkpoint.is_empty() { assembly.lock().take()? } else { wire.checkpoint.into() };
        let membership = wire.membership.membership().map_err(io::Error::other)?;
        let meta = SnapshotMetaOf {
            last_log_id: wire.last.map(WireLogId::log_id),
            last_membership: StoredMembership::new(wire.membership_log_id.map(WireLogId::log_id), membership),
        };
        let last = meta.last_log_id.as_ref().map(entry_id);
        let shared = self.shared.clone();
        let taking = self.host.blocking(move || incoming_snapshot::take(&shared, &file, last, &wire.vote));
        let Some(received) = taking.await?? else { return Ok(codec::encode(&wire.vote).into()) };
        if let Some(id) = received.base.id {
            self.shared.pending_reset.lock().insert(id, received.base.clone());
        }
        let snapshot = Snapshot { meta, snapshot: SnapshotContent::Received(Box::new(received)) };
        let response =
            self.raft()?.install_full_snapshot(wire.vote.vote(), snapshot).await.map_err(io::Error::other)?;
        Ok(codec::encode(&codec::WireVote::from(&response.vote)).into())
    }
}

fn append_answer(result: Result<Option<LogId>, StreamAppendError<TypeConfig>>) -> AppendAnswer {
    match result {
        Ok(matching) => AppendAnswer::Matching(matching.as_ref().map(Into::into)),
        Err(StreamAppendError::Conflict(id)) => AppendAnswer::Conflict((&id).into()),
        Err(StreamAppendError::HigherVote(vote)) => AppendAnswer::HigherVote((&vote).into()),
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

    use folio_engine::disk::sim::SimDisk;
    use folio_engine::record::{Draft, EntryId};
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
