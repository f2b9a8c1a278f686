//! The first moments of a node with an empty log: it founds the group, or waits for that, or finds out that it lost a log.
//!
//! A group is founded once, by the member with the lowest id, after every member has said that its log is empty. Only the
//! nodes of the configuration are asked for that; any node that knows of a running group ends it (`founding.I1`).

use std::io;
use std::time::Duration;

use anyhow::Context;
use folio_engine::planted;
use folio_state::FEATURE_LEVEL;
use openraft::ServerState;
use openraft::async_runtime::WatchReceiver;
use serde::{Deserialize, Serialize};
use tokio::time::timeout;

use super::catch_up::{self, Says};
use super::discovery::{self, Asker, Discovery};
use super::eligibility::Reason;
use super::founding::Founding;
use super::group_id::GroupId;
use super::log_summary::{LogSummary, Members};
use crate::codec;
use crate::config::GroupConfig;
use crate::shared::Shared;
use crate::state_machine::Raft;
use crate::transport::wire::Kind;
use crate::types::Vote;

/// How often members are asked while the group is not founded.
const ASK_INTERVAL: Duration = Duration::from_millis(100);

/// How long openraft may take to say whether this node leads: who asks waits little longer for the whole answer.
const CORE_TIMEOUT: Duration = Duration::from_millis(30);

/// What this node is and holds, for one that asks.
pub(crate) async fn summary(shared: &Shared, founding: &Founding, raft: Option<&Raft>) -> LogSummary {
    let last = shared.log.state().last;
    // On disk before anybody hears of it, and known before openraft is up: a restarting node does not answer as if it had
    // never voted.
    let stored = shared.log.vote();
    let vote = stored.as_ref().and_then(|bytes| codec::decode_vote(bytes).ok());
    let term = vote.map_or(0, |vote| vote.leader_id.term);
    // A leadership of this process has a vote of its own: openraft does not take up the one of the process before.
    let leads = match raft {
        Some(raft) if stored != shared.vote_at_start => leads(raft, vote.as_ref()).await,
        _ => false,
    };
    let metrics = raft.map(|raft| raft.metrics().borrow_watched().clone());
    LogSummary {
        last_term: last.map_or(0, |id| id.term),
        last_index: last.map(|id| id.index),
        start: founding.start(),
        lost: founding.refuses_votes(),
        joined: founding.is_catching_up(),
        term: metrics.as_ref().map_or(0, |metrics| metrics.current_term).max(term),
        leads,
        group_id: founding.group_id.get(),
        members: metrics.as_ref().and_then(Members::of),
        supports: FEATURE_LEVEL,
    }
}

/// Whether this node leads. Its heartbeats may tell others so before openraft has published it: a node whose vote is for
/// itself asks the core, which knows (`closed_connections.I1`).
async fn leads(raft: &Raft, vote: Option<&Vote>) -> bool {
    let metrics = raft.metrics().borrow_watched().clone();
    if metrics.state == ServerState::Leader {
        return true;
    }
    if vote.is_none_or(|vote| vote.leader_id.voted_for != metrics.id) {
        return false;
    }
    let asked = raft.with_raft_state(|state| state.server_state == ServerState::Leader);
    match timeout(CORE_TIMEOUT, asked).await {
        Ok(answer) => answer.unwrap_or(false),
        // Unknown yet: callers that need it ask again.
        Err(_) => vote.is_some_and(|vote| vote.committed),
    }
}

/// What to do, seen from one look at all members.
#[derive(Debug, Clone, PartialEq, Eq)]
enum Step {
    /// Found the group now.
    Found,
    /// Every log is empty, and another node founds the group.
    NothingLost,
    /// Wait, and say why.
    Wait(String),
    /// The group runs already: catch up before voting.
    CatchUp,
}

/// Decides what a node with an empty log does (`founding.I1`).
fn decide(config: &GroupConfig, discovery: &Discovery) -> Step {
    if config.join || discovery.answers.values().any(LogSummary::group_runs) {
        return Step::CatchUp;
    }
    let others: Vec<u64> = config.nodes.keys().copied().filter(|id| *id != config.node_id).collect();
    if others.is_empty() {
        return if config.single_node { Step::Found } else { Step::Wait(ALONE.to_owned()) };
    }
    let silent: Vec<String> =
        others.iter().filter(|id| !discovery.answers.contains_key(id)).map(u64::to_string).collect();
    if !silent.is_empty() {
        return Step::Wait(format!(
            "this node's log is empty and it waits for node {} to answer, which may hold the group's log. Start it, or correct \
             `nodes` in this node's configuration",
            silent.join(", ")
        ));
    }
    let all_empty = others.iter().all(|id| discovery.answers[id].last_index.is_none());
    match others.iter().all(|id| config.node_id < *id) {
        true if all_empty => Step::Found,
        true => Step::Wait(
            "this node's log is empty and another member's is not: it waits for that group".to_owned(),
        ),
        false => Step::NothingLost,
    }
}

