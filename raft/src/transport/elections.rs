//! What peers ask of this node that concerns who leads: votes, hand-overs, heartbeats.
//!
//! - `heartbeat.I1`: a heartbeat is answered once openraft's core has seen it. It does not wait for this node's disk: openraft
//!   gives an answer up after one interval, and by answers alone a leader knows that it still has a majority.

use std::future::Future;
use std::io;

use bytes::Bytes;
use openraft::async_runtime::WatchReceiver;
use openraft::errors::RaftError;
use openraft::raft::{AppendEntriesResponse, TransferLeaderRequest, VoteRequest};

use super::peer::Peers;
use super::wire::{AppendHead, TransferAnswer, TransferBody, VoteAnswer, VoteBody};
use crate::codec::{self, WireLogId};
use crate::group::failure_detector::{Gone, NotSilent};
use crate::group::founding::NoVote;
use crate::types::{TypeConfig, entry_id, log_id};

/// What openraft says to an append.
type Appended = Result<AppendEntriesResponse<TypeConfig>, RaftError<TypeConfig>>;

impl Peers {
    /// The answer to an append without records, which `appended` hands to the core when it is first polled (`heartbeat.I1`).
    ///
    /// The core refuses one at once, and keeps the answer to one it accepts until all earlier records are on disk. It looks at
    /// what it is asked in order: once it answers a question that was asked later, it has accepted the append.
    pub(super) async fn heartbeat(&self, appended: impl Future<Output = Appended>) -> io::Result<Appended> {
        let raft = self.raft()?;
        tokio::select! {
            biased;
            appended = appended => Ok(appended),
            seen = raft.with_raft_state(|_| ()) => match seen {
                Ok(()) => Ok(Ok(AppendEntriesResponse::Success)),
                Err(fatal) => Err(io::Error::other(fatal)),
            },
        }
    }

    /// A sign of life of the leader, unless this node has voted for a later one since.
    pub(super) fn notice_leader(&self, head: &AppendHead) -> io::Result<()> {
        let vote = head.vote.vote();
        let own = self.shared.log.vote().map(|bytes| codec::decode_vote(&bytes)).transpose();
        if own.map_err(io::Error::other)?.is_none_or(|own| own <= vote) {
            self.shared.detector.heard(&self.shared.standing, &vote);
        }
        Ok(())
    }

    pub(super) async fn vote(&self, caller: u64, body: &[u8], pre_vote: bool) -> io::Result<Bytes> {
        let wire: VoteBody = codec::decode(body).map_err(io::Error::other)?;
        self.check_candidate(caller, &wire)?;
        let last = wire.last.map(WireLogId::log_id);
        // peer.I2
        match self.founding.may_grant(wire.vote.term(), last.as_ref().map(entry_id)) {
            Ok(()) => {}
            // The candidate hears of the term that it has to go beyond.
            Err(NoVote::TermTooLow(term)) => {
                let vote = codec::WireVote::of_term(term, self.node_id());
                return Ok(codec::encode(&VoteAnswer { vote, granted: false, last: None }).into());
            }
            Err(NoVote::CatchingUp | NoVote::LogTooShort) => {
                return Err(io::Error::other(
                    "this node's log is empty or incomplete: it does not vote for this candidate until it has caught up",
                ));
            }
        }
        if pre_vote && let Err(reason) = self.shared.detector.would_grant() {
            return self.would_not_grant(&reason);
        }
        let mut request = VoteRequest::new(wire.vote.vote(), last);
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

    /// The answer to who asks whether to stand for election, while this node's own leader is not silent.
    fn would_not_grant(&self, reason: &NotSilent) -> io::Result<Bytes> {
        tracing::debug!(%reason, "another node asked whether to stand for election");
        let metrics = self.raft()?.metrics().borrow_watched().clone();
        let last = self.shared.log.state().last.map(log_id);
        let answer =
            VoteAnswer { vote: (&metrics.vote).into(), granted: false, last: last.as_ref().map(Into::into) };
        Ok(codec::encode(&answer).into())
    }

    pub(super) async fn transfer(&self, caller: u64, body: &[u8]) -> io::Result<Bytes> {
        use openraft::raft::TransferLeaderError as Refused;
        let wire: TransferBody = codec::decode(body).map_err(io::Error::other)?;
        self.check_transfer(caller, &wire)?;
        // A leader tells all voters, so that they need not wait for its lease. openraft says nothing of a transfer to another
        // node by one that is no leader of this one.
        let own = self.raft()?.metrics().borrow_watched().vote;
        if wire.to != self.node_id() && own != wire.from.vote() {
            let answer = TransferAnswer::VoteChanged { expected: wire.from, actual: (&own).into() };
            return Ok(codec::encode(&answer).into());
        }
        // To lead, a node votes for itself.
        if !self.shared.standing.may_lead() {
            let why = self.shared.standing.reasons().join("; ");
            return Err(io::Error::other(format!("this node does not stand for election: {why}")));
        }
        let request = TransferLeaderRequest::new(wire.from.vote(), wire.to, wire.last.map(WireLogId::log_id));
        let answer = match self.raft()?.handle_transfer_leader(request).await.map_err(io::Error::other)? {
            Ok(()) => {
                self.shared.detector.gone(&self.shared.standing, Gone::HandOver(wire.why));
                TransferAnswer::Done
            }
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
}
