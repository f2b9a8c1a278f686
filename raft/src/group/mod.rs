//! The handle of one Raft group on this node: everything the server asks of replication.
//!
//! Cheap to clone; all clones are the same group. Nothing here is process-wide: a process may host several
//! groups.
//!
//! - `group.I3`: a record is applied as what it was proposed as.

mod begin;
mod bring_up;
mod catch_up;
mod closed_connections;
mod detecting;
pub(crate) mod discovery;
pub(crate) mod disk_space;
pub(crate) mod eligibility;
pub(crate) mod failure_detector;
pub(crate) mod fence;
pub(crate) mod founding;
pub(crate) mod group_id;
mod health;
mod lock_expiry;
pub(crate) mod log_summary;
mod members;
pub(crate) mod mend;
mod popped;
mod proofs;
mod read_index;
mod reads;
pub(crate) mod recover;
mod repair_derived;
mod retention;
pub(crate) mod rewind;
mod scrub;
mod start;
pub(crate) mod status_messages;
pub(crate) mod tasks;
#[cfg(test)]
mod tests;
mod transactions;
mod upgrade;
mod watch;

pub use crate::hand_over::HandOver;
pub use crate::hooks::Hooks;
pub(crate) use begin::{all_empty, summary};

use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

use bytes::Bytes;
use folio_engine::keys::{KEY_INDEX, KeyIndex};
use folio_engine::log::CommitLog;
use folio_engine::planted;
use folio_engine::queues::ConsumeQueues;
use folio_engine::record::{Draft, RecordKind};
use folio_engine::timers::TimerIndex;
use folio_state::{Command, LockQueues, Outcome, QueueRef, State};
use futures_util::future::join_all;
use openraft::async_runtime::WatchReceiver;
use openraft::errors::Fatal;
use parking_lot::{Mutex, RwLockReadGuard};
use tokio::sync::{oneshot, watch as tokio_watch};
use tokio::task::{AbortHandle, JoinHandle};

use crate::accepting::Accepting;
use crate::config::Flush;
use crate::driver::popped::Popped;
use crate::driver::timers::Timers;
use crate::driver::transactions::Transactions;
use crate::driver::{self, Recall, Requests, SendBack, send_back::SendBacks};
use crate::host::{Host, UnderWay};
use crate::proposal::{Proposal, ProposeError};
use crate::proposer::{Proposer, overdue, rejected};
use crate::shared::Shared;
use crate::state_machine::{Raft, save_checkpoint};
use crate::status::{Role, Status};
use crate::transport::network::Connections;
use crate::transport::wire::Kind;
use crate::types::{Applied, Body, Callback, CommittedLeaderId};

/// How long a transfer of leadership may take.
const TRANSFER_TIMEOUT: Duration = Duration::from_secs(2);
/// How long a group that stops waits for what it has begun on the disk.
const WORK_TIMEOUT: Duration = Duration::from_secs(5);

/// How long a request for locks waits for a new leader to apply what its predecessors left.
const SETTLE_TIMEOUT: Duration = Duration::from_secs(2);

/// Why a group did not start on this node.
#[derive(Debug, thiserror::Error)]
pub enum StartError {
    /// The listener for peers could not be opened.
    #[error("cannot listen for peers on {address} (key `listen.raft`): {source}")]
    Listen {
        /// The address asked for.
        address: std::net::SocketAddr,
        /// The system's reason.
        source: std::io::Error,
    },
    /// The data directory could not be opened.
    #[error("cannot open the data in {dir}: {reason:#}")]
    Data {
        /// The data directory.
        dir: String,
        /// What is wrong with it.
        reason: anyhow::Error,
    },
    /// openraft did not start.
    #[error("replication did not start: {0}")]
    Raft(String),
}

/// Why another node did not answer a call.
#[derive(Debug, thiserror::Error)]
pub enum CallError {
    /// No member has that id.
    #[error("node {0} is not a member of the group")]
    UnknownNode(u64),
    /// It did not answer; whether it acted on the request is not known.
    #[error("node {node} did not answer: {source}")]
    NoAnswer {
        /// The node asked.
        node: u64,
        /// What went wrong.
        source: std::io::Error,
    },
}

/// Why the members were not changed, or leadership not handed over.
#[derive(Debug, thiserror::Error)]
pub enum AdminError {
    /// Only the leader can.
    #[error("only the leader can do this{}", .0.map(|id| format!("; it is node {id}")).unwrap_or_default())]
    NotLeader(Option<u64>),
    /// It was refused or did not finish; the reason.
    #[error("{0}")]
    Refused(String),
}

