//! The listening side: what peers ask of this node, once [`super::listener`] has let them in.
//!
//! - `peer.I2`: a node that lost its log (`group::founding`) refuses votes until it has caught up, except by a ballot.
//! - `peer.I3`: records are taken only while the disk has room for them, but for those that make room (`room.I2`); the leader retries
//!   later.

use std::collections::BTreeSet;
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
use tokio::time::{Instant, timeout};

use super::frames::{FrameReader, FrameWriter};
use super::incoming_snapshot;
use super::introduction::Identity;
use super::parts::{Assembly, PartHead};
use super::requests::CONNECT_TIMEOUT;
use super::wire::{AppendAnswer, Frame, Kind, RecordBody, SnapshotBody, invalid};
use crate::calls::UnansweredCall;
use crate::codec::{self, WireLogId};
use crate::config::GroupConfig;
use crate::group::fence;
use crate::group::founding::Founding;
use crate::group::group_id::GroupId;
use crate::group::tasks;
use crate::host::Host;
use crate::log_rate_limiter::LogRateLimiter;
use crate::shared::Shared;
use crate::state_machine::{Raft, SnapshotContent, SnapshotMetaOf};
use crate::types::{LogId, StoredMembership, TypeConfig, entry_id};

/// Appends that wait for the core at most, per connection.
const APPENDS_WAITING: usize = 64;
/// Requests of one connection that are worked on at once.
const REQUESTS_AT_ONCE: usize = 256;

/// When a node that is no member was last given a fence.
type LastFence = tokio::sync::Mutex<Option<Instant>>;

/// Who asks.
#[derive(Debug, Clone, Copy)]
pub(super) struct Peer {
    pub(super) id: u64,
    pub(super) group_id: Option<GroupId>,
}

/// Everything a peer connection needs of this node.
pub(crate) struct Peers {
    pub(super) raft: Arc<OnceLock<Raft>>,
    pub(super) host: Host,
    pub(crate) shared: Arc<Shared>,
    pub(super) founding: Arc<Founding>,
    pub(super) data_dir: PathBuf,
    /// What a peer must know to be let in.
    pub(super) identity: Identity,
    /// The members at the group's birth.
    pub(super) born: BTreeSet<u64>,
    /// Hears from whom a connection came that has ended.
    pub(super) ended: mpsc::Sender<u64>,
    pub(super) last_fence: LastFence,
    /// Lines about requests that were refused.
    denials: LogRateLimiter,
}

/// What the rest of a group hands to its listener.
pub(crate) struct Parts {
    /// Set once the log is read: until then only what needs the files alone is answered.
    pub(crate) raft: Arc<OnceLock<Raft>>,
    pub(crate) host: Host,
    pub(crate) shared: Arc<Shared>,
    pub(crate) founding: Arc<Founding>,
    pub(crate) ended: mpsc::Sender<u64>,
}

impl Peers {
    pub(crate) fn new(config: &GroupConfig, parts: Parts) -> Peers {
        let Parts { raft, host, shared, founding, ended } = parts;
        let identity = Identity::of(config, &shared.level);
        let (last_fence, denials) = Default::default();
        Peers {
            raft,
            host,
            shared,
            founding,
            data_dir: config.data_dir.clone(),
            identity,
            born: config.nodes.keys().copied().collect(),
            ended,
            last_fence,
            denials,
        }
    }

    pub(super) fn raft(&self) -> io::Result<&Raft> {
        self.raft.get().ok_or_else(|| io::Error::other("this node is still starting"))
    }

    pub(super) fn node_id(&self) -> u64 {
        self.identity.node_id
    }

    /// Whether a peer is of this group, and may ask. Whoever does not know the group, on either side, is told about it and
    /// takes no part (`group_id.I1`, `group_id.I2`).
    pub(super) fn check_group(&self, peer: Peer) -> io::Result<()> {
        match self.founding.group_id.get() {
            own @ Some(_) if own == peer.group_id => Ok(()),
            Some(_) => Err(io::Error::other("the peer has not said that it belongs to this group")),
            None => Err(io::Error::other("this node does not know its group yet")),
        }
    }

