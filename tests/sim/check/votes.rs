//! `log.I4`: a vote that is found on a disk says that all that was appended before it is there too.
//!
//! openraft takes an acknowledged vote for the acknowledgement of every append before it, and a candidate's log is
//! compared with this one before it is voted for. A log that is shorter than that after a restart lost what others count on.

use std::collections::{BTreeMap, BTreeSet};

use bytes::Bytes;
use folio_engine::record::EntryId;

use super::{Checked, violation};

/// What a node had when it was last looked at.
struct Had {
    vote: Option<Bytes>,
    last: Option<EntryId>,
}

#[derive(Default)]
pub(crate) struct Votes {
    had: BTreeMap<u64, Had>,
    down: BTreeSet<u64>,
}

impl Votes {
    /// To be called after every millisecond with the durable vote and the last entry appended. A vote of which nothing was
    /// seen before the node's end was asked for after everything that was seen in its log: raft waits for a vote before it
    /// appends more.
    pub(crate) fn look(&mut self, node: u64, vote: Option<Bytes>, last: Option<EntryId>) -> Checked {
        let restarted = self.down.remove(&node);
        let now = Had { vote, last };
        let Some(had) = self.had.get(&node).filter(|had| restarted && had.vote != now.vote) else {
            self.had.insert(node, now);
            return Ok(());
        };
        if now.last >= had.last {
            self.had.insert(node, now);
            return Ok(());
        }
        let end = |last: Option<EntryId>| last.map_or("nothing".to_owned(), |last| last.to_string());
        let seen = format!(
            "node {node} lost power around its vote, and came back with it and a log up to {}; up to {} came before it",
            end(now.last),
            end(had.last)
        );
        Err(violation("the log before a vote", seen))
    }

    pub(crate) fn died(&mut self, node: u64) {
        self.down.insert(node);
    }

    /// Nothing is claimed about what the node had.
    pub(crate) fn forget(&mut self, node: u64) {
        self.had.remove(&node);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn at(index: u64) -> Option<EntryId> {
        Some(EntryId { term: 1, index })
    }

    const OLD: Option<Bytes> = Some(Bytes::from_static(b"old"));
    const NEW: Option<Bytes> = Some(Bytes::from_static(b"new"));

    #[test]
    fn a_vote_that_came_back_without_the_log_before_it_is_caught() {
        let mut votes = Votes::default();
        assert!(votes.look(1, OLD, at(5)).is_ok());
        votes.died(1);
        let found = votes.look(1, NEW, at(4)).expect_err("entry 5 is gone");
        assert_eq!(found.invariant, "the log before a vote");
    }

    #[test]
    fn what_was_appended_and_not_voted_after_may_be_lost() {
        let mut votes = Votes::default();
        assert!(votes.look(1, OLD, at(5)).is_ok());
        votes.died(1);
        assert!(votes.look(1, OLD, at(4)).is_ok());
        votes.died(1);
        assert!(votes.look(1, NEW, at(4)).is_ok(), "all of the log came back with the vote");
        assert!(votes.look(1, OLD, at(3)).is_ok(), "truncated while it runs");
    }
}