struct Inner {
    node_id: u64,
    single_node: bool,
    flush: Flush,
    host: Host,
    raft: Raft,
    shared: Arc<Shared>,
    founding: Arc<founding::Founding>,
    proposer: Proposer,
    send_backs: Requests<SendBacks>,
    timers: Timers,
    transactions: Requests<Transactions>,
    popped: Requests<Popped>,
    /// Of reads that see all that was acknowledged.
    proofs: Arc<proofs::Proofs>,
    connections: Connections,
    status: tokio_watch::Receiver<Status>,
    listener: AbortHandle,
    /// The Raft port, if it has no other group.
    port: Option<Accepting>,
    tasks: Mutex<Vec<JoinHandle<()>>>,
    /// On the disk, by all of these.
    under_way: Arc<UnderWay>,
}

/// One Raft group on this node.
#[derive(Clone)]
pub struct Group(Arc<Inner>);

impl Group {
    /// Queues messages for the log; `reply` is called once they are committed and applied, or failed.
    ///
    /// Never blocks. The proposal comes back with an error when it was not queued: then `reply` was not called.
    pub fn propose(&self, proposal: Proposal) -> Result<(), (Proposal, ProposeError)> {
        match self.may_propose() {
            Ok(()) => self.0.proposer.propose(proposal),
            Err(error) => Err((proposal, error)),
        }
    }

    fn may_propose(&self) -> Result<(), ProposeError> {
        {
            let status = self.0.status.borrow();
            match status.role {
                Role::Leader => {}
                Role::Stopped(ref why) => return Err(ProposeError::Stopped(why.clone())),
                _ => return Err(ProposeError::NotLeader { leader: status.leader }),
            }
        }
        if self.0.shared.has_room(1) { Ok(()) } else { Err(ProposeError::DiskFull) }
    }

    /// Moves a message that a consumer group sent back, once for each group and message (`sent_back.I1`). `reply` is called once
    /// the move is committed and applied here, or was before, or failed.
    ///
    /// Never blocks.
    pub fn send_back(&self, wish: SendBack, reply: driver::Reply) {
        match self.may_propose() {
            Ok(()) => self.0.send_backs.ask(driver::send_back::Request::Move(Box::new(wish)), reply),
            Err(error) => reply(Err(error)),
        }
    }

    /// Recalls a delayed message that is not delivered yet. `reply` is called once that is committed and applied here, or failed.
    ///
    /// Never blocks.
    pub fn recall(&self, recall: Recall, reply: driver::Reply) {
        match self.may_propose() {
            Ok(()) => self.0.timers.recall(recall, reply),
            Err(error) => reply(Err(error)),
        }
    }

    /// The index of delayed messages as applied on this node. Which of its entries are pending [`Group::state`] says.
    pub fn timers(&self) -> &TimerIndex {
        &self.0.shared.timers
    }

    /// Puts a command into the log and waits until it was applied here.
    pub async fn execute(&self, command: impl Into<Command>) -> Result<Outcome, ProposeError> {
        self.execute_in(None, command.into()).await
    }

    /// The same, in this term or not at all.
    async fn execute_in(&self, term: Option<u64>, command: Command) -> Result<Outcome, ProposeError> {
        if !self.0.shared.has_room(1) {
            return Err(ProposeError::DiskFull);
        }
        let level = self.0.shared.level.get();
        if command.since() > level {
            return Err(ProposeError::Level { needs: command.since(), level });
        }
        command.check_bounds()?;
        // The offsets of many clients go together: each one was checked when it came.
        if !matches!(command, Command::CommitOffsets(_)) {
            self.0.shared.check_growth(&command)?;
        }
        let draft = Draft::with_payload(RecordKind::Command, &command.encode());
        let limit = self.0.shared.log.record_bytes_max();
        if draft.len() > limit {
            return Err(ProposeError::TooLarge { bytes: draft.len(), limit });
        }
        let body = Body::new(draft);
        let taken = body.taken.clone();
        let (answer, answered) = oneshot::channel();
        let responder = Callback::new(move |result| {
            let _ = answer.send(result);
        });
        let request = self.0.raft.write(body).responder(responder);
        let sent = match term {
            Some(term) => request.with_leader(CommittedLeaderId::new(term)).await,
            None => request.await,
        };
        sent.map_err(|fatal| ProposeError::Stopped(fatal.to_string()))?;
        let Some(answered) = self.unless_full(answered).await else {
            return Err(ProposeError::Unknown(overdue::DISK_FULL.into()));
        };
        match answered {
            Ok(Ok(response)) => match response.data {
                Applied::Command(outcome) => Ok(outcome),
                other => panic!("group.I3: a command was applied as {other}"),
            },
            Ok(Err(error)) if taken.load(Ordering::Acquire) => Err(ProposeError::Unknown(error.to_string())),
            Ok(Err(error)) => Err(ProposeError::NotLeader { leader: rejected(&error).flatten() }),
            Err(_) if taken.load(Ordering::Acquire) => Err(ProposeError::Unknown("the group stopped".into())),
            Err(_) => Err(ProposeError::Stopped("the group stopped".into())),
        }
    }

