//! Asks the members of the group what they hold, whoever they are by now.
//!
//! The configuration lists the members that the group was born with; since then others may have joined, and those may be
//! gone. So a node asks every node it knows of, each answer names the members as that node's log has them, and the newest
//! membership (by the log id of its entry) decides whom to ask next, until it names nobody new.
//!
//! A node asks with the nodes of its configuration, the members of its own log, and those that have called it: a leader
//! calls every member, so a node is found also when all nodes of its configuration are gone.
//!
//! - `census.I1`: the members of an older membership that the newest one does not name are no witnesses: they are not waited
//!   for, and what they hold does not count. That holds also where the newest is not committed. It was proposed when the one
//!   before was, and openraft changes voters in steps: A to both A and B, and that to B, or to B and C where a change was not
//!   finished. Two neighbours share a set, and a leader is elected and commits by one of them only with a quorum of it: so where all
//!   voters of the newest have answered, they have witnessed it. A node with a log that does not name its members yet, for it is
//!   starting, has not answered.

use std::collections::{BTreeMap, BTreeSet};
use std::io;
use std::sync::Arc;
use std::time::Duration;

use folio_engine::record::EntryId;
use openraft::async_runtime::WatchReceiver;

use super::founding::Founding;
use super::group_id::GroupId;
use super::log_summary::{LogSummary, Members};
use crate::codec;
use crate::config::GroupConfig;
use crate::shared::Shared;
use crate::state_machine::Raft;
use crate::transport::network::Connections;
use crate::transport::wire::Kind;

/// How long a node may take to answer.
pub(super) const ANSWER_TIMEOUT: Duration = Duration::from_millis(500);
/// Memberships that are heard of one after the other, at most.
const ROUNDS_MAX: usize = 8;

/// What the tasks of a node that is not sure of its log need.
pub(super) struct Asker {
    pub(super) raft: Raft,
    pub(super) shared: Arc<Shared>,
    pub(super) founding: Arc<Founding>,
    pub(super) connections: Connections,
    pub(super) config: GroupConfig,
}

/// What was heard.
#[derive(Debug, Default)]
pub(super) struct Discovery {
    /// The newest members that any node has named, this one included.
    pub(super) members: Option<Members>,
    pub(super) answers: BTreeMap<u64, LogSummary>,
    /// Why a node that was asked did not answer.
    pub(super) silent: BTreeMap<u64, String>,
}

impl Discovery {
    /// The groups that the nodes that answered belong to.
    pub(super) fn group_ids(&self) -> BTreeSet<GroupId> {
        self.answers.values().filter_map(|answer| answer.group_id).collect()
    }

    /// The one that leads in the latest term.
    pub(super) fn leader(&self) -> Option<u64> {
        let leaders = self.answers.iter().filter(|(_, answer)| answer.leads);
        leaders.max_by_key(|(_, answer)| answer.term).map(|(id, _)| *id)
    }

    /// Where a node is.
    pub(super) fn address(&self, id: u64) -> Option<&str> {
        self.members.as_ref()?.addresses.get(&id).map(String::as_str)
    }

    /// The voters of the newest members that did not answer, `own` aside.
    pub(super) fn missing(&self, own: u64) -> Vec<u64> {
        let voters = self.members.iter().flat_map(Members::all_voters);
        voters.filter(|id| *id != own && !self.answers.contains_key(id)).collect()
    }

    pub(super) fn hear(&mut self, id: u64, answer: io::Result<LogSummary>) {
        let is_starting = |summary: &LogSummary| summary.last_index.is_some() && summary.members.is_none();
        match answer {
            // Its log may name newer members than any other's.
            Ok(summary) if is_starting(&summary) => {
                self.answers.remove(&id);
                self.silent.insert(id, "it is starting".to_owned());
            }
            Ok(summary) => {
                self.note_members(summary.members.clone());
                self.silent.remove(&id);
                self.answers.insert(id, summary);
            }
            Err(why) => {
                if !self.answers.contains_key(&id) {
                    self.silent.insert(id, why.to_string());
                }
            }
        }
    }

    fn note_members(&mut self, heard: Option<Members>) {
        let newer = |heard: &Members| self.members.as_ref().is_none_or(|known| known.id < heard.id);
        if let Some(heard) = heard.filter(newer) {
            self.members = Some(heard);
        }
    }
}

/// Asks every node that this one knows, and those that they know.
pub(super) async fn run(asker: &Asker) -> Discovery {
    let mut discovery = Discovery { members: own_members(&asker.raft), ..Discovery::default() };
    let mut known: BTreeMap<u64, String> = BTreeMap::new();
    known.extend(asker.config.nodes.iter().map(|(id, node)| (*id, node.raft.clone())));
    known.extend(asker.founding.callers());
    let mut asked: BTreeSet<(u64, String)> = BTreeSet::new();
    for _ in 0..ROUNDS_MAX {
        known.extend(discovery.members.iter().flat_map(|members| members.addresses.clone()));
        let others = known.iter().filter(|(id, _)| **id != asker.config.node_id);
        let next: Vec<(u64, String)> = others.map(|(id, address)| (*id, address.clone())).collect();
        let next: Vec<_> = next.into_iter().filter(|node| !asked.contains(node)).collect();
        if next.is_empty() {
            break;
        }
        let answers =
            futures_util::future::join_all(next.iter().map(|(id, address)| ask(asker, *id, address)));
        for ((id, _), answer) in next.iter().zip(answers.await) {
            discovery.hear(*id, answer);
        }
        asked.extend(next);
    }
    discovery
}

