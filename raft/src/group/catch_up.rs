//! When a node that lost acknowledged records may vote again.
//!
//! Such a node (its disk was replaced, records rotted, or a power cut took what asynchronous flushing had not
//! synced) once helped to commit entries that it does not hold any more. If it voted, it could elect a leader
//! that lacks them as well. So it first asks the other voters where their logs end, and waits until its own
//! reaches the furthest of those ends.
//!
//! - `catch_up.I1`: so many others have answered, none of which lost anything itself, that every quorum this
//!   node was ever part of has one of them in it. The committed entries this node forgot are in that one's log,
//!   and hence in a log that ends no earlier (Raft's log order, term before index).

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::time::Duration;

use folio_engine::record::EntryId;
use openraft::async_runtime::WatchReceiver;

use super::founding::{Founding, LogSummary};
use crate::codec;
use crate::config::GroupConfig;
use crate::shared::Shared;
use crate::transport::network::Connections;
use crate::transport::wire::Kind;
use crate::types::Raft;

/// How often the others are asked, and this node's log is looked at.
const LOOK_INTERVAL: Duration = Duration::from_millis(50);
/// How long one of them may take to answer.
const ANSWER_TIMEOUT: Duration = Duration::from_millis(500);
/// How often the log says whom this node waits for.
const WARN_EVERY: u32 = 200;

/// Lets the node vote again once it has caught up; to be started when it was noted that it has to.
pub(crate) async fn run(
    raft: Raft,
    shared: Arc<Shared>,
    founding: Arc<Founding>,
    connections: Connections,
    config: GroupConfig,
) {
    let mut target = None;
    let mut looks = 0u32;
    while founding.is_catching_up() {
        if target.is_none() {
            target = ask(&raft, &connections, &config).await;
        }
        looks = looks.wrapping_add(1);
        if target.is_none() && looks.is_multiple_of(WARN_EVERY) {
            tracing::warn!("no vote yet: too few other nodes with a whole log answer to catch up with them");
        }
        let leader = raft.metrics().borrow_watched().current_leader;
        if let Some(end) = target
            && leader.is_some()
            && shared.log.state().durable >= end
        {
            match founding.caught_up() {
                Ok(()) => {
                    raft.runtime_config().elect(true);
                    tracing::info!(?end, "caught up: this node votes again");
                }
                Err(error) => tracing::warn!(%error, "caught up, but the marker cannot be removed"),
            }
        }
        tokio::time::sleep(LOOK_INTERVAL).await;
    }
}

/// Where this node's log has to reach; `None` while too few others answer.
async fn ask(raft: &Raft, connections: &Connections, config: &GroupConfig) -> Option<Option<EntryId>> {
    let known: BTreeMap<u64, String> = {
        let metrics = raft.metrics().borrow_watched().clone();
        let membership = metrics.membership_config.membership();
        let voters: BTreeSet<u64> = membership.voter_ids().collect();
        membership
            .nodes()
            .filter(|(id, _)| voters.contains(id))
            .map(|(id, node)| (*id, node.raft.clone()))
            .collect()
    };
    let voters = if known.is_empty() {
        config.nodes.iter().map(|(id, node)| (*id, node.raft.clone())).collect()
    } else {
        known
    };
    let mut answers = Vec::new();
    for (id, address) in voters.iter().filter(|(id, _)| **id != config.node_id) {
        let requests = connections.requests(*id, address, "catch-up");
        let asked = requests.request(Kind::Summary, Vec::new(), ANSWER_TIMEOUT).await;
        answers.extend(asked.ok().and_then(|body| codec::decode::<LogSummary>(&body).ok()));
    }
    furthest(voters.len(), voters.contains_key(&config.node_id), &answers)
}

/// The furthest end among the answers, if there are enough of them (`catch_up.I1`).
fn furthest(voters: usize, is_voter: bool, answers: &[LogSummary]) -> Option<Option<EntryId>> {
    let quorum = voters / 2 + 1;
    let needed = if is_voter { voters - quorum + 1 } else { quorum };
    let whole: Vec<Option<EntryId>> =
        answers.iter().filter(|answer| !answer.lost).map(LogSummary::last).collect();
    if whole.len() >= needed { whole.into_iter().max() } else { None }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn at(term: u64, index: u64) -> LogSummary {
        LogSummary { last_term: term, last_index: Some(index), lost: false }
    }

    const fn id(term: u64, index: u64) -> Option<Option<EntryId>> {
        Some(Some(EntryId { term, index }))
    }

    #[test]
    fn every_quorum_with_the_forgetful_node_has_one_that_answered() {
        // Quorums of 2 of 3 with node 1: {1, 2} and {1, 3}. Only both answers meet both.
        assert_eq!(furthest(3, true, &[at(1, 9)]), None);
        assert_eq!(furthest(3, true, &[at(1, 9), at(1, 7)]), id(1, 9));
        // Of 5: three of the other four.
        assert_eq!(furthest(5, true, &[at(1, 9), at(1, 7)]), None);
        assert_eq!(furthest(5, true, &[at(1, 9), at(1, 7), at(2, 3)]), id(2, 3), "term before index");
        assert_eq!(furthest(2, true, &[at(1, 9)]), id(1, 9));
        assert_eq!(furthest(3, false, &[at(1, 9), at(1, 8)]), id(1, 9), "a newcomer was in no quorum");
    }

    #[test]
    fn a_node_that_lost_something_itself_is_no_witness() {
        let forgetful = LogSummary { lost: true, ..at(9, 9) };
        assert_eq!(furthest(3, true, &[at(1, 9), forgetful]), None);
    }

    #[test]
    fn nothing_is_awaited_where_nothing_was_written() {
        let empty = LogSummary { last_term: 0, last_index: None, lost: false };
        assert_eq!(furthest(3, true, &[empty, empty]), Some(None));
    }
}
