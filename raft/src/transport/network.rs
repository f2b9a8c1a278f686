//! openraft's view of the transport: one [`Network`] for each peer and purpose.

use std::future::Future;
use std::io;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use futures_util::{Stream, StreamExt, stream};
use openraft::base::{BoxFuture, BoxStream};
use openraft::errors::{NetworkError, RPCError, ReplicationClosed, StreamingError, Unreachable};
use openraft::network::RPCOption;
use openraft::raft::{
    AppendEntriesRequest, AppendEntriesResponse, SnapshotResponse, StreamAppendError, StreamAppendResult,
    TransferLeaderError, TransferLeaderRequest, TransferLeaderResponse, VoteRequest, VoteResponse,
};
use openraft::{RaftNetworkFactory, RaftNetworkV2};
use parking_lot::Mutex;
use std::collections::{BTreeMap, HashMap};

use super::introduction::Introduction;
use super::parts::{PART_BYTES, parts};
use super::replication::{Acknowledged, Replication, append_parts};
use super::requests::{Requests, connect};
use super::terms_known::Plausible;
use super::wire::{
    AppendAnswer, Kind, Purpose, SnapshotBody, TransferAnswer, TransferBody, VoteAnswer, VoteBody,
};
use crate::codec::{self, WireLogId};
use crate::group::HandOver;
use crate::host::Net;
use crate::snapshots::{Outgoing, Stored};
use crate::state_machine::{SnapshotContent, SnapshotOf};
use crate::types::{NodeAddress, TypeConfig, Vote, entry_id, log_id};

/// Pause after a replication stream could not be opened.
const RECONNECT_PAUSE: Duration = Duration::from_millis(50);
/// How long a tiny snapshot may take to be sent and installed. A peer that loses power after the kernel has taken the
/// bytes never answers, and nothing is sent to it meanwhile that would show it is gone: found by the simulation's seed 7,
/// with half a minute here.
const SNAPSHOT_TIMEOUT: Duration = Duration::from_secs(10);

/// Bytes of a large one that a peer installs in a second, at least: it is written and synced.
const INSTALL_BYTES: u64 = 16 << 20;

