//! When a node that lost acknowledged records may vote again.
//!
//! Such a node (its disk was replaced, records rotted, or a power cut took what asynchronous flushing had not
//! synced) once helped to commit entries that it does not hold any more. If it voted, it could elect a leader
//! that lacks them as well. So it first asks the other voters where their logs end, and waits until its own
//! reaches the furthest of those ends.
//!
//! - `catch_up.I1`: so many others have answered, none of which lost anything itself, that every quorum this
//!   node was ever part of has one of them in it. The committed entries this node forgot are in that one's log,
//!   and hence in a log that ends no earlier (Raft's log order, term before index). While members are being changed, this
//!   holds for the old and the new set.
//! - `catch_up.I3`: the leader itself has answered, and none knows of a later term: what this node acknowledged to a leader
//!   that can still commit is in an answered log, and an older leader cannot commit any more.
//! - `catch_up.I2`: the voters it asked are still the voters once it has reached that end; its log may have told it of others.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use folio_engine::record::EntryId;
use openraft::RaftMetrics;
use openraft::async_runtime::WatchReceiver;

use super::founding::{Founding, LogSummary};
use super::standing::Reason;
use crate::codec;
use crate::config::{Flush, GroupConfig};
use crate::shared::Shared;
use crate::transport::network::Connections;
use crate::transport::wire::Kind;
use crate::types::{NodeAddress, Raft, TypeConfig};

/// How often the others are asked, and this node's log is looked at.
const LOOK_INTERVAL: Duration = Duration::from_millis(50);
/// How long one of them may take to answer.
const ANSWER_TIMEOUT: Duration = Duration::from_millis(500);
/// How often the log says whom this node waits for.
const WARN_EVERY: u32 = 200;

/// Lets the node vote again once it has caught up; to be started when it was noted that it has to.
pub(crate) async fn run(
    raft: &Raft,
    shared: &Shared,
    founding: &Founding,
    connections: &Connections,
    config: &GroupConfig,
) {
    let mut target: Option<Target> = None;
    let mut looks = 0u32;
    while founding.is_catching_up() {
        if target.is_none() {
            target = ask(raft, founding, connections, config).await;
        }
        looks = looks.wrapping_add(1);
        if target.is_none() && looks.is_multiple_of(WARN_EVERY) {
            tracing::warn!(
                "no vote yet: too few other nodes with a whole log answer, or none of them leads; whoever accepts the loss of what only this node may have held makes a file accept-loss beside the file catching-up and restarts"
            );
        }
        let metrics = raft.metrics().borrow_watched().clone();
        let durable = shared.log.state().durable;
        let follows = |target: &Target| match target.leader {
            Some(leader) => (metrics.current_leader, metrics.current_term) == (Some(leader.0), leader.1),
            None => true,
        };
        let settled = target.take_if(|target| durable >= target.end || !follows(target));
        // catch_up.I2
        let reached = settled.filter(|target| {
            durable >= target.end && follows(target) && target.members == Members::of(&metrics, config)
        });
        // A snapshot's beginning counts as durable before it is on disk: what was begun by now is waited for.
        if let Some(reached) = reached
            && shared.durably(|done| shared.log.submit(done)).await.is_ok()
        {
            finish(shared, founding, &reached);
        }
        tokio::time::sleep(LOOK_INTERVAL).await;
    }
}

fn finish(shared: &Shared, founding: &Founding, reached: &Target) {
    let end = reached.end;
    // Where nobody else could be asked, what was cut off is the last copy there is.
    if reached.leader.is_some()
        && let Err(error) = shared.log.discard_cut()
    {
        tracing::warn!(%error, "what was cut off the log and is back cannot be removed");
    }
    match founding.caught_up() {
        Ok(()) => {
            shared.standing.set(Reason::CatchingUp, false);
            tracing::info!(?end, "caught up: this node votes again");
        }
        Err(error) => tracing::warn!(%error, "caught up, but the marker cannot be removed"),
    }
}

/// Where this node's log has to reach, and who said so.
struct Target {
    end: Option<EntryId>,
    members: Members,
    /// The leader that answered, and its term; none where no leader can be waited for.
    leader: Option<(u64, u64)>,
}

/// The voters, as this node's log has them: two sets while they are being changed.
#[derive(Debug, Clone, PartialEq, Eq)]
struct Members {
    voters: Vec<BTreeSet<u64>>,
    addresses: BTreeMap<u64, String>,
}

impl Members {
    /// Those of the group's birth while the log has none.
    fn of(metrics: &RaftMetrics<TypeConfig>, config: &GroupConfig) -> Members {
        let membership = metrics.membership_config.membership();
        let mut voters = membership.get_joint_config().clone();
        let mut nodes: BTreeMap<u64, NodeAddress> =
            membership.nodes().map(|(id, node)| (*id, node.clone())).collect();
        if voters.is_empty() {
            voters = vec![config.nodes.keys().copied().collect()];
            nodes = config.nodes.clone();
        }
        Members { voters, addresses: nodes.into_iter().map(|(id, node)| (id, node.raft)).collect() }
    }
}