/// What a node says whose configuration lists no other.
const ALONE: &str = "this node's log is empty and its configuration lists no other node, so it founds no group: it may have \
                     lost its disk. If its group has other members, list them under `nodes`; to add it to a group, set \
                     `join = true`; to found a group of one voter, set `single_node = true`. Then restart it";

/// With an empty log: founds the group, or waits for it, or notes that this node has to catch up. Then sees to it
/// that a node which has to catch up, now or one day, votes again once it has.
pub(super) async fn run(asker: Asker) {
    let mut says = Says::new();
    // Kept while this node tries: members that were told it already need not store another one.
    let new_id = GroupId::random();
    while asker.founding.is_undecided() {
        if asker.config.join {
            note_catch_up(&asker);
            break;
        }
        let discovery = discovery::run(&asker).await;
        if planted::is("founds-alone") {
            vote_without_asking(&asker, &discovery, new_id).await;
            break;
        }
        match decide(&asker.config, &discovery) {
            Step::Found => match found(&asker, &discovery, new_id).await {
                Ok(()) => tracing::info!(members = asker.config.nodes.len(), id = %new_id, "group founded"),
                Err(error) => {
                    says.waiting(&asker, format!("the group is not founded, trying again: {error:#}"))
                }
            },
            Step::NothingLost => nothing_lost(&asker, &discovery),
            Step::Wait(why) => says.waiting(&asker, why),
            Step::CatchUp => note_catch_up(&asker),
        }
        tokio::time::sleep(ASK_INTERVAL).await;
    }
    asker.shared.status_messages.waits_for(None);
    warn_of_flag(&asker);
    learn_group(&asker, says).await;
    loop {
        asker.founding.has_to_catch_up().await;
        catch_up::run(&asker).await;
    }
}

/// The key `single_node` in a group that has grown: with it an empty disk would found a second group.
fn warn_of_flag(asker: &Asker) {
    let own = asker.config.node_id;
    let others = discovery::own_members(&asker.raft).map(|members| members.all_voters());
    if asker.config.single_node && others.is_some_and(|voters| voters.iter().any(|id| *id != own)) {
        tracing::error!(
            "the configuration says `single_node = true`, and the group has other voters: remove the key"
        );
    }
}

/// A node that votes and does not know its group asks for its id: an operator has accepted that its log is lost, or it has
/// heard that every log is empty.
async fn learn_group(asker: &Asker, mut says: Says) {
    while asker.founding.group_id.get().is_none() && !asker.founding.is_catching_up() {
        let discovery = discovery::run(asker).await;
        match catch_up::learn_group(asker, &discovery) {
            Ok(()) => asker.shared.status_messages.waits_for(None),
            Err(why) => says.waiting(asker, why.to_string()),
        }
        tokio::time::sleep(ASK_INTERVAL).await;
    }
}

/// What the founder tells each member.
#[derive(Debug, Clone, Copy, Serialize, Deserialize)]
pub(crate) struct AllEmpty {
    /// The member's start in which it said that its log is empty.
    start: Option<u64>,
    /// The new group.
    id: GroupId,
}

/// Founds the group, once every member knows its id and that its empty log is no loss (`founding.I3`).
async fn found(asker: &Asker, discovery: &Discovery, id: GroupId) -> anyhow::Result<()> {
    for (other, node) in asker.config.nodes.iter().filter(|(other, _)| **other != asker.config.node_id) {
        let start = discovery.answers.get(other).map(|answer| answer.start);
        let requests = asker.connections.requests(*other, &node.raft, "discovery");
        let body = codec::encode(&AllEmpty { start, id }).into();
        let told = requests.request(Kind::AllEmpty, vec![body], discovery::ANSWER_TIMEOUT).await;
        told.with_context(|| format!("node {other} does not know yet that all logs are empty"))?;
    }
    // Before the first entry: behind it a marker that a crash left would say that a log was lost.
    asker.founding.group_id.store(id)?;
    asker.founding.nothing_lost()?;
    asker.raft.initialize(asker.config.nodes.clone()).await?;
    asker.shared.eligibility.set(Reason::CatchingUp, false);
    Ok(())
}

/// What the founder says before the group is there: the logs of all members were empty when it asked, this one's in the
/// start that it names.
pub(crate) fn all_empty(shared: &Shared, founding: &Founding, body: &[u8]) -> io::Result<()> {
    let told: AllEmpty = codec::decode(body).map_err(io::Error::other)?;
    if told.start != Some(founding.start()) || shared.log.state().last.is_some() {
        return Err(io::Error::other("this node was asked before it was started again, or has a log"));
    }
    if founding.is_catching_up() {
        return Err(io::Error::other("this node has lost a log"));
    }
    founding.group_id.store(told.id)?;
    founding.nothing_lost()?;
    shared.eligibility.set(Reason::CatchingUp, false);
    Ok(())
}

