//! The listening side: what peers ask of this node.
//!
//! - `peer.I1`: a connection speaks only after a hello for this cluster, group, node and segment size; and a peer that has not
//!   named this group's id (`group::group_id`) is told what this node is and nothing else.
//! - `peer.I2`: a node that lost its log (`group::founding`) refuses votes until it has caught up, except by a ballot.
//! - `peer.I3`: records are taken only while the disk has room for them; the leader retries later.

use std::io;
use std::path::PathBuf;
use std::sync::atomic::Ordering;
use std::sync::{Arc, OnceLock};

use bytes::Bytes;
use futures_util::StreamExt;
use openraft::entry::RaftEntry;
use openraft::raft::{AppendEntriesRequest, AppendEntriesResponse, StreamAppendError};
use openraft::storage::Snapshot;
use parking_lot::Mutex;
use tokio::sync::{Semaphore, mpsc};
use tokio::task::JoinSet;
use tokio::time::timeout;

use super::incoming_snapshot;
use super::parts::{Assembly, PartHead};
use super::requests::CONNECT_TIMEOUT;
use super::wire::{
    AppendAnswer, Frame, FrameReader, FrameWriter, Hello, Kind, Purpose, RecordBody, SnapshotBody, invalid,
};
use crate::codec::{self, WireLogId};
use crate::group::fence;
use crate::group::founding::Founding;
use crate::group::group_id::{GroupId, other_group};
use crate::group::tasks;
use crate::host::{Host, Listener, Socket};
use crate::shared::{Shared, UnansweredCall};
use crate::state_machine::{SnapshotContent, SnapshotMetaOf};
use crate::types::{LogId, Raft, StoredMembership, TypeConfig, entry_id};

/// Appends that wait for the core at most, per connection.
const APPENDS_WAITING: usize = 64;
/// Requests of one connection that are worked on at once.
const REQUESTS_AT_ONCE: usize = 256;

/// Who asks.
#[derive(Debug, Clone, Copy)]
struct Peer {
    id: u64,
    group_id: Option<GroupId>,
}

