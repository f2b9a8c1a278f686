//! The first moments of a node: with an empty log it founds the group, or waits for it, or finds out that it lost a log.

use std::collections::BTreeMap;
use std::io;
use std::sync::Arc;
use std::time::Duration;

use anyhow::Context;
use openraft::ServerState;
use openraft::async_runtime::WatchReceiver;

use super::catch_up;
use super::founding::{self, Founding, LogSummary, Step};
use super::standing::Reason;
use crate::codec;
use crate::config::GroupConfig;
use crate::shared::Shared;
use crate::transport::network::Connections;
use crate::transport::wire::Kind;
use crate::types::{NodeAddress, Raft};

/// How long another member may take to answer.
const ANSWER_TIMEOUT: Duration = Duration::from_millis(500);

/// What this node's log holds, for a founder that asks.
pub(crate) fn summary(shared: &Shared, founding: &Founding, raft: Option<&Raft>) -> LogSummary {
    let last = shared.log.state().last;
    let metrics = raft.map(|raft| raft.metrics().borrow_watched().clone());
    // On disk before anybody hears of it, and known before openraft is up: a restarting node does not answer as if it had
    // never voted.
    let vote = shared.log.vote().and_then(|bytes| codec::decode_vote(&bytes).ok());
    let term = vote.map_or(0, |vote| vote.leader_id.term);
    LogSummary {
        last_term: last.map_or(0, |id| id.term),
        last_index: last.map(|id| id.index),
        start: founding.start(),
        lost: founding.refuses_votes(),
        term: metrics.as_ref().map_or(0, |metrics| metrics.current_term).max(term),
        leads: metrics.is_some_and(|metrics| metrics.state == ServerState::Leader),
    }
}

/// With an empty log: founds the group, or waits for it, or notes that this node has to catch up. Then sees to it
/// that a node which has to catch up, now or one day, votes again once it has.
pub(super) async fn run(
    raft: Raft,
    shared: Arc<Shared>,
    founding: Arc<Founding>,
    connections: Connections,
    config: GroupConfig,
) {
    let others: BTreeMap<u64, NodeAddress> = config
        .nodes
        .iter()
        .filter(|(id, _)| **id != config.node_id)
        .map(|(id, node)| (*id, node.clone()))
        .collect();
    let is_lowest = others.keys().all(|id| config.node_id < *id);
    let empty = || shared.log.state().last.is_none();
    if config.join && empty() {
        note_catch_up(&shared, &founding);
    }
    while founding.refuses_votes() && !founding.is_catching_up() {
        let mut answers = Vec::with_capacity(others.len());
        for (id, node) in &others {
            let requests = connections.requests(*id, &node.raft, "founding");
            let asked = requests.request(Kind::Summary, Vec::new(), ANSWER_TIMEOUT).await;
            answers.push(asked.ok().and_then(|body| codec::decode::<LogSummary>(&body).ok()));
        }
        match founding::decide(is_lowest, &answers) {
            Step::Found => {
                match found(&raft, &shared, &founding, &connections, &config, &others, &answers).await {
                    Ok(()) => tracing::info!(members = config.nodes.len(), "group founded"),
                    Err(error) => tracing::warn!(%error, "group not founded, trying again"),
                }
            }
            Step::Wait if answers.iter().all(Option::is_some) && !is_lowest => {
                nothing_lost(&shared, &founding)
            }
            Step::Wait => {}
            Step::CatchUp => note_catch_up(&shared, &founding),
        }
        tokio::time::sleep(founding::ASK_INTERVAL).await;
    }
    loop {
        founding.has_to_catch_up().await;
        catch_up::run(&raft, &shared, &founding, &connections, &config).await;
    }
}

/// Founds the group, once every member knows that its empty log is no loss (`founding.I3`).
async fn found(
    raft: &Raft,
    shared: &Shared,
    founding: &Founding,
    connections: &Connections,
    config: &GroupConfig,
    others: &BTreeMap<u64, NodeAddress>,
    answers: &[Option<LogSummary>],
) -> anyhow::Result<()> {
    for ((id, node), answer) in others.iter().zip(answers) {
        let body = codec::encode(&answer.map(|summary| summary.start)).into();
        let requests = connections.requests(*id, &node.raft, "founding");
        let told = requests.request(Kind::AllEmpty, vec![body], ANSWER_TIMEOUT).await;
        told.with_context(|| format!("node {id} does not know yet that all logs are empty"))?;
    }
    // Before the first entry: behind it a marker that a crash left would say that a log was lost.
    founding.nothing_lost()?;
    raft.initialize(config.nodes.clone()).await?;
    shared.standing.set(Reason::CatchingUp, false);
    Ok(())
}

/// What the founder says before the group is there: the logs of all members were empty when it asked, this one's in its
/// start number `start`.
pub(crate) fn all_empty(shared: &Shared, founding: &Founding, start: Option<u64>) -> io::Result<()> {
    if start != Some(founding.start()) || shared.log.state().last.is_some() {
        return Err(io::Error::other("this node was asked before it was started again, or has a log"));
    }
    if founding.is_catching_up() {
        return Err(io::Error::other("this node has lost a log"));
    }
    founding.nothing_lost()?;
    shared.standing.set(Reason::CatchingUp, false);
    Ok(())
}

/// This node's log is empty because nothing was ever written.
fn nothing_lost(shared: &Shared, founding: &Founding) {
    match founding.nothing_lost() {
        Ok(()) => shared.standing.set(Reason::CatchingUp, false),
        Err(error) => tracing::warn!(%error, "cannot note that nothing was lost, trying again"),
    }
}

/// From now on, through any restart, this node neither votes nor campaigns until it has caught up.
fn note_catch_up(shared: &Shared, founding: &Founding) {
    shared.standing.set(Reason::CatchingUp, true);
    match founding.begin_catch_up() {
        Ok(()) => tracing::warn!("this log may lack what was acknowledged: no vote until it has caught up"),
        Err(error) => tracing::error!(%error, "cannot note that this node has to catch up"),
    }
}