/// This node's log is empty because nothing was ever written.
fn nothing_lost(asker: &Asker, discovery: &Discovery) {
    // Set once the founder has told some member; this node hears of it from the founder otherwise.
    if let [id] = discovery.group_ids().into_iter().collect::<Vec<_>>()[..]
        && let Err(error) = asker.founding.group_id.adopt(id)
    {
        tracing::warn!(%error, "cannot store the group's id, trying again");
        return;
    }
    match asker.founding.nothing_lost() {
        Ok(()) => asker.shared.eligibility.set(Reason::CatchingUp, false),
        Err(error) => tracing::warn!(%error, "cannot note that nothing was lost, trying again"),
    }
}

/// From now on, through any restart, this node neither votes nor campaigns until it has caught up.
fn note_catch_up(asker: &Asker) {
    asker.shared.eligibility.set(Reason::CatchingUp, true);
    match asker.founding.begin_catch_up(false) {
        Ok(()) => tracing::warn!("this log may lack what was acknowledged: no vote until it has caught up"),
        Err(error) => tracing::error!(%error, "cannot note that this node has to catch up"),
    }
}

/// The planted defect `founds-alone`: an empty log is taken for a new one, whatever the others say.
async fn vote_without_asking(asker: &Asker, discovery: &Discovery, new_id: GroupId) {
    nothing_lost(asker, discovery);
    let is_lowest = asker.config.nodes.keys().all(|id| asker.config.node_id <= *id);
    if asker.config.nodes.len() == 1 || (is_lowest && !discovery.answers.values().any(LogSummary::group_runs))
    {
        let founded = found(asker, discovery, new_id).await;
        tracing::warn!(?founded, "founded without asking");
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use super::*;
    use crate::config::{Flush, Retention, Scrub, Timing};
    use crate::group::discovery::tests::{at, empty};
    use crate::types::NodeAddress;

    fn config(node_id: u64, nodes: &[u64]) -> GroupConfig {
        let nodes: BTreeMap<u64, NodeAddress> =
            nodes.iter().map(|id| (*id, NodeAddress::default())).collect();
        GroupConfig {
            node_id,
            cluster: "c".into(),
            group: "g".into(),
            data_dir: "/".into(),
            segment_bytes: 1,
            nodes,
            dial: BTreeMap::new(),
            join: false,
            single_node: false,
            listen: ([127, 0, 0, 1], 0).into(),
            flush: Flush::Sync,
            timing: Timing::default(),
            retention: Retention::default(),
            scrub: Scrub::default(),
            secret: None,
            dedup: None,
        }
    }

    fn heard(answers: &[(u64, LogSummary)]) -> Discovery {
        Discovery { answers: answers.iter().cloned().collect(), ..Discovery::default() }
    }

    fn waits(step: &Step) -> bool {
        matches!(step, Step::Wait(_))
    }

    #[test]
    fn only_the_lowest_founds_and_only_when_every_log_is_empty() {
        let all = heard(&[(1, empty()), (2, empty()), (3, empty())]);
        assert_eq!(decide(&config(1, &[1, 2, 3]), &all), Step::Found);
        assert_eq!(decide(&config(2, &[1, 2, 3]), &all), Step::NothingLost);
        let silent = decide(&config(1, &[1, 2, 3]), &heard(&[(2, empty())]));
        assert!(waits(&silent), "a silent member may hold the log: {silent:?}");
        assert_eq!(decide(&config(2, &[1, 2, 3]), &heard(&[(1, at(0, 0)), (3, empty())])), Step::NothingLost);
    }

    #[test]
    fn founding_i1_an_empty_list_of_others_founds_nothing_without_the_flag() {
        let alone = config(1, &[1]);
        let step = decide(&alone, &heard(&[]));
        assert!(waits(&step), "{step:?}");
        let flagged = GroupConfig { single_node: true, ..alone.clone() };
        assert_eq!(decide(&flagged, &heard(&[])), Step::Found);
        assert_eq!(decide(&GroupConfig { join: true, ..flagged.clone() }, &heard(&[])), Step::CatchUp);
        // A member that has called it tells it better.
        assert_eq!(decide(&flagged, &heard(&[(2, at(3, 40))])), Step::CatchUp);
    }

    #[test]
    fn an_empty_log_beside_a_running_group_catches_up_before_it_votes() {
        let three = config(1, &[1, 2, 3]);
        assert_eq!(decide(&three, &heard(&[(2, at(1, 1)), (3, empty())])), Step::CatchUp);
        assert_eq!(decide(&three, &heard(&[(2, at(1, 1))])), Step::CatchUp);
        let joined = LogSummary { joined: true, lost: true, ..empty() };
        assert_eq!(
            decide(&three, &heard(&[(2, joined), (3, empty())])),
            Step::CatchUp,
            "2 knows that it runs"
        );
    }
}