    pub(super) async fn serve_replication(
        &self,
        peer: Peer,
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
                match own.parse_append(&frame, peer) {
                    // Read and dropped: the peer is about to hear of the first failure.
                    _ if broken => {}
                    // Nobody takes it any more once the stream of answers has ended.
                    Ok(request) => drop(appends.send(request).await),
                    Err(error) => {
                        broken = true;
                        own.note_denial(peer, frame.kind, &error);
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

    pub(super) async fn serve_requests(
        self: Arc<Self>,
        peer: Peer,
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
                let call = (frame.kind == Kind::Call).then(|| self.shared.calls.begin());
                let Ok(slot) = slots.clone().acquire_owned().await else { break };
                tokio::spawn(async move {
                    let (id, kind) = (frame.id, frame.kind);
                    let answering = peers.answer(peer, frame, &assembly);
                    let answered = tasks::guarded(&peers.shared, "a peer's request", answering);
                    let answer = match answered.await {
                        Ok(body) => (Kind::Answer, id, body, call),
                        Err(error) => {
                            peers.note_denial(peer, kind, &error);
                            (Kind::Failure, id, error.to_string().into(), call)
                        }
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
            self.check_group(peer)?;
        }
        self.check_kind(peer.id, frame.kind).await?;
        match frame.kind {
            Kind::Append => self.append(&frame, peer).await,
            Kind::Vote => self.vote(peer.id, &frame.body, false).await,
            Kind::PreVote => self.vote(peer.id, &frame.body, true).await,
            Kind::Transfer => self.transfer(peer.id, &frame.body).await,
            Kind::Snapshot => self.snapshot(peer.id, &frame.body, assembly).await,
            Kind::SnapshotPart => {
                let (head, part) = frame.body.split_at_checked(PartHead::BYTES).unwrap_or_default();
                let head: PartHead = codec::decode(head).map_err(io::Error::other)?;
                assembly.lock().add(head, part).map(|()| Bytes::new())
            }
            Kind::Call => Ok(self.shared.hooks.call(peer.id, frame.body).await),
            Kind::Room => Ok(crate::group::disk_space::answer(&self.shared)),
            Kind::Summary => {
                let summary = crate::group::summary(&self.shared, &self.founding, self.raft.get());
                Ok(codec::encode(&summary.await).into())
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
            Kind::Hello
            | Kind::GroupHello
            | Kind::Challenge
            | Kind::Credentials
            | Kind::Answer
            | Kind::Failure => Err(invalid("not a request")),
        }
    }

    /// What a peer may not send (`peer.I4` to `peer.I6`, `appends.I1`) is in this node's log, at most once a second.
    fn note_denial(&self, peer: Peer, kind: Kind, error: &io::Error) {
        let is_denial = matches!(error.kind(), io::ErrorKind::InvalidData | io::ErrorKind::PermissionDenied);
        if is_denial && self.denials.admit().is_some() {
            tracing::warn!(node = peer.id, ?kind, %error, "a peer's request was refused");
        }
    }

    async fn append(&self, frame: &Frame, peer: Peer) -> io::Result<Bytes> {
        let request = self.parse_append(frame, peer)?;
        let (prev, leader) = (request.prev_log_id, request.vote);
        let last = request.entries.last().map(RaftEntry::log_id).or(prev);
        let appended = self.raft()?.append_entries(request);
        let appended = if last == prev { self.heartbeat(leader, appended).await? } else { appended.await };
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
    async fn snapshot(&self, caller: u64, body: &[u8], assembly: &Mutex<Assembly>) -> io::Result<Bytes> {
        let wire: SnapshotBody = codec::decode(body).map_err(io::Error::other)?;
        self.check_snapshot(caller, &wire)?;
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
