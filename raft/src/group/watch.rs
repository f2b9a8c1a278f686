//! openraft's metrics as a [`Status`].

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::sync::atomic::Ordering;

use openraft::async_runtime::WatchReceiver;
use openraft::metrics::RaftServerMetrics;
use openraft::{RaftMetrics, ServerState};
use tokio::sync::watch;

use crate::dedup::Dedup;
use crate::shared::Shared;
use crate::status::{Role, Status};
use crate::types::{Raft, TypeConfig};

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
    Status {
        node_id: metrics.id,
        role: role_of(metrics),
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
        disk_full: !shared.log.has_room(1),
        damaged: shared.log.damages().len() as u64,
        mended: shared.rot.mended.load(Ordering::Relaxed),
        damaged_units: shared.queues.damaged() as u64,
        mended_units: shared.rot.mended_units.load(Ordering::Relaxed),
        damaged_snapshots: shared.snapshots.count(),
        repaired_snapshots: shared.snapshots.repaired(),
        start_position: log.start_position,
        repeats: shared.dedup.as_ref().map_or(0, Dedup::answered),
        group_id: shared.notices.group_id(),
        waiting: shared.notices.waiting(),
        no_election: shared.standing.reasons(),
        foreign: shared.notices.foreign(),
    }
}

fn role_of(metrics: &RaftMetrics<TypeConfig>) -> Role {
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
            publish(status_of(&whole, &shared), &status);
        }
        if stopped {
            return;
        }
        let changed = if agreed { parts.changed().await } else { wholes.changed().await };
        if changed.is_err() {
            // The core ended: it said so in the whole, and dropped both.
            return publish(status_of(&wholes.borrow_watched(), &shared), &status);
        }
    }
}

fn publish(new: Status, status: &watch::Sender<Status>) {
    let is_new = {
        let old = status.borrow();
        (&old.role, old.leader, old.term) != (&new.role, new.leader, new.term)
    };
    if is_new {
        tracing::info!(role = new.role.name(), leader = new.leader, term = new.term, "role");
    }
    status.send_if_modified(|current| {
        let notify = differs(current, &new);
        *current = new;
        notify
    });
}