/// Peer, its address, purpose.
type Kept = (u64, String, &'static str);

/// Makes the connections to peers and keeps those that are shared.
#[derive(Clone)]
pub(crate) struct Connections {
    net: Arc<dyn Net>,
    introduction: Introduction,
    /// Ways to peers that only this node has.
    dial: Arc<BTreeMap<u64, String>>,
    stored: Stored,
    kept: Arc<Mutex<HashMap<Kept, Requests>>>,
    acknowledged: Arc<Mutex<HashMap<u64, Arc<Acknowledged>>>>,
}

impl Connections {
    /// `introduction` with `to` and `purpose` still open; `dial` has this node's own ways to peers, `stored` what is sent to
    /// them.
    pub(crate) fn new(
        introduction: Introduction,
        dial: BTreeMap<u64, String>,
        stored: Stored,
    ) -> Connections {
        let (kept, acknowledged) = Default::default();
        let net = stored.host.net.clone();
        Connections { net, introduction, dial: Arc::new(dial), stored, kept, acknowledged }
    }

    /// Where this node reaches the peer that says it is at `address`.
    fn way_to<'a>(&'a self, peer: u64, address: &'a str) -> &'a str {
        self.dial.get(&peer).map_or(address, String::as_str)
    }

    /// The request connection to a peer for one purpose: votes, heartbeats and server calls do not share.
    pub(crate) fn requests(&self, to: u64, address: &str, purpose: &'static str) -> Requests {
        let address = self.way_to(to, address);
        let mut kept = self.kept.lock();
        let key = (to, address.to_owned(), purpose);
        let introduction = self.introduction.to(to, Purpose::Requests);
        let made = || Requests::new(self.net.clone(), address.to_owned(), introduction);
        kept.entry(key).or_insert_with(made).clone()
    }

    /// Opens a bare connection to a peer, to see whether anybody listens there.
    pub(crate) async fn dial(&self, peer: u64, address: &str) -> io::Result<()> {
        self.net.dial(self.way_to(peer, address)).await.map(drop)
    }

    fn network(&self, target: u64, node: &NodeAddress, purpose: &'static str) -> Network {
        Network {
            net: self.net.clone(),
            address: self.way_to(target, &node.raft).to_owned(),
            introduction: self.introduction.to(target, Purpose::Replication),
            requests: self.requests(target, &node.raft, purpose),
            stored: self.stored.clone(),
            pipelined: purpose == "replication",
            acknowledged: self.acknowledged.lock().entry(target).or_default().clone(),
        }
    }
}

impl RaftNetworkFactory<TypeConfig> for Connections {
    type Network = Network;

    async fn new_client(&mut self, target: u64, node: &NodeAddress) -> Network {
        self.network(target, node, "replication")
    }

    async fn new_heartbeat_client(&mut self, target: u64, node: &NodeAddress) -> Network {
        self.network(target, node, "heartbeat")
    }

    async fn new_snapshot_client(&mut self, target: u64, node: &NodeAddress) -> Network {
        self.network(target, node, "snapshot")
    }
}

/// One peer, for one purpose.
pub(crate) struct Network {
    net: Arc<dyn Net>,
    address: String,
    introduction: Introduction,
    requests: Requests,
    stored: Stored,
    pipelined: bool,
    acknowledged: Arc<Acknowledged>,
}

fn unreachable(error: &io::Error) -> RPCError<TypeConfig> {
    RPCError::Unreachable(Unreachable::new(error))
}

fn broken(error: &io::Error) -> RPCError<TypeConfig> {
    RPCError::Network(NetworkError::new(error))
}

fn stream_result(answer: AppendAnswer) -> StreamAppendResult<TypeConfig> {
    match answer {
        AppendAnswer::Matching(id) => Ok(id.map(WireLogId::log_id)),
        AppendAnswer::Conflict(id) => Err(StreamAppendError::Conflict(id.log_id())),
        AppendAnswer::HigherVote(vote) => Err(StreamAppendError::HigherVote(vote.vote())),
    }
}

impl Network {
    async fn ask<T: serde::de::DeserializeOwned>(
        &self,
        kind: Kind,
        parts: Vec<Bytes>,
        limit: Duration,
    ) -> io::Result<T> {
        let body = self.requests.request(kind, parts, limit).await?;
        codec::decode(&body).map_err(io::Error::other)
    }

    /// The same, with an answer that openraft believes (`peer.I5`).
    async fn ask_raft<T: serde::de::DeserializeOwned + Plausible>(
        &self,
        kind: Kind,
        parts: Vec<Bytes>,
        limit: Duration,
    ) -> io::Result<T> {
        let answer = self.ask(kind, parts, limit).await?;
        self.stored.shared.check(&answer)?;
        Ok(answer)
    }

    async fn send_parts(&self, checkpoint: &Bytes) -> io::Result<()> {
        for (head, part) in parts(checkpoint) {
            let frame = vec![codec::encode(&head).into(), part];
            self.requests.request(Kind::SnapshotPart, frame, SNAPSHOT_TIMEOUT).await?;
        }
        Ok(())
    }

    /// Sends the snapshot of the log's first record. An error has openraft ask for it again after a pause.
    async fn send_snapshot(&self, vote: &Vote, snapshot: SnapshotOf) -> io::Result<codec::WireVote> {
        let (SnapshotContent::Stored(position), Some(last)) =
            (&snapshot.snapshot, &snapshot.meta.last_log_id)
        else {
            return Err(io::Error::other("snapshots.I1: not the one of the log's first record"));
        };
        let Outgoing { id, membership, file } = self.stored.read(*position, entry_id(last)).await?;
        let limit = SNAPSHOT_TIMEOUT + Duration::from_secs(file.len() as u64 / INSTALL_BYTES);
        let in_parts = file.len() > PART_BYTES;
        if in_parts {
            self.send_parts(&file).await?;
        }
        let body = SnapshotBody {
            vote: vote.into(),
            last: Some((&log_id(id)).into()),
            membership_log_id: membership.log_id().as_ref().map(Into::into),
            membership: membership.membership().into(),
            checkpoint: if in_parts { Vec::new() } else { file.into() },
        };
        self.ask_raft(Kind::Snapshot, vec![codec::encode(&body).into()], limit).await
    }

    async fn vote_request(
        &self,
        kind: Kind,
        request: VoteRequest<TypeConfig>,
        option: &RPCOption,
    ) -> Result<VoteResponse<TypeConfig>, RPCError<TypeConfig>> {
        let asks = kind == Kind::PreVote;
        // openraft's timer may have run out while this node did not run: nobody is asked before it has read what arrived.
        if asks && !self.stored.shared.detector.suspects(&self.stored.shared.eligibility) {
            return Err(unreachable(&io::Error::other("not asked: the leader is not known to be silent")));
        }
        self.stored.shared.detector.stands(asks, request.vote.leader_id.term);
        let body = VoteBody {
            vote: (&request.vote).into(),
            last: request.last_log_id.as_ref().map(Into::into),
            transfer: request.leadership_transfer,
        };
        let parts = vec![codec::encode(&body).into()];
        let answer: VoteAnswer =
            self.ask_raft(kind, parts, option.hard_ttl()).await.map_err(|e| unreachable(&e))?;
        Ok(VoteResponse::new(answer.vote.vote(), answer.last.map(WireLogId::log_id), answer.granted))
    }

    async fn replicate<S>(
        &mut self,
        input: S,
    ) -> Result<
        BoxStream<'_, Result<StreamAppendResult<TypeConfig>, RPCError<TypeConfig>>>,
        RPCError<TypeConfig>,
    >
    where
        S: Stream<Item = AppendEntriesRequest<TypeConfig>> + Send + Unpin + 'static,
    {
        let connected = connect(&*self.net, &self.address, &self.introduction).await;
        if connected.is_err() {
            // openraft opens the next stream at once, whatever its backoff says: a dead peer would cost a core.
            tokio::time::sleep(RECONNECT_PAUSE).await;
        }
        let (reader, writer) = connected.map_err(|error| unreachable(&error))?;
        let (acknowledged, shared) = (self.acknowledged.clone(), self.stored.shared.clone());
        let replication = Replication::start(reader, writer, input, acknowledged, shared);
        let answers = stream::unfold(Some(replication), |replication| async move {
            let mut replication = replication?;
            match replication.next().await {
                Ok(Some(answer)) => Some((Ok(stream_result(answer)), Some(replication))),
                Ok(None) => None,
                Err(error) => Some((Err(broken(&error)), None)),
            }
        });
        Ok(Box::pin(answers))
    }
}

impl RaftNetworkV2<TypeConfig> for Network {
    type SnapshotData = SnapshotContent;

    async fn append_entries(
        &mut self,
        request: AppendEntriesRequest<TypeConfig>,
        option: RPCOption,
    ) -> Result<AppendEntriesResponse<TypeConfig>, RPCError<TypeConfig>> {
        let parts = append_parts(&request, None).map_err(|error| broken(&error))?;
        let answer: AppendAnswer = self
            .ask_raft(Kind::Append, parts, option.hard_ttl())
            .await
            .map_err(|error| unreachable(&error))?;
        Ok(match answer {
            AppendAnswer::Matching(id) => AppendEntriesResponse::PartialSuccess(id.map(WireLogId::log_id)),
            AppendAnswer::Conflict(_) => AppendEntriesResponse::Conflict,
            AppendAnswer::HigherVote(vote) => AppendEntriesResponse::HigherVote(vote.vote()),
        })
    }

    /// Pipelined for replication; for heartbeats, one request and its answer on the heartbeat connection.
    fn stream_append<'s, S>(
        &'s mut self,
        mut input: S,
        option: RPCOption,
    ) -> BoxFuture<
        's,
        Result<
            BoxStream<'s, Result<StreamAppendResult<TypeConfig>, RPCError<TypeConfig>>>,
            RPCError<TypeConfig>,
        >,
    >
    where
        S: Stream<Item = AppendEntriesRequest<TypeConfig>> + Send + Unpin + 'static,
    {
        Box::pin(async move {
            if self.pipelined {
                return self.replicate(input).await;
            }
            let limit = option.hard_ttl();
            let answers = stream::once(async move {
                let request = input.next().await?;
                let exchange = async {
                    let known = self.acknowledged.in_term(request.vote.leader_id.term);
                    let parts = append_parts(&request, known)?;
                    self.ask_raft::<AppendAnswer>(Kind::Append, parts, limit).await
                };
                Some(exchange.await.map(stream_result).map_err(|error| unreachable(&error)))
            });
            let answers: BoxStream<'s, _> = Box::pin(answers.filter_map(std::future::ready));
            Ok(answers)
        })
    }

    async fn vote(
        &mut self,
        request: VoteRequest<TypeConfig>,
        option: RPCOption,
    ) -> Result<VoteResponse<TypeConfig>, RPCError<TypeConfig>> {
        self.vote_request(Kind::Vote, request, &option).await
    }

    async fn pre_vote(
        &mut self,
        request: VoteRequest<TypeConfig>,
        option: RPCOption,
    ) -> Result<VoteResponse<TypeConfig>, RPCError<TypeConfig>> {
        self.vote_request(Kind::PreVote, request, &option).await
    }

    async fn full_snapshot(
        &mut self,
        vote: Vote,
        snapshot: SnapshotOf,
        cancel: impl Future<Output = ReplicationClosed> + Send + 'static,
        _option: RPCOption,
    ) -> Result<SnapshotResponse<TypeConfig>, StreamingError<TypeConfig>> {
        tokio::select! {
            closed = cancel => Err(closed.into()),
            answer = self.send_snapshot(&vote, snapshot) => {
                let vote = answer.map_err(|error| unreachable(&error))?;
                Ok(SnapshotResponse::new(vote.vote()))
            }
        }
    }

    async fn transfer_leader(
        &mut self,
        request: TransferLeaderRequest<TypeConfig>,
        option: RPCOption,
    ) -> Result<TransferLeaderResponse<TypeConfig>, RPCError<TypeConfig>> {
        let body = TransferBody {
            from: request.from_leader().into(),
            to: *request.to_node_id(),
            last: request.last_log_id().map(Into::into),
            why: self.stored.shared.detector.handing_over().unwrap_or(HandOver::Asked),
        };
        let parts = vec![codec::encode(&body).into()];
        let answer: TransferAnswer =
            self.ask(Kind::Transfer, parts, option.hard_ttl()).await.map_err(|error| unreachable(&error))?;
        Ok(match answer {
            TransferAnswer::Done => Ok(()),
            TransferAnswer::VoteChanged { expected, actual } => {
                Err(TransferLeaderError::VoteChanged { expected: expected.vote(), actual: actual.vote() })
            }
            TransferAnswer::LogNotFlushed { expected, actual } => Err(TransferLeaderError::LogNotFlushed {
                expected: expected.map(WireLogId::log_id),
                actual: actual.map(WireLogId::log_id),
            }),
        })
    }
}
