//! openraft's metrics as a [`Status`].

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::sync::atomic::Ordering;

use folio_state::FEATURE_LEVEL;
use openraft::async_runtime::WatchReceiver;
use openraft::metrics::RaftServerMetrics;
use openraft::{RaftMetrics, ServerState};
use tokio::sync::watch;

use crate::dedup::Dedup;
use crate::shared::Shared;
use crate::state_machine::Raft;
use crate::status::{Role, Status};
use crate::types::TypeConfig;

/// The status that openraft's metrics show.
pub(crate) fn status_of(metrics: &RaftMetrics<TypeConfig>, shared: &Shared) -> Status {
    let membership = metrics.membership_config.membership();
    let last = metrics.last_log_index.unwrap_or(0);
    let lag =
        metrics.replication.iter().flatten().filter(|(id, _)| **id != metrics.id).map(|(id, matched)| {
            (*id, last.saturating_sub(matched.as_ref().map_or(0, |matched| matched.index)))
        });
    let log = shared.log.state();
    let applied = shared.applied_index.load(Ordering::Acquire);
    let figures = shared.detector.figures();
    let role = role_of(metrics, shared);
    let leads = role == Role::Leader;
    Status {
        node_id: metrics.id,
        role,
        leader: metrics.current_leader,
        term: metrics.current_term,
        committed: metrics.cluster_committed.map_or(0, |id| id.index).max(applied),
        applied,
        last: log.last,
        durable_position: log.durable_position,
        applied_position: shared.applied_position.load(Ordering::Acquire),
        members: membership.nodes().map(|(id, node)| (*id, node.clone())).collect::<BTreeMap<_, _>>(),
        voters: membership.voter_ids().collect::<BTreeSet<_>>(),
        lag: lag.collect(),
        disk_full: !shared.has_room(1),
        damaged: shared.log.damages().len() as u64,
        mended: shared.rot.mended.load(Ordering::Relaxed),
        damaged_units: shared.derived.damaged() as u64,
        mended_units: shared.rot.mended_units.load(Ordering::Relaxed),
        damaged_snapshots: shared.snapshots.count(),
        repaired_snapshots: shared.snapshots.repaired(),
        start_position: log.start_position,
        repeats: shared.dedup.as_ref().map_or(0, Dedup::answered),
        feature_level: shared.level.get(),
        unmet_preconditions: shared.unmet_preconditions.load(Ordering::Relaxed),
        feature_level_max: FEATURE_LEVEL,
        group_id: shared.status_messages.group_id(),
        waiting: shared.status_messages.waiting(),
        no_election: if leads { Vec::new() } else { shared.eligibility.obstacles() },
        foreign: shared.status_messages.foreign(),
        leader_silence: figures.silence,
        election_threshold: figures.threshold,
    }
}

fn role_of(metrics: &RaftMetrics<TypeConfig>, shared: &Shared) -> Role {
    // tasks.I1
    if let Some(reason) = shared.failed.get() {
        return Role::Stopped(reason.clone());
    }
    if let Err(fatal) = &metrics.running_state {
        return Role::Stopped(fatal.to_string());
    }
    match metrics.state {
        ServerState::Leader => Role::Leader,
        ServerState::Follower => Role::Follower,
        ServerState::Candidate => Role::Candidate,
        ServerState::Learner => Role::Learner,
        ServerState::Shutdown => Role::Stopped("shut down".into()),
    }
}

/// Why a node that led in `term` leads no more.
fn tell_why(term: u64, whole: &RaftMetrics<TypeConfig>, new: &Status, shared: &Shared) {
    let later = &whole.vote.leader_id;
    let newer = (later.term > term).then_some((later.term, later.voted_for));
    let why = match &new.role {
        Role::Stopped(why) => why.as_str(),
        _ => "this node is no voter any more",
    };
    shared.detector.leads_no_more(newer, why);
}

/// Whether two statuses differ in what watchers wait for.
fn differs(a: &Status, b: &Status) -> bool {
    (&a.role, a.leader, a.term, &a.members, &a.voters) != (&b.role, b.leader, b.term, &b.members, &b.voters)
}

/// Whether openraft has published the whole of which `part` is a part.
fn agree(whole: &RaftMetrics<TypeConfig>, part: &RaftServerMetrics<TypeConfig>) -> bool {
    (&whole.vote, whole.state, whole.current_leader, &whole.membership_config)
        == (&part.vote, part.state, part.current_leader, &part.membership_config)
}

/// Follows openraft's metrics until the group stops. Most of them change with every record and wake nobody: this task
/// waits for the part that changes with elections and members, and then takes the whole, which is published just after.
pub(crate) async fn follow(raft: Raft, shared: Arc<Shared>, status: watch::Sender<Status>) {
    let (mut parts, mut wholes) = (raft.server_metrics(), raft.metrics());
    loop {
        let part = parts.borrow_and_update().clone();
        let whole = wholes.borrow_and_update().clone();
        let stopped = whole.running_state.is_err();
        let agreed = agree(&whole, &part);
        if stopped || agreed {
            publish(&whole, &shared, &status);
        }
        if stopped {
            return;
        }
        let changed = if agreed { parts.changed().await } else { wholes.changed().await };
        if changed.is_err() {
            // The core ended and dropped both. It said so in the whole, unless it panicked.
            let last = wholes.borrow_watched().clone();
            if last.running_state.is_ok() {
                shared.fail("openraft's core panicked");
            }
            return publish(&last, &shared, &status);
        }
    }
}

fn publish(whole: &RaftMetrics<TypeConfig>, shared: &Shared, status: &watch::Sender<Status>) {
    let new = status_of(whole, shared);
    let (is_new, led) = {
        let old = status.borrow();
        let is_new = (&old.role, old.leader, old.term) != (&new.role, new.leader, new.term);
        (is_new, (old.role == Role::Leader).then_some(old.term))
    };
    if let Some(term) = led.filter(|term| new.role != Role::Leader || new.term > *term) {
        tell_why(term, whole, &new, shared);
    }
    if is_new {
        tracing::info!(role = new.role.name(), leader = new.leader, term = new.term, "role");
    }
    let is_told = status.send_if_modified(|current| {
        let notify = differs(current, &new);
        *current = new;
        notify
    });
    if is_told {
        shared.progress.made();
    }
}
