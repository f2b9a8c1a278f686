//! openraft's metrics as a [`Status`].

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::sync::atomic::Ordering;

use openraft::async_runtime::WatchReceiver;
use openraft::{RaftMetrics, ServerState};
use tokio::sync::watch;

use crate::dedup::Dedup;
use crate::shared::Shared;
use crate::status::{Role, Status};
use crate::types::{Raft, TypeConfig};

/// Fills in what changes with every record, from where it is current.
pub(crate) fn refresh(status: &mut Status, shared: &Shared) {
    let log = shared.log.state();
    status.last = log.last;
    status.durable_position = log.durable_position;
    status.applied = shared.applied_index.load(Ordering::Acquire);
    status.applied_position = shared.applied_position.load(Ordering::Acquire);
    status.committed = status.committed.max(status.applied);
    status.disk_full = !shared.log.has_room(1);
    status.damaged = shared.log.damages().len() as u64;
    status.mended = shared.rot.mended.load(Ordering::Relaxed);
    status.damaged_units = shared.queues.damaged() as u64;
    status.mended_units = shared.rot.mended_units.load(Ordering::Relaxed);
    status.repeats = shared.dedup.as_ref().map_or(0, Dedup::answered);
}

/// The status that openraft's metrics show.
pub(crate) fn status_of(metrics: &RaftMetrics<TypeConfig>, shared: &Shared) -> Status {
    let membership = metrics.membership_config.membership();
    let last = metrics.last_log_index.unwrap_or(0);
    let lag =
        metrics.replication.iter().flatten().filter(|(id, _)| **id != metrics.id).map(|(id, matched)| {
            (*id, last.saturating_sub(matched.as_ref().map_or(0, |matched| matched.index)))
        });
    let mut status = Status {
        node_id: metrics.id,
        role: role_of(metrics),
        leader: metrics.current_leader,
        term: metrics.current_term,
        committed: metrics.cluster_committed.map_or(0, |id| id.index),
        applied: 0,
        last: None,
        durable_position: 0,
        applied_position: 0,
        members: membership.nodes().map(|(id, node)| (*id, node.clone())).collect::<BTreeMap<_, _>>(),
        voters: membership.voter_ids().collect::<BTreeSet<_>>(),
        lag: lag.collect(),
        disk_full: false,
        damaged: 0,
        mended: 0,
        damaged_units: 0,
        mended_units: 0,
        repeats: 0,
    };
    refresh(&mut status, shared);
    status
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

/// Follows the metrics until the group stops. Watchers are woken by changes that matter to them only, not by
/// every record.
pub(crate) async fn follow(raft: Raft, shared: Arc<Shared>, status: watch::Sender<Status>) {
    let mut metrics = raft.metrics();
    loop {
        let new = status_of(&metrics.borrow_and_update(), &shared);
        let old = status.borrow().clone();
        if (&old.role, old.leader, old.term) != (&new.role, new.leader, new.term) {
            tracing::info!(role = new.role.name(), leader = new.leader, term = new.term, "role");
        }
        let stopped = matches!(new.role, Role::Stopped(_));
        status.send_if_modified(|current| {
            let notify = differs(current, &new);
            *current = new;
            notify
        });
        if stopped || metrics.changed().await.is_err() {
            return;
        }
    }
}