/// The members as this node's log has them.
pub(super) fn own_members(raft: &Raft) -> Option<Members> {
    Members::of(&raft.metrics().borrow_watched())
}

async fn ask(asker: &Asker, id: u64, address: &str) -> io::Result<LogSummary> {
    let requests = asker.connections.requests(id, address, "discovery");
    let body = requests.request(Kind::Summary, Vec::new(), ANSWER_TIMEOUT).await?;
    let summary = codec::decode::<LogSummary>(&body).map_err(io::Error::other)?;
    let said = (summary.term, summary.last_term, summary.last_index);
    asker.shared.check_log(said.0, said.1, said.2)?;
    Ok(summary)
}

/// The furthest end that voters of one set name, if so many of them lost nothing that every quorum of the set with `own` in
/// it has one of them (`catch_up.I3`).
pub(super) fn furthest(
    voters: &BTreeSet<u64>,
    own: u64,
    answers: &BTreeMap<u64, LogSummary>,
) -> Option<Option<EntryId>> {
    let quorum = voters.len() / 2 + 1;
    // A node that is not in the set was in none of its quorums.
    let needed = if voters.contains(&own) { voters.len() - quorum + 1 } else { 0 };
    let whole = answers.iter().filter(|(id, answer)| voters.contains(id) && !answer.lost);
    let ends: Vec<Option<EntryId>> = whole.map(|(_, answer)| answer.last()).collect();
    (ends.len() >= needed).then(|| ends.into_iter().max().flatten())
}

#[cfg(test)]
pub(super) mod tests {
    use super::*;
    use crate::codec::WireLogId;

    pub(crate) fn at(term: u64, index: u64) -> LogSummary {
        LogSummary { last_term: term, last_index: Some(index), term, ..empty() }
    }

    pub(crate) fn empty() -> LogSummary {
        LogSummary {
            last_term: 0,
            last_index: None,
            start: 1,
            lost: false,
            joined: false,
            term: 0,
            leads: false,
            group_id: None,
            members: None,
            supports: 1,
        }
    }

    pub(crate) fn members(index: u64, sets: &[&[u64]]) -> Members {
        let voters: Vec<BTreeSet<u64>> = sets.iter().map(|set| set.iter().copied().collect()).collect();
        let addresses = voters.iter().flatten().map(|id| (*id, format!("node-{id}"))).collect();
        Members { id: WireLogId::from(&crate::types::log_id(EntryId { term: 1, index })), voters, addresses }
    }

    /// What node 1 of `voters` has to reach when these others answer.
    fn asked(voters: u64, answers: &[(u64, LogSummary)]) -> Option<Option<EntryId>> {
        furthest(&(1..=voters).collect(), 1, &answers.iter().cloned().collect())
    }

    const fn id(term: u64, index: u64) -> Option<Option<EntryId>> {
        Some(Some(EntryId { term, index }))
    }

    #[test]
    fn every_quorum_with_the_forgetful_node_has_one_that_answered() {
        // Quorums of 2 of 3 with node 1: {1, 2} and {1, 3}. Only both answers meet both.
        assert_eq!(asked(3, &[(2, at(1, 9))]), None);
        assert_eq!(asked(3, &[(2, at(1, 9)), (3, at(1, 7))]), id(1, 9));
        // Of 5: three of the other four.
        assert_eq!(asked(5, &[(2, at(1, 9)), (4, at(1, 7))]), None);
        assert_eq!(asked(5, &[(2, at(1, 9)), (4, at(1, 7)), (5, at(2, 3))]), id(2, 3), "term before index");
        assert_eq!(asked(2, &[(2, at(1, 9))]), id(1, 9));
    }

    #[test]
    fn a_node_that_lost_something_itself_is_no_witness() {
        let forgetful = LogSummary { lost: true, ..at(9, 9) };
        assert_eq!(asked(3, &[(2, at(1, 9)), (3, forgetful)]), None);
    }

    #[test]
    fn census_i1_the_newest_members_heard_decide_who_is_missing() {
        let mut discovery = Discovery { members: Some(members(1, &[&[1, 2, 3]])), ..Discovery::default() };
        discovery.hear(3, Err(io::Error::other("gone")));
        assert_eq!(discovery.missing(1), [2, 3]);
        discovery.hear(2, Ok(LogSummary { members: Some(members(9, &[&[1, 2, 4]])), ..at(1, 9) }));
        assert_eq!(discovery.missing(1), [4], "3 was removed");
        discovery.hear(4, Ok(LogSummary { members: Some(members(5, &[&[1, 2, 3]])), ..at(1, 7) }));
        assert_eq!(discovery.missing(1), [0; 0], "an older membership changes nothing");
        discovery
            .hear(4, Ok(LogSummary { members: Some(members(12, &[&[1, 2, 4], &[5, 6, 4]])), ..at(1, 12) }));
        assert_eq!(discovery.missing(1), [5, 6], "both sets of a change");
    }

    #[test]
    fn the_leader_of_the_latest_term_is_asked() {
        let mut discovery = Discovery::default();
        let of_three = || Some(members(1, &[&[2, 3, 4]]));
        discovery.hear(2, Ok(LogSummary { leads: true, members: of_three(), ..at(3, 9) }));
        discovery.hear(3, Ok(LogSummary { leads: true, members: of_three(), ..at(4, 9) }));
        discovery.hear(4, Ok(LogSummary { members: of_three(), ..at(5, 9) }));
        assert_eq!(discovery.leader(), Some(3));
    }
}