    /// Waits, but no longer than a client does once the disk is full: `None` then.
    async fn unless_full<T>(&self, work: impl Future<Output = T>) -> Option<T> {
        let begun = tokio::time::Instant::now();
        let mut work = std::pin::pin!(work);
        loop {
            match tokio::time::timeout(overdue::LOOK_INTERVAL, &mut work).await {
                Ok(done) => return Some(done),
                Err(_) if begun.elapsed() >= overdue::ANSWER_WITHIN && !self.0.shared.has_room(1) => {
                    return None;
                }
                Err(_) => {}
            }
        }
    }

    /// Takes or renews locks for one client of a consumer group, by the lease clock (`lease_clock.I1`).
    pub async fn lock_queues(
        &self,
        group: String,
        client: String,
        queues: Vec<QueueRef>,
        ttl_ms: u64,
    ) -> Result<Outcome, ProposeError> {
        let (term, leader, leads) = {
            let status = self.0.status.borrow();
            (status.term, status.leader, status.role == Role::Leader)
        };
        if !leads {
            return Err(ProposeError::NotLeader { leader });
        }
        if queues.is_empty() {
            return Ok(Outcome::Locked(queues));
        }
        if !self.settle(SETTLE_TIMEOUT).await || !self.0.shared.is_settled(term) {
            return Err(ProposeError::NotLeader { leader: None });
        }
        let now_ms = self.lease_stamp_ms(term);
        self.execute_in(Some(term), LockQueues { group, client, queues, now_ms, ttl_ms }.into()).await
    }

    /// A stamp of the lease clock for a command of this term.
    fn lease_stamp_ms(&self, term: u64) -> u64 {
        let stamp_ms = self.0.shared.lease_clock.stamp_ms(term);
        if planted::is("locks-by-wall-clock") { self.lease_now_ms() } else { stamp_ms }
    }

    /// This node's reading of the lease clock, which orderly locks expire by.
    pub fn lease_now_ms(&self) -> u64 {
        if planted::is("locks-by-wall-clock") {
            return self.0.host.now_ms().unsigned_abs();
        }
        self.0.shared.lease_clock.now_ms()
    }

    /// Refuses a command that no node would propose: too long a name (`bounds.I1`), or a state that would become too large
    /// (`state.I1`).
    pub fn check(&self, command: &Command) -> Result<(), ProposeError> {
        command.check_bounds()?;
        self.0.shared.check_growth(command)
    }

