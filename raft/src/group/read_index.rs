//! The proof that a leader still leads, and has applied what was acknowledged before the proof began.
//!
//! openraft has such a proof (`ensure_linearizable`), which goes by when followers last answered. It finds the append that an
//! answer belongs to by the last entry that both name. So the late answer to an earlier append counts for a later one that
//! names the same entry: a leader whose peers' answers had been held back took them, once they came, for followers that follow
//! now, and answered reads for some milliseconds although another node led and had acknowledged more. Here each peer is asked by
//! a request of its own, whose answer carries the request's number.
//!
//! - `read_index.I1`: a leader believes that it leads at a moment only if a quorum of each set of its voters has answered, to a
//!   request that was sent after that moment, that it knows no later vote. A node that voted for a later leader stored that vote
//!   before it said so, and any two quorums share a node: no later leader had been elected at that moment.
//! - `read_index.I2`: what the leader had committed when the proof began is applied before a read is answered. That includes all
//!   that was acknowledged before: a message is acknowledged once it is applied, and what earlier leaders acknowledged is
//!   committed by the leader's first entry of its own term.

use std::collections::BTreeSet;
use std::io;
use std::sync::atomic::Ordering;
use std::time::Duration;

use futures_util::StreamExt;
use futures_util::stream::FuturesUnordered;
use openraft::RaftMetrics;
use openraft::errors::Fatal;
use openraft::raft::AppendEntriesRequest;

use super::Group;
use super::log_summary::Members;
use crate::codec;
use crate::proposal::ProposeError;
use crate::transport::replication::append_parts;
use crate::transport::wire::{AppendAnswer, Kind};
use crate::types::{TypeConfig, Vote};

/// How long a peer may take to answer; the next proof asks again.
const ANSWER_TIMEOUT: Duration = Duration::from_secs(1);

/// What the core says of itself at one moment.
struct Moment {
    vote: Vote,
    /// The last committed entry's term and index.
    committed: Option<(u64, u64)>,
    members: Members,
}

impl Group {
    /// Waits until this node has proved that it led when this was called, and has applied what was acknowledged before
    /// (`read_index.I1`, `read_index.I2`). Has no time limit of its own.
    pub(super) async fn read_index(&self) -> Result<(), ProposeError> {
        let (vote, index, members) = loop {
            let Moment { vote, committed, members } = self.moment().await?;
            match committed {
                Some((term, index)) if term == vote.leader_id.term => break (vote, index, members),
                // Nothing of its own term is committed: it does not know yet how far its predecessors went.
                _ => self.wait_applied_of(vote).await?,
            }
        };
        self.ask_quorum(vote, &members).await?;
        self.wait_applied(index).await
    }

    async fn moment(&self) -> Result<Moment, ProposeError> {
        let moment = self.0.raft.with_raft_state(|state| {
            let committed = state.local_committed().map(|id| (id.leader_id.term, id.index));
            let members = Members::of_stored(state.membership_state.effective());
            (*state.vote_ref(), committed, members)
        });
        let (vote, committed, members) = moment.await.map_err(stopped)?;
        let leads = vote.committed && vote.leader_id.voted_for == self.node_id();
        match members.filter(|_| leads) {
            Some(members) => Ok(Moment { vote, committed, members }),
            None => Err(ProposeError::NotLeader { leader: self.status().leader }),
        }
    }

    /// Returns once a quorum of each set of voters follows this leader (`read_index.I1`).
    async fn ask_quorum(&self, vote: Vote, members: &Members) -> Result<(), ProposeError> {
        let mut follow = BTreeSet::from([self.node_id()]);
        let mut asked: FuturesUnordered<_> = members
            .all_voters()
            .into_iter()
            .filter(|id| *id != self.node_id())
            .map(|id| async move { (id, self.ask_follows(id, members, vote).await) })
            .collect();
        while !has_quorum(&members.voters, &follow) {
            match asked.next().await {
                Some((id, Ok(true))) => drop(follow.insert(id)),
                Some((id, Ok(false))) => {
                    tracing::debug!(
                        node = id,
                        term = vote.leader_id.term,
                        "this node has been replaced as the leader"
                    );
                    return Err(ProposeError::NotLeader { leader: None });
                }
                Some((id, Err(error))) => {
                    tracing::debug!(node = id, %error, "no answer for a proof of leadership")
                }
                None => return Err(ProposeError::NotLeader { leader: None }),
            }
        }
        Ok(())
    }

