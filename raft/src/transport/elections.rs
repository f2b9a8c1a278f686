//! What peers ask of this node that concerns who leads: votes, hand-overs, heartbeats.
//!
//! - `heartbeat.I1`: a heartbeat is answered once openraft's core has seen it. It does not wait for this node's disk: openraft
//!   gives an answer up after one interval, and by answers alone a leader knows that it still has a majority.
//! - `heartbeat.I2`: no node answers a heartbeat of a leader whose term its core has left as if it followed that leader: such an
//!   answer would be a proof of leadership, and reads behind it would be of the past.

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
use crate::types::{TypeConfig, Vote, entry_id, log_id};

/// The answer to a heartbeat of `leader`: the core's, or what follows from the vote that the core has once it has seen the
/// heartbeat (`heartbeat.I2`).
async fn first_answer(
    leader: Vote,
    appended: impl Future<Output = Appended>,
    seen: impl Future<Output = io::Result<Vote>>,
) -> io::Result<Appended> {
    tokio::select! {
        biased;
        appended = appended => Ok(appended),
        vote = seen => Ok(Ok(match vote? {
            vote if vote > leader => AppendEntriesResponse::HigherVote(vote),
            _ => AppendEntriesResponse::Success,
        })),
    }
}

/// What openraft says to an append.
type Appended = Result<AppendEntriesResponse<TypeConfig>, RaftError<TypeConfig>>;

impl Peers {
    /// The answer to an append without records, which `appended` hands to the core when it is first polled (`heartbeat.I1`).
    ///
    /// The core keeps the answer to one that it accepts until all earlier records are on disk. It looks at what it is asked in
    /// order: once it answers a question that was asked later, it has seen the append. Its vote then says whether it has
    /// accepted it. The refusal itself may come later: it waits behind all that the core does for what it was asked together
    /// with it.
    pub(super) async fn heartbeat(
        &self,
        leader: Vote,
        appended: impl Future<Output = Appended>,
    ) -> io::Result<Appended> {
        let raft = self.raft()?;
        let seen = async {
            let vote = raft.with_raft_state(|state| *state.vote_ref()).await;
            vote.map_err(io::Error::other)
        };
        first_answer(leader, appended, seen).await
    }

    /// A sign of life of the leader, unless this node has voted for a later one since.
    pub(super) fn notice_leader(&self, head: &AppendHead) -> io::Result<()> {
        let vote = head.vote.vote();
        let own = self.shared.log.vote().map(|bytes| codec::decode_vote(&bytes)).transpose();
        if own.map_err(io::Error::other)?.is_none_or(|own| own <= vote) {
            self.shared.detector.heard(&self.shared.eligibility, &vote);
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
        if !self.shared.eligibility.may_lead() {
            let why = self.shared.eligibility.reasons().join("; ");
            return Err(io::Error::other(format!("this node does not stand for election: {why}")));
        }
        let request = TransferLeaderRequest::new(wire.from.vote(), wire.to, wire.last.map(WireLogId::log_id));
        let answer = match self.raft()?.handle_transfer_leader(request).await.map_err(io::Error::other)? {
            Ok(()) => {
                self.shared.detector.gone(&self.shared.eligibility, Gone::HandOver(wire.why));
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

#[cfg(test)]
mod tests {
    use std::future::{pending, ready};

    use super::*;

    async fn answer(vote: Vote) -> AppendEntriesResponse<TypeConfig> {
        first_answer(Vote::new_committed(7, 1), pending(), ready(Ok(vote))).await.unwrap().unwrap()
    }

    /// A replaced leader's heartbeat was answered as if it led, while its refusal waited behind records that the follower's core
    /// was appending: a proof of leadership, by which a client was told that a queue with 73 messages was empty. Found by
    /// `folio-jepsen run --nemesis partition-one-way`, by the checker `linearizable`.
    #[tokio::test]
    async fn heartbeat_i2_an_old_leader_was_told_that_it_still_led_before_its_refusal_came() {
        let later = Vote::new_committed(8, 3);
        for vote in [later, Vote::new(8, 3)] {
            let answer = answer(vote).await;
            assert!(matches!(answer, AppendEntriesResponse::HigherVote(told) if told == vote), "{answer:?}");
        }
    }

    #[tokio::test]
    async fn heartbeat_i1_a_leader_is_answered_before_earlier_records_are_on_the_disk() {
        assert!(matches!(answer(Vote::new_committed(7, 1)).await, AppendEntriesResponse::Success));
    }

    #[tokio::test]
    async fn the_cores_own_answer_goes_first() {
        let own = ready(Ok(AppendEntriesResponse::Conflict));
        let seen = ready(Ok(Vote::new_committed(7, 1)));
        let answer = first_answer(Vote::new_committed(7, 1), own, seen).await.unwrap().unwrap();
        assert!(matches!(answer, AppendEntriesResponse::Conflict), "{answer:?}");
    }
}