    /// Topics, groups, offsets and locks as applied on this node. Do not hold it across an await.
    pub fn state(&self) -> RwLockReadGuard<'_, State> {
        self.0.shared.state.read()
    }

    /// The consume queues as applied on this node.
    pub fn queues(&self) -> &ConsumeQueues {
        &self.0.shared.queues
    }

    /// The key index as built on this node.
    pub fn keys(&self) -> &KeyIndex {
        &self.0.shared.indexes.keys
    }

    /// Whether the key index is built up to what is applied on this node: a key that it does not know then, no message has.
    pub fn is_key_index_up(&self) -> bool {
        self.0.shared.derived.is_up(KEY_INDEX)
    }

    /// The commit log of this node.
    pub fn log(&self) -> &CommitLog {
        &self.0.shared.log
    }

    /// When this node acknowledges.
    pub fn flush(&self) -> Flush {
        self.0.flush
    }

    /// Where the log ends that this node has applied.
    pub fn applied_position(&self) -> u64 {
        self.0.shared.applied_position.load(Ordering::Acquire)
    }

    /// This node's id.
    pub fn node_id(&self) -> u64 {
        self.0.node_id
    }

    /// What this node knows of the group now.
    pub fn status(&self) -> Status {
        watch::status_of(&self.0.raft.metrics().borrow_watched(), &self.0.shared)
    }

    /// Changes of role, leader, term and members. Positions in it are of that moment: see [`Group::status`].
    pub fn watch(&self) -> tokio_watch::Receiver<Status> {
        self.0.status.clone()
    }

    /// Asks another node's [`Hooks::call`], and waits at most `limit`.
    pub async fn call(&self, node: u64, request: Bytes, limit: Duration) -> Result<Bytes, CallError> {
        let address = {
            let status = self.0.status.borrow();
            status.members.get(&node).map(|member| member.raft.clone())
        };
        let address = address.ok_or(CallError::UnknownNode(node))?;
        let requests = self.0.connections.requests(node, &address, "call");
        requests
            .request(Kind::Call, vec![request], limit)
            .await
            .map_err(|source| CallError::NoAnswer { node, source })
    }

    /// Hands leadership to `to`, or to the follower that is closest behind. Nothing to do on a follower, or where `to` is this node.
    pub async fn transfer_leadership(&self, to: Option<u64>) -> Result<(), AdminError> {
        self.hand_over(to, HandOver::Asked).await
    }

    /// The same, with a reason for the logs of both.
    pub async fn hand_over(&self, to: Option<u64>, why: HandOver) -> Result<(), AdminError> {
        let status = self.status();
        // openraft would hand over to this node itself, and take nothing until the others' leases have run out.
        if status.role != Role::Leader || to == Some(self.0.node_id) {
            return Ok(());
        }
        let closest =
            || status.voters.iter().filter(|id| **id != self.0.node_id).min_by_key(|id| status.lag.get(id));
        let Some(to) = to.or_else(|| closest().copied()) else {
            return Err(AdminError::Refused("there is no other voter".into()));
        };
        self.0.shared.detector.hands_over(why);
        self.0
            .raft
            .trigger()
            .transfer_leader(to)
            .await
            .map_err(|fatal| AdminError::Refused(fatal.to_string()))?;
        let mut watch = self.watch();
        let moved = watch.wait_for(|s| s.role != Role::Leader && s.leader.is_some());
        match tokio::time::timeout(TRANSFER_TIMEOUT, moved).await {
            Ok(_) => Ok(()),
            Err(_) => {
                Err(AdminError::Refused(format!("node {to} did not take over within {TRANSFER_TIMEOUT:?}")))
            }
        }
    }

    /// Waits until every call of another node that came here is answered, at most `limit`.
    pub async fn answer_calls(&self, limit: Duration) {
        if tokio::time::timeout(limit, self.0.shared.calls.answered()).await.is_err() {
            tracing::warn!("calls of other nodes go unanswered: they did not end within {limit:?}");
        }
    }

    /// Saves a checkpoint of everything applied so far, unless openraft has ended and its state machine with it.
    async fn checkpoint(&self) {
        if self.0.raft.metrics().borrow_watched().running_state.is_err() {
            tracing::warn!(
                "no checkpoint at the stop: replication has ended; the next start replays more of the log"
            );
            return;
        }
        let captured =
            self.0.raft.with_state_machine(|machine| Box::pin(std::future::ready(machine.capture_here())));
        // A full disk may hold up openraft itself, until the log is closed.
        let captured = self.unless_full(captured).await;
        let saved = match captured.unwrap_or(Err(Fatal::Stopped)) {
            Ok(captured) => {
                let shared = self.0.shared.clone();
                self.0.host.blocking(move || save_checkpoint(&shared, captured)).await
            }
            Err(error) => Err(std::io::Error::other(error)),
        };
        if let Err(error) = saved {
            tracing::warn!(%error, "no checkpoint at the stop: the next start replays more of the log");
        }
    }

    /// Hands leadership over, checkpoints, and closes the log. The group does nothing afterwards, and a
    /// port without another group is free.
    pub async fn shutdown(&self) {
        if let Err(error) = self.hand_over(None, HandOver::Stopping).await {
            tracing::warn!(%error, "leadership not handed over before the stop");
        }
        self.0.shared.stop();
        self.checkpoint().await;
        let tasks: Vec<_> = self.0.tasks.lock().drain(..).collect();
        tasks.iter().for_each(JoinHandle::abort);
        // A task may be running just now.
        join_all(tasks).await;
        if let Some(port) = &self.0.port {
            port.close().await;
        }
        match self.unless_full(self.0.raft.shutdown()).await {
            Some(Err(error)) => tracing::warn!(%error, "replication did not stop cleanly"),
            None => tracing::warn!("replication did not stop: it waits for room on the disk"),
            Some(Ok(())) => {}
        }
        // What a task has begun on the disk does not end with it.
        if tokio::time::timeout(WORK_TIMEOUT, self.0.under_way.ended()).await.is_err() {
            tracing::warn!("work on the disk goes on: it did not end within {WORK_TIMEOUT:?}");
        }
        let log = self.0.shared.log.clone();
        if self.0.host.blocking(move || log.close()).await.is_err() {
            tracing::warn!("the log was not closed cleanly");
        } else if self.0.shared.log.state().poisoned.is_none()
            && let Err(error) = self.0.founding.note_synced()
        {
            tracing::warn!(%error, "cannot note the clean stop: after a reboot this node has to catch up");
        }
    }
}