/// Everything a peer connection needs of this node.
pub(crate) struct Peers {
    /// Set once the log is read: until then only what needs the files alone is answered.
    pub(crate) raft: Arc<OnceLock<Raft>>,
    pub(crate) host: Host,
    pub(crate) shared: Arc<Shared>,
    pub(crate) founding: Arc<Founding>,
    pub(crate) data_dir: PathBuf,
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
                        let shared = peers.shared.clone();
                        let served = tasks::guarded(&shared, "a peer's connection", peers.serve(socket));
                        if let Err(error) = served.await {
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

    pub(super) fn raft(&self) -> io::Result<&Raft> {
        self.raft.get().ok_or_else(|| io::Error::other("this node is still starting"))
    }

    async fn serve(self: Arc<Self>, socket: Socket) -> io::Result<()> {
        let from = socket.peer;
        let (mut reader, mut writer) = (FrameReader::new(socket.reader), FrameWriter::new(socket.writer));
        let first = timeout(CONNECT_TIMEOUT, reader.next()).await.map_err(|_| io::ErrorKind::TimedOut)??;
        let Some(Frame { kind: Kind::Hello, body, .. }) = first else { return Err(invalid("no hello")) };
        let hello: Hello = codec::decode(&body).map_err(|error| invalid(error.to_string()))?;
        if let Err((reason, is_news)) = self.check(&hello) {
            if is_news {
                tracing::warn!(%from, node = hello.from, reason, "peer refused");
            }
            return writer.write(Kind::Failure, 0, vec![reason.into()]).await;
        }
        self.founding.note_caller(hello.from, &hello.address);
        writer.write(Kind::Answer, 0, Vec::new()).await?;
        let ended = self.ended.clone();
        let served = match hello.purpose {
            Purpose::Replication => self.serve_replication(hello.group_id, reader, writer).await,
            Purpose::Requests => self.serve_requests(&hello, reader, writer).await,
        };
        let _ = ended.try_send(hello.from);
        served
    }

    /// `peer.I1`, `group_id.I2`. The error is what the peer is told, and whether the log should say it.
    fn check(&self, hello: &Hello) -> Result<(), (String, bool)> {
        self.check_names(hello).map_err(|reason| (reason, true))?;
        match (self.founding.group_id.get(), hello.group_id) {
            (Some(own), Some(other)) if own != other => {
                let reason = other_group(own, other);
                let is_news = self.shared.notices.refused(hello.from, other, &reason);
                Err((reason, is_news))
            }
            _ => Ok(()),
        }
    }

    /// Whether a peer of the group `theirs` may ask this. Whoever does not know the group, on either side, is told about it and
    /// takes no part (`group_id.I1`, `group_id.I2`).
    pub(super) fn check_group(&self, theirs: Option<GroupId>) -> io::Result<()> {
        match self.founding.group_id.get() {
            own @ Some(_) if own == theirs => Ok(()),
            Some(_) => Err(io::Error::other("the peer has not said that it belongs to this group")),
            None => Err(io::Error::other("this node does not know its group yet")),
        }
    }

    fn check_names(&self, hello: &Hello) -> Result<(), String> {
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

    async fn serve_replication(
        &self,
        theirs: Option<GroupId>,
        mut reader: FrameReader,
        mut writer: FrameWriter,
    ) -> io::Result<()> {
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
                match own.parse_append(&frame, theirs) {
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

    async fn serve_requests(
        self: Arc<Self>,
        hello: &Hello,
        mut reader: FrameReader,
        mut writer: FrameWriter,
    ) -> io::Result<()> {
        let (answers, mut waiting) =
            mpsc::channel::<(Kind, u64, Bytes, Option<UnansweredCall>)>(REQUESTS_AT_ONCE);
        let slots = Arc::new(Semaphore::new(REQUESTS_AT_ONCE));
        let peer = Peer { id: hello.from, group_id: hello.group_id };
        let assembly = Arc::<Mutex<Assembly>>::default();
        let read = async {
            while let Some(frame) = reader.next().await? {
                let (peers, answers, assembly) = (self.clone(), answers.clone(), assembly.clone());
                let call = (frame.kind == Kind::Call).then(|| UnansweredCall::new(&self.shared));
                let Ok(slot) = slots.clone().acquire_owned().await else { break };
                tokio::spawn(async move {
                    let id = frame.id;
                    let answering = peers.answer(peer, frame, &assembly);
                    let answered = tasks::guarded(&peers.shared, "a peer's request", answering);
                    let answer = match answered.await {
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

    async fn answer(&self, peer: Peer, frame: Frame, assembly: &Mutex<Assembly>) -> io::Result<Bytes> {
        if !(frame.kind == Kind::Summary || frame.kind == Kind::AllEmpty) {
            self.check_group(peer.group_id)?;
        }
        match frame.kind {
            Kind::Append => self.append(&frame, peer.group_id).await,
            Kind::Vote => self.vote(&frame.body, false).await,
            Kind::PreVote => self.vote(&frame.body, true).await,
            Kind::Transfer => self.transfer(&frame.body).await,
            Kind::Snapshot => self.snapshot(&frame.body, assembly).await,
            Kind::SnapshotPart => {
                let (head, part) = frame.body.split_at_checked(PartHead::BYTES).unwrap_or_default();
                let head: PartHead = codec::decode(head).map_err(io::Error::other)?;
                assembly.lock().add(head, part).map(|()| Bytes::new())
            }
            Kind::Call => Ok(self.shared.hooks.call(peer.id, frame.body).await),
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
                let told = crate::group::all_empty(&self.shared, &self.founding, &frame.body);
                told.map(|()| Bytes::new())
            }
            Kind::Fence => fence::answer(self.raft()?, &self.shared).await.map(Bytes::from),
            Kind::Hello | Kind::Answer | Kind::Failure => Err(invalid("not a request")),
        }
    }

    async fn append(&self, frame: &Frame, theirs: Option<GroupId>) -> io::Result<Bytes> {
        let request = self.parse_append(frame, theirs)?;
        let prev = request.prev_log_id;
        let last = request.entries.last().map(RaftEntry::log_id).or(prev);
        let appended = self.raft()?.append_entries(request);
        let appended = if last == prev { self.heartbeat(appended).await? } else { appended.await };
        let answer = match appended.map_err(io::Error::other)? {
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
        let vote = wire.vote;
        let taking = self.host.blocking(move || incoming_snapshot::take(&shared, &file, last, &vote));
        let needs_nothing = |base| incoming_snapshot::needs_nothing_of(&self.shared, base, &wire.vote);
        let received = match taking.await?? {
            // Its entries may have come meanwhile.
            Some(received) if !needs_nothing(&received.base)? => received,
            _ => {
                self.shared.wait_durable(last.map_or(0, |last| last.index)).await?;
                return Ok(codec::encode(&wire.vote).into());
            }
        };
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
