//! How far a term or an index that a peer names may lie beyond what this node knows.
//!
//! Raft takes any later term. Term 2^64-1 would be the last one: no node could ever be elected again, and adding one to it
//! overflows. Terms grow by one an election, so none is ever billions ahead of a node's own; what is, is wrong, and openraft
//! does not hear of it.
//!
//! - `peer.I5`: no term is taken that is more than [`TERM_JUMP_MAX`] above the terms of this node's vote and log, and no index
//!   above [`INDEX_MAX`]: not in a request, and not in an answer.

use std::io;

use super::wire::{AppendAnswer, VoteAnswer, invalid};
use crate::codec::{self, WireLogId, WireVote};
use crate::shared::Shared;

/// With an election every 100 ms, 13 years.
const TERM_JUMP_MAX: u64 = 1 << 32;
/// With a million entries a second, 140,000 years.
const INDEX_MAX: u64 = 1 << 62;

/// What a peer says in it is checked.
pub(super) trait Plausible {
    fn check(&self, known_term: u64) -> io::Result<()>;
}

fn check_term(term: u64, known_term: u64) -> io::Result<()> {
    if term <= known_term.saturating_add(TERM_JUMP_MAX) && term < u64::MAX {
        return Ok(());
    }
    Err(invalid(format!("peer.I5: term {term}, while this node knows of term {known_term}")))
}

impl Plausible for WireVote {
    fn check(&self, known_term: u64) -> io::Result<()> {
        check_term(self.term(), known_term)
    }
}

impl Plausible for WireLogId {
    fn check(&self, known_term: u64) -> io::Result<()> {
        check_term(self.term(), known_term)?;
        if self.index() <= INDEX_MAX {
            Ok(())
        } else {
            Err(invalid(format!("peer.I5: index {}", self.index())))
        }
    }
}

impl<T: Plausible> Plausible for Option<T> {
    fn check(&self, known_term: u64) -> io::Result<()> {
        self.iter().try_for_each(|some| some.check(known_term))
    }
}

impl Plausible for AppendAnswer {
    fn check(&self, known_term: u64) -> io::Result<()> {
        match self {
            AppendAnswer::Matching(id) => id.check(known_term),
            AppendAnswer::Conflict(id) => id.check(known_term),
            AppendAnswer::HigherVote(vote) => vote.check(known_term),
        }
    }
}

impl Plausible for VoteAnswer {
    fn check(&self, known_term: u64) -> io::Result<()> {
        self.vote.check(known_term)?;
        self.last.check(known_term)
    }
}

impl Shared {
    /// `peer.I5`
    pub(super) fn check(&self, said: &impl Plausible) -> io::Result<()> {
        said.check(self.known_term()?)
    }

    /// The same of what a node says of its log and vote.
    pub(crate) fn check_log(&self, term: u64, last_term: u64, last_index: Option<u64>) -> io::Result<()> {
        let known = self.known_term()?;
        check_term(term.max(last_term), known)?;
        WireLogId::new(last_term, last_index.unwrap_or(0)).check(known)
    }

    /// The latest term that this node has on disk, as a vote or in its log.
    fn known_term(&self) -> io::Result<u64> {
        let vote = self.log.vote().map(|bytes| codec::decode_vote(&bytes)).transpose();
        let vote = vote.map_err(io::Error::other)?.map_or(0, |vote| vote.leader_id.term);
        Ok(vote.max(self.log.state().last.map_or(0, |id| id.term)))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn peer_i5_no_term_is_the_last_one() {
        for known in [0, 7, u64::MAX - 1, u64::MAX] {
            assert!(check_term(u64::MAX, known).is_err(), "{known}");
        }
        assert!(check_term(7 + TERM_JUMP_MAX, 7).is_ok());
        assert!(check_term(8 + TERM_JUMP_MAX, 7).is_err());
        assert!(check_term(3, 7).is_ok(), "an earlier one is openraft's business");
        let id = |term, index| WireLogId::new(term, index);
        assert!(id(1, INDEX_MAX).check(1).is_ok());
        assert!(id(1, u64::MAX).check(1).is_err(), "openraft adds one to it");
        assert!(Some(id(u64::MAX, 1)).check(1).is_err());
        assert!(None::<WireLogId>.check(1).is_ok());
    }

    #[test]
    fn peer_i5_answers_are_checked_as_requests_are() {
        let last = WireVote::of_term(u64::MAX, 1);
        assert!(AppendAnswer::HigherVote(last).check(1).is_err());
        assert!(AppendAnswer::Matching(Some(WireLogId::new(1, u64::MAX))).check(1).is_err());
        assert!(AppendAnswer::Conflict(WireLogId::new(u64::MAX, 1)).check(1).is_err());
        assert!(VoteAnswer { vote: last, granted: false, last: None }.check(1).is_err());
        assert!(VoteAnswer { vote: WireVote::of_term(2, 1), granted: true, last: None }.check(1).is_ok());
    }
}