    /// Whether a peer follows the leader of `vote`: an append without entries that presumes none (`heartbeat.I2`).
    async fn ask_follows(&self, id: u64, members: &Members, vote: Vote) -> io::Result<bool> {
        let address = members.addresses.get(&id).ok_or(io::ErrorKind::NotFound)?;
        let append: AppendEntriesRequest<TypeConfig> =
            AppendEntriesRequest { vote, prev_log_id: None, entries: Vec::new(), leader_commit: None };
        let requests = self.0.connections.requests(id, address, "proof");
        let body = requests.request(Kind::Append, append_parts(&append, None)?, ANSWER_TIMEOUT).await?;
        match codec::decode::<AppendAnswer>(&body).map_err(io::Error::other)? {
            AppendAnswer::Matching(_) => Ok(true),
            AppendAnswer::HigherVote(_) => Ok(false),
            AppendAnswer::Conflict(_) => Err(io::Error::other("a conflict with nothing before it")),
        }
    }

    /// Waits until an entry of this leader's own term is applied here, or another vote is known.
    async fn wait_applied_of(&self, vote: Vote) -> Result<(), ProposeError> {
        let applied = |term: Option<u64>| term.is_some_and(|term| term >= vote.leader_id.term);
        let is_so = |now: &RaftMetrics<TypeConfig>| {
            now.vote != vote || applied(now.last_applied.as_ref().map(|id| id.leader_id.term))
        };
        self.wait_for(is_so, "an entry of the leader's own term is applied").await
    }

    /// Waits until the entry of this index is applied here.
    async fn wait_applied(&self, index: u64) -> Result<(), ProposeError> {
        if self.0.shared.applied_index.load(Ordering::Acquire) >= index {
            return Ok(());
        }
        let is_so =
            |now: &RaftMetrics<TypeConfig>| now.last_applied.as_ref().is_some_and(|id| id.index >= index);
        self.wait_for(is_so, "what was committed when the read came is applied").await
    }

    async fn wait_for(
        &self,
        is_so: impl Fn(&RaftMetrics<TypeConfig>) -> bool + Send,
        what: &str,
    ) -> Result<(), ProposeError> {
        let waited = self.0.raft.wait(None).metrics(is_so, what).await;
        waited.map(drop).map_err(|error| ProposeError::Stopped(error.to_string()))
    }
}

/// Whether these nodes are a majority of each set of voters.
fn has_quorum(voters: &[BTreeSet<u64>], nodes: &BTreeSet<u64>) -> bool {
    voters.iter().all(|set| set.intersection(nodes).count() > set.len() / 2)
}

fn stopped(fatal: Fatal<TypeConfig>) -> ProposeError {
    ProposeError::Stopped(fatal.to_string())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn set(ids: &[u64]) -> BTreeSet<u64> {
        ids.iter().copied().collect()
    }

    #[test]
    fn read_index_i1_a_quorum_is_a_majority_of_each_set_of_voters() {
        assert!(has_quorum(&[set(&[1])], &set(&[1])));
        assert!(has_quorum(&[set(&[1, 2, 3])], &set(&[1, 3])));
        assert!(!has_quorum(&[set(&[1, 2, 3])], &set(&[1, 4, 5])), "others do not count");
        assert!(!has_quorum(&[set(&[1, 2])], &set(&[1])));
        assert!(!has_quorum(&[set(&[1, 2, 3, 4])], &set(&[1, 2])));
        // A leader that is being removed is in one set only.
        assert!(!has_quorum(&[set(&[1, 2, 3]), set(&[2, 3, 4])], &set(&[1, 2])));
        assert!(has_quorum(&[set(&[1, 2, 3]), set(&[2, 3, 4])], &set(&[1, 2, 4])));
    }
}