/// Where this node's log has to reach; `None` while too few others answer.
async fn ask(
    raft: &Raft,
    founding: &Founding,
    connections: &Connections,
    config: &GroupConfig,
) -> Option<Target> {
    let members = Members::of(&raft.metrics().borrow_watched().clone(), config);
    let mut answers = BTreeMap::new();
    for (id, address) in members.addresses.iter().filter(|(id, _)| **id != config.node_id) {
        let requests = connections.requests(*id, address, "catch-up");
        let asked = requests.request(Kind::Summary, Vec::new(), ANSWER_TIMEOUT).await;
        if let Some(summary) = asked.ok().and_then(|body| codec::decode::<LogSummary>(&body).ok()) {
            answers.insert(*id, summary);
        }
    }
    if is_hopeless(&members, &answers, config) {
        tracing::error!("no other node holds what this one lost: it goes on with what there is");
        founding.voted_by(0);
        return Some(Target { end: None, members, leader: None });
    }
    if let Some(term) = voted_by(&members, config.node_id, &answers) {
        founding.voted_by(term);
    }
    let leader = leader_of(&answers)?;
    let ends = members.voters.iter().map(|voters| furthest(voters, config.node_id, &answers));
    let ends: Option<Vec<Option<EntryId>>> = ends.collect();
    let end = ends?.into_iter().max()?;
    Some(Target { end, members, leader: Some(leader) })
}

/// A term after which this node has not voted, if enough others answer: whoever was elected with its vote had that of one
/// of them too.
fn voted_by(members: &Members, own: u64, answers: &BTreeMap<u64, LogSummary>) -> Option<u64> {
    let enough = members.voters.iter().all(|voters| furthest(voters, own, answers).is_some());
    enough.then(|| answers.values().map(|answer| answer.term).max().unwrap_or(0))
}

/// The leader among those that answered, if no other answer knows of a later term (`catch_up.I3`).
fn leader_of(answers: &BTreeMap<u64, LogSummary>) -> Option<(u64, u64)> {
    let leader = answers.iter().filter(|(_, answer)| answer.leads).max_by_key(|(_, answer)| answer.term)?;
    let newest = answers.values().all(|answer| answer.term <= leader.1.term);
    newest.then_some((*leader.0, leader.1.term))
}

/// Whether waiting is in vain: there is no other voter; or all answer, too few of them whole, in the mode that promises no
/// more than memory.
fn is_hopeless(members: &Members, answers: &BTreeMap<u64, LogSummary>, config: &GroupConfig) -> bool {
    let others = |voters: &BTreeSet<u64>| voters.iter().copied().filter(|id| *id != config.node_id).collect();
    let others: Vec<BTreeSet<u64>> = members.voters.iter().map(others).collect();
    if others.iter().all(BTreeSet::is_empty) {
        return members.voters.iter().any(|voters| voters.contains(&config.node_id));
    }
    let all_answer = others.iter().flatten().all(|id| answers.contains_key(id));
    let too_few = members.voters.iter().any(|voters| furthest(voters, config.node_id, answers).is_none());
    config.flush == Flush::Async && all_answer && too_few && answers.values().all(|answer| !answer.leads)
}

/// The furthest end that voters of one set name, if enough of them do (`catch_up.I1`).
fn furthest(
    voters: &BTreeSet<u64>,
    own: u64,
    answers: &BTreeMap<u64, LogSummary>,
) -> Option<Option<EntryId>> {
    let quorum = voters.len() / 2 + 1;
    let needed = if voters.contains(&own) { voters.len() - quorum + 1 } else { quorum };
    let whole = answers.iter().filter(|(id, answer)| voters.contains(id) && !answer.lost);
    let ends: Vec<Option<EntryId>> = whole.map(|(_, answer)| answer.last()).collect();
    if ends.len() >= needed { ends.into_iter().max() } else { None }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn at(term: u64, index: u64) -> LogSummary {
        LogSummary { last_term: term, last_index: Some(index), start: 1, lost: false, term, leads: false }
    }

    /// What node 1 of `voters` has to reach when these others answer.
    fn asked(voters: u64, answers: &[(u64, LogSummary)]) -> Option<Option<EntryId>> {
        furthest(&(1..=voters).collect(), 1, &answers.iter().copied().collect())
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
        let others: BTreeMap<u64, LogSummary> = [(2, at(1, 9)), (3, at(1, 8))].into();
        assert_eq!(furthest(&[2, 3, 4].into(), 1, &others), id(1, 9), "a newcomer was in no quorum");
    }

    #[test]
    fn only_the_leader_of_the_newest_term_is_followed() {
        let leads = |term| LogSummary { leads: true, ..at(term, 9) };
        assert_eq!(leader_of(&[(2, at(1, 9)), (3, at(1, 9))].into()), None);
        assert_eq!(leader_of(&[(2, leads(3)), (3, at(2, 9))].into()), Some((2, 3)));
        assert_eq!(leader_of(&[(2, leads(3)), (3, at(4, 9))].into()), None, "catch_up.I3");
    }

    #[test]
    fn members_that_were_removed_are_no_witnesses() {
        assert_eq!(asked(3, &[(2, at(1, 9)), (7, at(3, 30))]), None);
    }

    #[test]
    fn a_node_that_lost_something_itself_is_no_witness() {
        let forgetful = LogSummary { lost: true, ..at(9, 9) };
        assert_eq!(asked(3, &[(2, at(1, 9)), (3, forgetful)]), None);
    }

    #[test]
    fn nothing_is_awaited_where_nothing_was_written() {
        let empty =
            LogSummary { last_term: 0, last_index: None, start: 1, lost: false, term: 0, leads: false };
        assert_eq!(asked(3, &[(2, empty), (3, empty)]), Some(None));
    }
}
